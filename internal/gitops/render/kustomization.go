package render

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/helm"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/kustomize"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// build renders a kustomization with what the request and its source say.
func (r *Renderer) build(ctx context.Context, tree *source.Tree, dir string, src v1alpha1.ApplicationSource, req Request) ([]manifest.Object, []manifest.Warning, []kustomize.Fetched, error) {
	in := kustomize.Request{
		Dir: dir, Overrides: src.Kustomize, Environment: buildEnvironment(tree, req), BuildOptions: req.KustomizeOptions,
		KubeVersion: req.KubeVersion, APIVersions: req.APIVersions, Charts: charts{r, req},
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

// charts renders the charts of a kustomization.
type charts struct {
	r   *Renderer
	req Request
}

func (c charts) Chart(ctx context.Context, tree *source.Tree, chart kustomize.Chart) (kustomize.Result, error) {
	var res kustomize.Result
	in := helm.Request{
		App: chart.Release, Namespace: chart.Namespace, Dir: chart.Dir, KubeVersion: chart.KubeVersion, APIVersions: chart.APIVersions,
		Environment: buildEnvironment(tree, c.req), Remote: c.req.Remote,
		Helm: &v1alpha1.SourceHelm{SkipCrds: !chart.CRDs, SkipTests: chart.SkipTests},
	}
	if len(chart.Values) > 0 {
		raw, err := json.Marshal(chart.Values)
		if err != nil {
			return res, err
		}
		in.Helm.ValuesObject = raw
	}
	if chart.Dir == "" {
		if c.req.Remote == nil {
			return res, &manifest.Error{Message: "charts are not fetched", Hint: "Commit the chart below charts/."}
		}
		archive, version, err := c.req.Remote.Chart(ctx, chart.Repo, chart.Name, chart.Version)
		if err != nil {
			return res, err
		}
		res.Fetched = []kustomize.Fetched{{URL: strings.TrimSuffix(chart.Repo, "/") + "/" + chart.Name, Revision: chart.Version, Resolved: version}}
		if tree, err = unpack(archive, version); err != nil {
			return res, err
		}
		in.Archive = true
	}
	var err error
	res.Objects, res.Warnings, err = c.r.helm.Render(ctx, tree, in)
	return res, err
}
