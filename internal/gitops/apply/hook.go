package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// stopTimeout bounds the deletion of hooks of a sync that was given up.
const stopTimeout = 15 * time.Second

// clear makes room for a hook: it deletes the object of an earlier sync, where
// the hook's policy is so, and waits until it is gone.
func (r *run) clear(ctx context.Context, t *task) Result {
	if t.Hook == nil || t.Hook.Object.GetName() == "" {
		return Result{}
	}
	old, err := r.live.Get(ctx, t.Hook.Object)
	if r.adopts(old) {
		return Result{}
	}
	if err == nil && old != nil && (t.replaces() || old.GetDeletionTimestamp() != nil) {
		err = r.removeHook(ctx, old, r.propagation(old), true)
	}
	if err == nil {
		return Result{}
	}
	return r.refuse(ctx, t, fmt.Errorf("delete the object of the last sync: %w", err))
}

// replaces reports whether a hook's object takes the place of an earlier one.
func (t *task) replaces() bool { return slices.Contains(t.Hook.Delete, plan.BeforeHookCreation) }

// propagation is how a hook's object is deleted: one that may still run takes
// what it owns along before it goes.
func (r *run) propagation(o *unstructured.Unstructured) string {
	if finished(o) {
		return "background"
	}
	return r.Options.PrunePropagation
}

// removeHook deletes the object of a hook.
func (r *run) removeHook(ctx context.Context, o *unstructured.Unstructured, propagation string, wait bool) error {
	o, err := r.dropFinalizer(ctx, o, v1alpha1.AnnotationHookFinalizer)
	if err != nil {
		return err
	}
	if o.GetDeletionTimestamp() == nil {
		if err := r.Delete(ctx, o, propagation); err != nil {
			return err
		}
		r.live.Deleted(o)
	}
	if !wait || propagation == "background" && len(o.GetFinalizers()) == 0 && o.GetKind() != "Pod" {
		return nil
	}
	return r.awaitGone(ctx, o)
}

// finished reports whether an object has done its work.
func finished(o *unstructured.Unstructured) bool {
	status, _ := o.Object["status"].(map[string]any)
	switch o.GetKind() {
	case "Pod":
		return status["phase"] == "Succeeded" || status["phase"] == "Failed"
	case "Job":
		conditions, _ := status["conditions"].([]any)
		for _, c := range conditions {
			m, _ := c.(map[string]any)
			if (m["type"] == "Complete" || m["type"] == "Failed") && m["status"] == "True" {
				return true
			}
		}
	}
	return false
}

func (r *run) refuse(ctx context.Context, t *task, err error) Result {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	res := r.result(t.Step)
	res.Err, res.Complete, res.unwritten, res.HookPhase = err, true, true, v1alpha1.PhaseFailed
	t.res = res
	r.report(res)
	return res
}

// start makes the object of a hook. Its finalizer keeps the object until its
// end was seen, whoever deletes it.
func (r *run) start(ctx context.Context, t *task) Result {
	o := shallow(t.Hook.Object)
	o.SetName(plan.HookName(*t.Hook, t.Phase, r.Revision, r.Started.Unix()))
	o.SetGenerateName("")
	if !slices.Contains(o.GetFinalizers(), v1alpha1.AnnotationHookFinalizer) {
		o.SetFinalizers(append(slices.Clone(o.GetFinalizers()), v1alpha1.AnnotationHookFinalizer))
	}
	var made *unstructured.Unstructured
	how := ""
	err := r.inNamespace(ctx, o.GetNamespace(), func() (err error) {
		made, how, err = r.create(ctx, t, o)
		return err
	})
	if err != nil {
		return r.refuse(ctx, t, err)
	}
	r.live.Wrote(made)
	t.object = made
	t.res = r.result(t.Step)
	t.res.Key, t.res.Message, t.res.HookPhase = plan.KeyOf(made), kubectlName(plan.KeyOf(made))+" "+how, v1alpha1.PhaseRunning
	r.report(t.res)
	r.mu.Lock()
	r.hooks = append(r.hooks, t)
	r.mu.Unlock()
	return t.res
}

// create makes the object of a hook. One that is there, unseen by the watch,
// is deleted first, or written over where the policy keeps it.
func (r *run) create(ctx context.Context, t *task, o *unstructured.Unstructured) (*unstructured.Unstructured, string, error) {
	options := plan.OptionsOf(o, r.Options)
	live, err := r.live.Get(ctx, o)
	if err != nil {
		return nil, "", err
	}
	if r.adopts(live) {
		return live, word(options, "created"), nil
	}
	for range attemptsRefused {
		if live != nil && live.GetDeletionTimestamp() == nil && !t.replaces() {
			return r.Writer.write(ctx, &plan.Change{Key: plan.KeyOf(o), Desired: o, Live: live, Options: options}, r.Options, r.Force)
		}
		tries := 0
		var made *unstructured.Unstructured
		err = r.do(ctx, "create", o, func(ctx context.Context, client dynamic.ResourceInterface) (err error) {
			tries++
			made, err = client.Create(ctx, o, metav1.CreateOptions{FieldManager: r.manager, FieldValidation: validation(options)})
			return err
		})
		if !apierrors.IsAlreadyExists(err) {
			return made, word(options, "created"), err
		}
		if live, err = r.get(ctx, o); err != nil {
			return nil, "", err
		}
		if live != nil && tries > 1 && live.GetDeletionTimestamp() == nil {
			return live, word(options, "created"), nil // by an earlier try whose answer was lost
		}
		if live != nil && (t.replaces() || live.GetDeletionTimestamp() != nil) {
			if err = r.removeHook(ctx, live, r.propagation(live), true); err != nil {
				return nil, "", err
			}
		}
	}
	return nil, "", errors.New("another object of its name is made again and again")
}

