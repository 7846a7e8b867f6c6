package chart

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/gitops/source/blobs"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/credential"
)

// packed is a chart as `helm package` makes it.
func packed(t testing.TB, name, version string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, f := range [][2]string{{"Chart.yaml", "name: " + name + "\nversion: " + version + "\n"}, {"values.yaml", "a: 1\n"}} {
		p, content := f[0], f[1]
		if err := w.WriteHeader(&tar.Header{Name: name + "/" + p, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// helmRepo is a Helm repository over HTTP.
type helmRepo struct {
	*httptest.Server
	mu       sync.Mutex
	index    string
	archives map[string][]byte
	password string
	gets     map[string]int
	seen     []string // Authorization headers for archives
	notMod   int
}

func newHelmRepo(t *testing.T) *helmRepo {
	r := &helmRepo{archives: map[string][]byte{}, gets: map[string]int{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.gets[req.URL.Path]++
		if _, p, _ := req.BasicAuth(); r.password != "" && p != r.password {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		if strings.HasSuffix(req.URL.Path, "/index.yaml") {
			tag := fmt.Sprintf("%q", blobs.Digest([]byte(r.index))[:16])
			w.Header().Set("ETag", tag)
			if req.Header.Get("If-None-Match") == tag {
				r.notMod++
				w.WriteHeader(http.StatusNotModified)
				return
			}
			fmt.Fprint(w, r.index)
			return
		}
		data, ok := r.archives[req.URL.Path]
		if !ok {
			http.NotFound(w, req)
			return
		}
		r.seen = append(r.seen, req.Header.Get("Authorization"))
		_, _ = w.Write(data)
	}))
	t.Cleanup(r.Close)
	return r
}

func newStore(t *testing.T, cfg Config, secrets ...credential.Secret) *Store {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	clients := credential.NewClients(nil)
	t.Cleanup(clients.Close)
	return New(cfg, Deps{Credential: credential.NewStore(credential.Input{Secrets: secrets}).For, Clients: clients})
}

func repoSecret(data ...string) credential.Secret {
	s := credential.Secret{Name: "s-" + data[1], Labels: map[string]string{"argocd.argoproj.io/secret-type": "repository"}, Data: map[string][]byte{}}
	for i := 0; i < len(data); i += 2 {
		s.Data[data[i]] = []byte(data[i+1])
	}
	return s
}

func TestHelmRepository(t *testing.T) {
	repo := newHelmRepo(t)
	var index strings.Builder
	fmt.Fprint(&index, "apiVersion: v1\nentries:\n  web:\n")
	for _, v := range []string{"2.0.0-rc.1", "1.3.0", "1.2.3", "1.2.0", "v0.9.0", "1.2.3+build"} {
		data := packed(t, "web", v)
		repo.archives["/charts/web-"+v+".tgz"] = data
		fmt.Fprintf(&index, "  - name: web\n    version: %s\n    urls: [web-%s.tgz]\n    digest: %s\n", v, v, strings.TrimPrefix(blobs.Digest(data), "sha256:"))
	}
	repo.index = index.String()
	now := time.Now()
	s := newStore(t, Config{})
	s.deps.Now = func() time.Time { return now }
	ref := func(constraint string) Ref {
		return Ref{RepoURL: repo.URL + "/charts/", Chart: "web", Constraint: constraint}
	}
	for _, c := range [][2]string{
		{"", "1.3.0"}, {"*", "1.3.0"}, {"1.2.*", "1.2.3"}, {"1.2.3", "1.2.3"}, {"1.2.3+build", "1.2.3+build"}, {"v1.2.0", "1.2.0"},
		{"0.9.0", "v0.9.0"}, {">=1.0.0-0", "2.0.0-rc.1"}, {"~1.2.0", "1.2.3"}, {"1.2", "1.2.3"}, {"1", "1.3.0"},
	} {
		data, v, err := s.Archive(t.Context(), ref(c[0]))
		if err != nil || v.Version != c[1] || v.Digest != blobs.Digest(data) {
			t.Errorf("%q = %v, %v", c[0], v, err)
		}
	}
	v, err := s.Resolve(t.Context(), ref("1.3.0"))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := s.Tree(t.Context(), ref("1.3.0"), v)
	if err != nil || tree.Commit() != "1.3.0" {
		t.Fatal(err)
	}
	if got, err := tree.ReadFile(t.Context(), "Chart.yaml"); err != nil || string(got) != "name: web\nversion: 1.3.0\n" {
		t.Errorf("Chart.yaml: %q, %v", got, err)
	}
	if n := repo.gets["/charts/index.yaml"]; n != 1 {
		t.Errorf("the index was asked for %d times", n)
	}
	if n := repo.gets["/charts/web-1.3.0.tgz"]; n != 1 {
		t.Errorf("an archive was asked for %d times", n)
	}
	now = now.Add(time.Hour)
	if _, err := s.Resolve(t.Context(), ref("*")); err != nil || repo.notMod != 1 {
		t.Errorf("after the index is stale: %v, %d not modified", err, repo.notMod)
	}
	for _, c := range []struct{ chart, constraint, says string }{{"none", "*", "no chart"}, {"web", "9.*", "newest is 2.0.0-rc.1"}, {"web", "nonsense here", "newest"}} {
		r := ref(c.constraint)
		r.Chart = c.chart
		if _, err := s.Resolve(t.Context(), r); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %s: %v", c.chart, c.constraint, err)
		}
	}
	repo.archives["/charts/web-1.2.0.tgz"] = []byte("changed")
	if err := os.RemoveAll(filepath.Join(s.cfg.Dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Archive(t.Context(), ref("1.2.0")); err == nil || !strings.Contains(err.Error(), "digest") {
		t.Errorf("another archive than the index says: %v", err)
	}
}

func TestCredentialsStayWithTheirHost(t *testing.T) {
	repo, other := newHelmRepo(t), newHelmRepo(t)
	repo.password = "hunter2"
	data := packed(t, "web", "1.0.0")
	other.archives["/web.tgz"], repo.archives["/web2.tgz"] = data, packed(t, "web", "2.0.0")
	repo.index = fmt.Sprintf("entries: {web: [{version: 1.0.0, urls: [%q]}, {version: 2.0.0, urls: [web2.tgz]}]}", other.URL+"/web.tgz")
	secret := repoSecret("url", repo.URL, "type", "helm", "username", "u", "password", "hunter2")
	s := newStore(t, Config{}, secret)
	for _, pass := range []bool{false, true} {
		if err := os.RemoveAll(filepath.Join(s.cfg.Dir, "blobs")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Archive(t.Context(), Ref{RepoURL: repo.URL, Chart: "web", Constraint: "1.0.0", PassCredentials: pass}); err != nil {
			t.Fatal(err)
		}
	}
	if len(other.seen) != 2 || other.seen[0] != "" || !strings.HasPrefix(other.seen[1], "Basic ") {
		t.Errorf("the other host saw %q", other.seen)
	}
	if _, _, err := s.Archive(t.Context(), Ref{RepoURL: repo.URL, Chart: "web", Constraint: "2.0.0"}); err != nil {
		t.Error(err)
	}
	if _, err := newStore(t, Config{}).Resolve(t.Context(), Ref{RepoURL: repo.URL, Chart: "web"}); !errors.Is(err, ErrRefused) {
		t.Errorf("without credentials: %v", err)
	}
}

func TestBoundsOfHelmRepositories(t *testing.T) {
	repo := newHelmRepo(t)
	repo.index = "entries: {web: [{version: 1.0.0, urls: [a.tgz]}, {version: 2.0.0, urls: ['file:///etc/passwd']}, {version: 3.0.0}]}\n#" + strings.Repeat("x", 2000)
	repo.archives["/a.tgz"] = bytes.Repeat([]byte("a"), 5000)
	if _, err := newStore(t, Config{MaxIndex: 1000}).Resolve(t.Context(), Ref{RepoURL: repo.URL, Chart: "web"}); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("large index: %v", err)
	}
	s := newStore(t, Config{MaxArchive: 1000})
	for _, v := range []string{"1.0.0", "2.0.0", "3.0.0"} {
		if _, _, err := s.Archive(t.Context(), Ref{RepoURL: repo.URL, Chart: "web", Constraint: v}); err == nil {
			t.Errorf("version %s was read", v)
		}
	}
	for _, index := range []string{"", "<html>", "entries: 5", "a: [", "{\"entries\": 1}"} {
		repo.mu.Lock()
		repo.index = index
		repo.mu.Unlock()
		if _, err := newStore(t, Config{}).Resolve(t.Context(), Ref{RepoURL: repo.URL, Chart: "web"}); err == nil {
			t.Errorf("index %q was read", index)
		}
	}
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte("entries: {web: [{version: 1.0.0, urls: [a]}]}"))
	f.Add([]byte(`{"entries": {"a": [{"version": "1"}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		charts, err := parseIndex(data)
		if err != nil {
			return
		}
		for _, entries := range charts {
			versions := []string{}
			for _, e := range entries {
				versions = append(versions, e.Version)
			}
			pick("*", versions)
		}
	})
}
