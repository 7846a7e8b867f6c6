//go:build linux

package plan_test

import (
	"context"
	"encoding/json"
	"os"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"

	"github.com/lockstep-gitops/lockstep/internal/gitops/gitopstest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

const manager = "argocd-controller"

type server struct {
	*gitopstest.Cluster
	t      *testing.T
	groups []*restmapper.APIGroupResources
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{Cluster: gitopstest.StartCluster(t), t: t}
	d, err := discovery.NewDiscoveryClientForConfig(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	if s.groups, err = restmapper.GetAPIGroupResources(d); err != nil {
		t.Fatal(err)
	}
	return s
}

// Namespaced makes the server a render.Scoper.
func (s *server) Namespaced(gvk schema.GroupVersionKind) (bool, bool, error) {
	m, err := restmapper.NewDiscoveryRESTMapper(s.groups).RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return false, false, nil
	}
	return m.Scope.Name() == "namespace", true, nil
}

func (s *server) resource(o *unstructured.Unstructured) dynamic.ResourceInterface {
	s.t.Helper()
	gvk := o.GroupVersionKind()
	m, err := restmapper.NewDiscoveryRESTMapper(s.groups).RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		s.t.Fatal(err)
	}
	if m.Scope.Name() == "namespace" {
		return s.Client.Resource(m.Resource).Namespace(o.GetNamespace())
	}
	return s.Client.Resource(m.Resource)
}

func (s *server) apply(o *unstructured.Unstructured) *unstructured.Unstructured {
	s.t.Helper()
	got, err := s.resource(o).Apply(context.Background(), o.GetName(), plan.Normalize(o), metav1.ApplyOptions{FieldManager: manager, Force: true})
	if err != nil {
		s.t.Fatalf("apply %s: %v", plan.KeyOf(o), err)
	}
	return got
}

func (s *server) patch(o *unstructured.Unstructured, as, patch string) *unstructured.Unstructured {
	s.t.Helper()
	got, err := s.resource(o).Patch(context.Background(), o.GetName(), types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: as})
	if err != nil {
		s.t.Fatalf("patch %s: %v", plan.KeyOf(o), err)
	}
	return got
}

func (s *server) objects(file string) []manifest.Object {
	s.t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	objects, _, err := manifest.Parse(file, data)
	if err != nil {
		s.t.Fatal(err)
	}
	out, _, err := render.Target(objects, "app", "default", s)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// TestAgainstServer applies objects that are known for phantom drift.
func TestAgainstServer(t *testing.T) {
	s := newServer(t)
	objects := s.objects("testdata/server/built-in.yaml")
	in := plan.Input{Instance: "app", Manager: manager, Desired: objects, Live: map[plan.Key]*unstructured.Unstructured{}}
	for _, o := range objects {
		in.Live[plan.KeyOf(o.Unstructured)] = s.apply(o.Unstructured)
	}
	t.Run("what was applied is in sync without asking", func(t *testing.T) {
		for _, c := range plan.Make(in).Changes {
			for _, d := range c.Differences {
				t.Errorf("%s: %s: %v -> %v; %s", c.Key, d.Path, d.Live, d.Want, d.Why)
			}
		}
	})
	t.Run("with the answers too", func(t *testing.T) {
		withAnswers := in
		withAnswers.Accepted = map[plan.Key]*unstructured.Unstructured{}
		kept := 0
		for _, o := range objects {
			key := plan.KeyOf(o.Unstructured)
			a := plan.AcceptedOf(o.Unstructured, in.Live[key], manager)
			if (a == nil) != plan.Settled(o.Unstructured, in.Live[key], manager) {
				t.Errorf("%s: AcceptedOf and Settled do not agree", key)
			}
			if a != nil {
				kept++
				text, _ := json.Marshal(a)
				t.Logf("kept of %s: %s", key, text)
				withAnswers.Accepted[key] = a
			}
		}
		for _, c := range plan.Make(withAnswers).Changes {
			for _, d := range c.Differences {
				t.Errorf("%s: %s: %v -> %v; %s", c.Key, d.Path, d.Live, d.Want, d.Why)
			}
		}
		for _, o := range objects {
			withAnswers.Accepted[plan.KeyOf(o.Unstructured)] = in.Live[plan.KeyOf(o.Unstructured)]
		}
		if p := plan.Make(withAnswers); !p.InSync() {
			t.Errorf("with whole answers: %v", p.Changes)
		}
	})
	if path := os.Getenv("WRITE_LIVE"); path != "" {
		data, _ := json.MarshalIndent(in.Live[plan.KeyOf(objects[0].Unstructured)], "", " ")
		_ = os.WriteFile(path, data, 0o644)
	}
}
