package render

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/kustomize"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// detect chooses the tool: what the source says, else what the directory
// holds. A directory with a chart and a kustomization is a kustomization, as in
// Argo CD.
func detect(ctx context.Context, tree *source.Tree, dir string, src v1alpha1.ApplicationSource) (Tool, error) {
	explicit := explicitTools(src)
	if len(explicit) > 1 {
		return "", &manifest.Error{
			Message: fmt.Sprintf("spec.source names more than one tool: %s", strings.Join(explicit, ", ")),
			Hint:    "Keep one of them. A file .argocd-source.yaml in the directory may name one too.",
		}
	}
	if len(explicit) == 1 {
		tool := Tool(explicit[0])
		if tool == ToolPlugin {
			return tool, pluginError(src.Plugin)
		}
		return tool, nil
	}
	if src.Chart != "" {
		return ToolHelm, nil
	}
	for _, name := range append(append([]string{}, kustomize.Names...), "Chart.yaml") {
		p := path.Join(dir, name)
		_, kind, err := tree.Stat(ctx, p)
		if err != nil {
			return "", &manifest.Error{File: p, Message: err.Error(), Err: err}
		}
		if kind != source.File {
			continue
		}
		if name == "Chart.yaml" {
			return ToolHelm, nil
		}
		return ToolKustomize, nil
	}
	return ToolDirectory, nil
}

func explicitTools(src v1alpha1.ApplicationSource) []string {
	var tools []string
	if src.Kustomize != nil {
		tools = append(tools, string(ToolKustomize))
	}
	if src.Helm != nil {
		tools = append(tools, string(ToolHelm))
	}
	if src.Directory != nil {
		tools = append(tools, string(ToolDirectory))
	}
	if src.Plugin != nil {
		tools = append(tools, string(ToolPlugin))
	}
	return tools
}

func pluginError(p *v1alpha1.SourcePlugin) error {
	what := "config management plugins are not run"
	if p.Name != "" {
		what = fmt.Sprintf("config management plugin %q is not run", p.Name)
	}
	return &manifest.Error{
		Message: "spec.source.plugin: " + what,
		Hint:    "Let a workflow run the tool and commit what it renders, and point the source to that.",
	}
}
