// Package directory renders a directory of plain manifests and Jsonnet files.
//
// Input: a tree, a path, and the patterns and Jsonnet variables of the source.
// Output: the objects of every YAML, JSON and Jsonnet file, in the order of the
// file names.
//
// Invariants: only files below the directory are read, besides what Jsonnet
// imports; a symbolic link to a directory is not followed, as in Argo CD; the
// size of all manifests together is bounded.
//
// Start reading at [Render].
package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/environment"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/jsonnet"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

const (
	maxFiles = 20000
	maxDepth = 64
	skipMark = "+argocd:skip-file-rendering"
	// maxBytes is what all YAML and JSON files of one source may have together:
	// Argo CD's default for reposerver.max.combined.directory.manifests.size.
	maxBytes = 10_000_000
)

// Render reads the manifests below dir. Options may be nil. In the values of
// Jsonnet variables, $NAME is replaced from env.
func Render(ctx context.Context, tree *source.Tree, dir string, options *v1alpha1.SourceDirectory, env environment.Environment) ([]manifest.Object, []manifest.Warning, error) {
	if options == nil {
		options = &v1alpha1.SourceDirectory{}
	}
	r := reader{tree: tree, root: dir, options: *options, env: env}
	var err error
	if r.include, err = Glob(options.Include); err != nil {
		return nil, nil, &manifest.Error{Message: "spec.source.directory.include: " + err.Error(), Err: err}
	}
	if r.exclude, err = Glob(options.Exclude); err != nil {
		return nil, nil, &manifest.Error{Message: "spec.source.directory.exclude: " + err.Error(), Err: err}
	}
	if err := r.walk(ctx, dir, 0); err != nil {
		return nil, nil, err
	}
	return r.objects, r.warnings, nil
}

type reader struct {
	tree             *source.Tree
	root             string
	options          v1alpha1.SourceDirectory
	env              environment.Environment
	include, exclude *regexp.Regexp
	files, bytes     int
	jsonnet          *jsonnet.VM // made for the first Jsonnet file
	objects          []manifest.Object
	warnings         []manifest.Warning
}

func (r *reader) walk(ctx context.Context, dir string, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if depth > maxDepth {
		return &manifest.Error{File: dir, Message: "directories are nested too deep"}
	}
	entries, err := r.tree.ReadDir(ctx, dir)
	if err != nil {
		return r.bad(dir, err)
	}
	real, _, err := r.tree.Stat(ctx, dir)
	if err != nil {
		return r.bad(dir, err)
	}
	for _, e := range entries {
		p := path.Join(dir, e.Name)
		if !e.Dir {
			if err := r.file(ctx, p); err != nil {
				return err
			}
			continue
		}
		if !r.options.Recurse {
			continue
		}
		target, _, err := r.tree.Stat(ctx, p)
		if err != nil {
			return r.bad(p, err)
		}
		if target != path.Join(real, e.Name) {
			continue // a symbolic link to a directory
		}
		if err := r.walk(ctx, p, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) bad(p string, err error) error {
	if errors.Is(err, source.ErrEscapes) {
		return &manifest.Error{File: p, Message: err.Error(), Err: err, Hint: "A link may only lead to what is in the same repository."}
	}
	if strings.Contains(err.Error(), "symbolic links") { // source has no name for it
		return &manifest.Error{File: p, Message: err.Error(), Err: err, Hint: "Look for links that lead to each other."}
	}
	return fmt.Errorf("%s: %w", p, err)
}

// wanted reports whether the name of a file says that it is rendered.
func (r *reader) wanted(p string) bool {
	switch path.Ext(p) {
	case ".yaml", ".yml", ".json", ".jsonnet":
	default:
		if !r.options.DisableExtensionFilter {
			return false
		}
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(p, r.root), "/")
	if r.exclude != nil && r.exclude.MatchString(rel) {
		return false
	}
	return r.include == nil || r.include.MatchString(rel)
}

func (r *reader) file(ctx context.Context, p string) error {
	if !r.wanted(p) {
		return nil
	}
	if r.files++; r.files > maxFiles {
		return &manifest.Error{File: r.root, Message: fmt.Sprintf("has more than %d manifest files", maxFiles)}
	}
	data, err := r.tree.ReadFile(ctx, p)
	if errors.Is(err, git.ErrNotFound) {
		r.warnings = append(r.warnings, manifest.Warning{File: p, Message: "is a symbolic link to a file that does not exist, or no file, and is left out", LeftOut: true})
		return nil
	}
	if err != nil {
		return r.bad(p, err)
	}
	if data, err = utf8Of(data); err != nil {
		return &manifest.Error{File: p, Message: err.Error(), Err: err}
	}
	if bytes.Contains(data, []byte(skipMark)) {
		return nil
	}
	if path.Ext(p) == ".jsonnet" {
		return r.evaluate(ctx, p)
	}
	if r.bytes += len(data); r.bytes > maxBytes {
		return &manifest.Error{
			File: p, Message: fmt.Sprintf("the manifests of this source have more than %d MB together", maxBytes/1_000_000),
			Hint: "Split the source, or leave files out with spec.source.directory.exclude.",
		}
	}
	return r.parse(p, data)
}

func (r *reader) evaluate(ctx context.Context, p string) error {
	if r.jsonnet == nil {
		vm, err := jsonnet.New(r.tree, r.root, r.options.Jsonnet, r.env)
		if err != nil {
			return err
		}
		r.jsonnet = vm
	}
	objects, err := r.jsonnet.Render(ctx, p)
	r.objects = append(r.objects, objects...)
	return err
}

// parse reads one manifest file. A YAML file that has nothing like a manifest
// is left out, whatever it holds; with one, all of it must be right.
func (r *reader) parse(p string, data []byte) error {
	objects, warnings, err := manifest.Parse(p, data)
	strict := path.Ext(p) == ".json" || len(objects) > 0 || manifests(data)
	if err != nil && !strict {
		var bad *manifest.Error
		if errors.As(err, &bad) {
			r.warnings = append(r.warnings, manifest.Warning{File: p, Line: bad.Line, Message: bad.Message + "; the file has no manifest and is left out", LeftOut: true})
			return nil
		}
	}
	if err != nil {
		return err
	}
	for _, w := range warnings {
		if w.LeftOut && len(objects) > 0 {
			return &manifest.Error{
				File: p, Line: w.Line, Message: "is not a Kubernetes object: it has neither apiVersion nor kind, but other documents of this file have",
				Hint: "Move what is no manifest to a file of its own.",
			}
		}
	}
	r.objects = append(r.objects, objects...)
	r.warnings = append(r.warnings, warnings...)
	return nil
}

// manifests reports whether a file looks as if it had a manifest.
func manifests(data []byte) bool {
	for _, key := range []string{"apiVersion:", "kind:", "metadata:"} {
		if !bytes.Contains(data, []byte(key)) {
			return false
		}
	}
	return true
}
