package kustomize

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/gitops/render/rendertest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// small is an overlay and a base, with the objects of a small service.
func small(i int) (*source.Tree, string) {
	f := rendertest.Files{
		"base/kustomization.yaml": "resources: [deployment.yaml, service.yaml]\n",
		"base/deployment.yaml": `apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 1
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: web
        image: example.com/web:1
        ports: [{containerPort: 80}]
        envFrom: [{configMapRef: {name: settings}}]
`,
		"base/service.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n",
		fmt.Sprintf("apps/a%d/kustomization.yaml", i): strings.ReplaceAll(`resources: [../../base]
namePrefix: aN-
namespace: team-N
labels: [{pairs: {team: tN}, includeSelectors: true}]
images: [{name: example.com/web, newTag: "N"}]
configMapGenerator: [{name: settings, literals: [n=N]}]
patches:
- target: {kind: Deployment}
  patch: '- {op: replace, path: /spec/replicas, value: 2}'
`, "N", fmt.Sprint(i)),
	}
	return f.Tree(), fmt.Sprintf("apps/a%d", i)
}

func benchmarkBuild(b *testing.B, parallel bool) {
	builder := &Builder{}
	if err := builder.Warm(); err != nil {
		b.Fatal(err)
	}
	build := func(i int) {
		tree, dir := small(i)
		if _, err := builder.Render(context.Background(), tree, Request{Dir: dir}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	if !parallel {
		for i := 0; b.Loop(); i++ {
			build(i)
		}
		return
	}
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			build(i)
		}
	})
}

func BenchmarkBuild(b *testing.B)         { benchmarkBuild(b, false) }
func BenchmarkBuildParallel(b *testing.B) { benchmarkBuild(b, true) }
