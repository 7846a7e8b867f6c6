// Package kustomize renders a kustomization.
//
// Input: a tree, the path of the kustomization and the overrides of an
// Application. Output: the objects that `kustomize build` gives, without the
// program or a work tree, and what was fetched from elsewhere.
//
// Invariants: every file is read through the tree, so every one is an input;
// remote bases and files come through [Remote] only, each with the commit or
// digest it had; no program is run; files must be at or below a kustomization
// that names them, unless the build options lift that, and never lead out of
// their repository.
//
// Start reading at [Builder.Render].
package kustomize

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
	"sync"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/kustomize/kyaml/openapi"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/environment"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// Request is one build.
type Request struct {
	Dir       string                    // of the kustomization, in the tree
	Overrides *v1alpha1.SourceKustomize // may be nil
	// Environment is what $NAME stands for in images, labels and, when asked
	// for, annotations.
	Environment environment.Environment
	// BuildOptions is kustomize.buildOptions of the ConfigMap argocd-cm.
	BuildOptions string
	KubeVersion  string // for charts
	APIVersions  []string
	Remote       Remote // may be nil
	Charts       Charts // may be nil
}

// Result is what a build gave. Fetched is complete even with an error.
type Result struct {
	Objects  []manifest.Object
	Warnings []manifest.Warning
	Fetched  []Fetched
}

// schema guards the OpenAPI schema of Kustomize, which is global: builds share
// it, but a build that brings its own must be alone.
var schema sync.RWMutex

// Builder runs Kustomize. The zero value is ready. It is safe for concurrent
// use; builds run in parallel.
type Builder struct{ loaded sync.Once }

// Warm loads Kustomize's schema, which the first build would pay for.
func (b *Builder) Warm() error {
	b.loaded.Do(loadSchema)
	mem := filesys.MakeFsInMemory()
	files := map[string]string{
		"/kustomization.yaml": "resources: [a.yaml]\nlabels: [{pairs: {a: b}}]\nnamespace: a\nimages: [{name: a, newTag: b}]\n",
		"/a.yaml":             "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {spec: {containers: [{name: a, image: a}]}}}\n",
	}
	for name, content := range files {
		if err := mem.WriteFile(name, []byte(content)); err != nil {
			return fmt.Errorf("warm Kustomize: %w", err)
		}
	}
	schema.RLock()
	defer schema.RUnlock()
	if _, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(mem, "/"); err != nil {
		return fmt.Errorf("warm Kustomize: %w", err)
	}
	return nil
}

// loadSchema makes the built-in schema the one in use. While builds run in
// parallel it is only read.
func loadSchema() {
	schema.Lock()
	defer schema.Unlock()
	resetSchema()
}

func resetSchema() {
	openapi.ResetOpenAPI()
	openapi.Schema()
}

// Render builds the kustomization in a folder of tree.
func (b *Builder) Render(ctx context.Context, tree *source.Tree, req Request) (Result, error) {
	b.loaded.Do(loadSchema)
	options, err := parseOptions(req.BuildOptions)
	if err != nil {
		return Result{}, err
	}
	res, err := render(ctx, tree, req, options, false)
	if !errors.Is(err, errSchema) {
		return res, err
	}
	schema.Lock()
	defer schema.Unlock()
	openapi.ResetOpenAPI()
	defer resetSchema()
	return render(ctx, tree, req, options, true)
}

func render(ctx context.Context, tree *source.Tree, req Request, options buildOptions, exclusive bool) (Result, error) {
	if !exclusive {
		schema.RLock()
		defer schema.RUnlock()
	}
	f := &treeFS{ctx: ctx, tree: tree, remote: req.Remote, options: options, exclusive: exclusive, overlay: map[string][]byte{}, spaces: map[string]string{}}
	f.inflate, f.root = inflaterOf(f, req), req.Dir
	if req.Overrides != nil {
		f.namespace = req.Overrides.Namespace
	}
	err := f.override(req.Dir, req.Overrides, req.Environment)
	if err == nil {
		var objects []manifest.Object
		if objects, err = f.build(req.Dir); err == nil {
			return Result{Objects: f.locate(objects), Fetched: f.fetched, Warnings: f.warnings}, nil
		}
	}
	f.touch()
	if f.failed != nil {
		err = f.failed
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("render %s: %w", req.Dir, ctx.Err())
	}
	return Result{Fetched: f.fetched}, err
}

