// Package actions runs GitHub Actions workflows on this machine.
//
// Input: push events in the journal, dispatches and re-runs through the API,
// workflow files of the repositories. Output: runs with jobs, steps, logs and
// annotations; events of stage "run" in the journal; commit statuses; and
// whatever the workflows do.
//
// One push goes: journal → trigger (which workflows) → store (queued runs) →
// schedule (which job next) → execute (one job in its sandbox, steps by
// builtin or shell) → store, logs, journal.
//
// Invariants: a push event starts each workflow once, also after kill -9; a run
// that was going on when Lockstep stopped is marked as interrupted and can be
// started again; nothing unmasked reaches a log, the journal or an annotation.
//
// Start reading at [Actions.Run], then dispatcher.go and run.go.
package actions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
	"github.com/lockstep-gitops/lockstep/internal/actions/execute"
	"github.com/lockstep-gitops/lockstep/internal/actions/logs"
	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// Config says where the engine lives and what its jobs get.
type Config struct {
	Dir  string // state: database, logs, caches, running jobs
	Self string // path of the lockstep binary; see package sandbox
	// StateDir is hidden from jobs; "" means Dir.
	StateDir  string
	Masks     []string // further host paths that jobs must not see
	ServerURL string   // default http://github.localhost
	APIURL    string   // default http://api.github.localhost
	// ProxyEnv are HTTP_PROXY, HTTPS_PROXY, NO_PROXY for steps; both
	// spellings are set. SSL_CERT_FILE in it is CAFile by another name.
	ProxyEnv map[string]string
	// CAFile is a PEM bundle that steps trust; it is shown inside.
	CAFile string
	Env    map[string]string // further variables of every step, e.g. GOPROXY
	Path   string            // PATH of steps; default the usual one
	// ToolDir is kept between jobs and is their RUNNER_TOOL_CACHE; default
	// Dir/tools.
	ToolDir string
	// GoBuildCache is a GOCACHE that the cache of each repository starts from.
	GoBuildCache    string
	MaxParallelJobs int           // default the number of processors, at least 2
	MaxRuns         int           // at the same time; default 32
	KeepRuns        int           // newest runs whose logs are kept; default 1000
	KillGrace       time.Duration // between the signals that end a step; default 2.5 s
	Version         string        // of Lockstep, for the log
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func (c Config) withDefaults() Config {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&c.StateDir, c.Dir)
	def(&c.ServerURL, "http://github.localhost")
	def(&c.APIURL, "http://api.github.localhost")
	def(&c.Path, defaultPath)
	def(&c.ToolDir, filepath.Join(c.Dir, "tools"))
	def(&c.Version, "(unknown version)")
	c.ProxyEnv = maps.Clone(c.ProxyEnv)
	if file := c.ProxyEnv["SSL_CERT_FILE"]; file != "" {
		def(&c.CAFile, file)
		delete(c.ProxyEnv, "SSL_CERT_FILE")
	}
	c.ServerURL, c.APIURL = strings.TrimRight(c.ServerURL, "/"), strings.TrimRight(c.APIURL, "/")
	if c.MaxParallelJobs <= 0 {
		c.MaxParallelJobs = max(2, runtime.NumCPU())
	}
	if c.MaxRuns <= 0 {
		c.MaxRuns = 32
	}
	if c.KeepRuns <= 0 {
		c.KeepRuns = 1000
	}
	return c
}

// Validate reports the first setting that cannot work.
func (c Config) Validate() error {
	if !filepath.IsAbs(c.Dir) {
		return fmt.Errorf("actions: Dir %q must be an absolute path", c.Dir)
	}
	if !filepath.IsAbs(c.Self) {
		return fmt.Errorf("actions: Self %q must be the absolute path of the lockstep binary", c.Self)
	}
	return nil
}

// Types of the seams and of what is stored.
type (
	BuildRequest = builtin.BuildRequest
	BuildResult  = builtin.BuildResult
	Credential   = builtin.Credential
	// Builder builds images for docker/build-push-action.
	Builder = builtin.Builder
	// LocatedError is a failure with a place in the repository; a Builder
	// returns one for a line of a Dockerfile.
	LocatedError = builtin.Error

	Run     = store.Run
	Job     = store.Job
	Step    = store.Step
	Problem = store.Problem
	Filter  = store.Filter
)

// ErrNotFound says that there is no such run, job, log, secret or variable.
var ErrNotFound = store.ErrNotFound

// Repositories opens the forge's repositories.
type Repositories interface {
	Repository(ctx context.Context, name string) (*git.Repository, error)
}

// JobToken says what a job's token may do.
type JobToken struct {
	Repo   string // "owner/name"
	Commit string // the cause of what is pushed with it
	Run    int64
	Write  bool // of contents
}

// Tokens issues tokens of github-actions[bot].
type Tokens interface {
	IssueJobToken(ctx context.Context, t JobToken) (token string, revoke func(context.Context) error, err error)
}

// CommitStatus is the state of one job on a commit.
type CommitStatus struct {
	Repo, Commit string
	Context      string // "<workflow>/<job>"
	State        string // pending, success, failure, error
	Description  string
	TargetURL    string
}

// Statuses puts states on commits.
type Statuses interface {
	SetCommitStatus(ctx context.Context, s CommitStatus) error
}

