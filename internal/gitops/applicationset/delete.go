package applicationset

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/rollout"
)

// reversed reports whether Applications are deleted step by step.
func (p *pass) reversed() bool {
	return rolling(&p.set) && strings.EqualFold(p.set.Spec.Strategy.DeletionOrder, "Reverse")
}

// ensureFinalizer lets the deletion of a set wait for the order of its steps.
func (p *pass) ensureFinalizer(ctx context.Context) error {
	if !p.reversed() || slices.Contains(p.set.Finalizers, v1alpha1.FinalizerResources) {
		return nil
	}
	p.set.Finalizers = append(p.set.Finalizers, v1alpha1.FinalizerResources)
	return p.patchSet(ctx, map[string]any{"metadata": map[string]any{"finalizers": p.set.Finalizers, "resourceVersion": p.object.GetResourceVersion()}})
}

// finalize lets a set go that is being deleted: its Applications are left
// alone where the policy does not allow deletions, deleted in the reverse order
// of the steps where that is asked for, and left to the garbage collector
// otherwise.
func (p *pass) finalize(ctx context.Context) error {
	switch {
	case !p.policy().deletes:
		if err := p.release(ctx); err != nil {
			return err
		}
	case p.reversed() && slices.Contains(p.set.Finalizers, v1alpha1.FinalizerResources):
		done, err := p.deleteLastStep(ctx)
		if err != nil || !done {
			return err
		}
	}
	if !slices.Contains(p.set.Finalizers, v1alpha1.FinalizerResources) {
		return nil
	}
	rest := slices.DeleteFunc(slices.Clone(p.set.Finalizers), func(f string) bool { return f == v1alpha1.FinalizerResources })
	return p.patchSet(ctx, map[string]any{"metadata": map[string]any{"finalizers": rest, "resourceVersion": p.object.GetResourceVersion()}})
}

// release takes the owner out of the Applications, so that they stay.
func (p *pass) release(ctx context.Context) error {
	apps := make([]*unstructured.Unstructured, 0, len(p.current))
	for _, live := range p.current {
		apps = append(apps, live)
	}
	return p.each(ctx, len(apps), func(i int) error {
		refs := slices.DeleteFunc(apps[i].GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.UID == p.set.UID })
		return p.patchApp(ctx, apps[i].GetName(), map[string]any{"metadata": map[string]any{"ownerReferences": refs}})
	})
}

// deleteLastStep deletes what is left of the last step, and reports whether
// nothing is left of any.
func (p *pass) deleteLastStep(ctx context.Context) (bool, error) {
	if len(p.current) == 0 {
		return true, nil
	}
	last := -2
	byStep := map[int][]*unstructured.Unstructured{}
	for _, live := range p.current {
		step := len(p.set.Spec.Strategy.RollingSync.Steps) // in no step: nothing waits for it, it goes first
		if at := rollout.StepsOf(p.set.Spec.Strategy.RollingSync.Steps, live.GetLabels()); len(at) > 0 {
			step = at[0]
		}
		byStep[step] = append(byStep[step], live)
		last = max(last, step)
	}
	p.queue.AddAfter(p.key, 10*time.Second) // the watch is quicker
	left := byStep[last]
	err := p.each(ctx, len(left), func(i int) error {
		if left[i].GetDeletionTimestamp() != nil {
			return nil
		}
		return p.deleteApp(ctx, left[i])
	})
	if err != nil {
		return false, fmt.Errorf("delete step %d: %w", last+1, err)
	}
	return false, nil
}
