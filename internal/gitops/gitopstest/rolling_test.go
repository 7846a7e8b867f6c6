//go:build linux

package gitopstest

import (
	"fmt"
	"testing"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// rolling brings a commit to dev first, and to the two prods one after the
// other, each when the one before is healthy.
func rolling(t *testing.T, w *World) {
	r := w.NewRepo("contoso/rolling")
	r.Push(map[string]string{"k8s/d.yaml": deployment("d", "web:1")})
	w.Create(v1alpha1.ApplicationSetResource, fmt.Sprintf(`apiVersion: argoproj.io/v1alpha1
kind: ApplicationSet
metadata: {name: rolling, namespace: argocd}
spec:
  generators:
  - list: {elements: [{name: rolling-dev, env: dev}, {name: rolling-east, env: prod}, {name: rolling-west, env: prod}]}
  strategy:
    type: RollingSync
    rollingSync:
      steps:
      - matchExpressions: [{key: env, operator: In, values: [dev]}]
      - matchExpressions: [{key: env, operator: In, values: [prod]}]
        maxUpdate: 1
  template:
    metadata: {name: '{{name}}', labels: {env: '{{env}}'}}
    spec:
      project: default
      source: {repoURL: %s, targetRevision: main, path: k8s}
      destination: {server: https://kubernetes.default.svc, namespace: '{{name}}'}
      syncPolicy: {automated: {prune: true}, syncOptions: [CreateNamespace=true]}
`, r.URL()))
	rolled := func(image string) {
		t.Helper()
		apps := []string{"rolling-dev", "rolling-east", "rolling-west"}
		serves := func(app string) bool {
			d := w.Get(deployments, app, "d")
			return d != nil && imageOf(d.Object) == image
		}
		order := map[string]int{}
		for n := range apps {
			w.Eventually(fmt.Sprintf("%s in %d places", image, n+1), func() bool {
				count := 0
				for _, app := range apps {
					if serves(app) {
						count++
					}
				}
				if count > n+1 {
					t.Fatalf("%s is in %d places before place %d was healthy", image, count, n+1)
				}
				return count == n+1
			})
			for _, app := range apps {
				if _, done := order[app]; !done && serves(app) {
					order[app] = n
					rollout(t, w, app, "d")
				}
			}
		}
		if order["rolling-dev"] != 0 {
			t.Errorf("order %v: dev was not first", order)
		}
	}
	rolled("web:1")
	r.Push(map[string]string{"k8s/d.yaml": deployment("d", "web:2")})
	rolled("web:2")
	// A place that does not get healthy holds the rest back; a fix goes on.
	r.Push(map[string]string{"k8s/d.yaml": deployment("d", "web:bad")})
	w.Eventually("the bad image in dev", func() bool { return imageOf(w.Get(deployments, "rolling-dev", "d").Object) == "web:bad" })
	r.Push(map[string]string{"k8s/d.yaml": deployment("d", "web:3")})
	rolled("web:3")
}

func imageOf(deployment map[string]any) string {
	spec, _ := deployment["spec"].(map[string]any)
	template, _ := spec["template"].(map[string]any)
	pod, _ := template["spec"].(map[string]any)
	containers, _ := pod["containers"].([]any)
	if len(containers) == 0 {
		return ""
	}
	first, _ := containers[0].(map[string]any)
	image, _ := first["image"].(string)
	return image
}
