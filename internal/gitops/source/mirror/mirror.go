// Package mirror keeps bare mirrors of remote Git repositories up to date.
//
// Input: repository URLs with the revisions that somebody wants of them, and
// credentials. Output: a [git.Repository] on disk that has these revisions, and
// a [Move] for every ref that moved.
//
// Invariants: work is per repository, never per reader: one listing and one
// fetch serve everybody who waits, and a fetch brings only the refs that are
// wanted; the number of git processes, their time and the size of a mirror are
// bounded; refs are updated by one transaction; secrets are never arguments of a
// process and never in an error; repositories that only one project may read
// have mirrors of their own; what nobody wants is neither asked for nor kept.
//
// Start reading at [Store.Commit], then round.go for what one round does.
package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/credential"
)

// Config is how the store works. Zero values have defaults.
type Config struct {
	Dir          string        // where the mirrors are; made when it is needed
	Interval     time.Duration // between two listings of a tracked repository; 120 s; negative: never
	Jitter       time.Duration // random part on top; 60 s
	Parallel     int           // git processes at a time; 4
	ListTimeout  time.Duration // 90 s
	FetchTimeout time.Duration // 15 min
	MaxBytes     int64         // of one mirror on disk; 8 GiB
	KeepUnused   time.Duration // a mirror that nobody wants is removed after this; 24 h
	AllowFile    bool          // file:// URLs, for tests
	Proxy        string        // for repositories whose Secret names none
	NoProxy      string
	CA           string // PEM for servers that argocd-tls-certs-cm does not know; "" for the system's
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{
		{&c.Interval, 120 * time.Second}, {&c.Jitter, 60 * time.Second}, {&c.ListTimeout, 90 * time.Second},
		{&c.FetchTimeout, 15 * time.Minute}, {&c.KeepUnused, 24 * time.Hour},
	} {
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	if c.Parallel <= 0 {
		c.Parallel = 4
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = 8 << 30
	}
	return c
}

// Deps is what the store works with.
type Deps struct {
	Log *slog.Logger
	// Credential says how a repository is read; see [credential.Store.For].
	Credential func(project, repoURL string) (credential.Credential, error)
	Tokens     *credential.Tokens // of GitHub Apps; nil when there are none
	// Moved is told of refs that moved, in their order and before those who
	// wait for the round go on. It must not wait for the store. May be nil.
	Moved func(Move)
	// Health is told when a repository cannot be read any more, and when it can
	// again (nil). May be nil.
	Health func(name string, err error)
	Now    func() time.Time // nil is the real clock
}

// Move is a ref that was made, moved or deleted. A missing side is git.ZeroID;
// annotated tags are the commits that they name.
type Move struct {
	Repo, Ref, Before, After string
}

// Store keeps the mirrors. See [New].
type Store struct {
	cfg     Config
	deps    Deps
	slots   chan struct{}
	ctx     context.Context // of rounds; ends with Close
	stop    context.CancelFunc
	rounds  sync.WaitGroup
	wake    chan struct{} // the time of a next listing changed
	started time.Time

	mu      sync.Mutex
	closed  bool
	mirrors map[string]*mirror
	readers map[string][]*want
}

// New returns a store without side effects: nothing is made or started before
// the first call.
func New(cfg Config, deps Deps) *Store {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Moved == nil {
		deps.Moved = func(Move) {}
	}
	if deps.Health == nil {
		deps.Health = func(string, error) {}
	}
	cfg = cfg.withDefaults()
	s := &Store{
		cfg: cfg, deps: deps, slots: make(chan struct{}, cfg.Parallel), wake: make(chan struct{}, 1), started: deps.Now(),
		mirrors: map[string]*mirror{}, readers: map[string][]*want{},
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Close ends rounds under way and the reader processes.
func (s *Store) Close() {
	s.stop()
	s.mu.Lock()
	s.closed = true
	mirrors := make([]*mirror, 0, len(s.mirrors))
	for _, m := range s.mirrors {
		mirrors = append(mirrors, m)
	}
	s.mu.Unlock()
	s.rounds.Wait()
	for _, m := range mirrors {
		m.repo.Close()
	}
}

// Repository is a mirror that can be read.
type Repository struct {
	Git  *git.Repository
	Name string // host and path, "github.com/o/r"
}

// Open returns the mirror of a repository with its default branch.
func (s *Store) Open(ctx context.Context, project, repoURL string) (Repository, error) {
	repo, _, err := s.Commit(ctx, project, repoURL, source.Revision{})
	if errors.Is(err, git.ErrNotFound) && repo.Git != nil {
		err = nil // it is empty
	}
	return repo, err
}

// Commit returns the mirror of a repository and the commit that the revision
// names, which the mirror has. It asks the server when the last answer is
// older than the interval or did not cover the revision, together with all
// others who ask. Of an error that is git.ErrNotFound the repository is valid.
func (s *Store) Commit(ctx context.Context, project, repoURL string, rev source.Revision) (Repository, string, error) {
	m, err := s.mirror(project, repoURL)
	if err != nil {
		return Repository{}, "", err
	}
	w := m.want(rev)
	repo := Repository{Git: m.repo, Name: m.name}
	if m.has(ctx, w) {
		if id, err := rev.Resolve(ctx, m.repo); err == nil || !rev.IsSHA() {
			return repo, id, err
		}
	}
	if err := m.recent(); err != nil {
		return repo, "", err
	}
	if err := m.refresh(ctx); err != nil {
		return repo, "", err
	}
	if err := m.failed(w); err != nil {
		return repo, "", err
	}
	id, err := rev.Resolve(ctx, m.repo)
	return repo, id, err
}

// Suspect says that reading the mirror gave an error that a sound one does not
// give. It is checked, and made anew when it is damaged.
func (s *Store) Suspect(repo *git.Repository) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.mirrors {
		if m.repo == repo {
			m.mu.Lock()
			m.suspect = true
			m.due = s.deps.Now()
			m.mu.Unlock()
			s.poke()
		}
	}
}

// mirror returns the mirror of a repository for a project, without I/O.
func (s *Store) mirror(project, repoURL string) (*mirror, error) {
	at, err := credential.Parse(repoURL)
	if err != nil {
		return nil, err
	}
	if at.Scheme == "" || at.Scheme == credential.OCI || at.Scheme == "file" && !s.cfg.AllowFile {
		return nil, fmt.Errorf("repoURL %s is not a Git repository that can be read; use https, http or ssh", credential.Redact(repoURL))
	}
	c, err := s.deps.Credential(project, repoURL)
	if err != nil {
		return nil, err
	}
	same := at // with and without ".git" is one repository
	same.Suffix, same.Password = "", ""
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s", addressOf(same), c.Project))
	key := hex.EncodeToString(sum[:12])
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("the mirrors are closed")
	}
	m, ok := s.mirrors[key]
	if !ok {
		dir := filepath.Join(s.cfg.Dir, key+".git")
		repo, err := handle(dir)
		if err != nil {
			return nil, err
		}
		m = &mirror{store: s, repo: repo, dir: dir, name: at.Name(), address: addressOf(at), at: at, wants: map[source.Revision]*want{}}
		s.mirrors[key] = m
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.project, m.url, m.used = project, repoURL, s.deps.Now()
	if f := c.Fingerprint(); f != m.fingerprint { // other credentials may work where these did not
		m.fingerprint, m.err, m.failures = f, nil, 0
	}
	return m, nil
}

// handle opens the mirror in dir, and makes an empty one when there is none.
func handle(dir string) (*git.Repository, error) {
	if _, err := os.Stat(filepath.Join(dir, "HEAD")); errors.Is(err, fs.ErrNotExist) {
		if err := create(dir); err != nil {
			return nil, err
		}
	}
	return git.Open(dir)
}

// create makes an empty bare repository, HEAD last.
func create(dir string) error {
	for _, d := range []string{"objects", "refs"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return fmt.Errorf("make a mirror: %w", err)
		}
	}
	for _, f := range [][2]string{{"config", "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"}, {"HEAD", "ref: refs/heads/main\n"}} {
		if err := os.WriteFile(filepath.Join(dir, f[0]), []byte(f[1]), 0o600); err != nil {
			return fmt.Errorf("make a mirror: %w", err)
		}
	}
	return nil
}

// addressOf is the URL that git gets: as it was written, without a password.
func addressOf(at credential.Location) string {
	p := at.Path + at.Suffix
	switch {
	case at.Short:
		return at.User + "@" + at.Host + ":" + p
	case at.Scheme == "ssh" && at.User != "":
		return "ssh://" + at.User + "@" + at.Host + "/" + p
	}
	return at.Scheme + "://" + at.Host + "/" + p
}
