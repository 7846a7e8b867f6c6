package mirror

import (
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

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/credential"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// origin is a Git server over HTTP, by git's own backend, with repositories
// below root.
type origin struct {
	t    *testing.T
	root string
	http *httptest.Server

	mu       sync.Mutex
	user     string // asked for when it is not ""
	password string
	down     bool
	lists    int // requests for refs
	peak     int // requests at a time
	now      int
}

func newOrigin(t *testing.T, tls bool) *origin {
	t.Helper()
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Skip("git is not here")
	}
	o := &origin{t: t, root: t.TempDir()}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + o.root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		user, password, ok := r.BasicAuth()
		refused := o.user != "" && (!ok || user != o.user || password != o.password)
		down := o.down
		if strings.HasSuffix(r.URL.Path, "/info/refs") {
			o.lists++
		}
		o.now++
		o.peak = max(o.peak, o.now)
		o.mu.Unlock()
		defer func() { o.mu.Lock(); o.now--; o.mu.Unlock() }()
		switch {
		case down:
			http.Error(w, "down", http.StatusServiceUnavailable)
		case refused:
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			http.Error(w, "who are you", http.StatusUnauthorized)
		default:
			backend.ServeHTTP(w, r)
		}
	})
	if tls {
		o.http = httptest.NewTLSServer(handler)
	} else {
		o.http = httptest.NewServer(handler)
	}
	t.Cleanup(o.http.Close)
	return o
}

func (o *origin) set(f func()) { o.mu.Lock(); defer o.mu.Unlock(); f() }

func (o *origin) url(name string) string { return o.http.URL + "/" + name + ".git" }

func (o *origin) git(name string, args ...string) string {
	o.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = filepath.Join(o.root, name+".git")
	cmd.Env = append(git.Env(), "GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@t", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@t")
	out, err := cmd.CombinedOutput()
	if err != nil {
		o.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// create makes an empty repository with default branch main.
func (o *origin) create(name string) {
	o.t.Helper()
	if err := os.MkdirAll(filepath.Join(o.root, name+".git"), 0o755); err != nil {
		o.t.Fatal(err)
	}
	o.git(name, "init", "-q", "--bare", "-b", "main")
}

// commit writes a file on a branch; force starts a history of its own.
func (o *origin) commit(name, branch, content string, force bool) string {
	o.t.Helper()
	blob := filepath.Join(o.t.TempDir(), "blob")
	if err := os.WriteFile(blob, []byte(content), 0o600); err != nil {
		o.t.Fatal(err)
	}
	id := o.git(name, "hash-object", "-w", blob)
	index := "GIT_INDEX_FILE=" + filepath.Join(o.t.TempDir(), "index")
	run := func(args ...string) string {
		cmd := exec.Command("git", args...)
		cmd.Dir = filepath.Join(o.root, name+".git")
		cmd.Env = append(git.Env(), index, "GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@t", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@t")
		out, err := cmd.CombinedOutput()
		if err != nil {
			o.t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("update-index", "--add", "--cacheinfo", "100644,"+id+",file")
	args := []string{"commit-tree", "-m", content, run("write-tree")}
	if parent, err := exec.Command("git", "-C", filepath.Join(o.root, name+".git"), "rev-parse", "-q", "--verify", "refs/heads/"+branch).Output(); err == nil && !force {
		args = append(args, "-p", strings.TrimSpace(string(parent)))
	}
	commit := run(args...)
	o.git(name, "update-ref", "refs/heads/"+branch, commit)
	return commit
}

// recorder collects what a store tells.
type recorder struct {
	mu     sync.Mutex
	moves  []Move
	health []string
	told   chan struct{}
}

func (r *recorder) moved(m Move) {
	r.mu.Lock()
	r.moves = append(r.moves, m)
	r.mu.Unlock()
	select {
	case r.told <- struct{}{}:
	default:
	}
}

func (r *recorder) ill(name string, err error) {
	r.mu.Lock()
	r.health = append(r.health, fmt.Sprint(name, ": ", err))
	r.mu.Unlock()
	select {
	case r.told <- struct{}{}:
	default:
	}
}

func (r *recorder) take() []Move {
	r.mu.Lock()
	defer r.mu.Unlock()
	moves := r.moves
	r.moves = nil
	return moves
}

func newStore(t *testing.T, cfg Config, in credential.Input) (*Store, *recorder) {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Interval == 0 {
		cfg.Interval, cfg.Jitter = time.Hour, time.Second
	}
	rec := &recorder{told: make(chan struct{}, 1)}
	creds := credential.NewStore(in)
	s := New(cfg, Deps{Credential: creds.For, Moved: rec.moved, Health: rec.ill})
	t.Cleanup(s.Close)
	return s, rec
}

func repoSecret(data ...string) credential.Secret {
	s := credential.Secret{Name: "s-" + data[1], Labels: map[string]string{"argocd.argoproj.io/secret-type": "repository"}, Data: map[string][]byte{}}
	for i := 0; i < len(data); i += 2 {
		s.Data[data[i]] = []byte(data[i+1])
	}
	return s
}
