package generate

import (
	"context"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/template"
)

// knownClusters lists the clusters once in a generation, sorted by name.
func (r *run) knownClusters(ctx context.Context) ([]Cluster, error) {
	r.result.UsesClusters = true
	if r.clusters != nil {
		return r.clusters, nil
	}
	list, err := r.Clusters.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the clusters: %w", err)
	}
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Cluster) int { return strings.Compare(a.Name, b.Name) })
	r.clusters = list
	return list, nil
}

func (r *run) clusterSets(ctx context.Context, g *v1alpha1.ClusterGenerator, parent map[string]any) ([]map[string]any, error) {
	selector, err := metav1.LabelSelectorAsSelector(&g.Selector)
	if err != nil {
		return nil, fmt.Errorf("selector: %w", err)
	}
	clusters, err := r.knownClusters(ctx)
	if err != nil {
		return nil, err
	}
	sets := []map[string]any{}
	for _, c := range clusters {
		// Without a Secret there are no labels: any selector leaves it out.
		if c.Local && !selector.Empty() || !c.Local && !selector.Matches(labels.Set(c.Labels)) {
			continue
		}
		set := r.clusterSet(c)
		if err := r.addValues(g.Values, set, parent); err != nil {
			return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
		}
		sets = append(sets, set)
	}
	if g.FlatList {
		all := make([]any, len(sets))
		for i, s := range sets {
			all[i] = s
		}
		return []map[string]any{{"clusters": all}}, nil
	}
	return sets, nil
}

func (r *run) clusterSet(c Cluster) map[string]any {
	set := map[string]any{"name": c.Name, "nameNormalized": template.Normalize(c.Name), "server": c.Server, "project": c.Project}
	if c.Local {
		return set
	}
	if r.engine.Go() {
		meta := map[string]any{}
		if len(c.Annotations) > 0 {
			meta["annotations"] = anys(c.Annotations)
		}
		if len(c.Labels) > 0 {
			meta["labels"] = anys(c.Labels)
		}
		set["metadata"] = meta
		return set
	}
	for k, v := range c.Annotations {
		set["metadata.annotations."+k] = v
	}
	for k, v := range c.Labels {
		set["metadata.labels."+k] = v
	}
	return set
}

func anys(m map[string]string) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}
