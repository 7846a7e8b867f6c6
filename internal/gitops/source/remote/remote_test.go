package remote

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/blobs"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/chart"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/credential"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/mirror"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// renderRemote is render.Remote, which Scope must satisfy.
type renderRemote interface {
	Chart(ctx context.Context, repoURL, name, constraint string) (archive []byte, version string, err error)
	Base(ctx context.Context, repoURL, revision string) (*source.Tree, error)
	File(ctx context.Context, url string) ([]byte, error)
}

var _ renderRemote = (*Scope)(nil)

// host serves repositories, LFS content, a Helm repository and a file over HTTP.
type host struct {
	*httptest.Server
	t    *testing.T
	root string
	mu   sync.Mutex
	tops map[string]string // path → content
}

func newHost(t *testing.T) *host {
	t.Helper()
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Skip("git is not here")
	}
	h := &host{t: t, root: t.TempDir(), tops: map[string]string{}}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + h.root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		top, ok := h.tops[r.URL.Path]
		h.mu.Unlock()
		if ok {
			fmt.Fprint(w, top)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *host) put(path, content string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tops[path] = content
}

// commit replaces the content of main; "@id" is a submodule.
func (h *host) commit(name string, files map[string]string) string {
	h.t.Helper()
	dir := filepath.Join(h.root, name+".git")
	if _, err := os.Stat(dir); err != nil {
		repo, err := git.Init(h.t.Context(), dir, "main")
		if err != nil {
			h.t.Fatal(err)
		}
		repo.Close()
	}
	repo, err := git.Open(dir)
	if err != nil {
		h.t.Fatal(err)
	}
	defer repo.Close()
	var in strings.Builder
	fmt.Fprint(&in, "commit refs/heads/main\ncommitter C <c@example.com> 1700000100 +0000\ndata 0\n")
	if _, err := repo.Resolve(h.t.Context(), "refs/heads/main"); err == nil {
		fmt.Fprint(&in, "from refs/heads/main^0\n")
	}
	fmt.Fprint(&in, "deleteall\n")
	for p, content := range files {
		if id, ok := strings.CutPrefix(content, "@"); ok {
			fmt.Fprintf(&in, "M 160000 %s %s\n", id, p)
			continue
		}
		fmt.Fprintf(&in, "M 100644 inline %s\ndata %d\n%s\n", p, len(content), content)
	}
	if _, err := repo.RunInput(h.t.Context(), []byte(in.String()), "fast-import", "--quiet"); err != nil {
		h.t.Fatal(err)
	}
	id, err := repo.Resolve(h.t.Context(), "refs/heads/main")
	if err != nil {
		h.t.Fatal(err)
	}
	return id
}

