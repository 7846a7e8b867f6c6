package application

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
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
	p.hold, p.sources = holdOf(&p.app), sourcesOf(&p.app)
	cluster, err := p.Clusters.Find(p.app.Spec.Destination)
	left := 0
	if err == nil {
		p.cluster = cluster
		left, err = p.deleteObjects(ctx, propagation)
	}
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
	p.tellAt("", journal.Event{Stage: journal.StageApply, Status: journal.StatusInfo, Message: "the application and its objects were deleted"})
	return p.patchApp(ctx, map[string]any{"metadata": map[string]any{"finalizers": rest, "resourceVersion": p.app.ResourceVersion}})
}

// deleteObjects deletes what is left and returns how much that is.
func (p *pass) deleteObjects(ctx context.Context, propagation string) (int, error) {
	want := &rendered{}
	if r := p.st.rendered; r != nil {
		want = r
	}
	instance := p.instance(p.app.Namespace, p.app.Name)
	ready, _, err := p.cluster.Live.Ensure(instance, p.kinds(want))
	if err != nil {
		return 0, err
	}
	if !ready {
		return 1, nil // the first listing brings the next pass
	}
	left := 0
	for _, o := range p.cluster.Live.Objects(instance) {
		if o.Deleting {
			left++
			continue
		}
		u, err := p.cluster.Live.Load(ctx, o)
		if err != nil {
			return 0, err
		}
		if u == nil || plan.OptionsOf(u, plan.Options{}).Delete == "false" {
			continue
		}
		left++
		if err := p.cluster.Writer.Delete(ctx, u, propagation); err != nil {
			return 0, fmt.Errorf("delete %s: %w", o.Key, err)
		}
	}
	return left, nil
}
