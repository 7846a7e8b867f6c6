package kustomize

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/rendertest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

const configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"

func TestParseRepo(t *testing.T) {
	for in, want := range map[string]repoSpec{
		"https://github.com/o/r//deploy/base?ref=v1.2":         {"https://github.com/o/r", "deploy/base", "v1.2", true},
		"https://github.com/o/r/deploy?version=main":           {"https://github.com/o/r", "deploy", "main", true},
		"https://github.com/o/r":                               {"https://github.com/o/r", "", "", false},
		"https://github.com/o/r.git?ref=a&version=b":           {"https://github.com/o/r.git", "", "a", true},
		"github.com/o/r/dir":                                   {"https://github.com/o/r", "dir", "", false},
		"git@github.com:o/r.git//x":                            {"git@github.com:o/r.git", "x", "", true},
		"git@gitlab.com:g/sub/r.git/dir?ref=b":                 {"git@gitlab.com:g/sub/r.git", "dir", "b", true},
		"ssh://git@host:22/o/r//d":                             {"ssh://git@host:22/o/r", "d", "", true},
		"git::https://host/o/r//d":                             {"https://host/o/r", "d", "", true},
		"https://dev.azure.com/org/p/_git/repo/path?ref=t":     {"https://dev.azure.com/org/p/_git/repo", "path", "t", true},
		"https://user@dev.azure.com/org/p/_git/repo":           {"https://user@dev.azure.com/org/p/_git/repo", "", "", true},
		"ssh://git@github.com/o/r//x":                          {"git@github.com:o/r", "x", "", true},
		"https://gitlab.com/group/sub/r.git//overlays?ref=abc": {"https://gitlab.com/group/sub/r.git", "overlays", "abc", true},
	} {
		got, ok := parseRepo(in)
		if in == "github.com/o/r/dir" {
			want.explicit = true
		}
		if !ok || got != want {
			t.Errorf("parseRepo(%q) = %+v, %v; want %+v", in, got, ok, want)
		}
	}
	for _, local := range []string{"base", "../base", "a.yaml", "/abs", "a/b.git", "a@b", "./github.com/x", "https://host", "https://host/x", "file:///etc", "https://github.com/o/r//../../x"} {
		if got, ok := parseRepo(local); ok {
			t.Errorf("parseRepo(%q) = %+v", local, got)
		}
	}
}

func TestOptions(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "--enable-helm": "", "--load-restrictor LoadRestrictionsNone --enable-helm": "", "--load-restrictor=none": "", "--reorder legacy": "", "--enable-managedby-label": "", "--enable-helm=false": "",
		"--enable-alpha-plugins": "runs no program", "--enable-exec": "runs no program", "--env A=b": "runs no program", "--load-restrictor": "has no value", "--load-restrictor all": "cannot be all",
		"--output x": "is not known", "-o x": "is not known", "--enable-helm=1": "true or false", "--helm-command sh": "runs no program",
	} {
		_, err := parseOptions(in)
		if got := fmt.Sprint(err); want == "" && err != nil || want != "" && !strings.Contains(got, want) {
			t.Errorf("%q: %v; want %q", in, err, want)
		}
	}
}

