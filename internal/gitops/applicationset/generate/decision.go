package generate

import (
	"context"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// decisions gives the known clusters that the status of a resource lists.
func (r *run) decisions(ctx context.Context, g *v1alpha1.ClusterDecisionGenerator, parent map[string]any) ([]map[string]any, error) {
	r.result.Remote = true
	config, err := r.Objects.ConfigMap(ctx, r.Namespace, g.ConfigMapRef)
	if err != nil {
		return nil, fmt.Errorf("configMapRef: %w", err)
	}
	gv, err := schema.ParseGroupVersion(config["apiVersion"])
	if err != nil || gv.Group == "" || config["kind"] == "" || config["matchKey"] == "" {
		return nil, fmt.Errorf("the ConfigMap %s/%s needs apiVersion (group/version), kind (the plural) and matchKey", r.Namespace, g.ConfigMapRef)
	}
	bySelector := len(g.LabelSelector.MatchLabels)+len(g.LabelSelector.MatchExpressions) > 0
	if (g.Name != "") == bySelector {
		return nil, errors.New("needs either name or labelSelector")
	}
	selector := ""
	if bySelector {
		s, err := metav1.LabelSelectorAsSelector(&g.LabelSelector)
		if err != nil {
			return nil, fmt.Errorf("labelSelector: %w", err)
		}
		selector = s.String()
	}
	resource := gv.WithResource(config["kind"])
	found, err := r.Objects.List(ctx, resource, r.Namespace, g.Name, selector)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", resource.GroupResource(), err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("there is no such %s in namespace %s", resource.GroupResource(), r.Namespace)
	}
	key := config["statusListKey"]
	if key == "" {
		key = "clusters"
	}
	return r.decided(ctx, g, parent, found, key, config["matchKey"])
}

func (r *run) decided(ctx context.Context, g *v1alpha1.ClusterDecisionGenerator, parent map[string]any, found []*unstructured.Unstructured, listKey, matchKey string) ([]map[string]any, error) {
	clusters, err := r.knownClusters(ctx)
	if err != nil {
		return nil, err
	}
	byName := map[string]Cluster{}
	for _, c := range clusters {
		byName[c.Name] = c
	}
	sets := []map[string]any{}
	for _, o := range found {
		list, _, err := unstructured.NestedSlice(o.Object, "status", listKey)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", o.GetKind(), o.GetName(), err)
		}
		for _, item := range list {
			decision, _ := item.(map[string]any)
			name, _ := decision[matchKey].(string)
			c, ok := byName[name]
			if !ok {
				continue
			}
			set := map[string]any{"name": c.Name, "server": c.Server}
			for k, v := range decision {
				if s, ok := v.(string); ok {
					set[k] = s
				}
			}
			if err := r.addValues(g.Values, set, parent); err != nil {
				return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
			}
			sets = append(sets, set)
		}
	}
	return sets, nil
}
