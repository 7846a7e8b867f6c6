// Package source turns a repository and a revision into a tree of files, and
// remembers what was read from it.
//
// Input: a bare repository and a commit. Output: [Tree], a read-only view of
// that commit without a work tree, and [Inputs], the list of every file and
// directory listing that a reader asked for, each with an identity that
// changes exactly when the answer would.
//
// Invariants: a path never leaves the repository, symbolic links included;
// asking for something that does not exist is an input as well; a listing's
// identity covers names and types, not the content below, so that a change of
// a file that nobody read affects nobody.
//
// Start reading at [Tree].
package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// ErrEscapes says that a path or symbolic link leads out of the repository.
var ErrEscapes = errors.New("leads out of the repository")

const (
	maxLinks = 32  // symbolic links followed in one path
	maxDepth = 128 // components of one path
)

// Tree is one commit's files, or those of a chart or artifact. It records what
// is read through it. It is safe for concurrent use.
type Tree struct {
	files   Files
	mounter Mounter // nil when submodules are not shown
	commit  string

	mu     sync.Mutex
	dirs   map[string]listing
	inputs Inputs
	fault  error
}

type listing struct {
	entries []git.Entry // sorted by name, shared
	err     error
}

// NewTree returns the view of commit, a full object id.
func NewTree(repo *git.Repository, commit string) *Tree {
	return NewTreeOf(CommitFiles(repo, commit), commit)
}

// NewTreeOf returns the view of files; revision names their state: the version
// of a chart, the digest of an artifact.
func NewTreeOf(files Files, revision string) *Tree {
	mounter, _ := files.(Mounter)
	return &Tree{files: files, mounter: mounter, commit: revision, dirs: map[string]listing{}, inputs: Inputs{}}
}

// Commit is the object id, version or digest that the tree shows.
func (t *Tree) Commit() string { return t.commit }

// Inputs returns a copy of what was read so far.
func (t *Tree) Inputs() Inputs {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(Inputs, len(t.inputs))
	for k, v := range t.inputs {
		out[k] = v
	}
	return out
}

// Kind says what is at a path.
type Kind int

// The kinds of things at a path.
const (
	Absent Kind = iota
	File
	Dir
)

// Stat resolves symbolic links in p (slash-separated, relative to the root of
// the repository) and says what is there. The returned path has no links.
func (t *Tree) Stat(ctx context.Context, p string) (string, Kind, error) {
	real, e, err := t.walk(ctx, p)
	if errors.Is(err, git.ErrNotFound) {
		t.record(real, absentID)
		return real, Absent, nil
	}
	if err != nil {
		return "", Absent, err
	}
	if t.isDir(real, e) {
		return real, Dir, nil
	}
	if e.Kind == git.KindBlob {
		return real, File, nil
	}
	return real, Absent, nil
}

