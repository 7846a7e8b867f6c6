package kustomize

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	goyaml "go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/environment"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// override edits the kustomization in dir as Argo CD does with `kustomize
// edit`, in memory.
func (f *treeFS) override(dir string, o *v1alpha1.SourceKustomize, env environment.Environment) error {
	if o == nil {
		return nil
	}
	if v := strings.TrimPrefix(o.Version, "v"); v != "" && v != strings.TrimPrefix(Version, "v") {
		return &manifest.Error{
			Message: fmt.Sprintf("spec.source.kustomize.version: %s is not here; Kustomize %s is built in", o.Version, Version),
			Hint:    "Remove the field, or set it to " + Version + ".",
		}
	}
	file, data, err := f.find(dir)
	if err != nil {
		return err
	}
	if !edits(o) {
		return nil
	}
	var k types.Kustomization
	if err := k.Unmarshal(data); err != nil {
		return f.explain(dir, err)
	}
	k.FixKustomization()
	e := editor{treeFS: f, k: &k, file: file, dir: dir, o: o, env: env}
	if err := e.edit(); err != nil {
		var placed *manifest.Error
		if errors.As(err, &placed) {
			return err
		}
		return &manifest.Error{File: file, Message: err.Error(), Err: err, Hint: "Change spec.source.kustomize of the Application."}
	}
	out, err := yaml.Marshal(&k)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	f.overlay[path.Join("/", file)] = out
	return nil
}

// edits reports whether o changes the kustomization itself.
func edits(o *v1alpha1.SourceKustomize) bool {
	return o.NamePrefix != "" || o.NameSuffix != "" || o.Namespace != "" || len(o.Images) > 0 || len(o.Replicas) > 0 ||
		len(o.CommonLabels) > 0 || len(o.CommonAnnotations) > 0 || len(o.Patches) > 0 || len(o.Components) > 0
}

func (f *treeFS) find(dir string) (string, []byte, error) {
	for _, name := range Names {
		p := path.Join(dir, name)
		data, err := f.ReadFile("/" + p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return p, data, err
	}
	return "", nil, &manifest.Error{File: dir, Message: "has no kustomization", Hint: "Add kustomization.yaml, or remove spec.source.kustomize."}
}

// editor carries out the overrides of an Application on a kustomization.
type editor struct {
	*treeFS
	k         *types.Kustomization
	file, dir string
	o         *v1alpha1.SourceKustomize
	env       environment.Environment
}

func (e *editor) edit() error {
	if e.o.NamePrefix != "" {
		e.k.NamePrefix = e.o.NamePrefix
	}
	if e.o.NameSuffix != "" {
		e.k.NameSuffix = e.o.NameSuffix
	}
	for _, step := range []func() error{e.images, e.replicas, e.labels, e.annotations} {
		if err := step(); err != nil {
			return err
		}
	}
	if e.o.Namespace != "" {
		e.k.Namespace = e.o.Namespace
	}
	if err := e.patches(); err != nil {
		return err
	}
	return e.components()
}

// images replaces those of the same name; "*" keeps a part of what was there.
func (e *editor) images() error {
	if len(e.o.Images) == 0 {
		return nil
	}
	byName := map[string]types.Image{}
	for _, text := range e.o.Images {
		img, err := parseImage(e.env.Expand(text))
		if err != nil {
			return err
		}
		byName[img.Name] = img
	}
	had := map[string]types.Image{}
	for _, img := range e.k.Images {
		had[img.Name] = img
		if _, replaced := byName[img.Name]; !replaced {
			byName[img.Name] = img
		}
	}
	e.k.Images = nil
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		img := byName[name]
		for _, part := range []struct{ now, was *string }{
			{&img.NewName, new(had[name].NewName)}, {&img.NewTag, new(had[name].NewTag)}, {&img.Digest, new(had[name].Digest)},
		} {
			if *part.now == "*" {
				*part.now = *part.was
			}
		}
		e.k.Images = append(e.k.Images, img)
	}
	return nil
}

func (e *editor) replicas() error {
	for _, r := range e.o.Replicas {
		count := int64(r.Count.IntValue())
		if r.Count.String() != fmt.Sprint(count) || count < 0 {
			return fmt.Errorf("spec.source.kustomize.replicas: count %q of %s is not a number", r.Count.String(), r.Name)
		}
		e.k.Replicas = slices.DeleteFunc(e.k.Replicas, func(x types.Replica) bool { return x.Name == r.Name })
		e.k.Replicas = append(e.k.Replicas, types.Replica{Name: r.Name, Count: count})
	}
	return nil
}

func (e *editor) labels() error {
	o := e.o
	if len(o.CommonLabels) == 0 {
		return nil
	}
	if o.LabelIncludeTemplates && !o.LabelWithoutSelector {
		return errors.New("spec.source.kustomize.labelIncludeTemplates needs labelWithoutSelector")
	}
	into := e.commonLabels
	if o.LabelWithoutSelector {
		into = e.plainLabels
	}
	have := into()
	for _, name := range slices.Sorted(maps.Keys(o.CommonLabels)) {
		if _, has := have[name]; has && !o.ForceCommonLabels {
			return fmt.Errorf("label %s is in the kustomization already; set forceCommonLabels to replace it", name)
		}
		have[name] = e.env.Expand(o.CommonLabels[name])
	}
	return nil
}

