package plan

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// kinds in the order in which they are applied; others come last.
var kinds = []string{
	"Namespace", "NetworkPolicy", "ResourceQuota", "LimitRange", "PodSecurityPolicy", "PodDisruptionBudget",
	"ServiceAccount", "Secret", "SecretList", "ConfigMap", "StorageClass", "PersistentVolume", "PersistentVolumeClaim",
	"CustomResourceDefinition", "ClusterRole", "ClusterRoleList", "ClusterRoleBinding", "ClusterRoleBindingList",
	"Role", "RoleList", "RoleBinding", "RoleBindingList", "Service", "DaemonSet", "Pod", "ReplicationController",
	"ReplicaSet", "Deployment", "HorizontalPodAutoscaler", "StatefulSet", "Job", "CronJob", "IngressClass", "Ingress", "APIService",
}

var kindPlaces = func() map[string]int {
	out := make(map[string]int, len(kinds))
	for i, k := range kinds {
		out[k] = i
	}
	return out
}()

// KindOrder is the place of a kind in the order of application.
func KindOrder(kind string) int {
	if i, ok := kindPlaces[kind]; ok {
		return i
	}
	return len(kinds)
}

// sort puts the changes in order: wave, prune before write, kind, name. The
// waves of prunes are reversed, so that what came last goes first.
func (p *Plan) sort(pruneLast bool) {
	p.reverse()
	last := 0
	for _, c := range p.Changes {
		last = max(last, c.Wave)
	}
	for _, h := range p.HooksOf(Sync) {
		last = max(last, h.Wave)
	}
	for i := range p.Changes {
		if c := &p.Changes[i]; c.Action == Prune && (pruneLast || c.Options.PruneLast) {
			c.Wave = last + 1
		}
	}
	slices.SortStableFunc(p.Changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Wave, b.Wave), cmp.Compare(prunesFirst(a), prunesFirst(b)), a.kindOrder(b), compareKeys(a.Key, b.Key))
	})
	slices.SortStableFunc(p.Hooks, func(a, b Hook) int {
		return cmp.Or(cmp.Compare(a.Wave, b.Wave), cmp.Compare(KindOrder(a.Kind), KindOrder(b.Kind)), compareKeys(a.Key, b.Key))
	})
}

// reverse swaps the waves of prunes: the last with the first.
func (p *Plan) reverse() {
	var waves []int
	for _, c := range p.Changes {
		if c.Action == Prune {
			waves = append(waves, c.Wave)
		}
	}
	slices.Sort(waves)
	waves = slices.Compact(waves)
	for i := range p.Changes {
		if c := &p.Changes[i]; c.Action == Prune {
			n, _ := slices.BinarySearch(waves, c.Wave)
			c.Wave = waves[len(waves)-1-n]
		}
	}
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

// Step is one object at its place in a sync: a change or a hook.
type Step struct {
	Phase  Phase
	Wave   int
	Change *Change // nil for a hook
	Hook   *Hook   // nil for a change
}

// Key names the object.
func (s Step) Key() Key {
	if s.Hook != nil {
		return s.Hook.Key
	}
	return s.Change.Key
}

// Prunes reports whether the step deletes.
func (s Step) Prunes() bool { return s.Change != nil && s.Change.Action == Prune }

var phaseOrder = map[Phase]int{PreSync: -1, Sync: 0, PostSync: 1}

// Steps returns what a sync does, wave by wave: phase, wave, prune before
// write, kind, name. SyncFail hooks are not among it. Objects that selected
// refuses are left out, and all hooks unless hooks is set. A namespace and the
// definition of a kind come in the wave of the first object that needs them.
func (p *Plan) Steps(hooks bool, selected func(Key) bool) [][]Step {
	steps := make([]Step, 0, len(p.Changes)+len(p.Hooks))
	for i := range p.Changes {
		if c := &p.Changes[i]; selected == nil || selected(c.Key) {
			steps = append(steps, Step{Phase: Sync, Wave: c.Wave, Change: c})
		}
	}
	for i := range p.Hooks {
		for _, phase := range p.Hooks[i].Phases {
			if _, known := phaseOrder[phase]; known && hooks {
				steps = append(steps, Step{Phase: phase, Wave: p.Hooks[i].Wave, Hook: &p.Hooks[i]})
			}
		}
	}
	advance(steps)
	slices.SortStableFunc(steps, compareSteps)
	var out [][]Step
	for i, s := range steps {
		if i == 0 || s.Phase != steps[i-1].Phase || s.Wave != steps[i-1].Wave {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], s)
	}
	return out
}

func compareSteps(a, b Step) int {
	n := cmp.Or(comparePlaces(a, b), cmp.Compare(b2i(b.Prunes()), b2i(a.Prunes())))
	if n != 0 {
		return n
	}
	x, y := a.Key(), b.Key()
	byKind := cmp.Compare(KindOrder(x.Kind), KindOrder(y.Kind))
	if a.Prunes() {
		byKind = -byKind
	}
	return cmp.Or(byKind, compareKeys(x, y))
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func comparePlaces(a, b Step) int {
	return cmp.Or(cmp.Compare(phaseOrder[a.Phase], phaseOrder[b.Phase]), cmp.Compare(a.Wave, b.Wave))
}

// advance moves namespaces and definitions forward to where they are needed.
func advance(steps []Step) {
	provided := map[any]int{}
	for i, s := range steps {
		if s.Change != nil && !s.Prunes() {
			if what := provides(s.Change.Desired); what != nil {
				provided[what] = i
			}
		}
	}
	if len(provided) == 0 {
		return
	}
	for _, s := range steps {
		if s.Prunes() {
			continue
		}
		k := s.Key()
		for _, need := range []any{k.Namespace, schema.GroupKind{Group: k.Group, Kind: k.Kind}} {
			i, ok := provided[need]
			if ok && comparePlaces(s, steps[i]) < 0 {
				steps[i].Phase, steps[i].Wave = s.Phase, s.Wave
			}
		}
	}
}

// provides is the name of the namespace or the kind that an object brings.
func provides(o *unstructured.Unstructured) any {
	switch {
	case o.GetKind() == "Namespace" && o.GetAPIVersion() == "v1":
		return o.GetName()
	case isDefinition(o):
		group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
		kind, _, _ := unstructured.NestedString(o.Object, "spec", "names", "kind")
		return schema.GroupKind{Group: group, Kind: kind}
	}
	return nil
}

// LastWave returns those of the objects that are in the highest wave: the ones
// that go first when an application is deleted.
func LastWave(objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	highest := 0
	for _, o := range objects {
		w, _ := wave(o, nil)
		if out == nil || w > highest {
			out, highest = nil, w
		}
		if w == highest {
			out = append(out, o)
		}
	}
	return out
}
