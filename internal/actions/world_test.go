package actions

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/builtin/kustomize"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case sandbox.Name:
		os.Exit(sandbox.Main())
	case "kustomize":
		os.Exit(kustomize.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// jobTokenText is the token of every job in these tests.
const jobTokenText = "ghs_0123456789abcdefTOKEN"

// world is one engine with a Git server over a real repository "o/r".
type world struct {
	t       testing.TB
	dir     string
	bare    string
	repo    *git.Repository
	journal *journal.Journal
	server  *httptest.Server
	engine  *Actions
	stop    func()
	before  string

	mu       sync.Mutex
	tokens   []JobToken
	revoked  int
	checks   []Check
	builds   []BuildRequest
	buildErr error

	deployments []string
	others      map[string]*git.Repository
	events      []Event
	grown       chan struct{}
	config      func(*Config, *Deps)
	prepare     func(*Actions)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldWith(t, &world{})
}

// newWorldWith fills in a world of which some fields are set.
func newWorldWith(t testing.TB, w *world) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("jobs need root for their sandbox")
	}
	w.t, w.dir, w.before, w.grown = t, t.TempDir(), git.ZeroID, make(chan struct{})
	w.bare = filepath.Join(w.dir, "repos", "o", "r")
	var err error
	if w.repo, err = git.Init(t.Context(), w.bare, "main"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.repo.Close)
	for _, kv := range [][2]string{{"uploadpack.allowAnySHA1InWant", "true"}, {"http.receivepack", "true"}} {
		if _, err := w.repo.Run(t.Context(), "config", kv[0], kv[1]); err != nil {
			t.Fatal(err)
		}
	}
	if w.journal, err = journal.Open(t.Context(), filepath.Join(w.dir, "journal.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.journal.Close() })
	w.server = httptest.NewServer(w.gitServer())
	t.Cleanup(w.server.Close)
	w.start()
	return w
}

// gitServer serves the repositories with git's own CGI to whoever has the token.
func (w *world) gitServer() http.Handler {
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		w.t.Fatal(err)
	}
	backend := &cgi.Handler{Path: strings.TrimSpace(string(out)) + "/git-http-backend", Env: []string{
		"GIT_PROJECT_ROOT=" + filepath.Join(w.dir, "repos"), "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=bot",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
		InheritEnv: []string{"PATH"}, Stderr: io.Discard}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user != "x-access-token" || password != jobTokenText {
			rw.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(rw, "who are you?", http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(rw, r)
	})
}

// start opens the engine's state and runs it.
func (w *world) start() {
	w.t.Helper()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	config := Config{
		Dir: filepath.Join(w.dir, "state"), StateDir: w.dir, Self: self, ServerURL: w.server.URL, APIURL: w.server.URL + "/api",
		Env: map[string]string{"FROM_CONFIG": "yes", "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}, KillGrace: 200 * time.Millisecond, MaxParallelJobs: 4,
	}
	deps := Deps{Log: slog.New(slog.NewTextHandler(w.t.Output(), nil)), Journal: w.journal, Repositories: w, Tokens: w, Checks: w, Deployments: w, Events: w, Builder: w}
	if w.config != nil {
		w.config(&config, &deps)
	}
	if w.engine, err = New(config, deps); err != nil {
		w.t.Fatal(err)
	}
	if w.prepare != nil {
		w.prepare(w.engine)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.engine.Run(ctx) }()
	<-w.engine.Ready()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("Run: %v", err)
		}
		if err := w.engine.Close(); err != nil {
			w.t.Errorf("Close: %v", err)
		}
		if left, _ := filepath.Glob(filepath.Join(w.dir, "state", "jobs", "*")); len(left) > 0 {
			w.t.Errorf("jobs left %v", left)
		}
	})
	w.t.Cleanup(func() { w.stop() })
}

func (w *world) Repository(_ context.Context, name string) (*git.Repository, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if other := w.others[name]; other != nil {
		return other, nil
	}
	if name != "o/r" {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return w.repo, nil
}

func (w *world) IssueJobToken(_ context.Context, t JobToken) (string, func(context.Context) error, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tokens = append(w.tokens, t)
	return jobTokenText, func(context.Context) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.revoked++
		return nil
	}, nil
}

func (w *world) SetCheck(_ context.Context, c Check) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.checks = append(w.checks, c)
	return nil
}

func (w *world) CreateDeployment(_ context.Context, d Deployment) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deployments = append(w.deployments, fmt.Sprintf("create %s %s %s", d.Environment, d.Ref, d.Creator))
	return int64(len(w.deployments)), nil
}

func (w *world) SetDeploymentStatus(_ context.Context, _ string, _ int64, state, url string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deployments = append(w.deployments, strings.TrimSpace(state+" "+url))
	return nil
}

// FollowEvents implements Events with those that tests have sent.
func (w *world) FollowEvents(ctx context.Context, after int64) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for {
			w.mu.Lock()
			var next *Event
			for i := range w.events {
				if w.events[i].ID > after {
					e := w.events[i]
					next = &e
					break
				}
			}
			grown := w.grown
			w.mu.Unlock()
			if next != nil {
				if !yield(*next) {
					return
				}
				after = next.ID
				continue
			}
			select {
			case <-grown:
			case <-ctx.Done():
				return
			}
		}
	}
}

