package kustomize

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// Remote fetches what a kustomization names outside its repository.
type Remote interface {
	// Base returns the tree of a Git repository at a branch, tag or commit ("" is HEAD).
	Base(ctx context.Context, repoURL, revision string) (*source.Tree, error)
	// File returns a file by its URL.
	File(ctx context.Context, url string) ([]byte, error)
}

// Fetched is one thing that a build took from elsewhere.
type Fetched struct {
	URL      string // of the repository or file
	Revision string // as written; "" for HEAD and for files
	Resolved string // the commit, or "sha256:…" of the file
}

const (
	maxFetched = 64
	// mountName is the folder where fetched things are shown to Kustomize. No
	// path that people write may hold it.
	mountName = ".lockstep-remote"
)

// mount is a fetched tree, shown at "/<mountName>/<n>".
type mount struct {
	tree *source.Tree
	repo string
	ref  string
}

// located is where a path of the build is: the tree, the path in it, and the
// folder of the mount, "" for the repository itself.
func (f *treeFS) located(p string) (tree *source.Tree, inner, at string) {
	p = path.Clean("/" + p)
	if m, folder, ok := f.mounted(p); ok {
		return m.tree, strings.TrimPrefix(strings.TrimPrefix(p, folder), "/"), folder
	}
	return f.tree, p[1:], ""
}

// mounted finds the mount that holds an absolute path, and its folder.
func (f *treeFS) mounted(p string) (mount, string, bool) {
	rest, ok := strings.CutPrefix(p, "/"+mountName+"/")
	if !ok {
		return mount{}, "", false
	}
	number, _, _ := strings.Cut(rest, "/")
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 || n >= len(f.mounts) {
		return mount{}, "", false
	}
	return f.mounts[n], "/" + mountName + "/" + number, true
}

// shown is the name of a file for people.
func (f *treeFS) shown(p string) string {
	p = path.Clean("/" + p)
	m, folder, ok := f.mounted(p)
	if !ok {
		return p[1:]
	}
	name := m.repo + "/" + strings.TrimPrefix(p, folder) // "//": as Kustomize writes it
	if m.ref != "" {
		name += "?ref=" + m.ref
	}
	return name
}

// mountRemote fetches what n names and returns the path, relative to the
// kustomization, under which Kustomize finds it.
func (f *treeFS) mountRemote(file, key string, n *yaml.Node) (string, error) {
	fail := func(err error) (string, error) {
		return "", &manifest.Error{File: f.shown(file), Line: n.Line, Message: fmt.Sprintf("%s: %s: %v", key, n.Value, err), Err: err, Hint: "Is the address right, and may this repository be read?"}
	}
	if f.remote == nil {
		return "", &manifest.Error{File: f.shown(file), Line: n.Line, Message: fmt.Sprintf("remote source %s is not fetched", n.Value), Hint: "Keep what a commit needs in its repository: copy the base into it."}
	}
	if len(f.fetched) >= maxFetched {
		return fail(fmt.Errorf("more than %d remote sources in one build", maxFetched))
	}
	spec, isRepo := parseRepo(n.Value)
	isURL := strings.HasPrefix(n.Value, "https://") || strings.HasPrefix(n.Value, "http://")
	var fileErr error
	if isURL && key != "components" && (!slices.Contains(folderLists, key) || !isRepo || !spec.explicit || manifestName(n.Value)) {
		data, err := f.remote.File(f.ctx, n.Value)
		if err == nil && slices.Contains(folderLists, key) && isRepo {
			_, _, err = manifest.Parse(n.Value, data) // a web page about a repository is no manifest
		}
		if err == nil {
			return f.mountFile(file, n.Value, data), nil
		}
		fileErr = err
	}
	if !isRepo || !slices.Contains(folderLists, key) {
		return fail(fileErr)
	}
	at, err := f.mountBase(spec)
	if err != nil {
		return fail(err)
	}
	return relative(path.Dir("/"+file), path.Join(at, spec.dir)), nil
}

func (f *treeFS) mountBase(spec repoSpec) (string, error) {
	for i, m := range f.mounts {
		if m.repo == spec.repo && m.ref == spec.ref {
			return fmt.Sprintf("/%s/%d", mountName, i), nil
		}
	}
	tree, err := f.remote.Base(f.ctx, spec.repo, spec.ref)
	if err != nil {
		return "", err
	}
	f.mounts = append(f.mounts, mount{tree: tree, repo: spec.repo, ref: spec.ref})
	f.fetched = append(f.fetched, Fetched{URL: spec.repo, Revision: spec.ref, Resolved: tree.Commit()})
	return fmt.Sprintf("/%s/%d", mountName, len(f.mounts)-1), nil
}