// TestNothingRemoteReachesKustomize: it would fetch by itself, outside of what
// is recorded. The addresses answer nothing, so that a fetch would be slow or
// give another error.
func TestNothingRemoteReachesKustomize(t *testing.T) {
	const url = "https://127.0.0.1:1/x.yaml"
	for name, files := range map[string]rendertest.Files{
		"resource":       {"k/kustomization.yaml": "resources: [" + url + "]"},
		"case":           {"k/kustomization.yaml": "RESOURCES: [" + url + "]"},
		"nested case":    {"k/kustomization.yaml": "resources: [a.yaml]\npatches: [{PATH: " + url + "}]"},
		"twice":          {"k/kustomization.yaml": "resources: [a.yaml]\npatches: [{Path: a.yaml, path: " + url + "}]"},
		"anchor":         {"k/kustomization.yaml": "commonAnnotations: {x: &u " + url + "}\nresources: [*u]"},
		"list anchor":    {"k/kustomization.yaml": "buildMetadata: &l [" + url + "]\nresources: *l"},
		"merge":          {"k/kustomization.yaml": "resources: [a.yaml]\ncommonAnnotations: &m {path: '" + url + "'}\npatches: [{<<: *m}]"},
		"escape":         {"k/kustomization.yaml": "buildMetadata: &l [\"\\x68ttps:\\x2f\\x2f127.0.0.1:1/x.yaml\"]\nresources: *l"},
		"generator":      {"k/kustomization.yaml": "configMapGenerator: [{name: a, files: ['k=" + url + "']}]"},
		"env":            {"k/kustomization.yaml": "secretGenerator: [{name: a, envs: ['" + url + "']}]"},
		"crds":           {"k/kustomization.yaml": "crds: [" + url + "]"},
		"openapi":        {"k/kustomization.yaml": "resources: [a.yaml]\nopenapi: {path: " + url + "}"},
		"config":         {"k/kustomization.yaml": "configurations: [" + url + "]"},
		"replacement":    {"k/kustomization.yaml": "resources: [a.yaml]\nreplacements: [{path: " + url + "}]"},
		"strategic":      {"k/kustomization.yaml": "resources: [a.yaml]\npatchesStrategicMerge: [" + url + "]"},
		"component":      {"k/kustomization.yaml": "components: ['https://127.0.0.1:1/o/r']"},
		"plugin":         {"k/kustomization.yaml": "generators: [g.yaml]", "k/g.yaml": "apiVersion: builtin\nkind: ConfigMapGenerator\nmetadata: {name: g}\nfiles: ['x=" + url + "']"},
		"inline":         {"k/kustomization.yaml": "resources: [a.yaml]\ntransformers:\n- |\n  apiVersion: builtin\n  kind: PatchTransformer\n  metadata: {name: p}\n  path: " + url + "\n"},
		"ssh":            {"k/kustomization.yaml": "resources: ['git@127.0.0.1:o/r']"},
		"bare":           {"k/kustomization.yaml": "resources: [GitHub.com/o/r]"},
		"below":          {"k/kustomization.yaml": "resources: [../b]", "b/kustomization.yml": "resources: [" + url + "]"},
		"helm generator": {"k/kustomization.yaml": "generators: [g.yaml]", "k/g.yaml": "apiVersion: builtin\nkind: HelmChartInflationGenerator\nmetadata: {name: g}\nname: x\n"},
	} {
		t.Run(name, func(t *testing.T) {
			files["k/a.yaml"] = configMap
			_, err := (&Builder{}).Render(context.Background(), files.Tree(), Request{Dir: "k"})
			var e *manifest.Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			for _, tried := range []string{"dial", "connect", "lookup", "git fetch", "exit status", "status code", "EOF", "helm version", "executable"} {
				if strings.Contains(e.Message, tried) {
					t.Errorf("Kustomize tried: %v", e)
				}
			}
		})
	}
}

// TestInlinePatchWithURL: what is in a patch is no path.
func TestInlinePatchWithURL(t *testing.T) {
	files := rendertest.Files{"k/a.yaml": configMap, "k/kustomization.yaml": `
resources: [a.yaml]
patchesStrategicMerge:
- |
  apiVersion: v1
  kind: ConfigMap
  metadata: {name: a}
  data: {url: "https://contoso.com/"}
transformers:
- |
  apiVersion: builtin
  kind: PatchTransformer
  metadata: {name: p}
  patch: '[{"op": "add", "path": "/metadata/annotations", "value": {"url": "https://contoso.com"}}]'
  target: {kind: ConfigMap}
`}
	res, err := (&Builder{}).Render(context.Background(), files.Tree(), Request{Dir: "k"})
	if err != nil || len(res.Objects) != 1 || res.Objects[0].GetAnnotations()["url"] == "" {
		t.Fatal(res.Objects, err)
	}
}

// TestParallelBuilds: builds with a schema of their own do not change what
// others give, whatever the order.
func TestParallelBuilds(t *testing.T) {
	plain := rendertest.Files{"k/kustomization.yaml": "resources: [a.yaml]\npatches: [{path: patch.yaml}]"}
	own := rendertest.Files{"k/kustomization.yaml": "resources: [a.yaml]\npatches: [{path: patch.yaml}]\nopenapi: {path: schema.json}", "k/schema.json": `{"definitions": {"com.contoso.v1.Widget": {
"properties": {"spec": {"type": "object", "properties": {"parts": {"type": "array", "items": {"type": "object"}, "x-kubernetes-patch-merge-key": "name", "x-kubernetes-patch-strategy": "merge"}}}},
"x-kubernetes-group-version-kind": [{"group": "contoso.com", "kind": "Widget", "version": "v1"}]}}}`}
	for _, f := range []rendertest.Files{plain, own} {
		f["k/a.yaml"] = "apiVersion: contoso.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {parts: [{name: a}, {name: b}]}\n"
		f["k/patch.yaml"] = "apiVersion: contoso.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {parts: [{name: b, size: 3}]}\n"
	}
	b := &Builder{}
	parts := func(f rendertest.Files) (int, error) {
		res, err := b.Render(context.Background(), f.Tree(), Request{Dir: "k"})
		if err != nil {
			return 0, err
		}
		return len(res.Objects[0].Object["spec"].(map[string]any)["parts"].([]any)), nil
	}
	var all sync.WaitGroup
	for i := range 24 {
		all.Go(func() {
			files, want := plain, 1 // without a schema, the list is replaced
			if i%4 == 0 {
				files, want = own, 2
			}
			if i%4 == 1 {
				tree, dir := small(i)
				if _, err := b.Render(context.Background(), tree, Request{Dir: dir}); err != nil {
					t.Error(err)
				}
			}
			if got, err := parts(files); got != want || err != nil {
				t.Errorf("%d parts, %v; want %d", got, err, want)
			}
		})
	}
	all.Wait()
}

