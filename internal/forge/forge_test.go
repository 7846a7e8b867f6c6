package forge

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		serveChild(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// house is a forge that runs behind a real server, and its journal.
type house struct {
	*Forge
	t       testing.TB
	dir     string
	journal *journal.Journal
	server  *httptest.Server
	token   string // the owner's
	stop    func()
}

func newHouse(t testing.TB, change ...func(*Config, *Deps)) *house {
	return openHouse(t, t.TempDir(), change...)
}

// openHouse starts a forge on a state directory that may be of an earlier one.
func openHouse(t testing.TB, dir string, change ...func(*Config, *Deps)) *house {
	t.Helper()
	h := &house{t: t, dir: dir}
	var err error
	if h.journal, err = journal.Open(t.Context(), filepath.Join(dir, "journal.db")); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: filepath.Join(dir, "forge")}
	deps := Deps{Journal: h.journal, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	for _, c := range change {
		c(&cfg, &deps)
	}
	if h.Forge, err = New(cfg, deps); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	h.server = httptest.NewServer(h.Handler())
	stopped := false
	h.stop = func() {
		if stopped {
			return
		}
		stopped = true
		h.server.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := h.journal.Close(); err != nil {
			t.Errorf("close journal: %v", err)
		}
	}
	t.Cleanup(h.stop)
	select {
	case <-h.Ready():
	case <-time.After(30 * time.Second):
		t.Fatal("the forge did not become ready")
	}
	if h.token, err = h.OwnerToken(t.Context()); err != nil {
		t.Fatal(err)
	}
	return h
}

// url is a repository's clone URL with a token in it ("" for none).
func (h *house) url(full, token string) string {
	u, _ := url.Parse(h.server.URL + "/" + full + ".git")
	if token != "" {
		u.User = url.UserPassword("x-access-token", token)
	}
	return u.String()
}

// git runs the client's git in dir and fails the test when it fails.
func (h *house) git(dir string, args ...string) string {
	h.t.Helper()
	out, err := h.tryGit(dir, args...)
	if err != nil {
		h.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

func (h *house) tryGit(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", append([]string{"-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "credential.helper="}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(git.Env(), "PATH="+os.Getenv("PATH"), "HOME="+dir, "GIT_ASKPASS=true", "NO_PROXY=*",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.com", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.com")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// work makes a work tree with one commit on main and a remote origin.
func (h *house) work(full, token string) string {
	h.t.Helper()
	dir := h.t.TempDir()
	h.git(dir, "init", "-q", "-b", "main")
	h.git(dir, "remote", "add", "origin", h.url(full, token))
	h.commit(dir, "README.md", "hello\n", "Add a read-me")
	return dir
}

// commit writes a file, commits it and returns the commit's id.
func (h *house) commit(dir, file, content, message string) string {
	h.t.Helper()
	name := filepath.Join(dir, file)
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o644)); err != nil {
		h.t.Fatal(err)
	}
	h.git(dir, "add", "-A")
	h.git(dir, "commit", "-q", "-m", message)
	return h.git(dir, "rev-parse", "HEAD")
}

// pushes returns the push events of a repository, oldest first.
func (h *house) pushes(full string) []journal.Event {
	h.t.Helper()
	events, err := h.journal.Events(h.t.Context(), journal.Query{Repo: full, Stages: []journal.Stage{journal.StagePush}, Limit: 10_000})
	if err != nil {
		h.t.Fatal(err)
	}
	return events
}

func (h *house) issue(spec TokenSpec) string {
	h.t.Helper()
	token, _, err := h.IssueToken(h.t.Context(), spec)
	if err != nil {
		h.t.Fatal(err)
	}
	return token
}

// status is the HTTP status of a request with a token ("" for none).
func (h *house) status(method, path, token string) int {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), method, h.server.URL+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := h.server.Client().Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	return res.StatusCode
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"no directory":  {Config{}, "Dir is empty"},
		"URL with path": {Config{Dir: "d", URL: "http://x/y"}, "is not like"},
		"bad URL":       {Config{Dir: "d", URL: "ftp://x"}, "is not like"},
		"bad user":      {Config{Dir: "d", User: "a b"}, "is not a login"},
		"bad branch":    {Config{Dir: "d", DefaultBranch: "-x"}, "is not a branch"},
		"bad limit":     {Config{Dir: "d", MaxPackBytes: -1}, "above zero"},
	} {
		if err := c.cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
	cfg := Config{Dir: "d"}
	if err := cfg.Validate(); err != nil || cfg.URL != "http://github.localhost" || cfg.DefaultBranch != "main" || cfg.MaxPackBytes != 2<<30 {
		t.Errorf("defaults: %+v, %v", cfg, err)
	}
	if _, err := New(Config{Dir: t.TempDir()}, Deps{}); err == nil {
		t.Error("New without a journal must fail")
	}
}

