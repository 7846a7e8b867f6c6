package apply

import (
	"path"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// Select returns the test for the objects of a selective sync; nil when the
// list is empty. Each part of an entry is a name or a pattern with *; no
// namespace is any. Entries with Exclude leave objects out; when there are no
// others, they leave them out of all.
func Select(list []v1alpha1.SyncResource) func(plan.Key) bool {
	if len(list) == 0 {
		return nil
	}
	include := false
	for _, r := range list {
		include = include || !r.Exclude
	}
	return func(k plan.Key) bool {
		in := !include
		for _, r := range list {
			if !matches(r, k) {
				continue
			}
			if r.Exclude {
				return false
			}
			in = true
		}
		return in
	}
}

func matches(r v1alpha1.SyncResource, k plan.Key) bool {
	return match(r.Group, k.Group) && match(r.Kind, k.Kind) && match(r.Name, k.Name) && (r.Namespace == "" || match(r.Namespace, k.Namespace))
}

func match(pattern, s string) bool {
	if pattern == s {
		return true
	}
	ok, err := path.Match(pattern, s)
	return ok && err == nil
}