// TestContextEnds: a build whose context is over says so.
func TestContextEnds(t *testing.T) {
	tree, dir := small(1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := (&Builder{}).Render(ctx, tree, Request{Dir: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

type web struct{ calls []string }

func (w *web) Base(_ context.Context, url, ref string) (*source.Tree, error) {
	w.calls = append(w.calls, "base "+url+" "+ref)
	return rendertest.Files{"d/kustomization.yaml": "resources: [a.yaml]", "d/a.yaml": configMap}.Tree(), nil
}

func (w *web) File(_ context.Context, url string) ([]byte, error) {
	w.calls = append(w.calls, "file "+url)
	if strings.HasSuffix(url, "/page") {
		return []byte("<!DOCTYPE html>\n<html lang=en> a: b: c"), nil
	}
	return nil, errors.New("404")
}

// TestFileOrBase: Kustomize tries an address as a file first; an address that
// says it is a repository is not asked for as a file.
func TestFileOrBase(t *testing.T) {
	for in, want := range map[string]string{
		"https://github.com/o/r//d?ref=v1":    "base https://github.com/o/r v1",
		"https://host/o/page":                 "file https://host/o/page, base https://host/o/page ",
		"https://host/o/r/d":                  "file https://host/o/r/d, base https://host/o/r ",
		"https://host/o/r/d/a.yaml":           "file https://host/o/r/d/a.yaml, base https://host/o/r ",
		"https://host/o/r.git//d?version=abc": "base https://host/o/r.git abc",
	} {
		w := &web{}
		files := rendertest.Files{"k/kustomization.yaml": "resources: ['" + in + "']"}
		_, err := (&Builder{}).Render(context.Background(), files.Tree(), Request{Dir: "k", Remote: w})
		if got := strings.Join(w.calls, ", "); got != want {
			t.Errorf("%s: asked for %s; want %s (%v)", in, got, want, err)
		}
	}
}

// FuzzKustomization: whatever a kustomization holds, a build ends with objects
// or an error with a place, and reads nothing outside the repository.
func FuzzKustomization(f *testing.F) {
	f.Add("resources: [a.yaml, ../base]\nnamePrefix: x-\n")
	f.Add("patches: [{path: a.yaml}]\nopenapi: {path: a.yaml}\n")
	f.Add("configMapGenerator: [{name: a, files: [../../../etc/passwd]}]\n")
	f.Add("x: &a [https://127.0.0.1:1/]\nresources: *a\n")
	f.Add("components: [.]\nresources: ['.', '..', 'a.yaml', 'a.yaml']\n")
	f.Add("helmCharts: [{name: x}]\nhelmGlobals: {chartHome: ../..}\n")
	f.Add("replacements: [{source: {kind: ConfigMap}, targets: [{select: {kind: X}, fieldPaths: [a.b.[c=d].e]}]}]\nresources: [a.yaml]\n")
	b := &Builder{}
	f.Fuzz(func(t *testing.T, text string) {
		tree := rendertest.Files{"k/kustomization.yaml": text, "k/a.yaml": configMap, "base/kustomization.yaml": "resources: [b.yaml]", "base/b.yaml": strings.Replace(configMap, "name: a", "name: b", 1)}.Tree()
		for _, options := range []string{"", "--enable-helm --load-restrictor LoadRestrictionsNone"} {
			_, err := b.Render(context.Background(), tree, Request{Dir: "k", BuildOptions: options})
			var e *manifest.Error
			if err != nil && !errors.As(err, &e) {
				t.Fatalf("no place: %v", err)
			}
			if err != nil && (strings.Contains(e.Message, "dial ") || strings.Contains(e.Message, "exit status")) {
				t.Fatalf("Kustomize tried: %v", err)
			}
		}
		for p := range tree.Inputs() {
			if strings.HasPrefix(p, "/") || strings.HasPrefix(p, "..") {
				t.Fatalf("input %q", p)
			}
		}
	})
}
