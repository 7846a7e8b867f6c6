package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

func (r *run) hasHooks(phase plan.Phase) bool {
	return len(r.hooksOf(phase, nil)) > 0
}

// hooksOf returns the hooks of a phase, all or those of one wave.
func (r *run) hooksOf(phase plan.Phase, wave *int) []plan.Hook {
	if r.Selected != nil || r.NoHooks {
		return nil
	}
	var out []plan.Hook
	for _, h := range r.Plan.Hooks {
		if slices.Contains(h.Phases, phase) && (wave == nil || h.Wave == *wave) {
			out = append(out, h)
		}
	}
	return out
}

// hooks runs the hooks of a phase, wave after wave.
func (r *run) hooks(ctx context.Context, phase plan.Phase, wave *int) error {
	all := r.hooksOf(phase, wave)
	for len(all) > 0 {
		n := slices.IndexFunc(all, func(h plan.Hook) bool { return h.Wave != all[0].Wave })
		if n < 0 {
			n = len(all)
		}
		if err := r.hookWave(ctx, phase, all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

type running struct {
	hook   plan.Hook
	object *unstructured.Unstructured
	done   bool
}

func (r *run) hookWave(ctx context.Context, phase plan.Phase, hooks []plan.Hook) error {
	var started []*running
	for _, h := range hooks {
		o, err := r.start(ctx, h)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			res := r.hookResult(h, phase, err)
			r.report(res)
			return &Error{[]Result{res}}
		}
		r.report(Result{Key: plan.KeyOf(o), Version: o.GroupVersionKind().Version, Action: plan.Create, Phase: phase, Hook: true, Place: h.Place, Message: "running"})
		started = append(started, &running{hook: h, object: o})
	}
	return r.await(ctx, string(phase), func(ctx context.Context) (string, error) { return r.checkHooks(ctx, phase, started) })
}

func (r *run) hookResult(h plan.Hook, phase plan.Phase, err error) Result {
	return Result{Key: h.Key, Version: h.Object.GroupVersionKind().Version, Action: plan.Create, Phase: phase, Hook: true, Place: h.Place, Err: err, Complete: true}
}

// start makes the object of a hook, in the place of one of an earlier sync.
func (r *run) start(ctx context.Context, h plan.Hook) (*unstructured.Unstructured, error) {
	if h.Object.GetName() == "" {
		o, err := r.Create(ctx, h.Object)
		if err == nil {
			r.live.Wrote(o)
		}
		return o, err
	}
	old, err := r.live.Get(ctx, h.Object)
	if err != nil {
		return nil, err
	}
	if old != nil && !slices.Contains(h.Delete, plan.BeforeHookCreation) {
		return r.patch(ctx, h.Object, plan.ObjectOptions{}, nil)
	}
	if old != nil {
		if err := r.Delete(ctx, old, "background"); err != nil {
			return nil, err
		}
		r.live.Deleted(old)
	}
	var made *unstructured.Unstructured
	err = r.await(ctx, "hook", func(ctx context.Context) (string, error) {
		o, err := r.Create(ctx, h.Object)
		if alreadyExists(err) {
			return fmt.Sprintf("the %s of the last sync to be deleted", h.Key), nil
		}
		made = o
		return "", err
	})
	if err != nil {
		return nil, err
	}
	r.live.Wrote(made)
	return made, nil
}

func (r *run) checkHooks(ctx context.Context, phase plan.Phase, hooks []*running) (string, error) {
	waiting := ""
	var failed []Result
	for _, h := range hooks {
		if h.done {
			continue
		}
		o, err := r.live.Get(ctx, h.object)
		if err != nil {
			return "", err
		}
		if o == nil {
			h.done = true
			failed = append(failed, r.hookResult(h.hook, phase, errors.New("the hook was deleted while it ran")))
			continue
		}
		s, ok := r.live.Health(o)
		switch {
		case !ok || s.Code == v1alpha1.HealthHealthy && finished(o):
			h.done = true
			res := r.hookResult(h.hook, phase, nil)
			res.Key, res.Message = plan.KeyOf(o), "succeeded"
			r.report(res)
			r.clean(ctx, h.hook, o, plan.HookSucceeded)
		case s.Code == v1alpha1.HealthDegraded && (o.GetKind() != "Pod" || finished(o)):
			h.done = true
			failed = append(failed, r.hookResult(h.hook, phase, fmt.Errorf("hook failed: %s", s.Message)))
			r.clean(ctx, h.hook, o, plan.HookFailed)
		default:
			waiting = fmt.Sprintf("%s: %s", h.hook.Key, s.Message)
		}
	}
	if failed != nil {
		for _, f := range failed {
			r.report(f)
		}
		return "", &Error{failed}
	}
	return waiting, nil
}

// finished reports whether a healthy object has done its work; a running pod
// has not.
func finished(o *unstructured.Unstructured) bool {
	if o.GetKind() != "Pod" {
		return true
	}
	phase, _, _ := unstructured.NestedString(o.Object, "status", "phase")
	return phase == "Succeeded" || phase == "Failed"
}

func (r *run) clean(ctx context.Context, h plan.Hook, o *unstructured.Unstructured, when plan.DeletePolicy) {
	if !slices.Contains(h.Delete, when) {
		return
	}
	if err := r.Delete(ctx, o, "background"); err != nil {
		r.report(Result{Key: h.Key, Hook: true, Complete: true, Message: "the hook could not be deleted: " + err.Error()})
		return
	}
	r.live.Deleted(o)
}
