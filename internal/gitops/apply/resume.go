package apply

import (
	"context"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// adopts reports whether the object of a hook was made by the process that
// began this sync.
func (r *run) adopts(live *unstructured.Unstructured) bool {
	return r.Resumed && live != nil && live.GetDeletionTimestamp() == nil && !live.GetCreationTimestamp().Time.Before(r.Started.Truncate(time.Second))
}

// left are the steps without the hooks that have succeeded, and whose objects
// are gone, in the process that began this sync.
func (r *run) left(ctx context.Context, steps []plan.Step) []plan.Step {
	if !r.Resumed || r.Over == nil {
		return steps
	}
	return slices.DeleteFunc(slices.Clone(steps), func(s plan.Step) bool {
		if s.Hook == nil {
			return false
		}
		o := shallow(s.Hook.Object)
		o.SetName(plan.HookName(*s.Hook, s.Phase, r.Revision, r.Started.Unix()))
		if !r.Over(plan.KeyOf(o), s.Phase) {
			return false
		}
		live, err := r.live.Get(ctx, o)
		return err == nil && !r.adopts(live)
	})
}
