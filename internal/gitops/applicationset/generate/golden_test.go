package generate

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

var update = flag.Bool("update", false, "write the golden files")

// memory is a commit in memory: path → content; "-> target" is a link.
type memory map[string]string

func (m memory) ReadDir(_ context.Context, dir string) ([]git.Entry, error) {
	found := map[string]git.Entry{}
	for p, content := range m {
		rest, ok := strings.CutPrefix("/"+p, strings.TrimSuffix("/"+dir, "/")+"/")
		if !ok {
			continue
		}
		name, _, below := strings.Cut(rest, "/")
		e := git.Entry{Name: name, Kind: git.KindBlob, ID: p + "=" + content, Mode: "100644"}
		switch {
		case below:
			e = git.Entry{Name: name, Kind: git.KindTree, ID: path.Join(dir, name), Mode: "040000"}
		case strings.HasPrefix(content, "-> "):
			e.Mode = "120000"
		}
		found[name] = e
	}
	if len(found) == 0 && dir != "" {
		return nil, git.ErrNotFound
	}
	return slices.Collect(maps.Values(found)), nil
}

func (m memory) Object(_ context.Context, id string) ([]byte, error) {
	_, content, _ := strings.Cut(id, "=")
	return []byte(strings.TrimPrefix(content, "-> ")), nil
}

// repositories has one repository of every address.
type repositories struct {
	files memory
	err   error
	asked []string
}

func (r *repositories) Tree(_ context.Context, project, repoURL, revision string) (*source.Tree, error) {
	r.asked = append(r.asked, project+" "+repoURL+" "+revision)
	if r.err != nil {
		return nil, r.err
	}
	return source.NewTreeOf(r.files, "commit"), nil
}

func (r *repositories) Name(repoURL string) string { return repoURL }

type clusters []Cluster

func (c clusters) List(context.Context) ([]Cluster, error) { return c, nil }

// objectsOf are objects by "Kind namespace/name".
type fakeObjects map[string]map[string]string

func (f fakeObjects) Secret(_ context.Context, namespace, name string) (map[string]string, error) {
	return f.get("Secret", namespace, name)
}

func (f fakeObjects) ConfigMap(_ context.Context, namespace, name string) (map[string]string, error) {
	return f.get("ConfigMap", namespace, name)
}

func (f fakeObjects) get(kind, namespace, name string) (map[string]string, error) {
	m, ok := f[kind+" "+namespace+"/"+name]
	if !ok {
		return nil, fmt.Errorf("there is no %s %s/%s", kind, namespace, name)
	}
	return m, nil
}

func (f fakeObjects) List(_ context.Context, resource schema.GroupVersionResource, _, name, selector string) ([]*unstructured.Unstructured, error) {
	data, ok := f[resource.Resource+" "+name+selector]
	if !ok {
		return nil, nil
	}
	o := &unstructured.Unstructured{}
	return []*unstructured.Unstructured{o}, yaml.Unmarshal([]byte(data["yaml"]), &o.Object)
}

func parse(t testing.TB, text string) *v1alpha1.ApplicationSet {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	var set v1alpha1.ApplicationSet
	if err := v1alpha1.Decode(o, &set); err != nil {
		t.Fatal(err)
	}
	if set.Name == "" {
		set.Name = "set"
	}
	set.Namespace, set.UID = "argocd", "uid-of-set"
	return &set
}

// shown is the generated Applications without what is the same in all.
func shown(t testing.TB, apps []*unstructured.Unstructured) string {
	t.Helper()
	var b strings.Builder
	for _, a := range apps {
		o := a.DeepCopy()
		unstructured.RemoveNestedField(o.Object, "metadata", "ownerReferences")
		unstructured.RemoveNestedField(o.Object, "metadata", "namespace")
		delete(o.Object, "apiVersion")
		delete(o.Object, "kind")
		if slices.Equal(o.GetFinalizers(), []string{v1alpha1.FinalizerResources}) {
			o.SetFinalizers(nil)
		}
		data, err := yaml.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString("---\n")
		b.Write(data)
	}
	return b.String()
}

// TestGolden runs each testdata/*.txtar: set.yaml, repo/*, clusters.yaml and
// objects.yaml in; want.yaml or error out.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			repo, deps := memory{}, Deps{}
			cfg := Config{Namespace: "argocd"}
			var set *v1alpha1.ApplicationSet
			var known clusters
			objects := fakeObjects{}
			want, wantErr := "", ""
			for _, f := range archive.Files {
				text := string(f.Data)
				switch f.Name {
				case "set.yaml":
					set = parse(t, text)
				case "clusters.yaml":
					err = yaml.Unmarshal(f.Data, &known)
				case "objects.yaml":
					err = yaml.Unmarshal(f.Data, &objects)
				case "strict":
					cfg.StrictFileGlobs = true
				case "want.yaml":
					want = text
				case "error":
					wantErr = text
				default:
					repo[strings.TrimPrefix(f.Name, "repo/")] = strings.TrimSuffix(text, "\n")
				}
				if err != nil {
					t.Fatal(f.Name, err)
				}
			}
			deps.Repositories, deps.Clusters, deps.Objects = &repositories{files: repo}, known, objects
			result, err := Run(t.Context(), cfg, deps, set)
			got, gotErr := shown(t, result.Applications), ""
			if err != nil {
				gotErr = err.Error() + "\n"
				var e *Error
				if !errors.As(err, &e) || len(result.Applications) > 0 {
					t.Errorf("%T with %d Applications", err, len(result.Applications))
				}
			}
			if *update {
				archive.Files = slices.DeleteFunc(archive.Files, func(f txtar.File) bool { return f.Name == "want.yaml" || f.Name == "error" })
				if err == nil {
					archive.Files = append(archive.Files, txtar.File{Name: "want.yaml", Data: []byte(got)})
				} else {
					archive.Files = append(archive.Files, txtar.File{Name: "error", Data: []byte(gotErr)})
				}
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want || gotErr != wantErr {
				t.Errorf("got\n%s%s\nwant\n%s%s", got, gotErr, want, wantErr)
			}
		})
	}
}
