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

	"github.com/lockstep-gitops/lockstep/internal/gitops/gitopstest/plane"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

const manager = "argocd-controller"

type server struct {
	*plane.Cluster
	t      *testing.T
	groups []*restmapper.APIGroupResources
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{Cluster: plane.StartCluster(t), t: t}
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

// TestDriftAgainstServer changes what was applied, finds the change, and
// applies the plan.
func TestDriftAgainstServer(t *testing.T) {
	s := newServer(t)
	objects := s.objects("testdata/server/built-in.yaml")
	byName := map[string]manifest.Object{}
	answers := map[string]*unstructured.Unstructured{}
	for _, o := range objects {
		byName[o.GetKind()] = o
		answers[o.GetKind()] = plan.AcceptedOf(o.Unstructured, s.apply(o.Unstructured), manager)
	}
	make1 := func(o manifest.Object, live *unstructured.Unstructured) plan.Change {
		key := plan.KeyOf(o.Unstructured)
		in := plan.Input{Instance: "app", Manager: manager, Desired: []manifest.Object{o}, Live: map[plan.Key]*unstructured.Unstructured{key: live}}
		if a := answers[o.GetKind()]; a != nil {
			in.Accepted = map[plan.Key]*unstructured.Unstructured{key: a}
		}
		return plan.Make(in).Changes[0]
	}
	for _, c := range []struct{ name, kind, patch, path string }{
		{"a value", "Deployment", `{"spec":{"replicas":5}}`, "spec.replicas"},
		{"a field of nobody", "Deployment", `{"spec":{"minReadySeconds":5}}`, ""},
		{"an atomic map", "Service", `{"spec":{"selector":{"more":"x"}}}`, "spec.selector.more"},
		{"an atomic list", "RoleBinding", `{"subjects":[{"kind":"ServiceAccount","name":"a","namespace":"default"},{"kind":"Group","name":"g","apiGroup":"rbac.authorization.k8s.io"},{"kind":"User","name":"evil","apiGroup":"rbac.authorization.k8s.io"}]}`, "subjects[evil]"},
		{"inside an atomic list", "NetworkPolicy", `{"spec":{"ingress":[{"from":[{"podSelector":{}}],"ports":[{"port":80,"protocol":"UDP"}]}]}}`, "spec.ingress"},
		{"a key of data", "Secret", `{"data":{"a":"b3RoZXI="}}`, "data.a"},
		{"a key of others", "ConfigMap", `{"data":{"more":"x"}}`, ""},
		{"a quantity by another name", "ResourceQuota", `{"spec":{"hard":{"requests.cpu":"2"}}}`, ""},
		{"a quantity", "ResourceQuota", `{"spec":{"hard":{"requests.cpu":"3"}}}`, "spec.hard[\"requests.cpu\"]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := byName[c.kind]
			change := make1(o, s.patch(o.Unstructured, "kubectl-edit", c.patch))
			if c.path == "" {
				if !change.InSync() {
					t.Errorf("differs: %+v", change.Differences)
				}
				return
			}
			if len(change.Differences) != 1 || change.Differences[0].Path != c.path || change.Differences[0].Manager != "kubectl-edit" {
				t.Errorf("want %s by kubectl-edit, got: %+v", c.path, change.Differences)
			}
			if after := make1(o, s.apply(change.Desired)); !after.InSync() {
				t.Errorf("after the sync: %+v", after.Differences)
			}
		})
	}
	t.Run("fields that the source no longer has", func(t *testing.T) {
		o := manifest.Object{Unstructured: byName["Deployment"].DeepCopy()}
		unstructured.RemoveNestedField(o.Object, "spec", "template", "spec", "tolerations")
		containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
		container := containers[0].(map[string]any)
		container["env"] = container["env"].([]any)[1:]
		_ = unstructured.SetNestedSlice(o.Object, containers, "spec", "template", "spec", "containers")
		live, err := s.resource(o.Unstructured).Get(t.Context(), o.GetName(), metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		change := make1(o, live)
		if len(change.Differences) != 2 || change.Differences[0].Path != "spec.template.spec.containers[web].env[EMPTY]" || change.Differences[1].Path != "spec.template.spec.tolerations" {
			t.Errorf("%+v", change.Differences)
		}
		if after := make1(o, s.apply(change.Desired)); !after.InSync() {
			t.Errorf("after the sync: %+v", after.Differences)
		}
	})
}

// TestMigrationAgainstServer takes over what Argo CD and kubectl wrote by
// client-side apply.
func TestMigrationAgainstServer(t *testing.T) {
	s := newServer(t)
	for _, o := range s.objects("testdata/server/built-in.yaml") {
		old := plan.Normalize(o.Unstructured).DeepCopy()
		labels := old.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels["old"] = "label"
		old.SetLabels(labels)
		applied, err := json.Marshal(old)
		if err != nil {
			t.Fatal(err)
		}
		annotations := old.GetAnnotations()
		annotations["kubectl.kubernetes.io/last-applied-configuration"] = string(applied)
		old.SetAnnotations(annotations)
		live, err := s.resource(old).Create(t.Context(), old, metav1.CreateOptions{FieldManager: manager})
		if err != nil {
			t.Fatal(err)
		}
		key := plan.KeyOf(o.Unstructured)
		p := plan.Make(plan.Input{Instance: "app", Manager: manager, Desired: []manifest.Object{o}, Live: map[plan.Key]*unstructured.Unstructured{key: live}})
		if ds := p.Changes[0].Differences; len(ds) != 1 || ds[0].Path != "metadata.labels.old" {
			t.Errorf("%s: want one difference, metadata.labels.old, got: %+v", key, ds)
		}
	}
}
