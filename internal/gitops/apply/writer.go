// Package apply writes a plan to the cluster.
//
// Input: a [plan.Plan] and a [Request]. Output: the objects as the API server
// returned them, one [Result] for each.
//
// The order is phase, wave, prune before write, kind, name. Within a wave the
// requests go out at the same time, with as few barriers as keep what people
// see the same: namespaces; then what the next ones are admitted by; then all
// that workloads stand on; then workloads; then kinds that Kubernetes does not
// have itself; then admission webhooks. See [stageOf].
//
// Invariants: only what differs is written, each object with one request;
// nothing is written when the local check or the API server's dry run refuses
// one of the objects; a wave begins when every object of the one before is
// healthy at the generation that was written and every pruned one is gone;
// there are no sleeps: waiting ends by a change of a live object or by the
// context, and the pause before a repeated request is the server's own.
//
// Deliberate: every object is written by server-side apply, and takes over
// fields of other managers; the annotation last-applied-configuration is not
// written. Fields that the source drops are known from managedFields instead.
//
// Start reading at [Run].
package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

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
	pause   func(context.Context, time.Duration) error // before a request is repeated
}

// NewWriter returns a writer that makes at most parallel requests at a time
// under the name of the field manager.
func NewWriter(client dynamic.Interface, mapper *observe.Mapper, manager string, parallel int) *Writer {
	return &Writer{client, mapper, manager, make(chan struct{}, parallel), pause}
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

// one makes one request within one of the slots that bound those under way.
func (w *Writer) one(ctx context.Context, f func(context.Context) error) error {
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-w.slots }()
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return f(ctx)
}

// do makes a request about an object, repeats it while the server has trouble,
// and explains its refusal.
func (w *Writer) do(ctx context.Context, verb string, o *unstructured.Unstructured, f func(context.Context, dynamic.ResourceInterface) error) error {
	client, err := w.resource(o.GroupVersionKind(), o.GetNamespace())
	if err != nil {
		return err
	}
	err = w.repeat(ctx, func() error {
		return w.one(ctx, func(ctx context.Context) error { return f(ctx, client) })
	})
	return explain(verb, o, err)
}

// Predict asks the API server what applying the object would give.
func (w *Writer) Predict(ctx context.Context, o *unstructured.Unstructured, options plan.ObjectOptions) (*unstructured.Unstructured, error) {
	got, _, err := w.patch(ctx, o, options, []string{metav1.DryRunAll})
	return got, err
}

// lenience bounds how often an object is sent again without what the server
// complained about.
const lenience = 10

// patch is a server-side apply: one request, unless something in the object
// has to go first that client-side apply lets pass; note says what.
func (w *Writer) patch(ctx context.Context, o *unstructured.Unstructured, options plan.ObjectOptions, dryRun []string) (got *unstructured.Unstructured, note string, err error) {
	for range lenience {
		got, err = w.apply(ctx, o, options, dryRun)
		less, what := lenient(o, options, err)
		if less == nil {
			return got, note, err
		}
		o, note = less, note+"; "+what
	}
	return nil, "", err
}

func (w *Writer) apply(ctx context.Context, o *unstructured.Unstructured, options plan.ObjectOptions, dryRun []string) (*unstructured.Unstructured, error) {
	if o.GetName() == "" {
		return nil, errors.New("generateName is for hooks only; give the object a name")
	}
	data, err := encode(o.Object)
	if err != nil {
		return nil, err
	}
	force := true
	var got *unstructured.Unstructured
	err = w.do(ctx, "patch", o, func(ctx context.Context, client dynamic.ResourceInterface) (err error) {
		got, err = client.Patch(ctx, o.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{
			FieldManager: w.manager, Force: &force, DryRun: dryRun, FieldValidation: validation(options),
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return got, nil
}

func validation(options plan.ObjectOptions) string {
	if options.SkipValidation {
		return metav1.FieldValidationIgnore
	}
	return metav1.FieldValidationStrict
}

// Create makes an object that must not exist yet.
func (w *Writer) Create(ctx context.Context, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	var got *unstructured.Unstructured
	err := w.do(ctx, "create", o, func(ctx context.Context, client dynamic.ResourceInterface) (err error) {
		got, err = client.Create(ctx, o, metav1.CreateOptions{FieldManager: w.manager})
		return err
	})
	return got, err
}

// get reads the object of a name; nil when there is none.
func (w *Writer) get(ctx context.Context, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	var got *unstructured.Unstructured
	err := w.do(ctx, "get", o, func(ctx context.Context, client dynamic.ResourceInterface) (err error) {
		got, err = client.Get(ctx, o.GetName(), metav1.GetOptions{})
		return err
	})
	if isGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return got, nil
}
