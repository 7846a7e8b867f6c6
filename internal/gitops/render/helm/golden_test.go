package helm

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"

	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/environment"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// memory is a commit in memory. A file whose content starts with "link " is a
// symbolic link.
type memory map[string]string

func (m memory) ReadDir(_ context.Context, dir string) ([]git.Entry, error) {
	entries := map[string]git.Entry{}
	for name, content := range m {
		rest := name
		if dir != "" {
			var ok bool
			if rest, ok = strings.CutPrefix(name, dir+"/"); !ok {
				continue
			}
		}
		first, _, below := strings.Cut(rest, "/")
		sum := sha1.Sum([]byte(content))
		e := git.Entry{Name: first, Path: path.Join(dir, first), Mode: "100644", Kind: git.KindBlob, ID: hex.EncodeToString(sum[:])}
		if below {
			e.Mode, e.Kind, e.ID = "040000", git.KindTree, ""
		} else if strings.HasPrefix(content, "link ") {
			e.Mode = "120000"
		}
		entries[first] = e
	}
	if len(entries) == 0 && dir != "" {
		return nil, git.ErrNotFound
	}
	var out []git.Entry
	for _, e := range entries {
		out = append(out, e)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

func (m memory) Object(_ context.Context, id string) ([]byte, error) {
	for _, content := range m {
		sum := sha1.Sum([]byte(content))
		if hex.EncodeToString(sum[:]) == id {
			return []byte(strings.TrimPrefix(content, "link ")), nil
		}
	}
	return nil, git.ErrNotFound
}

func (m memory) tree() *source.Tree { return source.NewTreeOf(m, strings.Repeat("c0ffee", 7)[:40]) }

// shelf is a Remote with charts "repo name version" and files by URL.
type shelf struct {
	mu     sync.Mutex
	charts map[string][]byte
	files  map[string]string
	asked  []string
}

func (s *shelf) Chart(_ context.Context, repo, name, constraint string) ([]byte, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, repo+" "+name+" "+constraint)
	for key, data := range s.charts {
		f := strings.Fields(key)
		if f[0] == repo && f[1] == name {
			return data, f[2], nil
		}
	}
	return nil, "", fmt.Errorf("%s has no chart %s", repo, name)
}

func (s *shelf) File(_ context.Context, url string) ([]byte, error) {
	if data, ok := s.files[url]; ok {
		return []byte(data), nil
	}
	return nil, fmt.Errorf("%s: 404 Not Found", url)
}

// golden is what request.yaml of a golden file says.
type golden struct {
	App, Namespace, Dir, KubeVersion string
	APIVersions                      []string
	Archive                          bool
	Helm                             *v1alpha1.SourceHelm
}

func (g golden) request() Request {
	req := Request{App: g.App, Namespace: g.Namespace, Dir: g.Dir, Archive: g.Archive, Helm: g.Helm, KubeVersion: g.KubeVersion, APIVersions: g.APIVersions}
	if req.App == "" {
		req.App = "app"
	}
	if req.Namespace == "" {
		req.Namespace = "ns"
	}
	if req.KubeVersion == "" {
		req.KubeVersion = "1.37.2"
	}
	req.Environment = environment.Of(environment.Facts{App: req.App, Namespace: req.Namespace, Revision: "0123456789abcdef", Path: g.Dir})
	return req
}

// TestGolden renders each testdata/*.txtar. "request.yaml" is the request,
// "want" the outcome; "ref/<name>/…" are the files of another source,
// "remote/<host>/…" those of the web, "packed/<host>/<name>/<version>/…" a
// chart in a repository; other files are the commit.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	r := &Renderer{}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			w := worldOf(t, archive)
			got := w.outcome(t, r)
			if again := w.outcome(t, r); again != got && !strings.Contains(got, "gives another result") {
				t.Errorf("the second rendering differs:\n%s", again)
			}
			for i, f := range archive.Files {
				if f.Name != "want" || string(f.Data) == got {
					continue
				}
				if !*update {
					t.Errorf("got:\n%s\nwant:\n%s", got, f.Data)
					continue
				}
				archive.Files[i].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// world is everything one rendering can see.
type world struct {
	commit memory
	refs   map[string]memory
	remote *shelf
	req    Request
}

func worldOf(t *testing.T, archive *txtar.Archive) *world {
	t.Helper()
	w := &world{commit: memory{}, refs: map[string]memory{}, remote: &shelf{charts: map[string][]byte{}, files: map[string]string{}}}
	packed := map[string]memory{}
	var g golden
	for _, f := range archive.Files {
		parts := strings.SplitN(f.Name, "/", 3)
		switch {
		case f.Name == "request.yaml":
			if err := yaml.UnmarshalStrict(f.Data, &g); err != nil {
				t.Fatal(err)
			}
		case f.Name == "want":
		case parts[0] == "ref":
			if w.refs[parts[1]] == nil {
				w.refs[parts[1]] = memory{}
			}
			w.refs[parts[1]][parts[2]] = string(f.Data)
		case parts[0] == "remote":
			w.remote.files["https://"+strings.TrimPrefix(f.Name, "remote/")] = string(f.Data)
		case parts[0] == "packed":
			p := strings.SplitN(parts[2], "/", 3)
			key := "https://" + parts[1] + " " + p[0] + " " + p[1]
			if packed[key] == nil {
				packed[key] = memory{}
			}
			packed[key][p[0]+"/"+p[2]] = string(f.Data)
		default:
			w.commit[f.Name] = string(f.Data)
		}
	}
	for key, files := range packed {
		w.remote.charts[key] = tgz(t, files)
	}
	w.req = g.request()
	return w
}

func (w *world) render(t *testing.T, r *Renderer) (text string, trees map[string]*source.Tree) {
	t.Helper()
	req := w.req
	trees = map[string]*source.Tree{"": w.commit.tree()}
	req.Refs, req.Remote = map[string]*source.Tree{}, w.remote
	for name, files := range w.refs {
		trees[name] = files.tree()
		req.Refs[name] = trees[name]
	}
	objects, warnings, err := r.Render(context.Background(), trees[""], req)
	return printed(t, objects, warnings, err), trees
}

func (w *world) outcome(t *testing.T, r *Renderer) string {
	t.Helper()
	text, _ := w.render(t, r)
	return text
}

func printed(t *testing.T, objects []manifest.Object, warnings []manifest.Warning, err error) string {
	t.Helper()
	if err != nil {
		var e *manifest.Error
		if !errors.As(err, &e) {
			t.Fatalf("not a manifest error: %v", err)
		}
		return fmt.Sprintf("error: %v\nhint: %s\n", e, e.Hint)
	}
	var b strings.Builder
	for _, w := range warnings {
		fmt.Fprintf(&b, "# warning: %s\n", w)
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
