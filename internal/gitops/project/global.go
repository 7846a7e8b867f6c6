package project

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// Global says which projects inherit from a global one.
type Global struct {
	Project  string
	Selector labels.Selector // of the labels of projects
}

// ParseGlobals reads the setting globalProjects of argocd-cm, YAML; "" gives none.
func ParseGlobals(text string) ([]Global, error) {
	var items []struct {
		ProjectName   string               `json:"projectName"`
		LabelSelector metav1.LabelSelector `json:"labelSelector"`
	}
	if err := yaml.Unmarshal([]byte(text), &items); err != nil {
		return nil, fmt.Errorf("argocd-cm, globalProjects: %w", err)
	}
	var out []Global
	for i, item := range items {
		selector, err := metav1.LabelSelectorAsSelector(&item.LabelSelector)
		if err != nil {
			return nil, fmt.Errorf("argocd-cm, globalProjects[%d].labelSelector: %w", i, err)
		}
		if item.ProjectName == "" {
			return nil, fmt.Errorf("argocd-cm, globalProjects[%d]: projectName is missing", i)
		}
		out = append(out, Global{item.ProjectName, selector})
	}
	return out, nil
}

// Merge returns the project with what it inherits: the lists of repositories,
// destinations, kinds and sync windows of each global project that selects it
// are appended to its own. find looks a project up. A global project that does
// not exist is an error, for what it denies would be permitted.
func Merge(p *v1alpha1.AppProject, globals []Global, find func(name string) (*v1alpha1.AppProject, bool)) (*v1alpha1.AppProject, error) {
	out := *p
	s := &out.Spec
	for _, g := range globals {
		if g.Project == p.Name || !g.Selector.Matches(labels.Set(p.Labels)) {
			continue
		}
		from, ok := find(g.Project)
		if !ok {
			return nil, fmt.Errorf("AppProject %s inherits from the global project %s, which does not exist (argocd-cm, globalProjects); create it, or change the setting", p.Name, g.Project)
		}
		s.ClusterResourceWhitelist = slices.Concat(s.ClusterResourceWhitelist, from.Spec.ClusterResourceWhitelist)
		s.ClusterResourceBlacklist = slices.Concat(s.ClusterResourceBlacklist, from.Spec.ClusterResourceBlacklist)
		if s.NamespaceResourceWhitelist != nil || from.Spec.NamespaceResourceWhitelist != nil {
			s.NamespaceResourceWhitelist = append(append([]v1alpha1.ResourcePattern{}, s.NamespaceResourceWhitelist...), from.Spec.NamespaceResourceWhitelist...)
		}
		s.NamespaceResourceBlacklist = slices.Concat(s.NamespaceResourceBlacklist, from.Spec.NamespaceResourceBlacklist)
		s.SyncWindows = slices.Concat(s.SyncWindows, from.Spec.SyncWindows)
		s.SourceRepos = slices.Concat(s.SourceRepos, from.Spec.SourceRepos)
		s.Destinations = slices.Concat(s.Destinations, from.Spec.Destinations)
	}
	return &out, nil
}
