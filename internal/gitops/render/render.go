// Package render turns a commit's tree into Kubernetes objects, and says which
// inputs they came from.
//
// Input: a tree and the source of an Application. Output: [Result], the
// objects with the places they were written at and everything that was read,
// or a [manifest.Error] that names file and line.
//
// Invariants: the same inputs and request give the same objects in the same
// order; nothing outside the commit is read. [Target] then makes the objects
// what is to be in the cluster: namespaces by scope, the tracking annotation,
// no duplicates.
//
// Start reading at [Renderer.Render].
package render

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/directory"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/helm"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/kustomize"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// Tool is what renders a source; the words are those of status.sourceType.
type Tool string

// The tools.
const (
	ToolDirectory Tool = "Directory"
	ToolKustomize Tool = "Kustomize"
	ToolHelm      Tool = "Helm"
	ToolPlugin    Tool = "Plugin"
)

// Request is one rendering.
type Request struct {
	App       string // name of the Application
	Namespace string // destination namespace
	Project   string
	Source    v1alpha1.ApplicationSource
	// Refs are the trees of the other sources of the Application by their ref,
	// for value files "$ref/path". What is read of them is in their Inputs.
	Refs map[string]*source.Tree
	// KubeVersion ("1.37.2") and APIVersions ("apps/v1", "apps/v1/Deployment")
	// are what the destination cluster has; charts ask for them.
	KubeVersion string
	APIVersions []string
	// KustomizeOptions is kustomize.buildOptions of the ConfigMap argocd-cm.
	KustomizeOptions string
	// Remote fetches what the source names outside its tree. It may be nil:
	// then that is an error with the place that names it.
	Remote Remote
}

// Remote fetches what a source names outside its tree. What it returns is
// immutable: a chart by version and digest, a commit by its id.
type Remote interface {
	// Chart returns the archive (.tgz) of the newest version of a chart that
	// the constraint allows. repoURL is https:// or oci://.
	Chart(ctx context.Context, repoURL, name, constraint string) (archive []byte, version string, err error)
	// Base returns the tree of a Git repository at a branch, tag or commit ("" is HEAD).
	Base(ctx context.Context, repoURL, revision string) (*source.Tree, error)
	// File returns a file by its URL (https), for value files and the like.
	File(ctx context.Context, url string) ([]byte, error)
}

// Result is what a request gave.
type Result struct {
	Tool     Tool
	Objects  []manifest.Object
	Warnings []manifest.Warning
	Inputs   source.Inputs
	Fetched  []kustomize.Fetched        // remote bases and files, with what they were
	Source   v1alpha1.ApplicationSource // with the overrides of .argocd-source files
}

// Renderer holds what renderings share. It is safe for concurrent use.
type Renderer struct {
	kustomize kustomize.Builder
	helm      helm.Renderer
}

// New returns a renderer.
func New() *Renderer { return &Renderer{} }

// Warm pays now for what the first rendering would.
func (r *Renderer) Warm() error { return r.kustomize.Warm() }

// Render produces the objects of one source. The Inputs of the result are
// complete even when err is not nil, so that a fix of the input is noticed.
func (r *Renderer) Render(ctx context.Context, tree *source.Tree, req Request) (res Result, err error) {
	dir := path.Clean("/" + req.Source.Path)[1:]
	defer func() {
		if err != nil { // what would have been read is not known: any file beside it may be the fix
			_, _ = tree.ReadDir(ctx, dir)
		}
		res.Inputs = tree.Inputs()
	}()
	if strings.HasPrefix(path.Clean(req.Source.Path), "..") || strings.HasPrefix(req.Source.Path, "/") {
		return res, &manifest.Error{Message: fmt.Sprintf("spec.source.path %q %s", req.Source.Path, source.ErrEscapes), Hint: "Write the path relative to the root of the repository."}
	}
	_, kind, err := tree.Stat(ctx, dir)
	if err != nil {
		return res, &manifest.Error{File: dir, Message: err.Error(), Err: err}
	}
	if kind != source.Dir {
		return res, &manifest.Error{Message: fmt.Sprintf("spec.source.path: %s is not a directory in this commit", req.Source.Path), Hint: "Check the path and targetRevision, or commit the directory."}
	}
	if res.Source, err = override(ctx, tree, dir, req); err != nil {
		return res, err
	}
	if res.Tool, err = detect(ctx, tree, dir, res.Source); err != nil {
		return res, err
	}
	switch res.Tool {
	case ToolHelm:
		res.Objects, res.Warnings, err = r.helm.Render(ctx, tree, helm.Request{
			App: req.App, Namespace: req.Namespace, Dir: dir, Archive: req.Source.Chart != "", Helm: res.Source.Helm,
			Environment: buildEnvironment(tree, req), Refs: req.Refs, KubeVersion: req.KubeVersion, APIVersions: req.APIVersions, Remote: req.Remote,
		})
	case ToolKustomize:
		res.Objects, res.Warnings, res.Fetched, err = r.build(ctx, tree, dir, res.Source, req)
	default:
		res.Objects, res.Warnings, err = directory.Render(ctx, tree, dir, res.Source.Directory, buildEnvironment(tree, req))
	}
	return res, err
}

// Files is the number of files among inputs, for people.
func Files(in source.Inputs) int {
	n := 0
	for _, id := range in {
		if len(id) == 40 { // an object id, not a listing or an absence
			n++
		}
	}
	return n
}
