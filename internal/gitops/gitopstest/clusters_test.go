//go:build linux

package gitopstest

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
	"github.com/lockstep-gitops/lockstep/internal/gitops/gitopstest/plane"
)

var secrets = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}

// clusterSecret registers a cluster as Argo CD does.
func clusterSecret(w *World, name, server string) {
	config, err := json.Marshal(map[string]any{"bearerToken": plane.Token, "tlsClientConfig": map[string]any{"insecure": true}})
	if err != nil {
		w.T.Fatal(err)
	}
	w.Create(secrets, fmt.Sprintf(`apiVersion: v1
kind: Secret
metadata: {name: %s, namespace: argocd, labels: {argocd.argoproj.io/secret-type: cluster}}
stringData: {name: %s, server: %q, config: '%s'}
`, name, name, server, config))
}

func appFor(w *World, name, cluster string, r *Repo, path string) {
	w.Create(v1alpha1.ApplicationResource, fmt.Sprintf(`apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: %s, namespace: argocd, finalizers: [resources-finalizer.argocd.argoproj.io]}
spec:
  project: default
  source: {repoURL: %s, targetRevision: main, path: %s}
  destination: {name: %s, namespace: %s}
  syncPolicy: {automated: {prune: true, selfHeal: true}, syncOptions: [CreateNamespace=true]}
`, name, r.URL(), path, cluster, name))
}

// A second cluster is served, and clusters that do not answer delay only their
// own applications: one refuses connections, one takes them and says nothing.
func TestClusters(t *testing.T) {
	w := NewWorld(t)
	other := plane.StartCluster(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	clusterSecret(w, "second", other.Config.Host)
	clusterSecret(w, "refuses", "https://127.0.0.1:1")
	clusterSecret(w, "silent", "https://"+silent.Addr().String())

	r := w.NewRepo("contoso/clusters")
	first := r.Push(map[string]string{"k8s/a.yaml": configMap("a", "1")})
	for i := range 20 { // more than there are workers
		appFor(w, fmt.Sprintf("dead-%d", i), map[bool]string{true: "silent", false: "refuses"}[i%2 == 0], r, "k8s")
	}
	start := time.Now()
	appFor(w, "far", "second", r, "k8s")
	w.Application("near", r, "k8s", "")
	w.Wait("near", "the own cluster", Synced(first))
	w.Wait("far", "the second cluster", Synced(first))
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the others took %s", took)
	}
	if w.Get(configMaps, "far", "a") != nil {
		t.Error("the object of the second cluster is in the first")
	}
	there := &World{Cluster: other, T: t}
	if there.Get(configMaps, "far", "a") == nil {
		t.Error("the second cluster does not have its object")
	}
	w.Wait("dead-1", "the condition", func(v application.View) bool {
		for _, c := range v.Application.Status.Conditions {
			if c.Type == v1alpha1.ConditionComparisonError && strings.Contains(c.Message, "cluster refuses does not answer") {
				return true
			}
		}
		return false
	})
}
