package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// goneTimeout bounds the wait for the end of an object that something new is
// to take the place of.
const goneTimeout = 2 * time.Minute

// Delete removes a live object. An object that is gone, or another one of the
// same name, is no error.
func (w *Writer) Delete(ctx context.Context, live *unstructured.Unstructured, propagation string) error {
	policy := map[string]metav1.DeletionPropagation{
		"background": metav1.DeletePropagationBackground, "orphan": metav1.DeletePropagationOrphan,
	}[propagation]
	if policy == "" {
		policy = metav1.DeletePropagationForeground
	}
	uid := live.GetUID()
	err := w.do(ctx, "delete", live, func(ctx context.Context, client dynamic.ResourceInterface) error {
		return client.Delete(ctx, live.GetName(), metav1.DeleteOptions{PropagationPolicy: &policy, Preconditions: &metav1.Preconditions{UID: &uid}})
	})
	if errors.Is(err, ErrUnknownKind) || isGone(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// awaitGone returns when the object is gone or another one has its name. It
// learns of it by a watch on the one object.
func (w *Writer) awaitGone(ctx context.Context, live *unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeoutCause(ctx, goneTimeout, fmt.Errorf("%s is still being deleted after %s: see its finalizers", plan.KeyOf(live), goneTimeout))
	defer cancel()
	client, err := w.resource(live.GroupVersionKind(), live.GetNamespace())
	if errors.Is(err, ErrUnknownKind) {
		return nil
	}
	if err != nil {
		return err
	}
	for {
		now, err := w.get(ctx, live)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil || now == nil || now.GetUID() != live.GetUID() {
			return err
		}
		events, err := client.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + now.GetName(), ResourceVersion: now.GetResourceVersion()})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return explain("watch", live, err)
		}
		done := deletedIn(ctx, events, live.GetUID())
		events.Stop()
		switch {
		case done:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		if err := w.pause(ctx, firstPause); err != nil { // the watch was cut off
			return err
		}
	}
}

func deletedIn(ctx context.Context, events watch.Interface, uid types.UID) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case e, open := <-events.ResultChan():
			if !open || e.Type == watch.Error {
				return false
			}
			if o, ok := e.Object.(*unstructured.Unstructured); ok && (e.Type == watch.Deleted || o.GetUID() != uid) {
				return true
			}
		}
	}
}

// dropFinalizer takes one finalizer off a live object.
func (w *Writer) dropFinalizer(ctx context.Context, live *unstructured.Unstructured, name string) (*unstructured.Unstructured, error) {
	now := live
	for range attemptsRefused {
		var rest []any
		has := false
		for _, f := range now.GetFinalizers() {
			if f == name {
				has = true
			} else {
				rest = append(rest, f)
			}
		}
		if !has {
			return now, nil
		}
		body, err := encode(map[string]any{"metadata": map[string]any{"finalizers": rest, "resourceVersion": now.GetResourceVersion(), "uid": string(live.GetUID())}})
		if err != nil {
			return nil, err
		}
		var got *unstructured.Unstructured
		stale := false
		err = w.do(ctx, "patch", live, func(ctx context.Context, client dynamic.ResourceInterface) (err error) {
			got, err = client.Patch(ctx, live.GetName(), types.MergePatchType, body, metav1.PatchOptions{FieldManager: w.manager})
			if stale = apierrors.IsConflict(err); stale {
				return nil
			}
			return err
		})
		if isGone(err) {
			return now, nil
		}
		if err != nil {
			return nil, err
		}
		if !stale {
			return got, nil
		}
		if now, err = w.get(ctx, live); err != nil || now == nil || now.GetUID() != live.GetUID() {
			return live, err
		}
	}
	return nil, fmt.Errorf("the finalizer %s could not be taken off %s: it changes all the time", name, plan.KeyOf(live))
}
