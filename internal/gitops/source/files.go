package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// Files is what a tree shows: a commit, or the content of an archive.
type Files interface {
	// ReadDir lists a directory, "" for the root, or returns git.ErrNotFound.
	// The caller does not change the slice.
	ReadDir(ctx context.Context, dir string) ([]git.Entry, error)
	// Object returns the content of an entry by its id.
	Object(ctx context.Context, id string) ([]byte, error)
}

// Mounter is what Files implement when the commit of another repository can be
// shown at an entry of kind git.KindCommit, a submodule.
type Mounter interface {
	// Mounted reports whether ReadDir works at and below the entry at path p,
	// and which file decides where its content comes from (".gitmodules").
	Mounted(p string) (file string, ok bool)
}

// CommitFiles are the files of one commit, read from the object database. Only
// directories that are asked for are read, and each once for all readers of
// the repository.
func CommitFiles(repo *git.Repository, commit string) Files {
	return &commitFiles{repo: repo, commit: commit}
}

type commitFiles struct {
	repo   *git.Repository
	commit string

	mu   sync.Mutex
	root string
}

func (c *commitFiles) ReadDir(ctx context.Context, dir string) ([]git.Entry, error) {
	root, err := c.rootTree(ctx)
	if err != nil {
		return nil, err
	}
	entries, err := c.repo.Entries(ctx, root)
	if err != nil || dir == "" {
		return entries, err
	}
	for name := range strings.SplitSeq(dir, "/") {
		e, ok := find(entries, name)
		if !ok || e.Kind != git.KindTree {
			return nil, fmt.Errorf("%s: %w", dir, git.ErrNotFound)
		}
		if entries, err = c.repo.Entries(ctx, e.ID); err != nil {
			return nil, missing(err)
		}
	}
	return entries, nil
}

func (c *commitFiles) rootTree(ctx context.Context) (string, error) {
	c.mu.Lock()
	root := c.root
	c.mu.Unlock()
	if root != "" {
		return root, nil
	}
	root, err := c.repo.Root(ctx, c.commit)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	c.root = root
	c.mu.Unlock()
	return root, nil
}

func (c *commitFiles) Object(ctx context.Context, id string) ([]byte, error) {
	o, err := c.repo.Object(ctx, id)
	return o.Data, missing(err)
}

// ErrDamaged says that an object which a tree names is not in the repository.
var ErrDamaged = errors.New("the repository is damaged: an object that a directory names is missing")

// missing makes "not found" of an object that a directory names what it is.
func missing(err error) error {
	if errors.Is(err, git.ErrNotFound) {
		return fmt.Errorf("%w (%s)", ErrDamaged, err.Error())
	}
	return err
}

func byName(a, b git.Entry) int { return strings.Compare(a.Name, b.Name) }

// find looks a name up in entries that are sorted by name.
func find(entries []git.Entry, name string) (git.Entry, bool) {
	i, ok := slices.BinarySearchFunc(entries, name, func(e git.Entry, name string) int { return strings.Compare(e.Name, name) })
	if !ok {
		return git.Entry{}, false
	}
	return entries[i], true
}

// sorted returns entries sorted by name, without changing what it was given.
func sorted(entries []git.Entry) []git.Entry {
	if slices.IsSortedFunc(entries, byName) {
		return entries
	}
	entries = slices.Clone(entries)
	slices.SortFunc(entries, byName)
	return entries
}
