package apply

import (
	"context"
	"encoding/json"
	"fmt"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// Get reads an object anew; nil when it is gone.
func (w *Writer) Get(ctx context.Context, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	return w.get(ctx, o)
}

// Merge writes to an object, or to a subresource of it, what differs between
// how it is and how it should be. It fails with a conflict when the object is
// no longer at the resource version of live.
func (w *Writer) Merge(ctx context.Context, live, want *unstructured.Unstructured, subresource string) (*unstructured.Unstructured, error) {
	before, err := json.Marshal(live.Object)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", plan.KeyOf(live), err)
	}
	after, err := json.Marshal(want.Object)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", plan.KeyOf(want), err)
	}
	diff, err := jsonpatch.CreateMergePatch(before, after)
	if err != nil {
		return nil, fmt.Errorf("compare %s: %w", plan.KeyOf(live), err)
	}
	patch := &unstructured.Unstructured{}
	if err := json.Unmarshal(diff, &patch.Object); err != nil {
		return nil, fmt.Errorf("compare %s: %w", plan.KeyOf(live), err)
	}
	if patch.Object == nil {
		patch.Object = map[string]any{}
	}
	patch.SetResourceVersion(live.GetResourceVersion())
	data, err := json.Marshal(patch.Object)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", plan.KeyOf(live), err)
	}
	var sub []string
	if subresource != "" {
		sub = []string{subresource}
	}
	var got *unstructured.Unstructured
	err = w.do(ctx, "patch", live, func(ctx context.Context, client dynamic.ResourceInterface) (err error) {
		got, err = client.Patch(ctx, live.GetName(), types.MergePatchType, data, metav1.PatchOptions{FieldManager: w.manager + "-action"}, sub...)
		return err
	})
	return got, err
}
