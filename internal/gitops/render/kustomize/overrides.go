package kustomize

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// override edits the kustomization in dir as `kustomize edit` would, in memory.
func (f *treeFS) override(dir string, o *v1alpha1.SourceKustomize, env map[string]string) ([]manifest.Warning, error) {
	if o == nil {
		return nil, nil
	}
	var warnings []manifest.Warning
	for name, set := range map[string]bool{
		"version": o.Version != "", "kubeVersion": o.KubeVersion != "", "apiVersions": len(o.APIVersions) > 0,
	} {
		if set {
			warnings = append(warnings, manifest.Warning{File: dir, Line: 1, Message: "spec.source.kustomize." + name + " is not carried out: the Kustomize of this program is used"})
		}
	}
	slices.SortFunc(warnings, func(a, b manifest.Warning) int { return strings.Compare(a.Message, b.Message) })
	file, data, err := f.find(dir)
	if err != nil {
		return nil, err
	}
	var k types.Kustomization
	if err := k.Unmarshal(data); err != nil {
		return nil, f.explain(dir, err)
	}
	k.FixKustomization()
	if err := f.edit(&k, dir, o, env); err != nil {
		return nil, &manifest.Error{File: file, Message: err.Error(), Err: err, Hint: "Change spec.source.kustomize of the Application."}
	}
	out, err := yaml.Marshal(&k)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	f.overlay[path.Join("/", file)] = out
	return warnings, nil
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

func (f *treeFS) edit(k *types.Kustomization, dir string, o *v1alpha1.SourceKustomize, env map[string]string) error {
	if o.NamePrefix != "" {
		k.NamePrefix = o.NamePrefix
	}
	if o.NameSuffix != "" {
		k.NameSuffix = o.NameSuffix
	}
	if o.Namespace != "" {
		k.Namespace = o.Namespace
	}
	for _, image := range o.Images {
		setImage(k, parseImage(image))
	}
	for _, r := range o.Replicas {
		count := int64(r.Count.IntValue())
		if r.Count.String() != fmt.Sprint(count) || count < 0 {
			return fmt.Errorf("spec.source.kustomize.replicas: count %q of %s is not a number", r.Count.String(), r.Name)
		}
		k.Replicas = slices.DeleteFunc(k.Replicas, func(x types.Replica) bool { return x.Name == r.Name })
		k.Replicas = append(k.Replicas, types.Replica{Name: r.Name, Count: count})
	}
	if err := setLabels(k, o); err != nil {
		return err
	}
	if err := setAnnotations(k, o, env); err != nil {
		return err
	}
	for _, p := range o.Patches {
		if remote(p.Path) {
			return fmt.Errorf("patch %s: remote sources are not fetched", p.Path)
		}
		patch := types.Patch{Path: p.Path, Patch: p.Patch}
		if t := p.Target; t != nil {
			patch.Target = &types.Selector{LabelSelector: t.LabelSelector, AnnotationSelector: t.AnnotationSelector}
			patch.Target.Group, patch.Target.Version, patch.Target.Kind = t.Group, t.Version, t.Kind
			patch.Target.Name, patch.Target.Namespace = t.Name, t.Namespace
		}
		if p.Options != nil {
			patch.Options = &types.PatchArgs{AllowNameChange: p.Options["allowNameChange"], AllowKindChange: p.Options["allowKindChange"]}
		}
		k.Patches = append(k.Patches, patch)
	}
	return f.addComponents(k, dir, o)
}

func (f *treeFS) addComponents(k *types.Kustomization, dir string, o *v1alpha1.SourceKustomize) error {
	for _, c := range o.Components {
		if remote(c) {
			return fmt.Errorf("component %s: remote sources are not fetched", c)
		}
		_, kind, err := f.tree.Stat(f.ctx, dir+"/"+c)
		if err != nil {
			return err
		}
		if kind == source.Absent && o.IgnoreMissingComponents {
			continue
		}
		if kind == source.Absent {
			return fmt.Errorf("component %s does not exist in this commit", c)
		}
		k.Components = append(k.Components, c)
	}
	return nil
}

func setLabels(k *types.Kustomization, o *v1alpha1.SourceKustomize) error {
	if len(o.CommonLabels) == 0 {
		return nil
	}
	for name := range o.CommonLabels {
		if _, has := k.CommonLabels[name]; has && !o.ForceCommonLabels { //nolint:staticcheck // Argo CD's commonLabels are these, selectors included
			return fmt.Errorf("label %s is in the kustomization already; set forceCommonLabels to replace it", name)
		}
	}
	if o.LabelWithoutSelector {
		k.Labels = append(k.Labels, types.Label{Pairs: o.CommonLabels, IncludeTemplates: o.LabelIncludeTemplates})
		return nil
	}
	if k.CommonLabels == nil { //nolint:staticcheck // Argo CD's commonLabels are these, selectors included
		k.CommonLabels = map[string]string{} //nolint:staticcheck // Argo CD's commonLabels are these, selectors included
	}
	for name, value := range o.CommonLabels {
		k.CommonLabels[name] = value //nolint:staticcheck // Argo CD's commonLabels are these, selectors included
	}
	return nil
}

func setAnnotations(k *types.Kustomization, o *v1alpha1.SourceKustomize, env map[string]string) error {
	for name, value := range o.CommonAnnotations {
		if _, has := k.CommonAnnotations[name]; has && !o.ForceCommonAnnotations {
			return fmt.Errorf("annotation %s is in the kustomization already; set forceCommonAnnotations to replace it", name)
		}
		if o.CommonAnnotationsEnvsubst {
			value = os.Expand(value, func(v string) string { return env[v] })
		}
		if k.CommonAnnotations == nil {
			k.CommonAnnotations = map[string]string{}
		}
		k.CommonAnnotations[name] = value
	}
	return nil
}

func setImage(k *types.Kustomization, img types.Image) {
	for i, have := range k.Images {
		if have.Name != img.Name {
			continue
		}
		if img.NewName == "" {
			img.NewName = have.NewName
		}
		k.Images[i] = img
		return
	}
	k.Images = append(k.Images, img)
}

// parseImage reads "[name=]new[:tag][@digest]".
func parseImage(s string) types.Image {
	name, ref, renamed := strings.Cut(s, "=")
	if !renamed {
		ref = name
	}
	var img types.Image
	ref, img.Digest, _ = strings.Cut(ref, "@")
	base := ref
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		base = ref[:i]
		img.NewTag = ref[i+1:]
	}
	if img.Digest != "" {
		img.NewTag = ""
	}
	img.Name = base
	if renamed {
		img.Name, img.NewName = name, base
	}
	return img
}
