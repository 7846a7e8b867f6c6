// Package chart gets Helm charts and OCI artifacts from their repositories.
//
// Input: a [Ref], the place of a chart or artifact and a constraint on its
// version. Output: the [Version] that the constraint means, the archive, and
// its content as a tree.
//
// Invariants: an archive is what the index or manifest says by digest, or an
// error; indexes, archives and unpacked trees are bounded, in size and in what
// is kept; an index is asked for again only by its ETag; credentials go to the
// host of the repository only, unless PassCredentials is set.
//
// Start reading at [Store.Resolve], then http.go and oci.go.
package chart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/archive"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/blobs"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/credential"
)

// ErrNotFound says that there is no such chart, or no version that is wanted.
var ErrNotFound = errors.New("there is no such chart or version")

// ErrRefused says that the server wants other credentials.
var ErrRefused = errors.New("access was refused; check the repository Secret")

// Config bounds the store. Zero values have defaults.
type Config struct {
	Dir        string        // of kept archives
	MaxKept    int64         // bytes of archives on disk; 1 GiB
	MaxIndex   int64         // bytes of an index.yaml; 50 MiB
	MaxArchive int64         // bytes of a packed chart or artifact; 100 MiB
	MaxTree    int64         // bytes of an unpacked one; 256 MiB
	Fresh      time.Duration // an index or list of tags is used so long without asking; 120 s
	Timeout    time.Duration // of one request with its content; 2 min
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		value *int64
		def   int64
	}{{&c.MaxKept, 1 << 30}, {&c.MaxIndex, 50 << 20}, {&c.MaxArchive, 100 << 20}, {&c.MaxTree, 256 << 20}} {
		if *d.value <= 0 {
			*d.value = d.def
		}
	}
	if c.Fresh == 0 {
		c.Fresh = 120 * time.Second
	}
	if c.Timeout <= 0 {
		c.Timeout = 2 * time.Minute
	}
	return c
}

// Deps is what the store works with.
type Deps struct {
	Log        *slog.Logger
	Credential func(project, repoURL string) (credential.Credential, error)
	Clients    *credential.Clients
	Now        func() time.Time // nil is the real clock
}

// Store gets charts and artifacts. It is safe for concurrent use. See [New].
type Store struct {
	cfg    Config
	deps   Deps
	kept   *blobs.Cache
	flight singleflight.Group

	mu      sync.Mutex
	indexes map[string]*index // by URL and credentials
	tags    map[string]tagList
	signIns map[string]auth.Cache // of registries, by credentials
	digests map[string]string     // by URL of an archive whose index has no digest
	trees   []unpacked            // newest last
}

// unpacked is a tree that is kept for the next reader.
type unpacked struct {
	digest string
	files  *archive.Files
}

const (
	maxIndexes   = 16
	maxTagLists  = 256
	maxDigests   = 1024
	maxTreeBytes = 32 << 20
)

// New returns a store without side effects.
func New(cfg Config, deps Deps) *Store {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	cfg = cfg.withDefaults()
	return &Store{
		cfg: cfg, deps: deps, kept: blobs.New(filepath.Join(cfg.Dir, "blobs"), cfg.MaxKept),
		indexes: map[string]*index{}, tags: map[string]tagList{}, signIns: map[string]auth.Cache{}, digests: map[string]string{},
	}
}

// Ref is a chart or artifact.
type Ref struct {
	Project    string
	RepoURL    string // https://…, or oci://… (Argo CD also takes host/path for registries)
	Chart      string // "" for an OCI artifact
	Constraint string // a version, a constraint ("" is the newest), and of artifacts a tag or digest
	// PassCredentials sends the credentials to other hosts that the index names.
	PassCredentials bool
	// Again asks the server even when the last answer is fresh.
	Again bool
}

// OCI reports whether the repository is a registry.
func (r Ref) OCI() bool {
	return strings.HasPrefix(r.RepoURL, "oci://") || !strings.Contains(r.RepoURL, "://")
}

// Name is how people name it: host, path and chart.
func (r Ref) Name() string {
	name := strings.TrimSuffix(credential.Redact(r.RepoURL), "/")
	if at, err := credential.Parse(r.RepoURL); err == nil {
		name = at.Name()
	}
	if r.Chart != "" {
		name += "/" + r.Chart
	}
	return name
}

