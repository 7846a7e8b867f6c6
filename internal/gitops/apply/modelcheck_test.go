package apply

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// compare says what is wrong with what happened, "" for nothing.
func (m model) compare(w *world, err error) string {
	var failed *Error
	if (err != nil) != m.fails || err != nil && !errors.As(err, &failed) {
		return fmt.Sprintf("the sync should fail: %v; it did: %v", m.fails, err)
	}
	log := slices.DeleteFunc(slices.Clone(w.server.log), func(x write) bool { return x.verb == "finalizer" })
	if w.server.objects[plan.Key{Kind: "ConfigMap", Namespace: "ns", Name: "foreign"}] == nil {
		return "an object of somebody else was deleted"
	}
	for n, x := range m.waves {
		size, made := 0, map[plan.Key]bool{}
		for i := range log {
			if !m.expects(w, x, log[i]) || made[log[i].key] {
				break
			}
			made[log[i].key] = log[i].verb != "delete"
			size++
		}
		if n > 0 && size > 0 {
			if bad := m.waves[n-1].unwell(log[0].unwell); bad != "" {
				return fmt.Sprintf("%s began with %s while %s", x.place, log[0], bad)
			}
		}
		if trouble := x.check(w, log[:size]); trouble != "" {
			return x.place + ": " + trouble
		}
		log = log[size:]
	}
	return m.rest(w, log)
}

func (m model) expects(w *world, x modelWave, e write) bool {
	in := func(list []item) bool { return slices.ContainsFunc(list, func(i item) bool { return i.key == e.key }) }
	switch e.verb {
	case "delete":
		return in(x.prunes) || in(x.hooks) && slices.ContainsFunc(x.hooks, func(i item) bool { return i.key == e.key && i.replaces() })
	case "patch", "create", "update":
		return in(x.writes) || in(x.hooks)
	}
	return false
}

func (i item) replaces() bool {
	return i.policy == nil || slices.Contains(i.policy, "BeforeHookCreation")
}

// unwell returns which of the complaints is about an object of the wave.
func (x modelWave) unwell(complaints []string) string {
	for _, c := range complaints {
		for _, i := range slices.Concat(x.prunes, x.writes, x.hooks) {
			if strings.HasPrefix(c, i.key.String()+" ") && !(i.prune && !strings.HasSuffix(c, "deleted")) {
				return c
			}
		}
	}
	return ""
}

// check compares the writes of one wave with what it has to write.
func (x modelWave) check(w *world, log []write) string {
	want := map[string]int{}
	for _, i := range x.prunes {
		if w.prune {
			want["delete "+i.key.String()]++
		}
	}
	refusedHook := false
	for _, i := range x.hooks {
		refusedHook = refusedHook || i.refused
	}
	for _, i := range x.writes {
		if !i.same && !i.refused {
			want["patch "+i.key.String()]++
		}
	}
	got := map[string]int{}
	rank := -1
	for _, e := range log {
		if i := slices.IndexFunc(x.hooks, func(i item) bool { return i.key == e.key }); i < 0 {
			got[e.String()]++
		} else if x.hooks[i].refused && e.verb != "delete" {
			return "a refused hook was written"
		}
		n := rankOf(x, e)
		if n < rank {
			return fmt.Sprintf("%s comes too late", e)
		}
		rank = n
	}
	if !maps.Equal(want, got) {
		return fmt.Sprintf("wrote %v, not %v", got, want)
	}
	for _, i := range x.hooks {
		made := slices.IndexFunc(log, func(e write) bool { return e.key == i.key && e.verb != "delete" })
		if made < 0 && !i.refused {
			return fmt.Sprintf("hook %s was not started", i.key)
		}
		deleted := slices.ContainsFunc(log, func(e write) bool { return e.key == i.key && e.verb == "delete" })
		if made >= 0 && i.replaces() && log[made].verb != "create" {
			return fmt.Sprintf("hook %s was not made anew", i.key)
		}
		if deleted && !i.replaces() {
			return fmt.Sprintf("hook %s was deleted against its policy", i.key)
		}
	}
	return ""
}

// rankOf is the order within a wave that people can see: deletions, then
// namespaces, quotas, what workloads stand on, workloads, custom kinds,
// admission webhooks.
func rankOf(x modelWave, e write) int {
	if e.verb == "delete" {
		if slices.ContainsFunc(x.prunes, func(i item) bool { return i.key == e.key }) {
			return 0
		}
		return 1
	}
	switch e.key.Kind {
	case "Namespace":
		return 2
	case "ResourceQuota":
		return 3
	case "ConfigMap", "Secret", "ServiceAccount", "Service":
		return 4
	case "Deployment", "Job", "Pod":
		return 5
	case "Widget":
		return 6
	}
	return 7
}

// rest checks what comes after the waves: hooks of a failure, and the deletion
// of hooks.
func (m model) rest(w *world, log []write) string {
	started := map[plan.Key]bool{}
	for _, e := range log {
		isFail := slices.Contains(m.failed, e.key)
		i := w.items[slices.IndexFunc(w.items, func(i item) bool { return i.key == e.key })]
		switch {
		case !i.hook():
			return fmt.Sprintf("%s: after a wave that failed, or twice", e)
		case e.verb == "delete":
			want := "HookSucceeded"
			if m.fails {
				want = "HookFailed"
			}
			if !isFail && !slices.Contains(i.policy, want) {
				return fmt.Sprintf("%s: against its policy %v", e, i.policy)
			}
		case !m.fails || !isFail:
			return fmt.Sprintf("%s: no hook of a failure is due", e)
		default:
			started[e.key] = true
		}
	}
	for _, i := range w.items {
		if m.fails && slices.Contains(i.phases, plan.SyncFail) && !i.refused && !started[i.key] {
			return fmt.Sprintf("SyncFail hook %s was not started", i.key)
		}
		o := w.server.objects[i.key]
		if i.hook() && o != nil && slices.Contains(o.GetFinalizers(), v1alpha1.AnnotationHookFinalizer) {
			return fmt.Sprintf("hook %s keeps its finalizer", i.key)
		}
		if i.prune && !w.prune && o == nil {
			return fmt.Sprintf("%s was pruned though pruning is off", i.key)
		}
	}
	return ""
}