// commonLabels are those that go into selectors too.
func (e *editor) commonLabels() map[string]string {
	if e.k.CommonLabels == nil { //nolint:staticcheck // Argo CD's commonLabels are these
		e.k.CommonLabels = map[string]string{} //nolint:staticcheck // see above
	}
	return e.k.CommonLabels //nolint:staticcheck // see above
}

// plainLabels are those of the first entry of labels with the same settings.
func (e *editor) plainLabels() map[string]string {
	for i, l := range e.k.Labels {
		if !l.IncludeSelectors && l.IncludeTemplates == e.o.LabelIncludeTemplates {
			if l.Pairs == nil {
				e.k.Labels[i].Pairs = map[string]string{}
			}
			return e.k.Labels[i].Pairs
		}
	}
	pairs := map[string]string{}
	e.k.Labels = append(e.k.Labels, types.Label{Pairs: pairs, IncludeTemplates: e.o.LabelIncludeTemplates})
	return pairs
}

func (e *editor) annotations() error {
	for _, name := range slices.Sorted(maps.Keys(e.o.CommonAnnotations)) {
		if _, has := e.k.CommonAnnotations[name]; has && !e.o.ForceCommonAnnotations {
			return fmt.Errorf("annotation %s is in the kustomization already; set forceCommonAnnotations to replace it", name)
		}
		value := e.o.CommonAnnotations[name]
		if e.o.CommonAnnotationsEnvsubst {
			value = e.env.Expand(value)
		}
		if e.k.CommonAnnotations == nil {
			e.k.CommonAnnotations = map[string]string{}
		}
		e.k.CommonAnnotations[name] = value
	}
	return nil
}

func (e *editor) patches() error {
	for i, p := range e.o.Patches {
		patch := types.Patch{Path: p.Path, Patch: p.Patch}
		if p.Path != "" {
			to, err := e.entry("patches", p.Path)
			if err != nil {
				return err
			}
			patch.Path = to
		}
		if t := p.Target; t != nil {
			patch.Target = &types.Selector{LabelSelector: t.LabelSelector, AnnotationSelector: t.AnnotationSelector}
			patch.Target.Group, patch.Target.Version, patch.Target.Kind = t.Group, t.Version, t.Kind
			patch.Target.Name, patch.Target.Namespace = t.Name, t.Namespace
		}
		for name := range p.Options {
			if name != "allowNameChange" && name != "allowKindChange" {
				return fmt.Errorf("spec.source.kustomize.patches[%d].options: %s is not known; there are allowNameChange and allowKindChange", i, name)
			}
		}
		if p.Options != nil {
			patch.Options = &types.PatchArgs{AllowNameChange: p.Options["allowNameChange"], AllowKindChange: p.Options["allowKindChange"]}
		}
		e.k.Patches = append(e.k.Patches, patch)
	}
	return nil
}

func (e *editor) components() error {
	for _, c := range e.o.Components {
		if e.o.IgnoreMissingComponents && !remote(c) {
			_, kind, err := e.tree.Stat(e.ctx, e.dir+"/"+c)
			if err != nil {
				return err
			}
			if kind == source.Absent {
				continue
			}
		}
		to, err := e.entry("components", c)
		if err != nil {
			return err
		}
		if !slices.Contains(e.k.Components, to) {
			e.k.Components = append(e.k.Components, to)
		}
	}
	return nil
}

// entry checks a path that the Application names as one of the kustomization.
func (e *editor) entry(key, p string) (string, error) {
	n := &goyaml.Node{Kind: goyaml.ScalarNode, Value: p}
	c := checker{treeFS: e.treeFS, file: e.file}
	if err := c.paths(key, []*goyaml.Node{n}); err != nil {
		var placed *manifest.Error
		if errors.As(err, &placed) {
			placed.Message = "spec.source.kustomize." + placed.Message
		}
		return "", err
	}
	return n.Value, nil
}

// parseImage reads "[name=]new[:tag][@digest]".
func parseImage(s string) (types.Image, error) {
	name, ref, renamed := strings.Cut(s, "=")
	if !renamed {
		ref = name
	}
	var img types.Image
	base, digest, _ := strings.Cut(ref, "@")
	img.Digest = digest
	if i := strings.LastIndexByte(base, ':'); i > strings.LastIndexByte(base, '/') {
		base, img.NewTag = base[:i], base[i+1:]
	}
	if base == s || base == "" && !renamed {
		return img, fmt.Errorf("spec.source.kustomize.images: %q names no tag, digest or other image; write name:tag, name@digest or name=new", s)
	}
	img.Name = base
	if renamed {
		img.Name, img.NewName = name, base
	}
	return img, nil
}