// Version is one state of a chart or artifact; it does not change.
type Version struct {
	Version string // of a chart; of an artifact the tag, "" when it was asked for by digest
	Digest  string // "sha256:…" of the archive (chart) or manifest (OCI); "" when an index has none

	url string // of the archive
}

// Revision is what status.sync.revision has: the version of a chart, the
// digest of an artifact.
func (r Ref) Revision(v Version) string {
	if r.Chart == "" {
		return v.Digest
	}
	return v.Version
}

// Resolve returns the version that the constraint means now.
func (s *Store) Resolve(ctx context.Context, r Ref) (Version, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	var v Version
	var err error
	if r.OCI() {
		v, err = s.resolveOCI(ctx, r)
	} else if r.Chart == "" {
		err = fmt.Errorf("spec.source.chart is missing: %w", ErrNotFound)
	} else {
		v, err = s.resolveHTTP(ctx, r)
	}
	if err != nil {
		return Version{}, fmt.Errorf("chart %s %s: %w", r.Name(), r.Constraint, err)
	}
	return v, nil
}

// Archive returns the packed content of the version that the constraint means.
func (s *Store) Archive(ctx context.Context, r Ref) ([]byte, Version, error) {
	v, err := s.Resolve(ctx, r)
	if err != nil {
		return nil, v, err
	}
	data, _, err := s.archive(ctx, r, v)
	return data, v, err
}

// archive returns the packed content, and whether it is a chart, which is packed
// in a directory of its name.
func (s *Store) archive(ctx context.Context, r Ref, v Version) ([]byte, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	get := s.archiveHTTP
	if r.OCI() {
		get = s.archiveOCI
	}
	data, packed, err := get(ctx, r, v)
	if err != nil {
		return nil, false, fmt.Errorf("chart %s %s: %w", r.Name(), v.Version, err)
	}
	return data, packed, nil
}

// Tree returns the content of the version. The directory that a chart is packed
// in is the root.
func (s *Store) Tree(ctx context.Context, r Ref, v Version) (*source.Tree, error) {
	key := v.Digest
	if key == "" {
		key = r.RepoURL + " " + v.url + " " + v.Version
	}
	if files := s.unpacked(key); files != nil {
		return source.NewTreeOf(files, r.Revision(v)), nil
	}
	data, packed, err := s.archive(ctx, r, v)
	if err != nil {
		return nil, err
	}
	files, err := archive.Read(data, packed, archive.Limits{Bytes: s.cfg.MaxTree})
	if err != nil {
		return nil, fmt.Errorf("chart %s %s: %w", r.Name(), v.Version, err)
	}
	s.keepUnpacked(key, files)
	return source.NewTreeOf(files, r.Revision(v)), nil
}

func (s *Store) unpacked(key string) *archive.Files {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, u := range s.trees {
		if u.digest == key {
			s.trees = append(append(s.trees[:i:i], s.trees[i+1:]...), u)
			return u.files
		}
	}
	return nil
}

func (s *Store) keepUnpacked(key string, files *archive.Files) {
	if files.Size() > maxTreeBytes/2 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trees = append(s.trees, unpacked{key, files})
	total := int64(0)
	for i := len(s.trees) - 1; i >= 0; i-- {
		if total += s.trees[i].files.Size() + 4096; total > maxTreeBytes {
			s.trees = append([]unpacked(nil), s.trees[i+1:]...)
			return
		}
	}
}

// credentials finds them by the URL as it is written, and for registries with
// and without the scheme.
func (s *Store) credentials(r Ref) (credential.Credential, error) {
	urls := []string{r.RepoURL}
	if r.OCI() {
		bare := strings.TrimPrefix(r.RepoURL, "oci://")
		urls = append(urls, bare, "oci://"+bare)
	}
	var first credential.Credential
	for i, url := range urls {
		c, err := s.deps.Credential(r.Project, url)
		if err != nil || c.Secret != "" {
			return c, err
		}
		if i == 0 || first.CA == "" {
			first = c
		}
	}
	return first, nil
}
