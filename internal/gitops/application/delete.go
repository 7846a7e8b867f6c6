package application

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// finalize deletes the objects of an Application that is being deleted, if its
// finalizer says so, and then lets it go.
func (p *pass) finalize(ctx context.Context) error {
	if op := p.st.op; op != nil && !op.done() {
		op.cancel(errDeleted)
		return nil // its end brings the next pass
	}
	finalizer, propagation := "", "foreground"
	for _, f := range p.app.Finalizers {
		switch f {
		case v1alpha1.FinalizerResources, v1alpha1.FinalizerResourcesForeground:
			finalizer = f
		case v1alpha1.FinalizerResourcesBackground:
			finalizer, propagation = f, "background"
		}
	}
	if finalizer == "" {
		return nil
	}
	left, err := p.deleteObjects(ctx, propagation)
	if err != nil {
		p.condition(v1alpha1.ConditionDeletionError, err.Error())
		if werr := p.writeStatus(ctx); werr != nil {
			return werr
		}
		return err
	}
	if left > 0 {
		p.queue.AddAfter(p.key, jittered(10*time.Second)) // the watch is quicker
		return nil
	}
	rest := slices.DeleteFunc(slices.Clone(p.app.Finalizers), func(f string) bool { return f == finalizer })
	p.tellAt(ctx, "", journal.Event{Stage: journal.StageApply, Status: journal.StatusInfo, Message: "the application and its objects were deleted"})
	return p.patchApp(ctx, map[string]any{"metadata": map[string]any{"finalizers": rest, "resourceVersion": p.object.GetResourceVersion()}})
}

// deleteObjects deletes what is left and returns how much that is.
func (p *pass) deleteObjects(ctx context.Context, propagation string) (int, error) {
	var objects []manifest.Object
	if r := p.st.rendered; r != nil {
		objects = r.result.Objects
	}
	wait, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	kinds := p.kinds(objects)
	if _, err := p.live.Ensure(wait, p.life, kinds); err != nil {
		return 0, err
	}
	instance := p.instance(p.app.Namespace, p.app.Name)
	left := 0
	for key, o := range p.live.Tracked(instance) {
		if plan.OptionsOf(o, plan.Options{}).Delete == "false" {
			continue
		}
		left++
		if o.GetDeletionTimestamp() != nil {
			continue
		}
		if err := p.Writer.Delete(ctx, o, propagation); err != nil {
			return 0, fmt.Errorf("delete %s: %w", key, err)
		}
	}
	return left, nil
}
