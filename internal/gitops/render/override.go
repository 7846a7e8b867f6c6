package render

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/environment"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/helm"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

const maxOverride = 1 << 20 // bytes of one .argocd-source file

// override merges .argocd-source.yaml and then .argocd-source-<app>.yaml into
// the source. They set what belongs to a tool; where the source is stays as the
// Application says. As in Argo CD, null removes nothing.
func override(ctx context.Context, tree *source.Tree, dir string, req Request) (v1alpha1.ApplicationSource, error) {
	names := []string{".argocd-source.yaml"}
	if req.App != "" {
		names = append(names, ".argocd-source-"+req.App+".yaml")
	}
	src := req.Source
	for _, name := range names {
		p := path.Join(dir, name)
		_, kind, err := tree.Stat(ctx, p)
		if err != nil {
			return req.Source, &manifest.Error{File: p, Message: err.Error(), Err: err}
		}
		if kind != source.File {
			continue
		}
		data, err := tree.ReadFile(ctx, p)
		if errors.Is(err, git.ErrNotFound) {
			continue
		}
		if err != nil {
			return req.Source, err
		}
		if src, err = merge(src, data); err != nil {
			return req.Source, &manifest.Error{File: p, Line: 1, Message: err.Error(), Err: err, Hint: "The file has the fields of spec.source: helm, kustomize or directory."}
		}
	}
	return src, nil
}

func merge(src v1alpha1.ApplicationSource, data []byte) (v1alpha1.ApplicationSource, error) {
	if len(data) > maxOverride {
		return src, fmt.Errorf("has %d bytes; at most %d are read", len(data), maxOverride)
	}
	patch, err := yaml.YAMLToJSON(data)
	if err != nil {
		return src, err
	}
	if string(patch) == "null" { // nothing but comments
		return src, nil
	}
	have, err := json.Marshal(src)
	if err != nil {
		return src, err
	}
	merged, err := jsonpatch.MergePatch(have, patch)
	if err != nil {
		return src, err
	}
	var next v1alpha1.ApplicationSource
	for _, layer := range [][]byte{have, merged} {
		if err := json.Unmarshal(layer, &next); err != nil {
			return src, err
		}
	}
	next.RepoURL, next.Path, next.TargetRevision, next.Chart = src.RepoURL, src.Path, src.TargetRevision, src.Chart
	next.Ref, next.Name, next.TagPrefix = src.Ref, src.Name, src.TagPrefix
	return next, nil
}

// buildEnvironment returns the variables that a source's parameters may use.
func buildEnvironment(tree *source.Tree, req Request) environment.Environment {
	return environment.Of(environment.Facts{
		App: req.App, Namespace: req.Namespace, Project: req.Project, Revision: tree.Commit(),
		Path: req.Source.Path, RepoURL: req.Source.RepoURL, TargetRevision: req.Source.TargetRevision,
		KubeVersion: req.KubeVersion, APIVersions: req.APIVersions,
	})
}

// DependsOnRevision reports whether the objects of a source can change with
// the commit even when nothing that was read changes: a parameter uses
// $ARGOCD_APP_REVISION or one of its short forms. Pass the source of a
// [Result], which has what .argocd-source files add.
func DependsOnRevision(src v1alpha1.ApplicationSource) bool {
	if helm.DependsOnRevision(src.Helm) {
		return true
	}
	var texts []string
	if k := src.Kustomize; k != nil {
		texts = append(texts, k.Images...)
		texts = slices.AppendSeq(texts, maps.Values(k.CommonLabels))
		if k.CommonAnnotationsEnvsubst {
			texts = slices.AppendSeq(texts, maps.Values(k.CommonAnnotations))
		}
	}
	if d := src.Directory; d != nil {
		for _, v := range slices.Concat(d.Jsonnet.ExtVars, d.Jsonnet.TLAs) {
			texts = append(texts, v.Value)
		}
	}
	return slices.ContainsFunc(texts, environment.DependsOnRevision)
}
