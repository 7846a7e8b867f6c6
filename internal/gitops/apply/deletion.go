package apply

import (
	"context"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// DeleteHooks does the next step of the hooks of a phase (PreDelete,
// PostDelete) of the deletion of an application, and does not wait: it returns
// what is to be waited for, "" when all have succeeded and those whose policy
// says so are deleted. It is called again at every change until then, and not
// after: a hook that is deleted would be made again. Those of one wave run at
// the same time. A hook that failed is deleted, and an error; the next call
// makes it anew.
func DeleteHooks(ctx context.Context, w *Writer, live Live, hooks []plan.Hook, phase plan.Phase) (waiting string, err error) {
	r := newRun(w, live, Request{Plan: &plan.Plan{}, Options: plan.Options{PrunePropagation: "background"}, Started: time.Unix(0, 0)})
	var all []*task
	for i := range hooks {
		if h := &hooks[i]; slices.Contains(h.Phases, phase) {
			all = append(all, &task{Step: plan.Step{Phase: phase, Wave: h.Wave, Hook: h}})
		}
	}
	slices.SortStableFunc(all, func(a, b *task) int { return a.Wave - b.Wave })
	for rest := all; len(rest) > 0; {
		n := slices.IndexFunc(rest, func(t *task) bool { return t.Wave != rest[0].Wave })
		if n < 0 {
			n = len(rest)
		}
		if waiting, err := r.deleteWave(ctx, string(phase), rest[:n]); err != nil || waiting != "" {
			return waiting, err
		}
		rest = rest[n:]
	}
	r.hooks = all
	r.cleanHooks(ctx, plan.HookSucceeded)
	return "", nil
}

func (r *run) deleteWave(ctx context.Context, what string, tasks []*task) (string, error) {
	var missing []*task
	for _, t := range tasks {
		now, err := r.find(ctx, t)
		if err != nil {
			return "", err
		}
		if now == nil {
			missing = append(missing, t)
			continue
		}
		t.object, t.since, t.res = now, now.GetCreationTimestamp().Time, r.result(t.Step)
	}
	var failed []Result
	for _, stage := range stages(missing) {
		failed = append(failed, r.each(stage, func(t *task) Result { return r.write(ctx, t) })...)
	}
	if len(failed) > 0 {
		return "", failure(failed)
	}
	waiting, err := r.look(ctx, what, tasks)
	if err == nil {
		return waiting, nil
	}
	for _, t := range tasks {
		if t.over && t.res.Err != nil {
			if derr := r.removeHook(ctx, t.object, "background", false); derr != nil {
				return "", fmt.Errorf("%w; its object could not be deleted: %w", err, derr)
			}
		}
	}
	return "", err
}

// find returns the object of a deletion hook that was made before.
func (r *run) find(ctx context.Context, t *task) (*unstructured.Unstructured, error) {
	o := shallow(t.Hook.Object)
	o.SetName(plan.HookName(*t.Hook, t.Phase, "", r.Started.Unix()))
	now, err := r.live.Get(ctx, o)
	if now != nil || err != nil {
		return now, err
	}
	return r.get(ctx, o)
}

// Stays says why a live object is not deleted with its application, "" when
// it is; err is what keeps the deletion from going on.
func Stays(live *unstructured.Unstructured, options plan.Options, confirmed bool) (why string, err error) {
	why, confirm := plan.Deletion(live, options)
	if why == "" && confirm && !confirmed {
		return "", fmt.Errorf("%s has Delete=confirm: set the annotation %s on the application to the time of now", plan.KeyOf(live), v1alpha1.AnnotationDeletionOK)
	}
	return why, nil
}
