// Package kustomize renders a kustomization.
//
// Input: a tree, the path of the kustomization and the overrides of an
// Application. Output: the objects that `kustomize build` gives, without the
// program, a work tree or the network.
//
// Invariants: every file is read through the tree, so every one is an input;
// nothing remote is fetched; plugins and Helm are off; files must be at or
// below a kustomization that names them, as Kustomize demands by default.
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

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8sjson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// Builder runs Kustomize, one build at a time: its OpenAPI schema is global.
// The zero value is ready.
type Builder struct{ mu sync.Mutex }

// Warm loads Kustomize's schema, which the first build would pay for.
func (b *Builder) Warm() error {
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
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(mem, "/"); err != nil {
		return fmt.Errorf("warm Kustomize: %w", err)
	}
	return nil
}

// Render builds the kustomization in dir. Overrides may be nil; env holds the
// values for commonAnnotationsEnvsubst.
func (b *Builder) Render(ctx context.Context, tree *source.Tree, dir string, overrides *v1alpha1.SourceKustomize, env map[string]string) ([]manifest.Object, []manifest.Warning, error) {
	f := &treeFS{ctx: ctx, tree: tree, overlay: map[string][]byte{}}
	warnings, err := f.override(dir, overrides, env)
	if err != nil {
		return nil, nil, err
	}
	objects, err := b.build(f, dir)
	if err != nil {
		return nil, nil, err
	}
	return f.locate(objects), warnings, nil
}

func (b *Builder) build(f *treeFS, dir string) (objects []manifest.Object, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer func() { // Kustomize panics on some inputs; one application must not end all
		if p := recover(); p != nil {
			objects, err = nil, &manifest.Error{File: path.Join(dir, Names[0]), Message: fmt.Sprintf("Kustomize gave up: %v", p)}
		}
	}()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(f, path.Join("/", dir))
	if ctxErr := f.ctx.Err(); ctxErr != nil {
		return nil, fmt.Errorf("render %s: %w", dir, ctxErr)
	}
	if f.failed != nil {
		return nil, f.failed
	}
	if err != nil {
		return nil, f.explain(dir, err)
	}
	for _, r := range built.Resources() {
		raw, err := r.MarshalJSON()
		if err != nil {
			return nil, &manifest.Error{File: path.Join(dir, Names[0]), Message: err.Error(), Err: err}
		}
		var m map[string]any
		if err := k8sjson.Unmarshal(raw, &m); err != nil {
			return nil, &manifest.Error{File: path.Join(dir, Names[0]), Message: err.Error(), Err: err}
		}
		objects = append(objects, manifest.Object{Unstructured: &unstructured.Unstructured{Object: m}})
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
		data, readErr := f.tree.ReadFile(f.ctx, p)
		if readErr != nil {
			continue
		}
		var bad *manifest.Error
		if _, _, perr := manifest.Parse(p, data); errors.As(perr, &bad) && bad.Err != nil {
			return bad
		}
	}
	e := &manifest.Error{Message: msg, Err: err}
	if m := inFile.FindStringSubmatch(msg); m != nil {
		e.File = path.Join(dir, m[1])
	}
	for _, p := range f.yaml {
		if !isKustomization(p) {
			continue
		}
		if e.File == "" {
			e.File = p
		}
		if m := unknownField.FindStringSubmatch(msg); m != nil {
			data, readErr := f.tree.ReadFile(f.ctx, p)
			if line := lineOfKey(data, m[1]); readErr == nil && line > 0 {
				return &manifest.Error{File: p, Line: line, Message: fmt.Sprintf("unknown field %q in a kustomization", m[1]), Err: err}
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
		data, err := f.tree.ReadFile(f.ctx, p)
		if err != nil {
			continue
		}
		found, _, err := manifest.Parse(p, data)
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