// Deps are what the engine uses.
type Deps struct {
	Log     *slog.Logger
	Journal interface {
		journal.Appender
		journal.Reader
	}
	Repositories Repositories
	Tokens       Tokens
	Builder      Builder  // nil: images cannot be built
	Statuses     Statuses // nil: no commit statuses
	// Registry reaches container registries to check logins; nil: unchecked.
	Registry http.RoundTripper
	Now      func() time.Time // default time.Now
}

// Actions is the engine.
type Actions struct {
	cfg    Config
	deps   Deps
	log    *slog.Logger
	store  *store.Store
	logs   *logs.Store
	runner *execute.Runner
	ready  chan struct{}
	wake   chan struct{} // there may be queued runs
	slots  chan struct{} // one per job that may run
	groups groups

	mu     sync.Mutex
	active map[int64]*activeRun
	host   context.Context // of Run; nil before and after
}

// activeRun is a run that is going on.
type activeRun struct {
	cancel context.CancelCauseFunc
	stop   func() bool // takes back the cancellation at the end of Lockstep
}

// New opens the engine's state. Nothing runs before Run.
func New(cfg Config, deps Deps) (*Actions, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if deps.Journal == nil || deps.Repositories == nil || deps.Tokens == nil {
		return nil, errors.New("actions: Journal, Repositories and Tokens are needed")
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	for _, dir := range []string{cfg.Dir, cfg.ToolDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("actions: %w", err)
		}
	}
	db, err := store.Open(context.Background(), cfg.Dir, deps.Now)
	if err != nil {
		return nil, fmt.Errorf("actions: %w", err)
	}
	runner := &execute.Runner{
		Config: execute.Config{
			Self: cfg.Self, JobsDir: filepath.Join(cfg.Dir, "jobs"), CacheDir: filepath.Join(cfg.Dir, "cache"), StateDir: cfg.StateDir, Masks: cfg.Masks,
			ServerURL: cfg.ServerURL, APIURL: cfg.APIURL, ProxyEnv: cfg.ProxyEnv, Env: cfg.Env, Path: cfg.Path, ToolDir: cfg.ToolDir,
			CAFile: cfg.CAFile, GoBuildCache: cfg.GoBuildCache, Version: cfg.Version, KillGrace: cfg.KillGrace,
		},
		Builder: deps.Builder, RegistryProbe: deps.Registry,
	}
	return &Actions{
		cfg: cfg, deps: deps, log: deps.Log, store: db, logs: logs.NewStore(filepath.Join(cfg.Dir, "runs"), deps.Now), runner: runner,
		ready: make(chan struct{}), wake: make(chan struct{}, 1), slots: make(chan struct{}, cfg.MaxParallelJobs),
		active: map[int64]*activeRun{}, groups: newGroups(),
	}, nil
}

// Ready is closed when push events are being consumed.
func (a *Actions) Ready() <-chan struct{} { return a.ready }

// Close releases the database, after Run has returned.
func (a *Actions) Close() error { return a.store.Close() }

// SetSecret stores an Actions secret of a repository.
func (a *Actions) SetSecret(ctx context.Context, repo, name string, value []byte) error {
	_, err := a.store.SetSecret(ctx, repo, name, value)
	return err
}

// SetVariable stores an Actions variable of a repository.
func (a *Actions) SetVariable(ctx context.Context, repo, name, value string) error {
	_, err := a.store.SetVariable(ctx, repo, name, value)
	return err
}

// SecretName is what may be told of a secret.
type SecretName struct {
	Repo, Name string
	Updated    time.Time
}

// ListSecrets names the secrets of a repository, or of all when repo is "".
func (a *Actions) ListSecrets(ctx context.Context, repo string) ([]SecretName, error) {
	repos := []string{repo}
	if repo == "" {
		var err error
		if repos, err = a.store.Repositories(ctx); err != nil {
			return nil, err
		}
	}
	var out []SecretName
	for _, r := range repos {
		names, err := a.store.ListSecrets(ctx, r)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			out = append(out, SecretName{Repo: r, Name: n.Name, Updated: n.Updated})
		}
	}
	return out, nil
}

// Runs lists runs without their jobs, newest first.
func (a *Actions) Runs(ctx context.Context, f Filter) ([]Run, error) { return a.store.Runs(ctx, f) }

// GetRun returns one run with the jobs, steps, annotations and summaries of
// its current attempt, or ErrNotFound.
func (a *Actions) GetRun(ctx context.Context, id int64) (Run, error) { return a.store.Run(ctx, id) }

// Logs reads the log of one step: lines with their time in front, secrets
// masked. With follow the reader waits until the step has ended, or ctx.
func (a *Actions) Logs(ctx context.Context, run, job int64, step int, follow bool) (io.ReadCloser, error) {
	j, err := a.store.Job(ctx, job)
	if err != nil {
		return nil, err
	}
	if j.RunID != run {
		return nil, fmt.Errorf("job %d of run %d: %w", job, run, ErrNotFound)
	}
	r, err := a.logs.Open(ctx, logs.Key{Run: run, Attempt: j.Attempt, Job: job, Step: step}, follow)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("log of step %d of job %d: %w", step, job, ErrNotFound)
	}
	return r, err
}