// mountFile shows data below the folder of the kustomization, for Kustomize
// reads files only there.
func (f *treeFS) mountFile(file, from string, data []byte) string {
	sum := sha256.Sum256(data)
	f.fetched = append(f.fetched, Fetched{URL: from, Resolved: "sha256:" + hex.EncodeToString(sum[:])})
	name := "file"
	if u, err := url.Parse(from); err == nil && path.Base(u.Path) != "/" && path.Base(u.Path) != "." {
		name = path.Base(u.Path)
	}
	return f.addFile(file, name, data)
}

// addFile shows data as a file beside the kustomization and returns its path
// relative to it.
func (f *treeFS) addFile(file, name string, data []byte) string {
	rel := fmt.Sprintf("%s/f%d/%s", mountName, len(f.overlay), name)
	f.overlay[path.Join("/", path.Dir(file), rel)] = data
	return rel
}

func manifestName(v string) bool {
	v, _, _ = strings.Cut(v, "?")
	return slices.Contains([]string{".yaml", ".yml", ".json"}, path.Ext(v))
}

// relative is the path from one absolute folder to another.
func relative(from, to string) string {
	up := strings.Count(strings.Trim(from, "/"), "/") + 1
	if from == "/" {
		up = 0
	}
	return strings.Repeat("../", up) + strings.TrimPrefix(to, "/")
}

// repoSpec is a Git address of Kustomize: a repository, a folder in it and a
// branch, tag or commit.
type repoSpec struct {
	repo, dir, ref string
	explicit       bool // the address says itself that it is a repository
}

var user = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9-]*@`)

// parseRepo reads what Kustomize takes for a Git address, among them
// https://github.com/o/r//dir?ref=v1, github.com/o/r/dir, git@host:o/r.git and
// ssh://git@host/o/r.
func parseRepo(v string) (repoSpec, bool) {
	if strings.HasPrefix(v, "/") {
		return repoSpec{}, false
	}
	v, query, hasQuery := strings.Cut(v, "?")
	spec := repoSpec{explicit: hasQuery}
	if values, err := url.ParseQuery(query); err == nil {
		if spec.ref = values.Get("ref"); spec.ref == "" {
			spec.ref = values.Get("version")
		}
	}
	v, forced := strings.CutPrefix(v, "git::")
	scheme := ""
	for _, s := range []string{"ssh://", "https://", "http://"} {
		if len(v) >= len(s) && strings.EqualFold(v[:len(s)], s) {
			scheme, v = s, v[len(s):]
		}
	}
	name := user.FindString(v)
	v = v[len(name):]
	github := strings.HasPrefix(strings.ToLower(v), "github.com/") || strings.HasPrefix(strings.ToLower(v), "github.com:")
	scp := scheme == "" && (name != "" || github)
	if scheme == "" && !scp {
		return repoSpec{}, false
	}
	end := strings.IndexByte(v, '/')
	if colon := strings.IndexByte(v, ':'); scp && colon > 0 && (end < 0 || colon < end) {
		end = colon
	}
	if end <= 0 {
		return repoSpec{}, false
	}
	host, rest := v[:end+1], v[end+1:]
	if github {
		host, scheme, name = githubHost(scheme, name)
	}
	repo, dir, marked, ok := splitRepo(rest)
	if !ok || repo == "" || slices.Contains(strings.Split(path.Clean("./"+dir), "/"), "..") {
		return repoSpec{}, false
	}
	spec.explicit = spec.explicit || marked || forced || scheme == "ssh://" || scp
	spec.repo, spec.dir = scheme+name+host+repo, strings.Trim(dir, "/")
	return spec, true
}

func githubHost(scheme, name string) (host, outScheme, outName string) {
	if scheme == "ssh://" || name != "" {
		return "github.com:", "", name
	}
	return "github.com/", "https://", ""
}

// splitRepo cuts the path of an address into the repository and the folder.
func splitRepo(v string) (repo, dir string, marked, ok bool) {
	if i := strings.Index(v, "_git/"); i >= 0 {
		name, dir, _ := strings.Cut(v[i+len("_git/"):], "/")
		return v[:i+len("_git/")] + name, dir, true, true
	}
	if i := strings.Index(v, "//"); i >= 0 {
		return v[:i], v[i+2:], true, true
	}
	if i := strings.Index(v, ".git"); i >= 0 {
		return v[:i+len(".git")], v[i+len(".git"):], true, true
	}
	parts := strings.SplitN(v, "/", 3)
	if len(parts) < 2 {
		return "", "", false, false
	}
	if len(parts) == 3 {
		dir = parts[2]
	}
	return parts[0] + "/" + parts[1], dir, false, true
}

// remote reports whether Kustomize would look for v outside the repository.
func remote(v string) bool {
	_, isRepo := parseRepo(v)
	return isRepo || strings.Contains(v, "://")
}
