// Package remote is the one door to everything that Applications name as a
// source: Git repositories near and far, Helm repositories, registries.
//
// Input: sources of Applications with their project, and the credentials of
// the cluster. Output: [Resolved], the revision that a source means now, its
// tree, and a [Move] when it means another one.
//
// Invariants: a repository that the local forge holds wins over a remote one;
// what is remote is asked for once for all who need it; see mirror and chart
// for their bounds.
//
// Start reading at [Service.ResolveSource].
package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/blobs"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/chart"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/credential"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/lfs"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/mirror"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/submodule"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/webhook"
)

// Move says that a ref, or the constraint of a chart, means another revision.
type Move = mirror.Move

// Config is how the service works. Zero values have defaults; those of Mirror
// and Chart that are here as well are taken from here.
type Config struct {
	Dir      string        // mirrors and archives are kept below
	Interval time.Duration // between two looks at a remote source; 120 s; negative: never
	Jitter   time.Duration // random part on top; 60 s
	Mirror   mirror.Config
	Chart    chart.Config
	MaxLFS   int64 // bytes of LFS content on disk; 2 GiB
}

// Deps is what the service works with. All may be nil.
type Deps struct {
	Log *slog.Logger
	// Local returns the repository of the local forge that a repoURL means.
	Local func(ctx context.Context, repoURL string) (repo *git.Repository, name string, ok bool)
	// Moved is told of remote sources that moved. It must not wait for the
	// service.
	Moved func(Move)
	// Health is told when a remote source cannot be read any more, and when it
	// can again (nil).
	Health func(name string, err error)
	// Transport is what HTTP goes by; it is copied. nil is Go's own, without
	// a proxy.
	Transport *http.Transport
	Now       func() time.Time
}

// Service resolves and reads sources. It is safe for concurrent use. See [New].
type Service struct {
	cfg         Config
	deps        Deps
	credentials atomic.Pointer[credential.Store]
	clients     *credential.Clients
	tokens      *credential.Tokens
	mirrors     *mirror.Store
	charts      *chart.Store
	content     *blobs.Cache // of LFS

	mu      sync.Mutex
	follows map[chart.Ref]*followed
	readers map[string][]chart.Ref
	seen    map[chart.Ref]string // the last revision of each
	changed chan struct{}        // follows has new ones
}

// New returns a service without side effects.
func New(cfg Config, deps Deps) *Service {
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Moved == nil {
		deps.Moved = func(Move) {}
	}
	if deps.Health == nil {
		deps.Health = func(string, error) {}
	}
	if cfg.Interval == 0 {
		cfg.Interval, cfg.Jitter = 120*time.Second, 60*time.Second
	}
	if cfg.MaxLFS <= 0 {
		cfg.MaxLFS = 2 << 30
	}
	cfg.Mirror.Dir, cfg.Mirror.Interval, cfg.Mirror.Jitter = filepath.Join(cfg.Dir, "mirrors"), cfg.Interval, cfg.Jitter
	cfg.Chart.Dir = filepath.Join(cfg.Dir, "charts")
	s := &Service{
		cfg: cfg, deps: deps, clients: credential.NewClients(deps.Transport), content: blobs.New(filepath.Join(cfg.Dir, "lfs"), cfg.MaxLFS),
		follows: map[chart.Ref]*followed{}, readers: map[string][]chart.Ref{}, seen: map[chart.Ref]string{}, changed: make(chan struct{}, 1),
	}
	s.tokens = credential.NewTokens(s.clients, deps.Now)
	s.mirrors = mirror.New(cfg.Mirror, mirror.Deps{
		Log: deps.Log, Credential: s.credential, Tokens: s.tokens, Moved: deps.Moved, Health: deps.Health, Now: deps.Now,
	})
	s.charts = chart.New(cfg.Chart, chart.Deps{Log: deps.Log, Credential: s.credential, Clients: s.clients, Now: deps.Now})
	return s
}

// Close ends what is under way. Run must have ended.
func (s *Service) Close() {
	s.mirrors.Close()
	s.clients.Close()
}

// SetCredentials replaces the credentials of all repositories. What could not
// be read is tried again.
func (s *Service) SetCredentials(store *credential.Store) {
	s.credentials.Store(store)
	s.mirrors.Retry()
}

func (s *Service) credential(project, repoURL string) (credential.Credential, error) {
	return s.credentials.Load().For(project, repoURL)
}

// Run looks for moves of what is tracked until the context ends.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { s.followCharts(ctx) })
	err := s.mirrors.Run(ctx)
	wg.Wait()
	return err
}

// Repository is a Git repository that can be read.
type Repository struct {
	Git   *git.Repository
	Name  string // "owner/name" of the forge, or host and path, "github.com/o/r"
	Local bool
}

// Open returns a repository with its default branch.
func (s *Service) Open(ctx context.Context, project, repoURL string) (Repository, error) {
	if repo, ok := s.local(ctx, repoURL); ok {
		return repo, nil
	}
	repo, err := s.mirrors.Open(ctx, project, repoURL)
	return Repository{Git: repo.Git, Name: repo.Name}, err
}

func (s *Service) local(ctx context.Context, repoURL string) (Repository, bool) {
	if s.deps.Local == nil {
		return Repository{}, false
	}
	urls := []string{repoURL}
	if at, err := credential.Parse(repoURL); err == nil && at.Scheme == "ssh" {
		urls = append(urls, "https://"+at.Name())
	}
	for _, url := range urls {
		if repo, name, ok := s.deps.Local(ctx, url); ok {
			return Repository{Git: repo, Name: name, Local: true}, true
		}
	}
	return Repository{}, false
}

// Kind is what a source is.
type Kind string

