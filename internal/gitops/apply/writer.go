// Package apply writes a plan to the cluster.
//
// Input: a [plan.Plan] and a [Request]. Output: the objects as the API server
// returned them, one [Result] each, in the order phase, wave, prune before
// write, kind, name.
//
// Invariants: only what differs is written; nothing is written when the API
// server refuses one of the objects in the dry run; a wave begins when every
// object of the one before is healthy at its newest generation; there are no
// sleeps, waiting ends by a change of a live object or by the context.
//
// Start reading at [Run].
package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/csaupgrade"

	"github.com/lockstep-gitops/lockstep/internal/gitops/observe"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// ErrUnknownKind says that the cluster does not have the kind of an object.
var ErrUnknownKind = errors.New("the cluster does not have this kind")

// requestTimeout bounds one request.
const requestTimeout = 60 * time.Second

// Writer makes requests to the cluster, a bounded number at a time. It is safe
// for concurrent use.
type Writer struct {
	client  dynamic.Interface
	mapper  *observe.Mapper
	manager string
	slots   chan struct{}
}

// NewWriter returns a writer that makes at most parallel requests at a time
// under the name of the field manager.
func NewWriter(client dynamic.Interface, mapper *observe.Mapper, manager string, parallel int) *Writer {
	return &Writer{client, mapper, manager, make(chan struct{}, parallel)}
}

func (w *Writer) resource(gvk schema.GroupVersionKind, namespace string) (dynamic.ResourceInterface, error) {
	r, known, err := w.mapper.Resource(gvk)
	if err != nil {
		return nil, err
	}
	if !known {
		return nil, fmt.Errorf("%w: %s", ErrUnknownKind, gvk)
	}
	if r.Namespaced {
		return w.client.Resource(r.GroupVersionResource).Namespace(namespace), nil
	}
	return w.client.Resource(r.GroupVersionResource), nil
}

func (w *Writer) slot(ctx context.Context) (context.Context, func(), error) {
	select {
	case w.slots <- struct{}{}:
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		return ctx, func() { cancel(); <-w.slots }, nil
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
}

// open finds the resource of a kind and waits for one of the slots that bound
// the requests under way. The caller calls done after its request.
func (w *Writer) open(ctx context.Context, gvk schema.GroupVersionKind, namespace string) (_ context.Context, _ dynamic.ResourceInterface, done func(), _ error) {
	client, err := w.resource(gvk, namespace)
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, done, err = w.slot(ctx)
	return ctx, client, done, err
}

// Predict asks the API server what applying the object would give.
func (w *Writer) Predict(ctx context.Context, o *unstructured.Unstructured, options plan.ObjectOptions) (*unstructured.Unstructured, error) {
	return w.patch(ctx, o, options, []string{metav1.DryRunAll})
}

func (w *Writer) patch(ctx context.Context, o *unstructured.Unstructured, options plan.ObjectOptions, dryRun []string) (*unstructured.Unstructured, error) {
	if o.GetName() == "" {
		return nil, errors.New("generateName is for hooks only; give the object a name")
	}
	ctx, client, done, err := w.open(ctx, o.GroupVersionKind(), o.GetNamespace())
	if err != nil {
		return nil, err
	}
	defer done()
	data, err := json.Marshal(o.Object)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	validation := metav1.FieldValidationStrict
	if options.SkipValidation {
		validation = metav1.FieldValidationIgnore
	}
	force := true
	got, err := client.Patch(ctx, o.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{
		FieldManager: w.manager, Force: &force, DryRun: dryRun, FieldValidation: validation,
	})
	return got, discreet(o, err)
}

// discreet takes the server's words out of an error about a Secret: they may
// show its values.
func discreet(o *unstructured.Unstructured, err error) error {
	var status apierrors.APIStatus
	if err == nil || o.GetKind() != "Secret" || !errors.As(err, &status) {
		return err
	}
	s := status.Status()
	if s.Reason != metav1.StatusReasonInvalid && s.Reason != metav1.StatusReasonBadRequest && s.Reason != metav1.StatusReasonInternalError && s.Reason != metav1.StatusReasonUnknown {
		return err
	}
	s.Message = fmt.Sprintf("the API server refused the Secret (%s, %d); its message is left out because it may show values: try `kubectl apply --dry-run=server` on the manifest", s.Reason, s.Code)
	s.Details = nil
	return &apierrors.StatusError{ErrStatus: s}
}

// Write makes the object of a change what it is to be.
func (w *Writer) Write(ctx context.Context, c plan.Change) (*unstructured.Unstructured, error) {
	if c.Options.Replace && c.Live != nil {
		return w.replace(ctx, c)
	}
	if c.Live != nil {
		if err := w.adopt(ctx, c.Live); err != nil {
			return nil, err
		}
	}
	return w.patch(ctx, c.Desired, c.Options, nil)
}

func (w *Writer) replace(ctx context.Context, c plan.Change) (*unstructured.Unstructured, error) {
	ctx, client, done, err := w.open(ctx, c.Desired.GroupVersionKind(), c.Namespace)
	if err != nil {
		return nil, err
	}
	defer done()
	o := c.Desired.DeepCopy()
	o.SetResourceVersion(c.Live.GetResourceVersion())
	got, err := client.Update(ctx, o, metav1.UpdateOptions{FieldManager: w.manager})
	return got, discreet(o, err)
}

// clientSide are the managers of an earlier client-side apply, whose fields
// must become ours so that those removed from the source go.
var clientSide = sets.New("kubectl-client-side-apply", "argocd-controller", "argocd-application-controller", "before-first-apply")

func (w *Writer) adopt(ctx context.Context, live *unstructured.Unstructured) error {
	if _, has := live.GetAnnotations()["kubectl.kubernetes.io/last-applied-configuration"]; !has {
		return nil
	}
	patch, err := csaupgrade.UpgradeManagedFieldsPatch(live, clientSide, w.manager)
	if err != nil || len(patch) == 0 {
		return err
	}
	ctx, client, done, err := w.open(ctx, live.GroupVersionKind(), live.GetNamespace())
	if err != nil {
		return err
	}
	defer done()
	_, err = client.Patch(ctx, live.GetName(), types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: w.manager})
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		return fmt.Errorf("take over the fields of kubectl apply: %w", err)
	}
	return nil
}

// Create makes an object that must not exist yet.
func (w *Writer) Create(ctx context.Context, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	ctx, client, done, err := w.open(ctx, o.GroupVersionKind(), o.GetNamespace())
	if err != nil {
		return nil, err
	}
	defer done()
	got, err := client.Create(ctx, o, metav1.CreateOptions{FieldManager: w.manager})
	return got, discreet(o, err)
}

// Delete removes a live object. An object that is gone, or another one of the
// same name, is no error.
func (w *Writer) Delete(ctx context.Context, live *unstructured.Unstructured, propagation string) error {
	ctx, client, done, err := w.open(ctx, live.GroupVersionKind(), live.GetNamespace())
	if errors.Is(err, ErrUnknownKind) {
		return nil
	}
	if err != nil {
		return err
	}
	defer done()
	policy := map[string]metav1.DeletionPropagation{
		"background": metav1.DeletePropagationBackground, "orphan": metav1.DeletePropagationOrphan,
	}[propagation]
	if policy == "" {
		policy = metav1.DeletePropagationForeground
	}
	uid := live.GetUID()
	err = client.Delete(ctx, live.GetName(), metav1.DeleteOptions{
		PropagationPolicy: &policy, Preconditions: &metav1.Preconditions{UID: &uid},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}
