package gitops

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/retry"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

var (
	definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	namespaces  = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
)

// install makes what the engine needs in the cluster.
func (e *Engine) install(ctx context.Context) error {
	crds, err := v1alpha1.CRDs()
	if err != nil {
		return err
	}
	for _, crd := range crds {
		if err := e.put(ctx, e.client.Resource(definitions), crd); err != nil {
			return err
		}
	}
	for _, crd := range crds {
		if err := e.established(ctx, crd.GetName()); err != nil {
			return err
		}
	}
	ns := object("v1", "Namespace", "", e.cfg.Namespace)
	if err := e.put(ctx, e.client.Resource(namespaces), ns); err != nil {
		return err
	}
	return e.defaultProject(ctx)
}

func object(apiVersion, kind, namespace, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{}}
	o.SetAPIVersion(apiVersion)
	o.SetKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

func (e *Engine) put(ctx context.Context, client dynamic.ResourceInterface, o *unstructured.Unstructured) error {
	data, err := json.Marshal(o.Object)
	if err != nil {
		return fmt.Errorf("install %s: %w", o.GetName(), err)
	}
	force := true
	if _, err := client.Patch(ctx, o.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: e.cfg.FieldManager, Force: &force}); err != nil {
		return fmt.Errorf("install %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	return nil
}

// established waits until the API server serves a kind.
func (e *Engine) established(ctx context.Context, name string) error {
	w, err := e.client.Resource(definitions).Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	if err != nil {
		return fmt.Errorf("wait for the kind %s: %w", name, err)
	}
	defer w.Stop()
	for {
		select {
		case ev, ok := <-w.ResultChan():
			if !ok {
				return fmt.Errorf("wait for the kind %s: the watch ended", name)
			}
			crd, ok := ev.Object.(*unstructured.Unstructured)
			if ok && isEstablished(crd) {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func isEstablished(crd *unstructured.Unstructured) bool {
	list, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	for _, item := range list {
		if m, ok := item.(map[string]any); ok && m["type"] == "Established" && m["status"] == "True" {
			return true
		}
	}
	return false
}

// defaultProject makes the project that permits everything, unless somebody
// has one of that name.
func (e *Engine) defaultProject(ctx context.Context) error {
	client := e.client.Resource(v1alpha1.AppProjectResource).Namespace(e.cfg.Namespace)
	project := object(v1alpha1.Group+"/"+v1alpha1.Version, "AppProject", e.cfg.Namespace, "default")
	project.Object["spec"] = map[string]any{
		"sourceRepos":              []any{"*"},
		"destinations":             []any{map[string]any{"server": "*", "namespace": "*"}},
		"clusterResourceWhitelist": []any{map[string]any{"group": "*", "kind": "*"}},
	}
	// A kind can be established a moment before it is served.
	err := retry.OnError(retry.DefaultBackoff, apierrors.IsNotFound, func() error {
		_, err := client.Create(ctx, project, metav1.CreateOptions{FieldManager: e.cfg.FieldManager})
		return err
	})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("install the default project: %w", err)
	}
	return nil
}
