package apply

import (
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// The stages of a wave. What is in one is written at the same time.
const (
	stageNamespaces = iota
	stageRules      // what the next stage is admitted or completed by
	stageGround     // what workloads stand on
	stageWorkloads  // and the rest of the kinds in the order of kinds
	stageCustom     // kinds that are not in it
	stageWebhooks   // they could refuse all the others
)

// firstWorkload is the place in the order of kinds from which objects run.
var firstWorkload = plan.KindOrder("DaemonSet")

// stages cuts the writes of a wave, which are in the order of kinds, where one
// has to exist before the next is written. Argo CD waits after each kind; the
// stages keep what of that can be seen, and cost most applications one wait.
func stages(tasks []*task) [][]*task {
	have := map[string]bool{}
	for _, t := range tasks {
		if t.Hook != nil || t.Change.Action != plan.None {
			have[t.Key().Kind] = true
			have[tokenSecret] = have[tokenSecret] || isToken(t)
		}
	}
	var byStage [stageWebhooks + 1][]*task
	for _, t := range tasks {
		n := stageOf(t, have)
		byStage[n] = append(byStage[n], t)
	}
	return slices.DeleteFunc(byStage[:], func(s []*task) bool { return len(s) == 0 })
}

// stageOf places an object. The wave's kinds matter: quotas and limits act on
// what is made after them, a claim takes the default class of its moment, a
// binding may need its role, and the token Secret of a service account that
// does not exist is deleted.
func stageOf(t *task, have map[string]bool) int {
	k := t.Key()
	switch {
	case t.Change != nil && t.Change.Action == plan.None:
		return stageNamespaces // nothing is written
	case !builtin(k.Group):
		return stageCustom
	case k.Group == "admissionregistration.k8s.io":
		return stageWebhooks
	}
	place := plan.KindOrder(k.Kind)
	switch k.Kind {
	case "Namespace":
		return stageNamespaces
	case "ResourceQuota", "LimitRange":
		return stageRules
	case "StorageClass":
		return when(have["PersistentVolumeClaim"], stageRules)
	case "Role", "ClusterRole":
		return when(have["RoleBinding"] || have["ClusterRoleBinding"], stageRules)
	case "ServiceAccount":
		return when(have[tokenSecret], stageRules)
	case "IngressClass":
		return stageGround
	}
	switch {
	case place < firstWorkload:
		return stageGround
	case place < plan.KindOrder(""):
		return stageWorkloads
	}
	return stageCustom
}

const tokenSecret = "Secret of a service account"

func isToken(t *task) bool {
	if t.Change == nil || t.Change.Kind != "Secret" || t.Change.Desired == nil {
		return false
	}
	return t.Change.Desired.Object["type"] == "kubernetes.io/service-account-token"
}

func when(rule bool, stage int) int {
	if rule {
		return stage
	}
	return stageGround
}

// builtin reports whether Kubernetes itself serves the group.
func builtin(group string) bool {
	return !strings.Contains(group, ".") || strings.HasSuffix(group, ".k8s.io")
}
