package source

import (
	"context"
	"errors"
	"path"
	"sync"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

const (
	absentID   = "absent"
	listPrefix = "list:"
)

// Inputs maps every path that was asked for to the identity of the answer: a
// blob's object id, "list:…" for a directory's names, or "absent".
type Inputs map[string]string

// Affected reports whether one of the changed paths can alter an answer, and
// which one. It needs no repository; it may say yes where [Inputs.Same] says no.
func (in Inputs) Affected(changed []string) (string, bool) {
	for _, p := range changed {
		if _, ok := in[p]; ok {
			return p, true
		}
		for dir := path.Dir(p); ; dir = path.Dir(dir) {
			if dir == "." {
				dir = ""
			}
			if _, ok := in[dir]; ok {
				return p, true
			}
			if dir == "" {
				break
			}
		}
	}
	return "", false
}

// Same reports whether every input has the same identity in commit.
func (in Inputs) Same(ctx context.Context, repo *git.Repository, commit string) (bool, error) {
	return in.SameIn(ctx, NewTree(repo, commit))
}

// SameIn reports whether every input has the same identity in a tree, of which
// nothing is recorded.
func (in Inputs) SameIn(ctx context.Context, t *Tree) (bool, error) {
	for p, id := range in {
		now, err := t.identity(ctx, p)
		if err != nil {
			return false, err
		}
		if now != id {
			return false, nil
		}
	}
	return true, nil
}

func (t *Tree) identity(ctx context.Context, p string) (string, error) {
	dir, name := path.Split(p)
	if p == "" {
		l := t.list(ctx, "")
		return listingID(l), l.err
	}
	l := t.list(ctx, path.Clean("/" + dir)[1:])
	if errors.Is(l.err, git.ErrNotFound) {
		return absentID, nil
	}
	if l.err != nil {
		return "", l.err
	}
	e, ok := l.entries[name]
	switch {
	case !ok:
		return absentID, nil
	case e.Kind == git.KindTree:
		l := t.list(ctx, p)
		return listingID(l), l.err
	}
	return e.ID, nil
}

// Index finds the readers of a path. The zero value is not usable; see
// [NewIndex]. It is safe for concurrent use.
type Index struct {
	mu      sync.Mutex
	byPath  map[string]map[string]bool // path → reader
	readers map[string]Inputs
}

// NewIndex returns an empty index. One index covers one repository.
func NewIndex() *Index {
	return &Index{byPath: map[string]map[string]bool{}, readers: map[string]Inputs{}}
}

// Set replaces the inputs of reader; nil removes it.
func (x *Index) Set(reader string, in Inputs) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for p := range x.readers[reader] {
		delete(x.byPath[p], reader)
		if len(x.byPath[p]) == 0 {
			delete(x.byPath, p)
		}
	}
	delete(x.readers, reader)
	if in == nil {
		return
	}
	x.readers[reader] = in
	for p := range in {
		if x.byPath[p] == nil {
			x.byPath[p] = map[string]bool{}
		}
		x.byPath[p][reader] = true
	}
}

// Readers returns who may be affected by the changed paths, each with one of
// the paths that affect it. The cost follows the change, not the readers.
func (x *Index) Readers(changed []string) map[string]string {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := map[string]string{}
	seen := map[string]bool{}
	add := func(at, because string) {
		if seen[at] {
			return
		}
		seen[at] = true
		for r := range x.byPath[at] {
			if _, ok := out[r]; !ok {
				out[r] = because
			}
		}
	}
	for _, p := range changed {
		add(p, p)
		for dir := path.Dir(p); ; dir = path.Dir(dir) {
			if dir == "." {
				add("", p)
				break
			}
			add(dir, p)
		}
	}
	return out
}