// The kinds of sources.
const (
	Git      Kind = "git"
	Chart    Kind = "chart"    // a Helm chart of a repository or registry
	Artifact Kind = "artifact" // of a registry
)

// KindOf returns what a source is, as Argo CD decides: by chart, then by the
// scheme of repoURL.
func KindOf(src v1alpha1.ApplicationSource) Kind {
	switch {
	case src.Chart != "":
		return Chart
	case strings.HasPrefix(src.RepoURL, "oci://"):
		return Artifact
	}
	return Git
}

// Resolved is a source at one revision.
type Resolved struct {
	Kind     Kind
	Repo     Repository // of Git
	Name     string     // of the repository or chart, as in Move.Repo
	Revision string     // commit id, version of a chart, or digest of an artifact
	Project  string
	RepoURL  string

	ref     chart.Ref
	version chart.Version
}

// ResolveSource returns the revision that a source means. Of a Git repository
// that can be read Repo is there also when the revision is an error that is
// git.ErrNotFound. For an earlier revision, set it as the target revision.
func (s *Service) ResolveSource(ctx context.Context, project string, src v1alpha1.ApplicationSource) (Resolved, error) {
	r := Resolved{Kind: KindOf(src), Project: project, RepoURL: src.RepoURL}
	if r.Kind == Git {
		rev := source.Revision{Target: src.TargetRevision, TagPrefix: src.TagPrefix}
		var err error
		r.Repo, r.Revision, err = s.commit(ctx, project, src.RepoURL, rev)
		r.Name = r.Repo.Name
		return r, err
	}
	r.ref = refOf(project, src)
	r.Name = r.ref.Name()
	var err error
	if r.version, err = s.charts.Resolve(ctx, r.ref); err != nil {
		return r, err
	}
	r.Revision = r.ref.Revision(r.version)
	s.saw(r.ref, r.Revision)
	return r, nil
}

func refOf(project string, src v1alpha1.ApplicationSource) chart.Ref {
	r := chart.Ref{Project: project, RepoURL: src.RepoURL, Chart: src.Chart, Constraint: src.TargetRevision}
	if src.Helm != nil {
		r.PassCredentials = src.Helm.PassCredentials
	}
	return r
}

// commit resolves a revision of a Git repository.
func (s *Service) commit(ctx context.Context, project, repoURL string, rev source.Revision) (Repository, string, error) {
	if repo, ok := s.local(ctx, repoURL); ok {
		id, err := rev.Resolve(ctx, repo.Git)
		return repo, id, err
	}
	m, id, err := s.mirrors.Commit(ctx, project, repoURL, rev)
	return Repository{Git: m.Git, Name: m.Name}, id, err
}

// TreeAt returns the files of a resolved source: with the submodules of a
// commit, and with the content of LFS when the repository's Secret says so.
func (s *Service) TreeAt(ctx context.Context, r Resolved) (*source.Tree, error) {
	if r.Kind != Git {
		return s.charts.Tree(ctx, r.ref, r.version)
	}
	files, err := s.files(ctx, r.Project, r.RepoURL, r.Repo, r.Revision)
	if err != nil {
		return nil, err
	}
	any, err := submodule.Any(ctx, files)
	if err != nil {
		return nil, fmt.Errorf("%s at %s: %w", r.Name, r.Revision, err)
	}
	if any {
		files = submodule.Of(files, r.RepoURL, func(ctx context.Context, repoURL, commit string) (source.Files, error) {
			repo, id, err := s.commit(ctx, r.Project, repoURL, source.Revision{Target: commit})
			if err != nil {
				return nil, err
			}
			return s.files(ctx, r.Project, repoURL, repo, id)
		})
	}
	return source.NewTreeOf(files, r.Revision), nil
}

// files are those of one commit, without submodules.
func (s *Service) files(ctx context.Context, project, repoURL string, repo Repository, commit string) (source.Files, error) {
	files := source.CommitFiles(repo.Git, commit)
	if repo.Local {
		return files, nil
	}
	files = &checked{Files: files, damaged: func() { s.mirrors.Suspect(repo.Git) }}
	c, err := s.credential(project, repoURL)
	if err != nil || !c.EnableLFS {
		return files, err
	}
	if c, err = s.tokens.Sign(ctx, c, repoURL); err != nil {
		return nil, err
	}
	return lfs.Of(files, lfs.Server{RepoURL: repoURL, Credential: c, Clients: s.clients, Kept: s.content}), nil
}

// checked tells of errors that a sound mirror does not give.
type checked struct {
	source.Files
	damaged func()
}

// ReadDir implements source.Files.
func (c *checked) ReadDir(ctx context.Context, dir string) ([]git.Entry, error) {
	entries, err := c.Files.ReadDir(ctx, dir)
	c.look(ctx, err)
	return entries, err
}

// Object implements source.Files.
func (c *checked) Object(ctx context.Context, id string) ([]byte, error) {
	data, err := c.Files.Object(ctx, id)
	c.look(ctx, err)
	return data, err
}

func (c *checked) look(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil && !errors.Is(err, git.ErrNotFound) && !errors.Is(err, git.ErrTooLarge) {
		c.damaged()
	}
}

// Refresh looks at the Git repositories of that name now, and waits.
func (s *Service) Refresh(ctx context.Context, name string) error {
	return s.mirrors.Refresh(ctx, name)
}

// Webhook takes webhooks of Git hosts, as Argo CD's /api/webhook. Repositories
// that are tracked are looked at at once.
func (s *Service) Webhook(secrets func() webhook.Secrets) http.Handler {
	return webhook.Handler(s.deps.Log, secrets, func(e webhook.Event) {
		if s.mirrors.Pushed(e.URLs...) {
			s.deps.Log.Info("a webhook tells of a push", "host", e.Host, "ref", e.Ref)
		}
	})
}
