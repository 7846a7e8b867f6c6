package apply

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// makeNamespace makes the application's namespace, or gives an existing one
// the labels and annotations that the application manages.
func (r *run) makeNamespace(ctx context.Context) error {
	ns := r.Namespace
	if ns == nil {
		return nil
	}
	managed := r.ManageNamespace || len(ns.GetLabels()) > 0 || len(ns.GetAnnotations()) > 0
	if !managed && r.livesIn(ns.GetName()) {
		return nil
	}
	res := Result{Key: plan.KeyOf(ns), Version: "v1", Action: plan.Create, Phase: plan.PreSync, Complete: true, HookPhase: v1alpha1.PhaseRunning}
	o, how, err := r.ensureNamespace(ctx, ns, managed)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		res.Err, res.HookPhase = err, v1alpha1.PhaseFailed
		r.report(res)
		return &Error{[]Result{res}}
	}
	if how == "" {
		return nil
	}
	r.live.Wrote(o)
	res.Message = kubectlName(res.Key) + " " + how
	r.report(res)
	return nil
}

// livesIn reports whether the namespace has a live object of the plan, so that
// it need not be asked for.
func (r *run) livesIn(namespace string) bool {
	for i := range r.Plan.Changes {
		c := &r.Plan.Changes[i]
		if c.Namespace == namespace && c.Live != nil && c.Live.GetDeletionTimestamp() == nil {
			return true
		}
	}
	return false
}

// ensureNamespace returns how "" when there was nothing to do.
func (r *run) ensureNamespace(ctx context.Context, ns *unstructured.Unstructured, managed bool) (o *unstructured.Unstructured, how string, err error) {
	for range 2 {
		if managed {
			o, _, err = r.patch(ctx, ns, plan.ObjectOptions{}, nil)
			how = "serverside-applied"
			if err != nil || o.GetDeletionTimestamp() == nil {
				return o, how, err
			}
		} else {
			o, err = r.Create(ctx, ns)
			how = "created"
			if err == nil {
				return o, how, nil
			}
			if !apierrors.IsAlreadyExists(err) {
				return nil, "", err
			}
			if !strings.Contains(err.Error(), "is being deleted") {
				return nil, "", nil
			}
		}
		if err := r.untilGone(ctx, ns); err != nil {
			return nil, "", err
		}
	}
	return nil, "", fmt.Errorf("namespace %s is deleted again and again", ns.GetName())
}

// untilGone waits for the end of a namespace that is being deleted.
func (r *run) untilGone(ctx context.Context, ns *unstructured.Unstructured) error {
	live, err := r.get(ctx, ns)
	if err != nil || live == nil || live.GetDeletionTimestamp() == nil {
		return err
	}
	if r.Waiting != nil {
		r.Waiting(fmt.Sprintf("namespace %s is being deleted (since %s); goes on when it is gone, waits for %s at most",
			ns.GetName(), clock(live.GetDeletionTimestamp().Time), goneTimeout))
	}
	return r.awaitGone(ctx, live)
}

// renewNamespace makes a namespace again that is being deleted, if it is one
// that this sync makes. The first of several callers does it for all.
func (r *run) renewNamespace(ctx context.Context, name string) error {
	ns := r.Namespace
	if ns == nil || ns.GetName() != name {
		ns = nil
		for i := range r.Plan.Changes {
			if c := &r.Plan.Changes[i]; c.Kind == "Namespace" && c.Group == "" && c.Name == name && c.Desired != nil && r.selected(c.Key) {
				ns = c.Desired
			}
		}
	}
	if ns == nil {
		return fmt.Errorf("nobody makes namespace %s again: add syncOptions: [CreateNamespace=true], or the Namespace to the source", name)
	}
	r.nsMu.Lock()
	defer r.nsMu.Unlock()
	if err, done := r.namespaces[name]; done {
		return err
	}
	o, _, err := r.ensureNamespace(ctx, ns, true)
	if err == nil {
		r.live.Wrote(o)
	}
	r.namespaces[name] = err
	return err
}
