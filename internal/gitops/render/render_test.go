package render

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/rendertest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func commit(t *testing.T, files map[string]string) *source.Tree {
	t.Helper()
	return rendertest.Files(files).Tree()
}

// TestGolden renders each testdata/*.txtar: its files are the commit,
// "source.yaml" is spec.source, "request.yaml" the rest of the request, and
// "want" is the outcome. "repo URL@REF PATH" is a file of another repository,
// "url URL" one on the web.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	r := New()
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, tree, req := golden(t, file)
			want := slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == "want" })
			got := outcomeOf(t, r, tree.Tree(), req)
			if *update {
				archive.Files[want].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(archive.Files[want].Data) {
				t.Errorf("got:\n%s\nwant:\n%s", got, archive.Files[want].Data)
			}
		})
	}
}

// golden reads one file of testdata.
func golden(t *testing.T, file string) (*txtar.Archive, rendertest.Files, Request) {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	tree := rendertest.Files{}
	elsewhere := remote{}
	req := Request{App: "app", Namespace: "ns", Project: "default"}
	for _, f := range archive.Files {
		kind, name, _ := strings.Cut(f.Name, " ")
		switch {
		case f.Name == "source.yaml":
			err = yaml.UnmarshalStrict(f.Data, &req.Source)
		case f.Name == "request.yaml":
			err = yaml.UnmarshalStrict(f.Data, &req)
		case f.Name == "want":
		case kind == "repo" || kind == "url":
			elsewhere[name] = string(f.Data)
		default:
			tree[f.Name] = string(f.Data)
			if strings.HasPrefix(tree[f.Name], "-> ") {
				tree[f.Name] = strings.TrimSpace(tree[f.Name])
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(elsewhere) > 0 {
		req.Remote = elsewhere
	}
	return archive, tree, req
}

// remote is what can be fetched, by "URL" or "URL@REF PATH".
type remote map[string]string

func (r remote) File(_ context.Context, url string) ([]byte, error) {
	data, ok := r[url]
	if !ok {
		return nil, errors.New("404 Not Found")
	}
	return []byte(data), nil
}

func (r remote) Base(_ context.Context, url, ref string) (*source.Tree, error) {
	tree := rendertest.Files{}
	for name, data := range r {
		if p, ok := strings.CutPrefix(name, url+"@"+ref+" "); ok {
			tree[p] = data
		}
	}
	if len(tree) == 0 {
		return nil, errors.New("repository not found")
	}
	return tree.Tree(), nil
}

func (r remote) Chart(context.Context, string, string, string) ([]byte, string, error) {
	return nil, "", errors.New("no charts here")
}

func outcome(t *testing.T, r *Renderer, tree *source.Tree, src v1alpha1.ApplicationSource) string {
	t.Helper()
	return outcomeOf(t, r, tree, Request{App: "app", Namespace: "ns", Source: src})
}

func outcomeOf(t *testing.T, r *Renderer, tree *source.Tree, req Request) string {
	t.Helper()
	res, err := r.Render(context.Background(), tree, req)
	if err != nil {
		var e *manifest.Error
		if !errors.As(err, &e) {
			t.Fatalf("not a manifest error: %v", err)
		}
		return fmt.Sprintf("error: %v\nhint: %s\n", e, e.Hint)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n", res.Tool)
	for _, w := range res.Warnings {
		fmt.Fprintf(&b, "# warning: %s\n", w)
	}
	for _, f := range res.Fetched {
		fmt.Fprintf(&b, "# fetched: %s %s %s\n", f.URL, f.Revision, f.Resolved)
	}
	objects, _, err := Target(res.Objects, "app", "ns", builtin{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		data, err := yaml.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "--- # %s\n%s", o.Place(), data)
	}
	return b.String()
}

// builtin knows the scope of a few kinds.
type builtin struct{}

func (builtin) Namespaced(gvk schema.GroupVersionKind) (bool, bool, error) {
	switch gvk.Kind {
	case "Namespace", "ClusterRole":
		return false, true, nil
	case "ConfigMap", "Deployment", "Service", "Secret":
		return true, true, nil
	}
	return false, false, nil
}

func TestInputsAreWhatWasRead(t *testing.T) {
	tree := commit(t, map[string]string{
		"overlay/kustomization.yaml": "resources: [../base]\n", "base/kustomization.yaml": "resources: [a.yaml]\n",
		"base/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n", "base/unused.yaml": "x", "other/b.yaml": "x",
	})
	res, err := New().Render(context.Background(), tree, Request{App: "app", Source: v1alpha1.ApplicationSource{Path: "overlay"}})
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]bool{
		"overlay/kustomization.yaml": true, "base/kustomization.yaml": true, "base/a.yaml": true,
		"base/unused.yaml": false, "other/b.yaml": false, "overlay/kustomization.yml": true, "overlay/Chart.yaml": false, "base/new.yaml": false,
	} {
		if _, got := res.Inputs.Affected([]string{p}); got != want {
			t.Errorf("a change of %s affects the application: %v; want %v", p, got, want)
		}
	}
}

// TestFailedRenderRecordsInputs: the fix of a file that failed must wake the
// application.
func TestFailedRenderRecordsInputs(t *testing.T) {
	tree := commit(t, map[string]string{"k/kustomization.yaml": "resources: [missing.yaml]\n"})
	res, err := New().Render(context.Background(), tree, Request{App: "app", Source: v1alpha1.ApplicationSource{Path: "k"}})
	if err == nil {
		t.Fatal("rendered without its resource")
	}
	if _, ok := res.Inputs.Affected([]string{"k/missing.yaml"}); !ok {
		t.Errorf("adding the file would not be noticed: %v", res.Inputs)
	}
}

func TestRenderIsDeterministic(t *testing.T) {
	r := New()
	generator := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{2,6}`), 1, 6, rapid.ID[string])
	for seed := range 6 {
		names := generator.Example(seed)
		files := map[string]string{}
		var list strings.Builder
		for _, n := range names {
			files["k/"+n+".yaml"] = fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %q}\ndata: {a: %q}\n", n, n)
			fmt.Fprintf(&list, "- %s.yaml\n", n)
		}
		src := v1alpha1.ApplicationSource{Path: "k"}
		if seed%2 == 0 {
			files["k/kustomization.yaml"] = "namePrefix: p-\nresources:\n" + list.String()
		}
		tree := commit(t, files)
		first := outcome(t, r, tree, src)
		if second := outcome(t, r, commit(t, files), src); first != second {
			t.Fatalf("first:\n%s\nsecond:\n%s", first, second)
		}
	}
}

func TestTrackedNeedsTheRightName(t *testing.T) {
	objects, _, err := manifest.Parse("x.yaml", []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"))
	if err != nil {
		t.Fatal(err)
	}
	target, _, err := Target(objects, "app", "ns", builtin{})
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := Tracked(target[0].Unstructured); !ok || got != "app" {
		t.Errorf("Tracked = %q, %v", got, ok)
	}
	copied := target[0].DeepCopy()
	copied.SetName("b")
	if _, ok := Tracked(copied); ok {
		t.Error("a copied annotation was believed")
	}
}
