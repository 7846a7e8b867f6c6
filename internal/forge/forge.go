// Package forge is GitHub on one machine: a Git host that git, gh and GitHub's
// API clients use unmodified.
//
// Input: clones, fetches and pushes over smart HTTP, and a subset of GitHub's
// REST and GraphQL. Output: bare repositories on disk, served to the other
// boxes as [git.Repository], and one journal event per ref that a push moved.
//
// Invariants: one push at a time moves the refs of a repository, so the order of its
// events is the order of its ref updates. Who pushes what is durable before
// git runs, and refs are compared with what was last told to the journal, so
// that kill -9 at any moment neither loses an event nor writes it twice.
// Tokens are stored as hashes only.
//
// Start reading at [Forge.Handler]; the way of a push is in receive.go and
// settle.go.
package forge

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// Config is plain data; New fills in the defaults.
type Config struct {
	// Dir is the state directory: repositories, forge.db, the owner's token.
	Dir string
	// URL is what clients call the forge. Default "http://github.localhost".
	URL string
	// User is the login of the person whose machine this is. Default "developer".
	User string
	// DefaultBranch is HEAD of a new repository. Default "main".
	DefaultBranch string
	// MaxPackBytes bounds one push. Default 2 GiB, as on GitHub.
	MaxPackBytes int64
	// MaxFileBytes bounds one file of a push. Default 100 MiB, as on GitHub.
	MaxFileBytes int64
	// MaxLFSBytes bounds the LFS objects of one repository together. Default 10 GiB.
	MaxLFSBytes int64
	// HookRetry is the pause before a webhook that was not taken is sent again; each
	// further one is four times as long. Default 5 seconds.
	HookRetry time.Duration
	// PrivateHosts and PrivateAddresses ("127.0.0.1:8080", "10.1.0.0/16") are Lockstep's own:
	// no webhook goes there.
	PrivateHosts     []string
	PrivateAddresses []string
	privateSinks     []privateSink
	// PushTimeout bounds the time that git may take for a received push.
	// Default 30 minutes.
	PushTimeout time.Duration
	// MaxProcesses bounds the git processes that serve clients at one time;
	// further requests wait. Default 16.
	MaxProcesses int
}

// Validate fills in defaults and reports what cannot work.
func (c *Config) Validate() error {
	if c.Dir == "" {
		return errors.New("forge: Dir is empty: name a directory for the repositories")
	}
	if c.URL == "" {
		c.URL = "http://github.localhost"
	}
	c.URL = strings.TrimSuffix(c.URL, "/")
	if u, err := url.Parse(c.URL); err != nil || u.Host == "" || u.Path != "" || (u.Scheme != "http" && u.Scheme != "https") {
		return fmt.Errorf("forge: URL %q is not like http://github.localhost:8080", c.URL)
	}
	if c.User == "" {
		c.User = "developer"
	}
	if !ownerName.MatchString(c.User) {
		return fmt.Errorf("forge: User %q is not a login: use letters, digits and single hyphens", c.User)
	}
	if c.DefaultBranch == "" {
		c.DefaultBranch = "main"
	}
	if !branchName.MatchString(c.DefaultBranch) {
		return fmt.Errorf("forge: DefaultBranch %q is not a branch name", c.DefaultBranch)
	}
	if c.MaxPackBytes == 0 {
		c.MaxPackBytes = 2 << 30
	}
	if c.HookRetry == 0 {
		c.HookRetry = 5 * time.Second
	}
	for _, text := range c.PrivateAddresses {
		sink, err := parseSink(text)
		if err != nil {
			return fmt.Errorf("forge: PrivateAddresses: %q is not like 127.0.0.1:8080 or 10.1.0.0/16: %w", text, err)
		}
		c.privateSinks = append(c.privateSinks, sink)
	}
	if c.MaxFileBytes == 0 {
		c.MaxFileBytes = 100 << 20
	}
	if c.MaxLFSBytes == 0 {
		c.MaxLFSBytes = 10 << 30
	}
	if c.PushTimeout == 0 {
		c.PushTimeout = 30 * time.Minute
	}
	if c.MaxProcesses == 0 {
		c.MaxProcesses = 16
	}
	if c.MaxPackBytes < 0 || c.MaxFileBytes < 0 || c.MaxLFSBytes < 0 || c.PushTimeout < 0 || c.MaxProcesses < 0 {
		return errors.New("forge: limits must be above zero")
	}
	return nil
}

