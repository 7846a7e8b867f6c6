package kustomize

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

var errReadOnly = errors.New("a commit is read-only")

// treeFS shows a tree to Kustomize, with the repository's root at "/". It
// reads only what is asked for. The context is that of one build, for the
// interface has no place for it.
type treeFS struct {
	ctx       context.Context
	tree      *source.Tree
	remote    Remote            // may be nil
	options   buildOptions      // of the build
	inflate   inflater          // renders charts; nil when that is off
	exclusive bool              // no other build runs
	overlay   map[string][]byte // absolute path → content instead of the tree's
	mounts    []mount           // fetched trees
	fetched   []Fetched         // what was fetched, files too
	failed    error             // first refusal; Kustomize would bury it
	yaml      []string          // files read, for the search of a bad one
	warnings  []manifest.Warning
	named     []string // paths in tree that kustomizations name
	namespace string   // of the overrides, for the charts of folder root
	root      string
	spaces    map[string]string // folder of a kustomization → namespace of who names it
}

var _ filesys.FileSystem = (*treeFS)(nil)

func inTree(p string) string { return strings.TrimPrefix(path.Clean("/"+p), "/") }

func (f *treeFS) refuse(err error) error {
	if f.failed == nil {
		f.failed = err
	}
	return err
}

// touch reads what kustomizations name, so that all of it is an input of a
// build that failed before it got there.
func (f *treeFS) touch() {
	for _, p := range f.named {
		if _, err := f.tree.ReadFile(f.ctx, p); err == nil {
			continue
		}
		if _, err := f.tree.ReadDir(f.ctx, p); err != nil {
			return // the context has ended, or the repository cannot be read
		}
	}
}

// stat resolves links. The returned path is absolute.
func (f *treeFS) stat(p string) (string, source.Kind, error) {
	p = path.Clean("/" + p)
	if _, ok := f.overlay[p]; ok {
		return p, source.File, nil
	}
	tree, inner, at := f.located(p)
	real, kind, err := tree.Stat(f.ctx, inner)
	if err != nil {
		return "", kind, f.refuse(&manifest.Error{File: f.shown(p), Message: err.Error(), Err: err})
	}
	return path.Join("/", at, real), kind, nil
}

// ReadFile implements filesys.FileSystem. A kustomization is checked before
// Kustomize sees it: every entry must exist in this commit.
func (f *treeFS) ReadFile(p string) ([]byte, error) {
	p = path.Clean("/" + p)
	if err := f.ctx.Err(); err != nil {
		return nil, f.refuse(err)
	}
	if data, ok := f.overlay[p]; ok {
		return data, nil
	}
	data, err := f.content(p)
	if errors.Is(err, git.ErrNotFound) {
		return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, f.refuse(&manifest.Error{File: f.shown(p), Message: err.Error(), Err: err})
	}
	if len(f.yaml) < 10000 {
		f.yaml = append(f.yaml, p[1:])
	}
	if isKustomization(p) {
		if data, err = f.check(p[1:], data); err != nil {
			return nil, f.refuse(err)
		}
		f.overlay[p] = data // checked once; what it names is fetched once
	} else if err := f.guardPlugin(p[1:], data); err != nil {
		return nil, f.refuse(err)
	}
	return data, nil
}

// content is what is written at p, in the repository or a fetched one.
func (f *treeFS) content(p string) ([]byte, error) {
	tree, inner, _ := f.located(p)
	return tree.ReadFile(f.ctx, inner)
}

func (f *treeFS) IsDir(p string) bool {
	_, kind, err := f.stat(p)
	return err == nil && kind == source.Dir
}

func (f *treeFS) Exists(p string) bool {
	_, kind, err := f.stat(p)
	return err == nil && kind != source.Absent
}

func (f *treeFS) CleanedAbs(p string) (filesys.ConfirmedDir, string, error) {
	real, kind, err := f.stat(p)
	switch {
	case err != nil:
		return "", "", err
	case kind == source.Absent:
		return "", "", &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	case kind == source.Dir:
		return filesys.ConfirmedDir(real), "", nil
	}
	dir, file := path.Split(real)
	return filesys.ConfirmedDir(path.Clean(dir)), file, nil
}

func (f *treeFS) ReadDir(p string) ([]string, error) {
	tree, inner, _ := f.located(p)
	entries, err := tree.ReadDir(f.ctx, inner)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	return names, nil
}

func (f *treeFS) Glob(pattern string) ([]string, error) {
	if !strings.ContainsAny(pattern, "*?[") {
		if f.Exists(pattern) {
			return []string{pattern}, nil
		}
		return nil, nil
	}
	dir := path.Dir(pattern)
	if strings.ContainsAny(dir, "*?[") {
		return nil, f.refuse(&manifest.Error{File: inTree(pattern), Message: "a pattern in a directory name is not supported"})
	}
	names, err := f.ReadDir(dir)
	if errors.Is(err, git.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range names {
		ok, err := path.Match(path.Base(pattern), n)
		if err != nil {
			return nil, fmt.Errorf("pattern %s: %w", pattern, err)
		}
		if ok {
			out = append(out, path.Join(dir, n))
		}
	}
	return out, nil
}

// Walk implements filesys.FileSystem; no build of the built-in plugins needs it.
func (f *treeFS) Walk(string, filepath.WalkFunc) error {
	return f.refuse(errors.New("walking a commit is not supported"))
}

func (f *treeFS) Open(string) (filesys.File, error)   { return nil, errReadOnly }
func (f *treeFS) Create(string) (filesys.File, error) { return nil, errReadOnly }
func (f *treeFS) Mkdir(string) error                  { return errReadOnly }
func (f *treeFS) MkdirAll(string) error               { return errReadOnly }
func (f *treeFS) RemoveAll(string) error              { return errReadOnly }
func (f *treeFS) WriteFile(string, []byte) error      { return errReadOnly }