func TestResolveURL(t *testing.T) {
	h := newHouse(t, func(c *Config, _ *Deps) { c.URL = "http://git.example:8080" })
	if err := h.CreateRepository(t.Context(), RepositorySpec{Name: "Contoso/Storefront"}); err != nil {
		t.Fatal(err)
	}
	for _, u := range []string{
		"https://github.com/contoso/storefront", "https://github.com/Contoso/Storefront.git", "http://github.localhost/contoso/storefront.git",
		"http://github.localhost:8080/contoso/storefront/", "git@github.com:contoso/storefront.git", "ssh://git@github.com/contoso/storefront",
		"https://x-access-token:secret@github.com/contoso/storefront", "http://git.example:8080/contoso/storefront",
	} {
		if got, err := h.ResolveURL(t.Context(), u); err != nil || got != "Contoso/Storefront" {
			t.Errorf("ResolveURL(%q) = %q, %v", u, got, err)
		}
	}
	for _, u := range []string{
		"https://gitlab.com/contoso/storefront", "https://github.com/contoso/other", "https://github.com/contoso", "",
		"http://git.example:1/contoso/storefront", "https://github.com/contoso/storefront/tree/main", "git@gitlab.com:contoso/storefront", "https://github.com/../x", ":",
	} {
		if got, err := h.ResolveURL(t.Context(), u); !errors.Is(err, ErrNotFound) {
			t.Errorf("ResolveURL(%q) = %q, %v; want ErrNotFound", u, got, err)
		}
	}
}

func TestRepositories(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	for _, bad := range []string{"", "a", "a/", "/b", "a/b/c", "a/..", "../b", "a/b.git", "api/v3", "-a/b", "a--b/c", "a/b c", "a/" + strings.Repeat("x", 101)} {
		if err := h.CreateRepository(ctx, RepositorySpec{Name: bad}); err == nil {
			t.Errorf("%q was created", bad)
		}
	}
	if err := h.CreateRepository(ctx, RepositorySpec{Name: "a/b"}); err != nil {
		t.Fatal(err)
	}
	if err := h.CreateRepository(ctx, RepositorySpec{Name: "A/B"}); !errors.Is(err, ErrExists) {
		t.Errorf("second creation: %v", err)
	}
	first, err := h.Repository(ctx, "a/b")
	if err != nil {
		t.Fatal(err)
	}
	if second, err := h.Repository(ctx, "A/b"); err != nil || first != second {
		t.Errorf("handles differ: %v", err)
	}
	dir := h.work("a/b", h.token)
	h.git(dir, "push", "-q", "origin", "main")
	if err := h.DeleteRepository(ctx, "a/b"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Repository(ctx, "a/b"); !errors.Is(err, ErrNotFound) {
		t.Errorf("after deletion: %v", err)
	}
	if err := h.DeleteRepository(ctx, "a/b"); !errors.Is(err, ErrNotFound) {
		t.Errorf("second deletion: %v", err)
	}
	// Its successor knows nothing of it.
	h.git(dir, "push", "-q", "origin", "main")
	if names, err := h.Repositories(ctx); err != nil || len(names) != 1 || names[0] != "a/b" {
		t.Errorf("repositories: %v, %v", names, err)
	}
	if n := len(h.pushes("a/b")); n != 2 {
		t.Errorf("%d push events; want 2", n)
	}
}

func TestInterruptedDeletionIsFinished(t *testing.T) {
	h := newHouse(t)
	dir := h.work("a/b", h.token)
	h.git(dir, "push", "-q", "origin", "main")
	if _, err := h.db.Exec(`update repository set deleting = 1`); err != nil {
		t.Fatal(err)
	}
	h.stop()
	h = openHouse(t, h.dir)
	if names, err := h.Repositories(t.Context()); err != nil || len(names) != 0 {
		t.Errorf("repositories: %v, %v", names, err)
	}
	if _, err := os.Stat(h.Forge.dir("a/b")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory is still there: %v", err)
	}
}
