package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// lookAnyway is how often a wait looks by itself: a change whose notice was
// merged with an earlier one is seen then at the latest.
const lookAnyway = 10 * time.Second

// await calls check at every change of the live state until it has nothing to
// wait for.
func (r *run) await(ctx context.Context, check func(context.Context) (string, error)) error {
	told := ""
	tick := time.NewTicker(lookAnyway)
	defer tick.Stop()
	for {
		waiting, err := check(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil || waiting == "" {
			return err
		}
		if waiting != told && r.Waiting != nil {
			told = waiting
			r.Waiting(waiting)
		}
		select {
		case <-r.Changed:
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// settle waits until every object of a wave is healthy, every hook has
// succeeded and every pruned object is gone. When one has failed, it still
// waits for the others, as Argo CD does.
func (r *run) settle(ctx context.Context, what string, tasks []*task) error {
	return r.await(ctx, func(ctx context.Context) (string, error) { return r.look(ctx, what, tasks) })
}

// verdict is how far one task is.
type verdict struct {
	phase v1alpha1.Phase
	why   string
}

var (
	done    = verdict{phase: v1alpha1.PhaseSucceeded}
	running = func(format string, args ...any) verdict {
		return verdict{v1alpha1.PhaseRunning, sentence(fmt.Sprintf(format, args...))}
	}
	broken = func(format string, args ...any) verdict {
		return verdict{v1alpha1.PhaseFailed, sentence(fmt.Sprintf(format, args...))}
	}
)

// look asks each task once. It returns what is waited for, "" for nothing, or
// the failures when nothing is.
func (r *run) look(ctx context.Context, what string, tasks []*task) (string, error) {
	var first *task
	var why string
	more := 0
	var failed []Result
	for _, t := range tasks {
		if t.over && t.res.Err == nil {
			continue
		}
		v, err := r.judge(ctx, t)
		if err != nil {
			return "", err
		}
		switch {
		case v.phase == v1alpha1.PhaseRunning && first == nil:
			first, why = t, v.why
		case v.phase == v1alpha1.PhaseRunning:
			more++
		case v.phase == v1alpha1.PhaseFailed:
			if t.Hook != nil && !t.over {
				r.endHook(ctx, t, v)
			}
			failed = append(failed, r.lost(t, v))
		default:
			r.won(ctx, t, v)
		}
	}
	if first == nil {
		if failed == nil {
			return "", nil
		}
		for _, f := range failed {
			if !f.Hook {
				r.report(f) // hooks have said it when they ended
			}
		}
		return "", failure(failed)
	}
	text := fmt.Sprintf("%s waits for %s: %s (since %s)", what, name(first), why, clock(first.since))
	if more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	if failed != nil {
		text += fmt.Sprintf("; then the sync fails for %s: %v", failed[0].Key, failed[0].Err)
	} else {
		text += "; " + until(first)
	}
	return text, nil
}

func name(t *task) plan.Key {
	if t.object != nil {
		return plan.KeyOf(t.object)
	}
	return t.Key()
}

func until(t *task) string {
	switch {
	case t.Prunes():
		return "goes on when it is gone"
	case t.Hook != nil:
		return "goes on when the hook has succeeded"
	}
	return "goes on when it is healthy"
}

// judge looks at one task.
func (r *run) judge(ctx context.Context, t *task) (verdict, error) {
	if t.object == nil { // not written: a prune that was not wanted, or a refusal
		if t.res.Err != nil {
			return verdict{v1alpha1.PhaseFailed, t.res.Err.Error()}, nil
		}
		return done, nil
	}
	if t.over {
		return verdict{v1alpha1.PhaseFailed, t.res.Err.Error()}, nil
	}
	now, err := r.live.Get(ctx, t.object)
	if err != nil {
		return verdict{}, err
	}
	if t.Prunes() {
		if now == nil || now.GetUID() != t.object.GetUID() {
			return done, nil
		}
		return running("it is being deleted%s", finalizersOf(now)), nil
	}
	if uidOf(now) != t.object.GetUID() {
		if now, err = r.get(ctx, t.object); err != nil {
			return verdict{}, err
		}
		if now == nil {
			return broken("it is missing: it was deleted while it was waited for"), nil
		}
		if now.GetUID() != t.object.GetUID() {
			t.object = now // somebody made it anew
		}
	}
	if !same(now, t.object) {
		return running("its generation %d has not been seen yet", t.object.GetGeneration()), nil
	}
	if seen, has := observed(now); has && seen < now.GetGeneration() {
		return running("its controller has seen generation %d of %d", seen, now.GetGeneration()), nil
	}
	if t.Hook != nil {
		return r.judgeHook(t, now), nil
	}
	return r.judgeObject(now), nil
}

func (r *run) judgeObject(now *unstructured.Unstructured) verdict {
	s, ok := r.live.Health(now)
	switch {
	case !ok || s.Code == v1alpha1.HealthHealthy:
		return done
	case s.Code == v1alpha1.HealthDegraded:
		return broken("%s", s.Message)
	case s.Code == v1alpha1.HealthSuspended:
		return running("it is suspended: %s", s.Message)
	}
	return running("%s", s.Message)
}

// observed is the generation that the object's controller says it has seen.
func observed(o *unstructured.Unstructured) (n int64, has bool) {
	status, _ := o.Object["status"].(map[string]any)
	switch v := status["observedGeneration"].(type) {
	case int64:
		return v, true
	case float64:
		return int64(v), true
	}
	return 0, false
}

func finalizersOf(o *unstructured.Unstructured) string {
	if f := o.GetFinalizers(); len(f) > 0 {
		return fmt.Sprintf(" and has the finalizer %s", f[0])
	}
	return ""
}

// won notes that a task is well.
func (r *run) won(ctx context.Context, t *task, v verdict) {
	if t.over || t.Prunes() || t.object == nil {
		return
	}
	if t.Hook != nil {
		r.endHook(ctx, t, v)
		return
	}
	if t.res.HookPhase != v1alpha1.PhaseSucceeded && !(t.Change.Action == plan.None && r.Options.OnlyOutOfSync) {
		t.res.HookPhase = v1alpha1.PhaseSucceeded
		r.report(t.res)
	}
}

// lost is the result of a task that has failed.
func (r *run) lost(t *task, v verdict) Result {
	res := t.res
	if t.over {
		return res
	}
	res.Err, res.HookPhase, res.Complete = errors.New(v.why), v1alpha1.PhaseFailed, true
	return res
}
