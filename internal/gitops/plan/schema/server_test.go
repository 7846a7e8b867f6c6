//go:build linux

package schema_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/lockstep-gitops/lockstep/internal/gitops/gitopstest/plane"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan/schema"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

type server struct {
	*plane.Cluster
	client rest.Interface
	groups []*restmapper.APIGroupResources
	store  *schema.Store
}

func (s *server) Fetch(ctx context.Context, path string) ([]byte, error) {
	return s.client.Get().RequestURI(path).SetHeader("Accept", "application/json").DoRaw(ctx)
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{Cluster: plane.StartCluster(t)}
	d, err := discovery.NewDiscoveryClientForConfig(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	s.client = d.RESTClient()
	s.store = schema.NewStore(s)
	s.discover(t)
	return s
}

func (s *server) discover(t *testing.T) {
	t.Helper()
	d, err := discovery.NewDiscoveryClientForConfig(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	if s.groups, err = restmapper.GetAPIGroupResources(d); err != nil {
		t.Fatal(err)
	}
}

// verdict is what the server says to an apply with strict validation.
func (s *server) verdict(t *testing.T, o *unstructured.Unstructured, dryRun bool) error {
	t.Helper()
	gvk := o.GroupVersionKind()
	m, err := restmapper.NewDiscoveryRESTMapper(s.groups).RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		t.Fatal(err)
	}
	var client dynamic.ResourceInterface = s.Client.Resource(m.Resource)
	if m.Scope.Name() == "namespace" {
		client = s.Client.Resource(m.Resource).Namespace("default")
	}
	data, err := plan.Normalize(o).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	force := true
	options := metav1.PatchOptions{FieldManager: "m", Force: &force, FieldValidation: metav1.FieldValidationStrict}
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	_, err = client.Patch(t.Context(), o.GetName(), types.ApplyPatchType, data, options)
	return err
}

func parse(t *testing.T, files ...string) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	for _, f := range files {
		if filepath.Base(f) == "kustomization.yaml" {
			continue
		}
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		objects, _, err := manifest.Parse(f, data)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			out = append(out, o.Unstructured)
		}
	}
	return out
}

// TestAgainstServer compares the verdicts with those of the server: on good
// objects, and on every way to break one in one place.
func TestAgainstServer(t *testing.T) {
	s := newServer(t)
	objects := parse(t, "../testdata/server/built-in.yaml")
	for _, o := range objects {
		if o.GetKind() == "CustomResourceDefinition" {
			if err := s.verdict(t, o, false); err != nil {
				t.Fatal(err)
			}
			s.await(t)
		}
	}
	s.store.Reset()
	objects = append(objects, parse(t, "testdata/widget.yaml")...)
	examples, err := filepath.Glob("../../../../examples/storefront/deploy/base/*.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatal("no examples", err)
	}
	for _, o := range parse(t, examples...) {
		if !strings.Contains(o.GetAPIVersion(), "secrets-store") {
			objects = append(objects, o)
		}
	}
	tried, missed := 0, map[string]int{}
	for _, o := range objects {
		problems, err := s.store.Validate(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if want := s.verdict(t, o, true); (want != nil) != (len(problems) != 0) {
			t.Errorf("%s: %v, the server says %v", plan.KeyOf(o), problems, want)
			continue
		}
		for _, m := range broken(o) {
			tried++
			problems, err := s.store.Validate(t.Context(), m.object)
			if err != nil {
				t.Fatal(err)
			}
			want := s.verdict(t, m.object, true)
			if want == nil && len(problems) > 0 {
				t.Errorf("%s, %s: the server takes it, but: %v", plan.KeyOf(o), m.what, problems)
			}
			if want != nil && len(problems) == 0 {
				inner := strings.Contains(m.what, "openAPIV3Schema properties spec properties") // items and defaults may be anything
				if m.class != "without" && !inner {
					t.Errorf("%s, %s: the server says %v", plan.KeyOf(o), m.what, want)
				}
				missed[m.class]++
			}
		}
	}
	t.Logf("%d broken objects; left to the server: %v", tried, missed)
}

// await returns when the server publishes the schema of the test's kind.
func (s *server) await(t *testing.T) {
	t.Helper()
	widget := parse(t, "testdata/widget.yaml")[0]
	for t.Context().Err() == nil {
		s.store.Reset()
		if _, err := s.store.Schema(t.Context(), widget.GroupVersionKind()); err == nil {
			s.discover(t)
			return
		}
	}
}

type mutant struct {
	class, what string
	object      *unstructured.Unstructured
}

// broken returns copies of an object, each with one field that nobody knows,
// of the wrong type, or missing.
func broken(o *unstructured.Unstructured) []mutant {
	var out []mutant
	var walk func(path []any, v any)
	change := func(class string, path []any, do func(parent map[string]any, key string)) {
		c := plan.Normalize(o).DeepCopy()
		var at any = c.Object
		for _, p := range path[:len(path)-1] {
			switch key := p.(type) {
			case string:
				at = at.(map[string]any)[key]
			case int:
				at = at.([]any)[key]
			}
		}
		if m, ok := at.(map[string]any); ok {
			do(m, path[len(path)-1].(string))
			out = append(out, mutant{class, fmt.Sprint(class, " ", path), c})
		}
	}
	walk = func(path []any, v any) {
		switch x := v.(type) {
		case map[string]any:
			change("unknown", append(path[:len(path):len(path)], "zzUnknown"), func(m map[string]any, k string) { m[k] = map[string]any{"a": int64(1)} })
			for k, sub := range x {
				if len(path) == 0 && (k == "apiVersion" || k == "kind" || k == "status") || len(path) == 1 && path[0] == "metadata" && (k == "name" || k == "namespace" || k == "creationTimestamp") {
					continue
				}
				at := append(path[:len(path):len(path)], k)
				switch sub.(type) {
				case string:
					change("type", at, func(m map[string]any, k string) { m[k] = []any{"a"} })
					change("type", at, func(m map[string]any, k string) { m[k] = true })
				case int64, float64:
					change("type", at, func(m map[string]any, k string) { m[k] = map[string]any{"a": "b"} })
				case bool:
					change("type", at, func(m map[string]any, k string) { m[k] = "text" })
				case map[string]any, []any:
					change("type", at, func(m map[string]any, k string) { m[k] = "text" })
				}
				change("without", at, func(m map[string]any, k string) { delete(m, k) })
				walk(at, sub)
			}
		case []any:
			for i, item := range x {
				walk(append(path[:len(path):len(path)], i), item)
			}
		}
	}
	walk(nil, plan.Normalize(o).Object)
	return out
}
