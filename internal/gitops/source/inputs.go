package source

import (
	"context"
	"errors"
	"path"

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
	e, ok := find(l.entries, name)
	switch {
	case !ok:
		return absentID, nil
	case e.Kind == git.KindTree:
		l := t.list(ctx, p)
		return listingID(l), l.err
	}
	return e.ID, nil
}
