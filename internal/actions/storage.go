package actions

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
	"github.com/lockstep-gitops/lockstep/internal/actions/service"
)

// storage gives the built-in actions of one job the artifacts and caches that
// its clients have.
type storage struct {
	Services
	scope service.Scope

	mu    sync.Mutex
	found map[int64]service.Cache // by ID, for OpenCache
}

var (
	_ builtin.Store = (*storage)(nil)
	_ builtin.Scans = (*storage)(nil)
)

func newStorage(services Services, scope service.Scope) *storage {
	return &storage{Services: services, scope: scope, found: map[int64]service.Cache{}}
}

// asBuiltin says "it exists" in the words of package builtin.
func asBuiltin(err error) error {
	if errors.Is(err, service.ErrExists) {
		return errors.Join(builtin.ErrExists, err)
	}
	return err
}

func artifactOf(a service.Artifact) builtin.Artifact {
	return builtin.Artifact{ID: a.ID, Name: a.Name, Size: a.Size, Digest: a.Digest, Created: a.Created}
}

// from writes what a reader has.
func from(r io.Reader) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	}
}

// PutArtifact implements builtin.Store.
func (s *storage) PutArtifact(ctx context.Context, a builtin.NewArtifact, zip io.Reader) (builtin.Artifact, error) {
	days := int((a.Retention + 24*time.Hour - 1) / (24 * time.Hour))
	made, err := s.SaveArtifact(ctx, s.scope, service.ArtifactSpec{Name: a.Name, RetentionDays: days, Overwrite: a.Overwrite}, from(zip))
	return artifactOf(made), asBuiltin(err)
}

// Artifacts implements builtin.Store.
func (s *storage) Artifacts(ctx context.Context, repo string, run int64) ([]builtin.Artifact, error) {
	if repo != "" && !strings.EqualFold(repo, s.scope.Repo) {
		return nil, fmt.Errorf("artifacts of %s: a job here reads those of its own repository, %s", repo, s.scope.Repo)
	}
	if run == 0 {
		run = s.scope.Run
	}
	list, total, err := s.Services.Artifacts(ctx, service.ArtifactFilter{Repo: s.scope.Repo, Run: run})
	if err != nil {
		return nil, err
	}
	if total > len(list) {
		return nil, fmt.Errorf("run %d has %d artifacts, %d can be listed", run, total, len(list))
	}
	out := make([]builtin.Artifact, len(list))
	for i, a := range list {
		out[i] = artifactOf(a)
	}
	return out, nil
}

// OpenArtifact implements builtin.Store.
func (s *storage) OpenArtifact(ctx context.Context, id int64) (io.ReadCloser, error) {
	_, blob, err := s.Services.OpenArtifact(ctx, s.scope.Repo, id)
	if err != nil {
		return nil, err
	}
	return blob, nil
}

// FindCache implements builtin.Store.
func (s *storage) FindCache(ctx context.Context, keys []string, version string) (builtin.Cache, bool, error) {
	if len(keys) == 0 {
		return builtin.Cache{}, false, nil
	}
	c, ok, err := s.Services.FindCache(ctx, s.scope, keys[0], keys[1:], version)
	if err != nil || !ok {
		return builtin.Cache{}, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found[c.ID] = c
	return builtin.Cache{ID: c.ID, Key: c.Key, Size: c.Size}, true, nil
}

// OpenCache implements builtin.Store.
func (s *storage) OpenCache(_ context.Context, id int64) (io.ReadCloser, error) {
	s.mu.Lock()
	c, ok := s.found[id]
	s.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("cache entry %d: %w", id, service.ErrNotFound)
	}
	return s.Services.OpenCache(c)
}

// SaveCache implements builtin.Store.
func (s *storage) SaveCache(ctx context.Context, key, version string, archive io.Reader) error {
	_, err := s.Services.SaveCache(ctx, s.scope, key, version, from(archive))
	return asBuiltin(err)
}

// SaveScan implements builtin.Scans: a report is an artifact of the run, as it
// was written.
func (s *storage) SaveScan(ctx context.Context, scan builtin.Scan) (string, error) {
	name := "sarif"
	for _, part := range []string{scan.Tool, scan.Category} {
		if part = unnamed.ReplaceAllString(part, "-"); part != "" {
			name += "-" + part
		}
	}
	a, err := s.SaveArtifact(ctx, s.scope, service.ArtifactSpec{Name: name[:min(len(name), 200)] + ".sarif", MIME: "application/sarif+json", Overwrite: true}, from(bytes.NewReader(scan.SARIF)))
	return fmt.Sprint(a.ID), err
}

// unnamed is what names of artifacts do not have here.
var unnamed = regexp.MustCompile(`[^A-Za-z0-9._-]+`)
