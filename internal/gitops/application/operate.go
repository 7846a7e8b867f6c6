package application

import (
	"context"
	"time"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// Terminate ends the sync that is under way. Automated sync does not try the
// same commit again.
func (c *Controller) Terminate(ctx context.Context, namespace, name string) error {
	key := namespace + "/" + name
	v, err := c.view(key)
	if err != nil {
		return err
	}
	c.mu.Lock()
	st := c.states[key]
	c.mu.Unlock()
	var op *operation
	if st != nil {
		st.mu.Lock()
		op = st.op
		st.mu.Unlock()
	}
	switch {
	case op != nil && !op.done():
		op.cancel(errTerminated)
		return nil
	case v.Application.Operation != nil: // not taken up yet
		return c.mergeApp(ctx, namespace, name, map[string]any{"operation": nil})
	}
	return refuse("", "%s: no sync is under way", key)
}

// Pause stops automated syncs until Resume; a sync that is under way goes on.
// The reason is shown to whoever looks at the application.
func (c *Controller) Pause(ctx context.Context, namespace, name, reason string) error {
	if reason == "" {
		return refuse("say why, for those who wonder later", "a pause needs a reason")
	}
	if len(reason) > maxReason {
		return refuse("a shorter one", "the reason has %d characters, %d are allowed", len(reason), maxReason)
	}
	if _, err := c.view(namespace + "/" + name); err != nil {
		return err
	}
	return c.annotate(ctx, namespace, name, AnnotationPause, reason)
}

const maxReason = 1000

// Resume lets automated syncs go on.
func (c *Controller) Resume(ctx context.Context, namespace, name string) error {
	v, err := c.view(namespace + "/" + name)
	if err != nil {
		return err
	}
	if _, ok := v.Application.Annotations[AnnotationPause]; !ok {
		return refuse("", "%s/%s is not paused", namespace, name)
	}
	return c.annotate(ctx, namespace, name, AnnotationPause, nil)
}

// ConfirmDeletion approves what the sync under way, or the deletion of the
// application, asks to be confirmed before it deletes it.
func (c *Controller) ConfirmDeletion(ctx context.Context, namespace, name string) error {
	key := namespace + "/" + name
	if _, err := c.view(key); err != nil {
		return err
	}
	if err := c.annotate(ctx, namespace, name, v1alpha1.AnnotationDeletionOK, c.Now().UTC().Format(time.RFC3339)); err != nil {
		return err
	}
	st := c.state(key)
	select {
	case st.wake <- struct{}{}: // the sync that waits looks again
	default:
	}
	return nil
}

// annotate sets an annotation of an Application; a nil value removes it.
func (c *Controller) annotate(ctx context.Context, namespace, name, annotation string, value any) error {
	return c.mergeApp(ctx, namespace, name, map[string]any{"metadata": map[string]any{"annotations": map[string]any{annotation: value}}})
}
