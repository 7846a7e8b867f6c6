package render

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func commit(t *testing.T, files map[string]string) *source.Tree {
	t.Helper()
	work := t.TempDir()
	gitRun := func(args ...string) string {
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Env = work, git.Env()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	gitRun("init", "-q", "-b", "main")
	for name, content := range files {
		p := filepath.Join(work, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	gitRun("add", "-A")
	gitRun("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "c")
	repo, err := git.Open(filepath.Join(work, ".git"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(repo.Close)
	return source.NewTree(repo, gitRun("rev-parse", "HEAD"))
}

// TestGolden renders each testdata/*.txtar: its files are the commit,
// "source.yaml" is spec.source, "want" is the outcome.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	r := New()
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tree := map[string]string{}
			var src v1alpha1.ApplicationSource
			want := -1
			for i, f := range archive.Files {
				switch f.Name {
				case "source.yaml":
					if err := yaml.UnmarshalStrict(f.Data, &src); err != nil {
						t.Fatal(err)
					}
				case "want":
					want = i
				default:
					tree[f.Name] = string(f.Data)
				}
			}
			got := outcome(t, r, commit(t, tree), src)
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

func outcome(t *testing.T, r *Renderer, tree *source.Tree, src v1alpha1.ApplicationSource) string {
	t.Helper()
	res, err := r.Render(context.Background(), tree, Request{App: "app", Namespace: "ns", Source: src})
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