var branchName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,200}$`)

// Journal is where push events go. It is read only to find out, after a crash,
// whether an event had been written.
type Journal interface {
	journal.Appender
	Events(ctx context.Context, q journal.Query) ([]journal.Event, error)
}

// Deps are what the forge needs from the others.
type Deps struct {
	Log     *slog.Logger
	Journal Journal
	Now     func() time.Time // default time.Now
	// Fallback gets the authenticated requests below /repos/{o}/{r}/actions and environments.
	// It finds who asks in the headers HeaderActor and HeaderWrite, which
	// outside requests cannot set, and in IdentityFrom.
	Fallback http.Handler
	// Review may refuse what is pushed to a branch of a repository that has its
	// review turned on: each refusal is shown in the pusher's terminal, best with
	// file and line. It gets a minute for all branches of a push; an error refuses too.
	Review func(ctx context.Context, p Proposed) (refusals []string, err error)
}

// Forge is the Git host. It is safe for concurrent use.
type Forge struct {
	cfg    Config
	deps   Deps
	log    *slog.Logger
	db     *sql.DB
	ready  chan struct{} // closed when every repository is reconciled
	procs  chan struct{} // one place per running git process
	api    http.Handler
	events feed
	pushed feed // wakes who waits for pushes
	queued feed // wakes who sends webhooks
	pulls  keyed

	base   context.Context // ends when git processes must end
	cancel context.CancelFunc

	create sync.Mutex // one repository is created or deleted at a time

	mu      sync.Mutex
	open    map[string]*repository // by key
	pushes  int                    // under way
	idle    chan struct{}          // closed when closing and pushes is 0
	closing bool
	closed  bool
}

// New opens the state below cfg.Dir. Requests wait until Run has reconciled the
// repositories with the journal.
func New(cfg Config, deps Deps) (*Forge, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Journal == nil {
		return nil, errors.New("forge: Deps.Journal is missing")
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	f := &Forge{
		cfg: cfg, deps: deps, log: deps.Log, ready: make(chan struct{}), idle: make(chan struct{}),
		procs: make(chan struct{}, cfg.MaxProcesses), open: map[string]*repository{},
	}
	f.base, f.cancel = context.WithCancel(context.Background())
	ctx, cancel := context.WithTimeout(f.base, 30*time.Second)
	defer cancel()
	if err := f.prepare(ctx); err != nil {
		f.cancel()
		return nil, err
	}
	f.api = f.newAPI()
	return f, nil
}

// prepare checks git, makes the directories and opens the database.
func (f *Forge) prepare(ctx context.Context) error {
	if err := checkGit(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(f.tmp()); err != nil {
		return fmt.Errorf("forge: %w", err)
	}
	for _, dir := range []string{f.tmp(), filepath.Join(f.cfg.Dir, "repositories")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("forge: %w", err)
		}
	}
	if err := f.writeHooks(); err != nil {
		return err
	}
	// The empty repository answers for those that a first push will create.
	empty, err := git.Init(ctx, f.empty(), f.cfg.DefaultBranch)
	if err != nil {
		return fmt.Errorf("forge: %w", err)
	}
	empty.Close()
	f.db, err = openState(ctx, filepath.Join(f.cfg.Dir, "forge.db"))
	return err
}

func (f *Forge) tmp() string   { return filepath.Join(f.cfg.Dir, "tmp") }
func (f *Forge) empty() string { return filepath.Join(f.tmp(), "empty.git") }

// Run reconciles every repository with the journal, closes Ready, and keeps the
// repositories tidy until ctx ends. Then it lets running pushes finish for up
// to 10 seconds and closes the forge.
func (f *Forge) Run(ctx context.Context) error {
	if err := f.reconcileAll(ctx); err != nil {
		if ctx.Err() != nil {
			err = nil
		}
		return errors.Join(err, f.Close())
	}
	close(f.ready)
	var background sync.WaitGroup
	background.Go(func() { f.deliverHooks(ctx) })
	f.maintain(ctx)
	background.Wait()
	f.drain(10 * time.Second)
	return f.Close()
}

// Ready is closed when requests are answered.
func (f *Forge) Ready() <-chan struct{} { return f.ready }

// drain refuses new pushes and waits for the running ones.
func (f *Forge) drain(grace time.Duration) {
	f.mu.Lock()
	if !f.closing {
		f.closing = true
		if f.pushes == 0 {
			close(f.idle)
		}
	}
	f.mu.Unlock()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-f.idle:
	case <-timer.C:
		f.log.Warn("pushes are still running and will be ended", "after", grace)
	}
}

// Close ends what still runs and closes the state. Run does it by itself.
func (f *Forge) Close() error {
	f.cancel()
	f.drain(10 * time.Second)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	for _, r := range f.open {
		r.git.Close()
	}
	if err := f.db.Close(); err != nil {
		return fmt.Errorf("forge: close state: %w", err)
	}
	return nil
}

// enterPush counts a push in; false says that the forge is closing.
func (f *Forge) enterPush() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closing {
		return false
	}
	f.pushes++
	return true
}

func (f *Forge) leavePush() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pushes--; f.pushes == 0 && f.closing {
		close(f.idle)
	}
}

// checkGit makes sure that git is there and new enough for cat-file
// --batch-command and merge-tree --write-tree.
func checkGit(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "git", "version").Output()
	if err != nil {
		return fmt.Errorf("forge: git is needed and can't be started (install git 2.38 or newer): %w", err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(out), "git version %d.%d", &major, &minor); err != nil {
		return fmt.Errorf("forge: %q is no git version: %w", strings.TrimSpace(string(out)), err)
	}
	if major < 2 || major == 2 && minor < 38 {
		return fmt.Errorf("forge: git %d.%d is too old: install git 2.38 or newer", major, minor)
	}
	return nil
}
