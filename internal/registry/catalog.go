package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"

	"github.com/distribution/distribution/v3"
	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/reference"
)

// maxCatalog bounds how many repositories of one host a listing holds.
const maxCatalog = 10_000

// Hosts returns the registry hosts that hold something, in order.
func (r *Registry) Hosts() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(r.cfg.Dir, "hosts"))
	if err != nil {
		return nil, fmt.Errorf("list registries: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Catalog returns the repositories of a host in order, at most 10,000.
func (r *Registry) Catalog(ctx context.Context, host string) ([]string, error) {
	h, err := r.lookUp(host)
	if err != nil {
		return nil, fmt.Errorf("list repositories of %s: %w", host, err)
	}
	names := make([]string, maxCatalog)
	n, err := h.app.store.Repositories(ctx, names, "")
	if err != nil && !errors.Is(err, io.EOF) && !isNotFound(err) {
		return nil, fmt.Errorf("list repositories of %s: %w", host, err)
	}
	return names[:n], nil
}

// Tags returns the tags of a repository, in order, and none when there is no
// such repository.
func (r *Registry) Tags(ctx context.Context, host, repo string) ([]string, error) {
	h, err := r.lookUp(host)
	if err != nil {
		return nil, fmt.Errorf("list tags of %s: %w", name(host, repo), err)
	}
	named, err := reference.WithName(repo)
	if err != nil {
		return nil, fmt.Errorf("list tags of %s: %w", name(host, repo), err)
	}
	repository, err := h.app.store.Repository(ctx, named)
	if err != nil {
		return nil, fmt.Errorf("list tags of %s: %w", name(host, repo), err)
	}
	tags, err := repository.Tags(ctx).All(ctx)
	var none distribution.ErrRepositoryUnknown
	if err != nil && !errors.As(err, &none) {
		return nil, fmt.Errorf("list tags of %s: %w", name(host, repo), err)
	}
	sort.Strings(tags)
	return tags, nil
}

// lookUp opens a registry by any of its names.
func (r *Registry) lookUp(s string) (*host, error) {
	name, err := parseHost(s)
	if err != nil {
		return nil, err
	}
	return r.open(name)
}

// isNotFound reports that the storage has no such path: nothing was pushed yet.
func isNotFound(err error) bool {
	var none storagedriver.PathNotFoundError
	return errors.As(err, &none)
}
