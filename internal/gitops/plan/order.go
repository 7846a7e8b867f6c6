package plan

import (
	"cmp"
	"slices"
)

// kinds in the order in which they are applied; others come last.
var kinds = []string{
	"Namespace", "NetworkPolicy", "ResourceQuota", "LimitRange", "PodSecurityPolicy", "PodDisruptionBudget",
	"ServiceAccount", "Secret", "SecretList", "ConfigMap", "StorageClass", "PersistentVolume", "PersistentVolumeClaim",
	"CustomResourceDefinition", "ClusterRole", "ClusterRoleList", "ClusterRoleBinding", "ClusterRoleBindingList",
	"Role", "RoleList", "RoleBinding", "RoleBindingList", "Service", "DaemonSet", "Pod", "ReplicationController",
	"ReplicaSet", "Deployment", "HorizontalPodAutoscaler", "StatefulSet", "Job", "CronJob", "IngressClass", "Ingress", "APIService",
}

// KindOrder is the place of a kind in the order of application.
func KindOrder(kind string) int {
	if i := slices.Index(kinds, kind); i >= 0 {
		return i
	}
	return len(kinds)
}

// sort puts the changes in order: wave, prune before write, kind, name. The
// waves of prunes are reversed, so that what came last goes first.
func (p *Plan) sort(pruneLast bool) {
	var waves []int
	last := 0
	for _, c := range p.Changes {
		last = max(last, c.Wave)
		if c.Action == Prune && !slices.Contains(waves, c.Wave) {
			waves = append(waves, c.Wave)
		}
	}
	slices.Sort(waves)
	for i := range p.Changes {
		c := &p.Changes[i]
		if c.Action != Prune {
			continue
		}
		if pruneLast || c.Options.PruneLast {
			c.Wave = last + 1
			continue
		}
		c.Wave = waves[len(waves)-1-slices.Index(waves, c.Wave)]
	}
	slices.SortStableFunc(p.Changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Wave, b.Wave), cmp.Compare(prunesFirst(a), prunesFirst(b)), a.kindOrder(b), compareKeys(a.Key, b.Key))
	})
	slices.SortStableFunc(p.Hooks, func(a, b Hook) int {
		return cmp.Or(cmp.Compare(a.Wave, b.Wave), cmp.Compare(KindOrder(a.Kind), KindOrder(b.Kind)), compareKeys(a.Key, b.Key))
	})
}

func prunesFirst(c Change) int {
	if c.Action == Prune {
		return 0
	}
	return 1
}

// kindOrder compares kinds; things are deleted the other way round.
func (c Change) kindOrder(d Change) int {
	n := cmp.Compare(KindOrder(c.Kind), KindOrder(d.Kind))
	if c.Action == Prune {
		return -n
	}
	return n
}

func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
