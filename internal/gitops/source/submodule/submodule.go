// Package submodule shows the submodules of a commit where they belong.
//
// Input: the files of a commit, the URL of its repository, and a function that
// opens other repositories. Output: [Files], in which the entry of a submodule
// can be listed; its files are those of the commit that the entry names.
//
// Invariants: a submodule is opened only when something below it is read; how
// deep and how many are bounded; its URL comes from .gitmodules of the commit,
// relative ones are relative to the repository that names them; the entry stays
// a commit with its id, so that this id is what readers depend on.
//
// Start reading at [Files.ReadDir].
package submodule

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/gitconfig"
)

const (
	maxDepth   = 8   // submodules in submodules
	maxModules = 200 // opened for one tree
)

// Opener opens another repository at a commit.
type Opener func(ctx context.Context, repoURL, commit string) (source.Files, error)

// Files shows submodules. It is safe for concurrent use. See [Of].
type Files struct {
	open Opener
	root *module

	mu      sync.Mutex
	mounted map[string]*module      // by path from the root
	owner   map[string]source.Files // of objects of submodules, by id
}

// module is one repository of the tree.
type module struct {
	at    string // path from the root, "" for the root
	url   string
	depth int
	files source.Files

	once sync.Once
	urls map[string]string // path in this repository → URL, from .gitmodules
	err  error
}

// Of returns files with its submodules shown. repoURL is where files is from.
func Of(files source.Files, repoURL string, open Opener) *Files {
	return &Files{open: open, root: &module{url: repoURL, files: files}, mounted: map[string]*module{}, owner: map[string]source.Files{}}
}

// Any reports whether a commit names submodules.
func Any(ctx context.Context, files source.Files) (bool, error) {
	entries, err := files.ReadDir(ctx, "")
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if e.Name == ".gitmodules" {
			return true, nil
		}
	}
	return false, nil
}

var (
	_ source.Files   = (*Files)(nil)
	_ source.Mounter = (*Files)(nil)
)

// Mounted implements source.Mounter: every submodule can be shown, or says why
// not when it is listed.
func (f *Files) Mounted(p string) (string, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if m, ok := f.mounted[dir]; ok {
			return path.Join(m.at, ".gitmodules"), true
		}
	}
	return ".gitmodules", true
}

// ReadDir implements source.Files.
func (f *Files) ReadDir(ctx context.Context, dir string) ([]git.Entry, error) {
	m, rest, err := f.find(ctx, dir)
	if err != nil {
		return nil, err
	}
	entries, err := m.files.ReadDir(ctx, rest)
	if err != nil || m == f.root {
		return entries, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range entries {
		if e.Kind == git.KindBlob {
			f.owner[e.ID] = m.files
		}
	}
	return entries, nil
}

// Object implements source.Files.
func (f *Files) Object(ctx context.Context, id string) ([]byte, error) {
	f.mu.Lock()
	files, ok := f.owner[id]
	f.mu.Unlock()
	if !ok {
		files = f.root.files
	}
	data, err := files.Object(ctx, id)
	if ok && err != nil { // the same content may be in the root
		if data, err := f.root.files.Object(ctx, id); err == nil {
			return data, nil
		}
	}
	return data, err
}

// find returns the repository that dir is in, and its path there. Submodules on
// the way are opened.
func (f *Files) find(ctx context.Context, dir string) (*module, string, error) {
	m, rest := f.root, ""
	if dir == "" {
		return m, "", nil
	}
	at := ""
	for name := range strings.SplitSeq(dir, "/") {
		at = path.Join(at, name)
		f.mu.Lock()
		known := f.mounted[at]
		f.mu.Unlock()
		if known != nil {
			m, rest = known, ""
			continue
		}
		entries, err := m.files.ReadDir(ctx, rest)
		if err != nil {
			return nil, "", err
		}
		rest = path.Join(rest, name)
		for _, e := range entries {
			if e.Name != name || e.Kind != git.KindCommit {
				continue
			}
			if m, err = f.mount(ctx, m, at, rest, e.ID); err != nil {
				return nil, "", err
			}
			rest = ""
		}
	}
	return m, rest, nil
}

// mount opens the submodule at path rest of the repository in.
func (f *Files) mount(ctx context.Context, in *module, at, rest, commit string) (*module, error) {
	fail := func(err error) (*module, error) { return nil, fmt.Errorf("submodule %s: %w", at, err) }
	if in.depth >= maxDepth {
		return fail(fmt.Errorf("more than %d submodules in one another", maxDepth))
	}
	in.once.Do(func() { in.urls, in.err = modules(ctx, in.files) })
	if in.err != nil {
		return fail(in.err)
	}
	target, ok := in.urls[rest]
	if !ok {
		return fail(fmt.Errorf("%s has no url for it; run git submodule add, or remove the entry", path.Join(in.at, ".gitmodules")))
	}
	url, err := Resolve(in.url, target)
	if err != nil {
		return fail(err)
	}
	files, err := f.open(ctx, url, commit)
	if err != nil {
		return fail(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.mounted) >= maxModules {
		return fail(fmt.Errorf("more than %d submodules", maxModules))
	}
	m := &module{at: at, url: url, depth: in.depth + 1, files: files}
	f.mounted[at] = m
	return m, nil
}

// modules reads .gitmodules.
func modules(ctx context.Context, files source.Files) (map[string]string, error) {
	entries, err := files.ReadDir(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name != ".gitmodules" || e.Kind != git.KindBlob || e.Symlink() {
			continue
		}
		data, err := files.Object(ctx, e.ID)
		if err != nil {
			return nil, err
		}
		return Parse(data)
	}
	return nil, errors.New("the repository has no .gitmodules")
}

// Parse reads .gitmodules: path → URL.
func Parse(data []byte) (map[string]string, error) {
	settings, err := gitconfig.Parse(data)
	if err != nil {
		return nil, fmt.Errorf(".gitmodules: %w", err)
	}
	paths, urls := map[string]string{}, map[string]string{}
	for _, s := range settings {
		if s.Section != "submodule" || s.Subsection == "" {
			continue
		}
		switch s.Key {
		case "path":
			paths[s.Subsection] = path.Clean("/" + s.Value)[1:]
		case "url":
			urls[s.Subsection] = s.Value
		}
	}
	out := map[string]string{}
	for name, p := range paths {
		if urls[name] != "" && p != "" {
			out[p] = urls[name]
		}
	}
	return out, nil
}

// Resolve returns the URL of a submodule. One that starts with "./" or "../" is
// relative to the repository that names it, as in git.
func Resolve(base, target string) (string, error) {
	if !strings.HasPrefix(target, "./") && !strings.HasPrefix(target, "../") {
		return target, nil
	}
	base = strings.TrimRight(base, "/")
	for {
		if rest, ok := strings.CutPrefix(target, "./"); ok {
			target = rest
			continue
		}
		rest, ok := strings.CutPrefix(target, "../")
		if !ok {
			break
		}
		target = rest
		_, tail, _ := strings.Cut(base, "://")
		i := strings.LastIndexAny(base, "/:")
		if i < 0 || tail != "" && !strings.Contains(tail, "/") {
			return "", fmt.Errorf("its url leads above the host of %s", base)
		}
		if base[i] == ':' && !strings.HasSuffix(base[:i], "/") && tail == "" { // git@host:path
			base = base[:i+1]
			return base + target, nil
		}
		base = base[:i]
	}
	return base + "/" + target, nil
}
