package application

import (
	"context"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/apply"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// finalize deletes the objects of an Application that is being deleted, if its
// finalizer says so, and then lets it go: PreDelete hooks, the objects wave by
// wave from the last to the first, PostDelete hooks.
func (p *pass) finalize(ctx context.Context) error {
	if op := p.st.op; op != nil && !op.done() {
		op.cancel(errDeleted)
		return nil // its end brings the next pass
	}
	finalizer, propagation := cascade(p.app.Finalizers)
	if finalizer == "" {
		return nil
	}
	waiting, err := p.deleteAll(ctx, propagation)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		p.condition(v1alpha1.ConditionDeletionError, err.Error())
	} else if waiting != "" {
		p.condition(ConditionWaiting, "deletion waits for "+waiting)
	}
	if err != nil || waiting != "" {
		if werr := p.writeDeletion(ctx); werr != nil {
			return werr
		}
		p.queue.AddAfter(p.key, jittered(10*time.Second)) // the watch is quicker
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(p.app.Finalizers), func(f string) bool { return f == finalizer })
	p.tellAt("", journal.Event{Stage: journal.StageApply, Status: journal.StatusInfo, Message: "the application and its objects were deleted"})
	return p.patchApp(ctx, map[string]any{"metadata": map[string]any{"finalizers": rest, "resourceVersion": p.app.ResourceVersion}})
}

// cascade returns the finalizer that asks for the deletion of the objects, and
// how they are to go.
func cascade(finalizers []string) (finalizer, propagation string) {
	propagation = "foreground"
	for _, f := range finalizers {
		switch f {
		case v1alpha1.FinalizerResources, v1alpha1.FinalizerResourcesForeground:
			finalizer = f
		case v1alpha1.FinalizerResourcesBackground:
			finalizer, propagation = f, "background"
		}
	}
	return finalizer, propagation
}

// writeDeletion writes the conditions, and nothing else of the status.
func (p *pass) writeDeletion(ctx context.Context) error {
	status := *p.was
	status.Conditions = conditionsSince(p.conditions, status.Conditions, p.moment())
	return p.patch(ctx, &status, p.moment())
}

// deleteAll does the next step of the deletion. It returns what is to be
// waited for, "" when all is done.
func (p *pass) deleteAll(ctx context.Context, propagation string) (waiting string, err error) {
	p.hold, p.sources = holdOf(&p.app), sourcesOf(&p.app)
	if p.cluster, err = p.Clusters.Find(p.app.Spec.Destination); err != nil {
		return "", err
	}
	if err := p.cluster.reach(p.Now); err != nil {
		return "", err
	}
	want := p.lastRendered(ctx)
	instance := p.instance(p.app.Namespace, p.app.Name)
	ready, why, err := p.cluster.Live.Ensure(instance, p.kinds(want))
	if err != nil || !ready {
		return why, err
	}
	hooks, err := deletionHooks(want)
	if err != nil {
		return "", err
	}
	live, err := p.doomed(ctx, instance, hooks)
	if err != nil {
		return "", err
	}
	if p.st.deleting == "" {
		if waiting, err = apply.DeleteHooks(ctx, p.cluster.Writer, p.cluster.Live, hooks, plan.PreDelete); waiting != "" || err != nil {
			return waiting, err
		}
		p.st.deleting = plan.PreDelete
	}
	if len(live) > 0 {
		return p.deleteObjects(ctx, live, propagation)
	}
	return apply.DeleteHooks(ctx, p.cluster.Writer, p.cluster.Live, hooks, plan.PostDelete)
}

// lastRendered is what the application is made of, as far as that can be had:
// a source that is gone must not keep an application from being deleted.
func (p *pass) lastRendered(ctx context.Context) *rendered {
	if p.st.rendered == nil {
		p.st.params = paramsOf(&p.app, p.hold)
		p.st.rendered = p.load()
	}
	if p.st.rendered == nil && p.checkSpec() == nil && p.resolve(ctx) == nil {
		p.pickMain()
		if r, err := p.fresh(ctx, p.sources, p.revs, false); err == nil && r.err == nil {
			p.st.rendered = r
		}
	}
	if p.st.rendered == nil {
		return &rendered{}
	}
	return p.st.rendered
}

// deletionHooks are the hooks that run when the application is deleted.
func deletionHooks(want *rendered) ([]plan.Hook, error) {
	in := plan.Input{}
	for _, d := range want.objects {
		if !d.hook {
			continue
		}
		o, err := d.object()
		if err != nil {
			return nil, err
		}
		in.Desired = append(in.Desired, o)
	}
	if len(in.Desired) == 0 {
		return nil, nil
	}
	return plan.Make(in).Hooks, nil
}

// doomed are the live objects that are deleted with the application: all but
// those that stay, and the hooks that run after them.
func (p *pass) doomed(ctx context.Context, instance string, hooks []plan.Hook) (out []*unstructured.Unstructured, err error) {
	after := map[plan.Key]bool{}
	for _, h := range hooks {
		after[h.Key] = slices.Contains(h.Phases, plan.PostDelete)
	}
	for _, o := range p.cluster.Live.Objects(instance) {
		u, err := p.cluster.Live.Load(ctx, o)
		if err != nil {
			return nil, err
		}
		if u == nil || after[o.Key] {
			continue
		}
		why, err := apply.Stays(u, plan.Options{}, plan.Confirmed(p.app.Annotations, p.app.DeletionTimestamp.Time))
		if err != nil {
			return nil, err
		}
		if why == "" {
			out = append(out, u)
		}
	}
	return out, nil
}

// deleteObjects deletes those of the last wave and returns what is left.
func (p *pass) deleteObjects(ctx context.Context, live []*unstructured.Unstructured, propagation string) (string, error) {
	wave := plan.LastWave(live)
	for _, u := range wave {
		if u.GetDeletionTimestamp() != nil {
			continue
		}
		if err := p.cluster.Writer.Delete(ctx, u, propagation); err != nil {
			return "", fmt.Errorf("delete %s: %w", plan.KeyOf(u), err)
		}
	}
	return fmt.Sprintf("%s to go, %s first", plural(len(live), "object"), plan.KeyOf(wave[0])), nil
}
