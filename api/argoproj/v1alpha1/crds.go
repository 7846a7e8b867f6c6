package v1alpha1

import (
	"embed"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

//go:embed crds/*.yaml
var crdFiles embed.FS

// CRDs returns the custom resource definitions of this package, freshly
// decoded, in the order in which they are to be installed.
func CRDs() ([]*unstructured.Unstructured, error) {
	entries, err := crdFiles.ReadDir("crds")
	if err != nil {
		return nil, fmt.Errorf("embedded CRDs: %w", err)
	}
	var out []*unstructured.Unstructured
	for _, e := range entries {
		data, err := crdFiles.ReadFile("crds/" + e.Name())
		if err != nil {
			return nil, fmt.Errorf("embedded CRDs: %w", err)
		}
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(data, &o.Object); err != nil {
			return nil, fmt.Errorf("embedded CRD %s: %w", e.Name(), err)
		}
		out = append(out, o)
	}
	return out, nil
}

// Decode reads a typed value (*Application, *AppProject) from an object as the
// API server returns it.
func Decode(from *unstructured.Unstructured, into any) error {
	data, err := json.Marshal(from.Object)
	if err != nil {
		return fmt.Errorf("decode %s %s/%s: %w", from.GetKind(), from.GetNamespace(), from.GetName(), err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("decode %s %s/%s: %w", from.GetKind(), from.GetNamespace(), from.GetName(), err)
	}
	return nil
}