func packed(t *testing.T, name, version string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	content := "name: " + name + "\nversion: " + version + "\n"
	if err := w.WriteHeader(&tar.Header{Name: name + "/Chart.yaml", Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	_, err := w.Write([]byte(content))
	if err := errors.Join(err, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func repoSecret(data ...string) credential.Secret {
	s := credential.Secret{Name: "s-" + data[1], Labels: map[string]string{"argocd.argoproj.io/secret-type": "repository"}, Data: map[string][]byte{}}
	for i := 0; i < len(data); i += 2 {
		s.Data[data[i]] = []byte(data[i+1])
	}
	return s
}

type told struct {
	mu    sync.Mutex
	moves []Move
	some  chan struct{}
}

func (r *told) moved(m Move) {
	r.mu.Lock()
	r.moves = append(r.moves, m)
	r.mu.Unlock()
	select {
	case r.some <- struct{}{}:
	default:
	}
}

// await waits for a move that brings the revision.
func (r *told) await(t *testing.T, after string) Move {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		r.mu.Lock()
		for _, m := range r.moves {
			if m.After == after {
				r.mu.Unlock()
				return m
			}
		}
		r.mu.Unlock()
		select {
		case <-r.some:
		case <-limit:
			t.Fatalf("no move to %s: %v", after, r.moves)
		}
	}
}

func newService(t *testing.T, cfg Config, deps Deps) (*Service, *told) {
	t.Helper()
	cfg.Dir = t.TempDir()
	r := &told{some: make(chan struct{}, 1)}
	deps.Moved = r.moved
	s := New(cfg, deps)
	t.Cleanup(s.Close)
	return s, r
}

func run(t *testing.T, s *Service) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestGitSourceWithSubmoduleAndLFS(t *testing.T) {
	ctx := t.Context()
	h := newHost(t)
	big := "the large content"
	pointer := fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid %s\nsize %d\n", blobs.Digest([]byte(big)), len(big))
	lib := h.commit("o/lib", map[string]string{"base/web.yaml": "web"})
	first := h.commit("o/app", map[string]string{"k/a.yaml": "1", "big.bin": pointer, "lib": "@" + lib, ".gitmodules": "[submodule \"lib\"]\npath = lib\nurl = ../lib.git\n"})
	oid := strings.TrimPrefix(blobs.Digest([]byte(big)), "sha256:")
	h.put("/o/app.git/info/lfs/objects/batch", fmt.Sprintf(`{"objects":[{"oid":%q,"actions":{"download":{"href":%q}}}]}`, oid, h.URL+"/content"))
	h.put("/content", big)
	s, _ := newService(t, Config{}, Deps{})
	url := h.URL + "/o/app.git"
	s.SetCredentials(credential.NewStore(credential.Input{Secrets: []credential.Secret{repoSecret("url", url, "enableLfs", "true")}}))
	at, err := s.ResolveSource(ctx, "default", v1alpha1.ApplicationSource{RepoURL: url, TargetRevision: "main"})
	if err != nil || at.Revision != first || at.Kind != Git || at.Name != strings.TrimPrefix(h.URL, "http://")+"/o/app" {
		t.Fatalf("%+v, %v", at, err)
	}
	tree, err := s.TreeAt(ctx, at)
	if err != nil || tree.Commit() != first {
		t.Fatal(err)
	}
	for p, want := range map[string]string{"k/a.yaml": "1", "big.bin": big, "lib/base/web.yaml": "web"} {
		if got, err := tree.ReadFile(ctx, p); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v", p, got, err)
		}
	}
	if in := tree.Inputs(); in["lib"] != lib || len(in["big.bin"]) != 40 {
		t.Errorf("inputs %v", in)
	}
	base, err := s.For("default").Base(ctx, h.URL+"/o/lib", "")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := base.ReadFile(ctx, "base/web.yaml"); err != nil || string(got) != "web" {
		t.Errorf("base: %q, %v", got, err)
	}
	if _, err := s.ResolveSource(ctx, "", v1alpha1.ApplicationSource{RepoURL: url, TargetRevision: "none"}); !errors.Is(err, git.ErrNotFound) {
		t.Errorf("no such branch: %v", err)
	}
	if _, err := s.ResolveSource(ctx, "", v1alpha1.ApplicationSource{RepoURL: h.URL + "/o/none"}); !errors.Is(err, mirror.ErrUnknown) {
		t.Errorf("no such repository: %v", err)
	}
}

func TestLocalWins(t *testing.T) {
	h := newHost(t)
	want := h.commit("o/r", map[string]string{"a": "1"})
	repo, err := git.Open(filepath.Join(h.root, "o/r.git"))
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	s, _ := newService(t, Config{}, Deps{Local: func(_ context.Context, url string) (*git.Repository, string, bool) {
		return repo, "o/r", strings.HasPrefix(url, "https://github.com/o/r")
	}})
	for _, url := range []string{"https://github.com/o/r", "https://github.com/o/r.git", "git@github.com:o/r.git"} {
		at, err := s.ResolveSource(t.Context(), "p", v1alpha1.ApplicationSource{RepoURL: url})
		if err != nil || at.Revision != want || !at.Repo.Local || at.Name != "o/r" {
			t.Errorf("%s: %+v, %v", url, at, err)
		}
	}
	s.Track(t.Context(), "app", "p", v1alpha1.ApplicationSource{RepoURL: "https://github.com/o/r"})
	if entries, err := os.ReadDir(s.cfg.Dir); err != nil || len(entries) != 0 {
		t.Errorf("a mirror of a local repository: %v, %v", entries, err)
	}
}

func TestMovesArePolledAndPushed(t *testing.T) {
	ctx := t.Context()
	h := newHost(t)
	first := h.commit("o/r", map[string]string{"a": "1"})
	index := func(versions ...string) {
		var b strings.Builder
		fmt.Fprint(&b, "entries:\n  web:\n")
		for _, v := range versions {
			h.put("/charts/web-"+v+".tgz", packed(t, "web", v))
			fmt.Fprintf(&b, "  - version: %s\n    urls: [web-%s.tgz]\n", v, v)
		}
		h.put("/charts/index.yaml", b.String())
	}
	index("1.0.0")
	s, moves := newService(t, Config{Interval: 50 * time.Millisecond, Jitter: time.Millisecond}, Deps{})
	helm := v1alpha1.ApplicationSource{RepoURL: h.URL + "/charts", Chart: "web", TargetRevision: "1.*"}
	near := v1alpha1.ApplicationSource{RepoURL: h.URL + "/o/r", TargetRevision: "main"}
	for _, src := range []v1alpha1.ApplicationSource{helm, near} {
		at, err := s.ResolveSource(ctx, "p", src)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.TreeAt(ctx, at); err != nil {
			t.Fatal(err)
		}
	}
	s.Track(ctx, "one", "p", helm, near)
	s.Track(ctx, "two", "p", helm)
	run(t, s)
	second := h.commit("o/r", map[string]string{"a": "2"})
	if m := moves.await(t, second); m.Before != first || m.Ref != "refs/heads/main" {
		t.Errorf("%+v", m)
	}
	index("1.0.0", "1.1.0", "2.0.0")
	if m := moves.await(t, "1.1.0"); m.Before != "1.0.0" || m.Ref != "1.*" || m.Repo != strings.TrimPrefix(h.URL, "http://")+"/charts/web" {
		t.Errorf("%+v", m)
	}
	archive, version, err := s.For("p").Chart(ctx, h.URL+"/charts", "web", "^1.0.0")
	if err != nil || version != "1.1.0" || string(archive) != packed(t, "web", "1.1.0") {
		t.Errorf("%s, %v", version, err)
	}
	s.Track(ctx, "one", "p")
	s.Track(ctx, "two", "p")
	if len(s.follows)+len(s.readers) != 0 {
		t.Errorf("still followed: %v", s.follows)
	}
}

func TestWebhookAndScope(t *testing.T) {
	ctx := t.Context()
	h := newHost(t)
	h.commit("o/r", map[string]string{"a": "1"})
	h.put("/values.yaml", "a: 1")
	s, moves := newService(t, Config{Interval: time.Hour}, Deps{})
	src := v1alpha1.ApplicationSource{RepoURL: h.URL + "/o/r", TargetRevision: "main"}
	if _, err := s.ResolveSource(ctx, "p", src); err != nil {
		t.Fatal(err)
	}
	s.Track(ctx, "app", "p", src)
	second := h.commit("o/r", map[string]string{"a": "2"})
	req := httptest.NewRequest("POST", "/api/webhook", strings.NewReader(fmt.Sprintf(`{"ref":"refs/heads/main","repository":{"html_url":%q}}`, h.URL+"/o/r")))
	req.Header.Set("X-GitHub-Event", "push")
	w := httptest.NewRecorder()
	s.Webhook(func() webhook.Secrets { return webhook.Secrets{} }).ServeHTTP(w, req)
	if w.Code != http.StatusOK {
		t.Fatalf("webhook: %d %s", w.Code, w.Body)
	}
	moves.await(t, second)
	if at, err := s.ResolveSource(ctx, "p", src); err != nil || at.Revision != second {
		t.Errorf("after the webhook: %+v, %v", at, err)
	}
	scope := s.For("p")
	if got, err := scope.File(ctx, h.URL+"/values.yaml"); err != nil || string(got) != "a: 1" {
		t.Errorf("file: %q, %v", got, err)
	}
	for _, url := range []string{"file:///etc/passwd", "x", ""} {
		if _, err := scope.File(ctx, url); err == nil {
			t.Errorf("%q was read", url)
		}
	}
	if _, _, err := scope.Chart(ctx, "@none", "web", "*"); !errors.Is(err, chart.ErrNotFound) {
		t.Errorf("unknown alias: %v", err)
	}
}

func TestKinds(t *testing.T) {
	for want, src := range map[Kind]v1alpha1.ApplicationSource{
		Git: {RepoURL: "https://h/o/r"}, Chart: {RepoURL: "https://h", Chart: "web"}, Artifact: {RepoURL: "oci://h/o"},
	} {
		if got := KindOf(src); got != want {
			t.Errorf("%+v is %s", src, got)
		}
	}
	for constraint, want := range map[string]bool{"1.2.3": false, "v1.2.3": false, "1.2": true, "*": true, "": true} {
		if got := moves(chart.Ref{Chart: "web", Constraint: constraint}); got != want {
			t.Errorf("%q moves: %v", constraint, got)
		}
	}
}
