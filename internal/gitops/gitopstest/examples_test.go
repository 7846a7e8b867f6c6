//go:build linux

package gitopstest

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
)

const examples = "../../../examples/gitops"

var (
	services     = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	statefulSets = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "statefulsets"}
)

// TestExamples syncs every application of examples/gitops, and deletes them.
func TestExamples(t *testing.T) {
	w := NewWorld(t)
	r := w.NewRepo("contoso/gitops-examples")
	commit := r.Push(filesOf(t, examples))
	t.Cleanup(playNode(w))
	apps, err := fs.Glob(os.DirFS(examples), "applications/*.yaml")
	if err != nil || len(apps) < 10 {
		t.Fatalf("applications: %v %v", apps, err)
	}
	var names []string
	for _, file := range apps {
		if name := strings.TrimSuffix(path.Base(file), ".yaml"); name != "app-of-apps" {
			names = append(names, name)
		}
	}
	t.Run("each", func(t *testing.T) { syncAndDelete(t, w, commit, names, names) })
	t.Run("app of apps", func(t *testing.T) {
		syncAndDelete(t, w, commit, []string{"app-of-apps"}, []string{"app-of-apps", "guestbook", "helm-guestbook", "kustomize-guestbook", "sync-waves"})
	})
}

// syncAndDelete creates some applications and waits for all that come of them.
func syncAndDelete(t *testing.T, w *World, commit string, create, all []string) {
	outer := w.T
	w.T = t
	defer func() { w.T = outer }()
	for _, name := range create {
		data, err := os.ReadFile(path.Join(examples, "applications", name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		w.Create(v1alpha1.ApplicationResource, string(data))
	}
	for _, name := range all {
		w.Eventually(name+" to be made", func() bool { return w.Get(v1alpha1.ApplicationResource, "argocd", name) != nil })
		v := w.Wait(name, name+" to be synced and healthy", func(v application.View) bool {
			return clean(commit)(v) && v.Application.Status.Health.Status == v1alpha1.HealthHealthy
		})
		if len(v.Application.Status.Resources) == 0 || v.Application.Status.OperationState == nil {
			t.Errorf("%s: %+v", name, v.Application.Status)
		}
	}
	for _, name := range create {
		if err := w.in(v1alpha1.ApplicationResource, "argocd").Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range all {
		w.Eventually(name+" to go", func() bool { return w.Get(v1alpha1.ApplicationResource, "argocd", name) == nil })
		for _, resource := range []schema.GroupVersionResource{configMaps, services, deployments, statefulSets, jobs} {
			list, err := w.in(resource, name).List(context.Background(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range list.Items {
				t.Errorf("%s %s/%s is left", o.GetKind(), o.GetNamespace(), o.GetName())
			}
		}
	}
}

// filesOf reads a folder.
func filesOf(t *testing.T, dir string) map[string]string {
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path.Join(dir, name))
		files[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// playNode makes every workload look as if a node ran it. The function that it
// returns ends that.
func playNode(w *World) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			for _, resource := range []schema.GroupVersionResource{deployments, statefulSets, jobs, services} {
				list, err := w.Client.Resource(resource).List(ctx, metav1.ListOptions{})
				if err != nil {
					continue // the next tick tries again
				}
				for i := range list.Items {
					runWorkload(ctx, w, resource, &list.Items[i])
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

func runWorkload(ctx context.Context, w *World, resource schema.GroupVersionResource, o *unstructured.Unstructured) {
	observed, _, _ := unstructured.NestedInt64(o.Object, "status", "observedGeneration")
	succeeded, _, _ := unstructured.NestedInt64(o.Object, "status", "succeeded")
	replicas, _, _ := unstructured.NestedInt64(o.Object, "spec", "replicas")
	body := fmt.Sprintf(`{"status":{"observedGeneration":%d,"replicas":%d,"updatedReplicas":%[2]d,"readyReplicas":%[2]d,"availableReplicas":%[2]d,"conditions":[{"type":"Available","status":"True"}]}}`, o.GetGeneration(), replicas)
	kind, _, _ := unstructured.NestedString(o.Object, "spec", "type")
	addresses, _, _ := unstructured.NestedSlice(o.Object, "status", "loadBalancer", "ingress")
	switch {
	case resource == services && kind == "LoadBalancer" && len(addresses) == 0:
		body = `{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.10"}]}}}`
	case resource == services:
		return
	case resource == jobs && succeeded == 0:
		body = `{"status":{"startTime":"2026-01-01T00:00:00Z","completionTime":"2026-01-01T00:00:01Z","succeeded":1,"conditions":[{"type":"SuccessCriteriaMet","status":"True"},{"type":"Complete","status":"True"}]}}`
	case resource == jobs || observed == o.GetGeneration():
		return
	}
	_, _ = w.in(resource, o.GetNamespace()).Patch(ctx, o.GetName(), types.MergePatchType, []byte(body), metav1.PatchOptions{FieldManager: "node"}, "status") // the next tick tries again
}