// judgeHook says how far a hook is. A kind without health has succeeded when
// it exists; a pod that ends by itself, when it has.
func (r *run) judgeHook(t *task, now *unstructured.Unstructured) verdict {
	s, ok := r.live.Health(now)
	finite := now.GetKind() == "Pod" && restarts(now) != "Always"
	var v verdict
	switch {
	case !ok:
		v = done
	case finite && !finished(now):
		v = running("%s", s.Message)
	case s.Code == v1alpha1.HealthHealthy:
		v = verdict{v1alpha1.PhaseSucceeded, s.Message}
	case s.Code == v1alpha1.HealthDegraded, s.Code == v1alpha1.HealthUnknown:
		v = broken("the hook failed: %s", s.Message)
	case s.Code == v1alpha1.HealthSuspended:
		v = running("it is suspended: %s", s.Message)
	default:
		v = running("%s", s.Message)
	}
	if v.phase == v1alpha1.PhaseRunning && now.GetDeletionTimestamp() != nil {
		return broken("the hook was deleted while it ran")
	}
	if v.phase == v1alpha1.PhaseFailed {
		v.why = sentence(v.why)
	}
	return v
}

func restarts(pod *unstructured.Unstructured) string {
	spec, _ := pod.Object["spec"].(map[string]any)
	policy, _ := spec["restartPolicy"].(string)
	return policy
}

// endHook notes the end of a hook and lets its object go.
func (r *run) endHook(ctx context.Context, t *task, v verdict) {
	t.over = true
	t.res.Complete, t.res.HookPhase = true, v.phase
	if v.phase == v1alpha1.PhaseFailed {
		t.res.Err = errors.New(v.why)
	} else if v.why != "" {
		t.res.Message = v.why
	}
	if err := r.release(ctx, t); err != nil {
		t.res.Message += "; the hook's finalizer could not be removed: " + err.Error()
	}
	r.report(t.res)
}

// release takes the hook's finalizer off its object.
func (r *run) release(ctx context.Context, t *task) error {
	now, err := r.live.Get(ctx, t.object)
	if err != nil || now == nil || now.GetUID() != t.object.GetUID() {
		now = t.object
	}
	if now, err = r.dropFinalizer(ctx, now, v1alpha1.AnnotationHookFinalizer); err != nil {
		return err
	}
	if now.GetDeletionTimestamp() == nil {
		r.live.Wrote(now)
	}
	t.object = now
	return nil
}

// cleanHooks deletes the ended hooks of this sync that have a policy.
func (r *run) cleanHooks(ctx context.Context, policy plan.DeletePolicy) {
	for _, t := range r.hooks {
		when := policy
		if t.Phase == plan.SyncFail && t.res.Err == nil {
			when = plan.HookSucceeded
		}
		if !t.over || !slices.Contains(t.Hook.Delete, when) {
			continue
		}
		if err := r.removeHook(ctx, t.object, "background", false); err != nil {
			t.res.Message += "; the hook could not be deleted: " + err.Error()
			r.report(t.res)
		}
	}
}

// syncFail runs the hooks of a failure, and waits for them and for the hooks
// that still run.
func (r *run) syncFail(ctx context.Context) error {
	var tasks []*task
	if r.hooked() {
		hooks := r.Plan.HooksOf(plan.SyncFail)
		for i := range hooks {
			tasks = append(tasks, &task{Step: plan.Step{Phase: plan.SyncFail, Wave: hooks[i].Wave, Hook: &hooks[i]}})
		}
	}
	before := slices.DeleteFunc(slices.Clone(r.hooks), func(t *task) bool { return t.over })
	if err := r.wave(ctx, tasks); err != nil && ctx.Err() != nil {
		return err
	}
	for _, t := range tasks {
		if t.object != nil {
			before = append(before, t)
		}
	}
	var failed *Error
	if err := r.settle(ctx, string(plan.SyncFail), before); err != nil && !errors.As(err, &failed) {
		return err
	}
	var own []Result
	for _, t := range tasks {
		if t.res.Err != nil {
			own = append(own, t.res)
		}
	}
	if own == nil {
		return nil
	}
	return failure(own)
}

// stopHooks deletes the hooks that run when the sync is given up.
func (r *run) stopHooks(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for _, t := range r.hooks {
		if t.over {
			continue
		}
		now, err := r.get(ctx, t.object)
		if err == nil && now != nil && now.GetUID() == t.object.GetUID() {
			if v := r.judgeHook(t, now); v.phase != v1alpha1.PhaseRunning && !slices.Contains(t.Hook.Delete, plan.HookFailed) {
				t.object = now
				r.endHook(ctx, t, v)
				continue
			}
			err = r.removeHook(ctx, now, r.propagation(now), false)
		}
		t.over = true
		t.res.Err, t.res.Complete, t.res.HookPhase = errors.New("terminated"), true, v1alpha1.PhaseFailed
		if err != nil {
			t.res.Err = fmt.Errorf("terminated, but its object could not be deleted: %w", err)
		}
		r.report(t.res)
	}
}
