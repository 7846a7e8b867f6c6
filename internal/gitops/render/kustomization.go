package render

import (
	"context"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/kustomize"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// build renders a kustomization with what the request and its source say.
func (r *Renderer) build(ctx context.Context, tree *source.Tree, dir string, src v1alpha1.ApplicationSource, req Request) ([]manifest.Object, []manifest.Warning, []kustomize.Fetched, error) {
	in := kustomize.Request{
		Dir: dir, Overrides: src.Kustomize, Environment: buildEnvironment(tree, req), BuildOptions: req.KustomizeOptions,
		KubeVersion: req.KubeVersion, APIVersions: req.APIVersions,
	}
	if req.Remote != nil {
		in.Remote = req.Remote
	}
	if k := src.Kustomize; k != nil {
		if k.KubeVersion != "" {
			in.KubeVersion = k.KubeVersion
		}
		if len(k.APIVersions) > 0 {
			in.APIVersions = k.APIVersions
		}
	}
	res, err := r.kustomize.Render(ctx, tree, in)
	return res.Objects, res.Warnings, res.Fetched, err
}