// send puts an event into the forge's outbox.
func (w *world) send(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e.ID, e.Repo = int64(len(w.events)+1), "o/r"
	if e.Actor == "" {
		e.Actor = "ann"
	}
	w.events = append(w.events, e)
	close(w.grown)
	w.grown = make(chan struct{})
}

func (w *world) Build(_ context.Context, r BuildRequest, progress io.Writer) (BuildResult, error) {
	_, _ = fmt.Fprintln(progress, "#1 building")
	if _, err := os.Stat(filepath.Join(r.ContextDir, r.Dockerfile)); err != nil {
		return BuildResult{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.builds = append(w.builds, r)
	return BuildResult{Digest: "sha256:" + strings.Repeat("ab", 32), ImageID: "sha256:id", Metadata: "{}"}, w.buildErr
}

// git runs git in a directory, with a person as the author.
func (w *world) git(dir string, args ...string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = append(git.Env(), "GIT_AUTHOR_NAME=Ann", "GIT_AUTHOR_EMAIL=ann@example.com", "GIT_COMMITTER_NAME=Ann", "GIT_COMMITTER_EMAIL=ann@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("git %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// push commits files on top of main and tells the journal. It returns the commit.
func (w *world) push(message string, files map[string]string) string {
	w.t.Helper()
	dir := w.t.TempDir()
	w.git(dir, "clone", "--quiet", w.bare, dir)
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
	w.git(dir, "add", "--all")
	w.git(dir, "commit", "--quiet", "--allow-empty", "-m", message)
	w.git(dir, "push", "--quiet", "origin", "HEAD:refs/heads/main")
	commit := w.git(dir, "rev-parse", "HEAD")
	w.tellPush(commit, "ann")
	return commit
}

func (w *world) tellPush(commit, actor string) {
	w.t.Helper()
	_, err := w.journal.Append(w.t.Context(), journal.Event{Repo: "o/r", Commit: commit, Stage: journal.StagePush, Status: journal.StatusSucceeded,
		Subject: "refs/heads/main", Data: map[string]string{journal.DataActor: actor, journal.DataRef: "refs/heads/main", journal.DataBefore: w.before}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.before = commit
}

// consumed waits until the engine has seen every push so far.
func (w *world) consumed() {
	w.t.Helper()
	pushes, err := w.journal.Events(w.t.Context(), journal.Query{Stages: []journal.Stage{journal.StagePush}, Newest: true, Limit: 1})
	if err != nil || len(pushes) != 1 {
		w.t.Fatal(pushes, err)
	}
	last := pushes[0].ID
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		cursor, err := w.engine.store.Cursor(w.t.Context(), store.FromJournal)
		if err != nil || time.Now().After(deadline) {
			w.t.Fatalf("the pushes were not consumed: at %d of %d, %v", cursor, last, err)
		}
		if cursor >= last {
			return
		}
	}
}

// event waits for the first event of stage run after the given one that fits.
func (w *world) event(after int64, fits func(journal.Event) bool) journal.Event {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 90*time.Second)
	defer cancel()
	for e := range w.journal.Follow(ctx, after, journal.Query{Stages: []journal.Stage{journal.StageRun}}) {
		if fits(e) {
			return e
		}
	}
	w.dump()
	w.t.Fatal("the event did not come")
	return journal.Event{}
}

// ended waits until the newest run of a workflow for a commit has ended.
func (w *world) ended(commit, file string) Run {
	w.t.Helper()
	w.event(0, func(e journal.Event) bool { return e.Commit == commit && e.Subject == file && e.Status.Closes() })
	runs, err := w.engine.Runs(w.t.Context(), Filter{Commit: commit, File: file, Limit: 1})
	if err != nil || len(runs) == 0 {
		w.t.Fatalf("run of %s: %v", file, err)
	}
	r, err := w.engine.GetRun(w.t.Context(), runs[0].ID)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// log is the whole log of a job, without the times.
func (w *world) log(r Run, job string) string {
	w.t.Helper()
	var b strings.Builder
	for _, j := range r.Jobs {
		if j.Name != job {
			continue
		}
		if err := w.engine.copyLogs(w.t.Context(), &b, r, j, func(Step) bool { return true }, false); err != nil {
			w.t.Fatal(err)
		}
	}
	var out []string
	for line := range strings.Lines(b.String()) {
		_, text, _ := strings.Cut(line, " ")
		out = append(out, text)
	}
	return strings.Join(out, "")
}

func (w *world) job(r Run, name string) Job {
	w.t.Helper()
	i := slices.IndexFunc(r.Jobs, func(j Job) bool { return j.Name == name })
	if i < 0 {
		w.t.Fatalf("run %d has no job %q", r.ID, name)
	}
	return r.Jobs[i]
}

// check is the newest completed check of a name.
func (w *world) check(commit, name string) Check {
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		w.mu.Lock()
		for _, c := range slices.Backward(w.checks) {
			if c.Name == name && c.Commit == commit && c.Status == "completed" {
				w.mu.Unlock()
				return c
			}
		}
		w.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
	}
	return Check{}
}

// dump shows what happened, for a failed test.
func (w *world) dump() {
	runs, _ := w.engine.Runs(context.Background(), Filter{Limit: 10})
	for _, r := range runs {
		r, _ = w.engine.GetRun(context.Background(), r.ID)
		data, _ := json.MarshalIndent(r, "", " ")
		w.t.Logf("%s", data)
		for _, j := range r.Jobs {
			w.t.Logf("log of %s\n%s", j.Name, w.log(r, j.Name))
		}
	}
}
