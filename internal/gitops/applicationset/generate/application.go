package generate

import (
	"errors"
	"fmt"
	"maps"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/template"
)

// application fills the template with one set of parameters.
func (r *run) application(program *template.Program, params map[string]any) (*unstructured.Unstructured, error) {
	v, err := program.Fill(params)
	if err != nil {
		return nil, err
	}
	app, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("spec.template is no map")
	}
	if r.set.Spec.TemplatePatch != "" {
		if app, err = r.patch(app, params); err != nil {
			return nil, fmt.Errorf("spec.templatePatch: %w", err)
		}
	}
	meta, err := r.metadata(app)
	if err != nil {
		return nil, err
	}
	spec, ok := app["spec"].(map[string]any)
	if !ok {
		return nil, errors.New("spec.template.spec is missing")
	}
	spec = maps.Clone(withoutNulls(spec))
	if spec["project"] == nil || spec["project"] == "" {
		spec["project"] = "default"
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.Group + "/" + v1alpha1.Version, "kind": v1alpha1.ApplicationKind.Kind, "metadata": meta, "spec": spec,
	}}, nil
}

func (r *run) patch(app, params map[string]any) (map[string]any, error) {
	patch, err := r.engine.Text(r.set.Spec.TemplatePatch, params)
	if err != nil {
		return nil, err
	}
	out, err := template.Patch(app, patch)
	if err != nil {
		return nil, err
	}
	before, _, _ := unstructured.NestedFieldNoCopy(app, "spec", "project")
	after, _, _ := unstructured.NestedFieldNoCopy(out, "spec", "project")
	if before != after {
		return nil, fmt.Errorf("must not change spec.project from %v to %v: whoever can write parameters could leave the project", before, after)
	}
	return out, nil
}

// metadata builds the metadata of an Application: what the template sets, in
// the namespace of the ApplicationSet, owned by it.
func (r *run) metadata(app map[string]any) (map[string]any, error) {
	from, _ := app["metadata"].(map[string]any)
	name, ok := from["name"].(string)
	if !ok || name == "" {
		return nil, errors.New("spec.template.metadata.name is empty")
	}
	meta := map[string]any{"name": name, "namespace": r.set.Namespace, "ownerReferences": []any{map[string]any{
		"apiVersion": v1alpha1.Group + "/" + v1alpha1.Version, "kind": v1alpha1.ApplicationSetKind.Kind, "name": r.set.Name, "uid": string(r.set.UID),
		"controller": true, "blockOwnerDeletion": true,
	}}}
	for _, field := range []string{"labels", "annotations"} {
		m, err := stringsOf(from[field])
		if err != nil {
			return nil, fmt.Errorf("spec.template.metadata.%s: %w", field, err)
		}
		if len(m) > 0 {
			meta[field] = m
		}
	}
	finalizers, _ := from["finalizers"].([]any)
	for _, f := range finalizers {
		if _, ok := f.(string); !ok {
			return nil, fmt.Errorf("spec.template.metadata.finalizers: %v is no text", f)
		}
	}
	keeps := r.set.Spec.SyncPolicy != nil && r.set.Spec.SyncPolicy.PreserveResourcesOnDeletion
	if len(finalizers) == 0 && !keeps {
		finalizers = []any{v1alpha1.FinalizerResources}
	}
	if len(finalizers) > 0 {
		meta["finalizers"] = finalizers
	}
	return meta, nil
}

func stringsOf(v any) (map[string]any, error) {
	if v == nil {
		return nil, nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("is no map")
	}
	for k, v := range m {
		if _, ok := v.(string); !ok {
			return nil, fmt.Errorf("the value of %s must be a text, it is %v; put it in quotes", k, v)
		}
	}
	return m, nil
}

// withoutNulls leaves out nulls, which the API server does not take, except in
// Helm's values, where they mean something. It copies what it changes.
func withoutNulls(m map[string]any) map[string]any {
	out := m
	for k, v := range m {
		changed := v
		drop := v == nil
		switch v := v.(type) {
		case map[string]any:
			if k == "valuesObject" {
				continue
			}
			w := withoutNulls(v)
			if len(w) == len(v) && sameMap(w, v) {
				continue
			}
			changed = w
		case []any:
			w, same := itemsWithoutNulls(v)
			if same {
				continue
			}
			changed = w
		default:
			if !drop {
				continue
			}
		}
		if sameMap(out, m) {
			out = maps.Clone(m)
		}
		if drop {
			delete(out, k)
		} else {
			out[k] = changed
		}
	}
	return out
}

func itemsWithoutNulls(list []any) ([]any, bool) {
	same := true
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = v
		if m, ok := v.(map[string]any); ok {
			if w := withoutNulls(m); !sameMap(w, m) {
				out[i], same = w, false
			}
		}
	}
	return out, same
}
