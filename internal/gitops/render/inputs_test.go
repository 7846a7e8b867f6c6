package render

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/rendertest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// result is everything that a rendering says, for comparison.
func result(t testing.TB, r *Renderer, files rendertest.Files, req Request) (string, source.Inputs) {
	t.Helper()
	res, err := r.Render(context.Background(), files.TreeAt("0123456789"), req)
	if err != nil {
		var e *manifest.Error
		if !errors.As(err, &e) {
			t.Fatalf("not a manifest error: %v", err)
		}
		return "error: " + e.Error(), res.Inputs
	}
	var b strings.Builder
	fmt.Fprintln(&b, res.Tool, res.Warnings)
	for _, o := range res.Objects {
		raw, err := yaml.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "--- # %s\n%s", o.Place(), raw)
	}
	return b.String(), res.Inputs
}

// TestInputsAreComplete changes every file of every golden test in every way:
// whatever changes the outcome must be among the recorded inputs, also when
// the outcome was an error.
func TestInputsAreComplete(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatal("no golden files", err)
	}
	r := New()
	for _, file := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			_, files, req := golden(t, file)
			before, inputs := result(t, r, files, req)
			if again, _ := result(t, r, files, req); again != before {
				t.Fatalf("not deterministic:\n%s\n%s", before, again)
			}
			for what, change := range changes(files) {
				changed := maps.Clone(files)
				change.apply(changed)
				after, _ := result(t, r, changed, req)
				if _, seen := inputs.Affected(change.paths); after != before && !seen {
					t.Errorf("%s changes the outcome, but is not among the inputs\nbefore: %s\nafter: %s\ninputs: %v", what, before, after, inputs)
				}
			}
		})
	}
}

type change struct {
	paths []string
	apply func(rendertest.Files)
}

// changes are those that a commit can make to files.
func changes(files rendertest.Files) map[string]change {
	out := map[string]change{}
	set := func(name, content string) func(rendertest.Files) {
		return func(f rendertest.Files) { f[name] = content }
	}
	dirs := map[string]bool{"": true}
	for name, content := range files {
		out["removing "+name] = change{[]string{name}, func(f rendertest.Files) { delete(f, name) }}
		out["breaking "+name] = change{[]string{name}, set(name, "a: [")}
		out["emptying "+name] = change{[]string{name}, set(name, "\n")}
		out["linking "+name] = change{[]string{name}, set(name, "-> nowhere")}
		out["editing "+name] = change{[]string{name}, set(name, strings.NewReplacer("name: ", "name: x", "kind: ", "kind: X").Replace(content))}
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			dirs[dir] = true
		}
	}
	for dir := range dirs {
		for name, content := range map[string]string{
			"new.yaml":            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: new}\n",
			"kustomization.yaml":  "resources: []\n",
			"kustomization.yml":   "namePrefix: x-\n",
			"Chart.yaml":          "apiVersion: v2\nname: x\nversion: 1.0.0\n",
			".argocd-source.yaml": "kustomize: {namePrefix: y-}\n",
			"lib.libsonnet":       "function(o) {}",
			"kube.libsonnet":      "{}",
			"missing.yaml":        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: found}\n",
			"missing/x":           "a directory where a file is missing",
		} {
			p := path.Join(dir, name)
			if _, exists := files[p]; !exists {
				out["adding "+p] = change{[]string{p}, set(p, content)}
			}
		}
	}
	return out
}

// TestInputsOfGeneratedTrees does the same with trees that rapid makes up:
// overlays on bases, and changes of any file.
func TestInputsOfGeneratedTrees(t *testing.T) {
	r := New()
	rapid.Check(t, func(rt *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching("[a-c]{1,2}"), 1, 4, rapid.ID[string]).Draw(rt, "folders")
		files := rendertest.Files{}
		for i, n := range names {
			list := []string{"cm.yaml"}
			if i > 0 && rapid.Bool().Draw(rt, "on a base") {
				list = append(list, "../"+names[rapid.IntRange(0, i-1).Draw(rt, "base")])
			}
			files[n+"/cm.yaml"] = fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cm-%d}\n", i)
			files[n+"/unused.yaml"] = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: unused}\n"
			if rapid.Bool().Draw(rt, "kustomize") {
				files[n+"/kustomization.yaml"] = "namePrefix: " + n + "-\nresources: [" + strings.Join(list, ", ") + "]\n"
			}
		}
		req := Request{App: "app", Source: v1alpha1.ApplicationSource{Path: names[len(names)-1]}}
		before, inputs := result(t, r, files, req)
		name := rapid.SampledFrom(slices.Sorted(maps.Keys(files))).Draw(rt, "file")
		changed := maps.Clone(files)
		if rapid.Bool().Draw(rt, "remove") {
			delete(changed, name)
		} else {
			changed[name] = strings.ReplaceAll(files[name], "name: ", "name: changed-")
		}
		after, _ := result(t, r, changed, req)
		if _, seen := inputs.Affected([]string{name}); after != before && !seen {
			rt.Fatalf("a change of %s changes the outcome, but is not among the inputs", name)
		}
		if again, _ := result(t, r, files, req); again != before {
			rt.Fatalf("not deterministic")
		}
	})
}

func TestDependsOnRevision(t *testing.T) {
	for want, sources := range map[bool][]string{
		true: {
			"kustomize: {images: ['web:$ARGOCD_APP_REVISION']}", "kustomize: {commonLabels: {a: '${ARGOCD_APP_REVISION_SHORT}'}}",
			"kustomize: {commonAnnotations: {a: $ARGOCD_APP_REVISION_SHORT_8}, commonAnnotationsEnvsubst: true}",
			"directory: {jsonnet: {tlas: [{name: a, value: $ARGOCD_APP_REVISION}]}}", "helm: {parameters: [{name: a, value: $ARGOCD_APP_REVISION}]}",
		},
		false: {"path: x", "kustomize: {images: ['web:$ARGOCD_APP_NAME']}", "kustomize: {commonAnnotations: {a: $ARGOCD_APP_REVISION}}"},
	} {
		for _, text := range sources {
			var src v1alpha1.ApplicationSource
			if err := yaml.UnmarshalStrict([]byte(text), &src); err != nil {
				t.Fatal(err)
			}
			if DependsOnRevision(src) != want {
				t.Errorf("%s: want %v", text, want)
			}
		}
	}
}