func (f *treeFS) build(dir string) (objects []manifest.Object, err error) {
	at := path.Join(dir, Names[0])
	defer func() { // Kustomize panics on some inputs; one application must not end all
		if p := recover(); p != nil {
			objects, err = nil, &manifest.Error{File: at, Message: fmt.Sprintf("Kustomize gave up: %v", p)}
		}
	}()
	built, err := krusty.MakeKustomizer(f.options.krusty()).Run(f, path.Join("/", dir))
	if f.failed != nil {
		return nil, f.failed
	}
	if err != nil {
		return nil, f.explain(dir, err)
	}
	for _, r := range built.Resources() {
		raw, err := r.MarshalJSON()
		if err != nil {
			return nil, &manifest.Error{File: at, Message: err.Error(), Err: err}
		}
		found, _, err := manifest.Decode(at, 0, raw)
		if err != nil {
			return nil, err
		}
		for _, o := range found {
			o.File = ""
			objects = append(objects, o)
		}
	}
	return objects, nil
}

var (
	unknownField = regexp.MustCompile(`unknown field "([^"]+)"`)
	inFile       = regexp.MustCompile(`in File: (\S+)`)
)

// explain finds the file and line behind an error of Kustomize.
func (f *treeFS) explain(dir string, err error) error {
	msg := err.Error()
	for _, noise := range []string{"accumulating resources: ", "accumulation err='accumulating resources from "} {
		msg = strings.ReplaceAll(msg, noise, "")
	}
	for _, p := range f.yaml { // a file that is not YAML is the likeliest cause
		if !strings.HasSuffix(p, ".yaml") && !strings.HasSuffix(p, ".yml") || isKustomization(p) {
			continue
		}
		data, readErr := f.content(p)
		if readErr != nil {
			continue
		}
		var bad *manifest.Error
		if _, _, perr := manifest.Parse(f.shown(p), data); errors.As(perr, &bad) && bad.Err != nil {
			return bad
		}
	}
	e := &manifest.Error{Message: msg, Err: err}
	if strings.Contains(msg, "is not in or below") {
		e.Hint = "Kustomize reads files only at or below the kustomization that names them: move the file, make its folder a base, or set --load-restrictor LoadRestrictionsNone in kustomize.buildOptions."
	}
	if m := inFile.FindStringSubmatch(msg); m != nil {
		e.File = path.Join(dir, m[1])
	}
	for _, p := range f.yaml {
		if !isKustomization(p) {
			continue
		}
		if e.File == "" {
			e.File = f.shown(p)
		}
		if m := unknownField.FindStringSubmatch(msg); m != nil {
			data, readErr := f.content(p)
			if line := lineOfKey(data, m[1]); readErr == nil && line > 0 {
				return &manifest.Error{File: f.shown(p), Line: line, Message: fmt.Sprintf("unknown field %q in a kustomization", m[1]), Err: err}
			}
		}
	}
	if e.File == "" {
		e.File = dir
	}
	return e
}

func lineOfKey(data []byte, key string) int {
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		if strings.HasPrefix(strings.TrimLeft(line, " -\""), key) {
			return n
		}
	}
	return 0
}

// locate gives each object the place of the manifest with its kind and name,
// where exactly one of the files read has it.
func (f *treeFS) locate(objects []manifest.Object) []manifest.Object {
	type key struct{ kind, name string }
	places := map[key]manifest.Object{}
	for _, p := range f.yaml {
		if isKustomization(p) || !strings.HasSuffix(p, ".yaml") && !strings.HasSuffix(p, ".yml") {
			continue
		}
		data, err := f.content(p)
		if err != nil {
			continue
		}
		found, _, err := manifest.Parse(f.shown(p), data)
		if err != nil {
			continue
		}
		for _, o := range found {
			k := key{o.GetKind(), o.GetName()}
			if _, twice := places[k]; twice {
				o.File = "" // a base and its patch: the base was read first
				continue
			}
			places[k] = o
		}
	}
	for i, o := range objects {
		at, ok := places[key{o.GetKind(), o.GetName()}]
		if !ok { // a prefix or suffix was added: the longest name that it contains
			best := 0
			for k, candidate := range places {
				if k.kind == o.GetKind() && k.name != "" && len(k.name) > best && strings.Contains(o.GetName(), k.name) {
					at, best = candidate, len(k.name)
				}
			}
		}
		objects[i].File, objects[i].Line = at.File, at.Line
	}
	return objects
}