// ReadFile returns the content of the file at p and records it.
func (t *Tree) ReadFile(ctx context.Context, p string) ([]byte, error) {
	real, e, err := t.walk(ctx, p)
	if errors.Is(err, git.ErrNotFound) {
		t.record(real, absentID)
		return nil, fmt.Errorf("%s: %w", p, git.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if e.Kind != git.KindBlob {
		return nil, fmt.Errorf("%s is a directory or submodule, not a file: %w", p, git.ErrNotFound)
	}
	data, err := t.files.Object(ctx, e.ID)
	if err != nil {
		return nil, t.note(err)
	}
	t.record(real, e.ID)
	return data, nil
}

// Entry is one name in a directory.
type Entry struct {
	Name string
	Dir  bool // after following a symbolic link
}

// ReadDir lists the directory at p, sorted by name, and records the listing.
func (t *Tree) ReadDir(ctx context.Context, p string) ([]Entry, error) {
	real, e, err := t.walk(ctx, p)
	if errors.Is(err, git.ErrNotFound) {
		t.record(real, absentID)
		return nil, fmt.Errorf("%s: %w", p, git.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if !t.isDir(real, e) {
		if e.Kind == git.KindCommit {
			return nil, fmt.Errorf("%s is a submodule, and submodules are not shown: %w", p, git.ErrNotFound)
		}
		return nil, fmt.Errorf("%s is not a directory: %w", p, git.ErrNotFound)
	}
	l := t.list(ctx, real)
	if l.err != nil {
		return nil, l.err
	}
	if e.Kind != git.KindCommit { // of a submodule, the commit is the input
		t.record(real, listingID(l))
	}
	out := make([]Entry, 0, len(l.entries))
	for _, e := range l.entries {
		at := path.Join(real, e.Name)
		entry := Entry{Name: e.Name, Dir: t.isDir(at, e)}
		if e.Symlink() {
			target, found, err := t.walk(ctx, at)
			if err != nil && !errors.Is(err, git.ErrNotFound) {
				return nil, err
			}
			entry.Dir = err == nil && t.isDir(target, found)
		}
		out = append(out, entry)
	}
	return out, nil
}

// isDir reports whether the entry at p can be listed: a directory, or a
// submodule that is shown.
func (t *Tree) isDir(p string, e git.Entry) bool {
	if e.Kind != git.KindCommit || t.mounter == nil {
		return e.Kind == git.KindTree
	}
	_, ok := t.mounter.Mounted(p)
	return ok
}

// enter records that something below the submodule at p is read: its commit,
// and the file that says where it comes from.
func (t *Tree) enter(ctx context.Context, p string, e git.Entry) error {
	file, ok := t.mounter.Mounted(p)
	if !ok {
		return nil
	}
	t.record(p, e.ID)
	id, err := t.identity(ctx, file)
	if err != nil {
		return err
	}
	t.record(file, id)
	return nil
}

func (t *Tree) record(p, id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id == absentID && t.inputs[p] != "" {
		return
	}
	t.inputs[p] = id
}

// walk resolves p component by component. On ErrNotFound the returned path is
// the first one that does not exist.
func (t *Tree) walk(ctx context.Context, p string) (string, git.Entry, error) {
	todo, err := components(p)
	if err != nil {
		return "", git.Entry{}, err
	}
	done := ""
	cur := git.Entry{Kind: git.KindTree}
	for links := 0; len(todo) > 0; {
		if len(todo) > maxDepth {
			return "", git.Entry{}, fmt.Errorf("path %q has too many components", p)
		}
		name := todo[0]
		todo = todo[1:]
		if name == ".." {
			if done == "" {
				return "", git.Entry{}, fmt.Errorf("path %q %w", p, ErrEscapes)
			}
			done = strings.TrimPrefix(path.Dir("/"+done), "/")
			cur = git.Entry{Kind: git.KindTree}
			continue
		}
		if !t.isDir(done, cur) {
			return done, git.Entry{}, fmt.Errorf("%s: %w", p, git.ErrNotFound)
		}
		l := t.list(ctx, done)
		if l.err != nil {
			return "", git.Entry{}, l.err
		}
		at := path.Join(done, name)
		e, ok := find(l.entries, name)
		if !ok {
			return at, git.Entry{}, fmt.Errorf("%s: %w", p, git.ErrNotFound)
		}
		if e.Kind == git.KindCommit && t.mounter != nil {
			if err := t.enter(ctx, at, e); err != nil {
				return "", git.Entry{}, err
			}
		}
		if !e.Symlink() {
			done, cur = at, e
			continue
		}
		if links++; links > maxLinks {
			return "", git.Entry{}, fmt.Errorf("%s: too many symbolic links", p)
		}
		target, err := t.readLink(ctx, at, e)
		if err != nil {
			return "", git.Entry{}, err
		}
		todo = append(target, todo...)
		cur = git.Entry{Kind: git.KindTree}
	}
	return done, cur, nil
}

func (t *Tree) readLink(ctx context.Context, at string, e git.Entry) ([]string, error) {
	data, err := t.files.Object(ctx, e.ID)
	if err != nil {
		return nil, t.note(err)
	}
	t.record(at, e.ID)
	target := string(data)
	if strings.HasPrefix(target, "/") {
		return nil, fmt.Errorf("symbolic link %s to %q %w", at, target, ErrEscapes)
	}
	var out []string
	for c := range strings.SplitSeq(target, "/") {
		if c != "" && c != "." {
			out = append(out, c)
		}
	}
	return out, nil
}

// components splits p without resolving "..": that must happen after links.
func components(p string) ([]string, error) {
	if strings.ContainsAny(p, "\x00\n") {
		return nil, fmt.Errorf("path %q has a control character", p)
	}
	var out []string
	for c := range strings.SplitSeq(p, "/") {
		if c != "" && c != "." {
			out = append(out, c)
		}
	}
	return out, nil
}

func (t *Tree) list(ctx context.Context, dir string) listing {
	t.mu.Lock()
	l, ok := t.dirs[dir]
	t.mu.Unlock()
	if ok {
		return l
	}
	entries, err := t.files.ReadDir(ctx, dir)
	if errors.Is(err, git.ErrNotFound) {
		return listing{err: err}
	}
	if err != nil {
		return listing{err: t.note(err)}
	}
	l.entries = sorted(entries)
	t.mu.Lock()
	t.dirs[dir] = l
	t.mu.Unlock()
	return l
}

// note keeps an error for [Tree.Fault].
func (t *Tree) note(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fault == nil {
		t.fault = err
	}
	return err
}

// Fault is the first error of reading that says nothing about the files: what
// was made of them may differ the next time. It is nil when there was none.
func (t *Tree) Fault() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.fault
}

func listingID(l listing) string {
	names := make([]string, 0, len(l.entries))
	for _, e := range l.entries {
		names = append(names, string(e.Kind)+" "+e.Name)
	}
	slices.Sort(names)
	sum := sha256.Sum256([]byte(strings.Join(names, "\x00")))
	return listPrefix + hex.EncodeToString(sum[:16])
}
