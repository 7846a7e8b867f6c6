//go:build linux

package gitopstest

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
)

// What administrators set in Argo CD's ConfigMap counts at once: an excluded
// kind is left out and told, a rule in Lua decides a health.
func TestSettings(t *testing.T) {
	w := NewWorld(t)
	w.Create(configMaps, `apiVersion: v1
kind: ConfigMap
metadata: {name: argocd-cm, namespace: argocd, labels: {app.kubernetes.io/part-of: argocd}}
data:
  resource.exclusions: |
    - apiGroups: [""]
      kinds: [ServiceAccount]
      clusters: ["*"]
  resource.customizations.health.ConfigMap: |
    return {status = "Degraded", message = "says " .. obj.data.v}
`)
	r := w.NewRepo("contoso/settings")
	r.Push(map[string]string{
		"k8s/a.yaml": configMap("a", "1"),
		"k8s/b.yaml": "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: left-out}\n",
	})
	w.Application("set", r, "k8s", "")
	v := w.Wait("set", "the rule", func(v application.View) bool {
		return v.Application.Status.Health.Status == v1alpha1.HealthDegraded && v.Application.Status.Sync.Status == v1alpha1.SyncSynced
	})
	if got := v.Application.Status.Health.Message; !strings.Contains(got, "says 1") {
		t.Errorf("health: %s", got)
	}
	told := false
	for _, c := range v.Application.Status.Conditions {
		told = told || c.Type == v1alpha1.ConditionExcludedResource && strings.Contains(c.Message, "left-out")
	}
	if !told {
		t.Errorf("conditions: %v", v.Application.Status.Conditions)
	}
	if w.Get(serviceAccounts, "set", "left-out") != nil {
		t.Error("the excluded object was applied")
	}
}

var serviceAccounts = schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}
