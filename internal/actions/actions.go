// Package actions runs GitHub Actions workflows on this machine.
//
// Input: push events in the journal, the forge's other events, the clock,
// dispatches and re-runs through the API, workflow files of the repositories.
// Output: runs with jobs, steps, logs and annotations; events of stage "run" in
// the journal; check runs and deployments; and whatever the workflows do.
//
// One event goes: happening.go (what it is for workflows) → trigger (which
// start) → store (queued runs) → dispatcher.go → run.go (one attempt) →
// level.go (one workflow file; call.go for those it calls) → job.go (one job:
// concurrency group, environment, place) → execute (its sandbox, steps) →
// store with its outbox → journal, checks.
//
// Invariants: an event starts each workflow once, also after kill -9; a run that
// was going on when Lockstep stopped is marked as interrupted and can be
// started again, one that only waited goes on; what is told to others is stored
// with the change that it tells of; nothing unmasked reaches a log, the journal
// or an annotation.
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
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/container"
	"github.com/lockstep-gitops/lockstep/internal/actions/execute"
	"github.com/lockstep-gitops/lockstep/internal/actions/logs"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
	"github.com/lockstep-gitops/lockstep/internal/actions/store"
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
	MaxRuns         int           // at the same time, without those that wait; default 256
	KeepRuns        int           // newest runs whose logs are kept; default 1000
	KillGrace       time.Duration // between the signals that end a step; default 2.5 s
	Version         string        // of Lockstep, for the log

	// Init is the program that starts sandboxes; "" means Self, which takes longer.
	Init string
	// Relays are what jobs reach of this machine. With any, each job has a
	// network of its own; without, jobs share the machine's.
	Relays []sandbox.Relay
	Hosts  []string // further names of 127.0.0.1 in jobs
	// Group names the cgroups of this platform's jobs; "" sets no limits.
	Group string
	// Remote is where actions come from that are not on the forge,
	// "https://github.com"; "" is nowhere.
	Remote string
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
		c.MaxRuns = 256
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

// Actions is the engine.
type Actions struct {
	cfg        Config
	deps       Deps
	log        *slog.Logger
	store      *store.Store
	logs       *logs.Store
	runner     *execute.Runner
	containers *container.Engine
	ready      chan struct{}
	wake       chan struct{}            // there may be queued runs
	clock      chan struct{}            // schedules may have changed
	told       map[string]chan struct{} // by kind: the outbox has something
	slots      chan struct{}            // one per job that may run
	groups     groups
	files      *files
	minute     time.Duration // of wait timers

	mu     sync.Mutex
	active map[int64]*activeRun
	gates  map[int64]chan struct{} // by job: closed when somebody decided
}

// activeRun is a run that is going on.
type activeRun struct {
	cancel  context.CancelCauseFunc
	kill    context.CancelFunc // ends it without its always() steps
	stop    func() bool        // takes back the cancellation at the end of Lockstep
	waiting bool               // for its concurrency group or only for approvals
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
	runner, containers, err := newRunner(cfg, deps)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("actions: %w", err), db.Close())
	}
	return &Actions{
		cfg: cfg, deps: deps, log: deps.Log, store: db, logs: logs.NewStore(filepath.Join(cfg.Dir, "runs"), deps.Now), runner: runner, containers: containers,
		ready: make(chan struct{}), wake: make(chan struct{}, 1), slots: make(chan struct{}, cfg.MaxParallelJobs),
		clock: make(chan struct{}, 1), told: map[string]chan struct{}{eventKind: make(chan struct{}, 1), checkKind: make(chan struct{}, 1), runKind: make(chan struct{}, 1)},
		active: map[int64]*activeRun{}, gates: map[int64]chan struct{}{}, groups: newGroups(), files: newFiles(), minute: time.Minute,
	}, nil
}

// Ready is closed when push events are being consumed.
func (a *Actions) Ready() <-chan struct{} { return a.ready }

// Close releases what New opened, after Run has returned.
func (a *Actions) Close() error {
	a.runner.Actions.Close()
	return errors.Join(a.containers.Close(), a.store.Close())
}

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
