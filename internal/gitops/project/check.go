package project

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

type destination struct{ server, name, namespace rule }

// CheckApplication returns what of the Application the project does not
// permit, nothing when all is well. cluster is the one that its destination
// names; home is the namespace of the projects, in which Applications need no
// sourceNamespaces.
func (p *Project) CheckApplication(app *v1alpha1.Application, cluster Cluster, home string) []*Violation {
	var out []*Violation
	if app.Namespace != home && !slices.ContainsFunc(p.namespaces, func(m matcher) bool { return m.match(app.Namespace) }) {
		out = append(out, p.violation("sourceNamespaces", "Applications in namespace "+app.Namespace, "Add the namespace to the project, or create the Application in "+home+"."))
	}
	for _, url := range sourceURLs(&app.Spec) {
		if !p.PermitsSource(url) {
			out = append(out, p.violation("sourceRepos", "the repository "+url, "Add the repository to the project."))
		}
	}
	if v := p.checkDestination(cluster, app.Spec.Destination.Namespace); v != nil {
		out = append(out, v)
	}
	return out
}

// sourceURLs are the repositories of an Application, each once. The field
// sources wins over source.
func sourceURLs(spec *v1alpha1.ApplicationSpec) []string {
	var urls []string
	if spec.Source != nil && len(spec.Sources) == 0 {
		urls = append(urls, spec.Source.RepoURL)
	}
	for _, s := range spec.Sources {
		if s != nil && !slices.Contains(urls, s.RepoURL) {
			urls = append(urls, s.RepoURL)
		}
	}
	return urls
}

// PermitsSource reports whether a repository or registry may be used.
func (p *Project) PermitsSource(url string) bool {
	url = normalURL(url)
	permitted := false
	for _, r := range p.repos {
		switch {
		case r.permits(url):
			permitted = true
		case r.deny:
			return false
		}
	}
	return permitted
}

// PermitsDestination reports whether objects may go to a namespace of a
// cluster. A pattern with "!" permits what it does not match, and one that
// matches denies whatever the item's other fields say.
func (p *Project) PermitsDestination(cluster Cluster, namespace string) bool {
	return p.checkDestination(cluster, namespace) == nil
}

func (p *Project) checkDestination(cluster Cluster, namespace string) *Violation {
	what := fmt.Sprintf("the destination namespace %q of cluster %s", namespace, cluster)
	permitted := false
	for i, d := range p.destinations {
		name := cluster.Name != "" && d.name.permits(cluster.Name)
		server := cluster.Server != "" && d.server.permits(cluster.Server)
		in := d.namespace.permits(namespace)
		switch {
		case (name || server) && in:
			permitted = true
		case !name && d.name.deny, !server && d.server.deny, !in && d.namespace.deny:
			return p.violation(fmt.Sprintf("destinations[%d]", i), what, `Change the destination, or the pattern with "!" of the project.`)
		}
	}
	if !permitted {
		return p.violation("destinations", what, "Add the destination to the project.")
	}
	if p.scopedClusters && cluster.Project != p.Name {
		return p.violation("permitOnlyProjectScopedClusters", "the cluster "+cluster.String()+", which is not scoped to the project", `Set "project: `+p.Name+`" in the cluster's Secret.`)
	}
	return nil
}

// String is the cluster for people.
func (c Cluster) String() string {
	if c.Name != "" {
		return c.Name
	}
	return c.Server
}

// CheckObject returns why the project does not permit an object, nil when it
// does. namespace is "" for cluster-scoped objects. Cluster-scoped kinds need
// an entry in clusterResourceWhitelist; namespaced ones are permitted while
// namespaceResourceWhitelist is missing, and none is when it is empty.
func (p *Project) CheckObject(gvk schema.GroupVersionKind, namespace, name string, cluster Cluster) *Violation {
	what := gvk.Kind + " " + strings.TrimPrefix(namespace+"/"+name, "/")
	const hint = "Change the project, or take the object out of the source."
	switch field := p.kindDenied(gvk.GroupKind(), namespace != "", name); {
	case field != "":
		return p.violation(field, what, hint)
	case namespace != "" && !p.PermitsDestination(cluster, namespace):
		return p.violation("destinations", what+" in cluster "+cluster.String(), hint)
	}
	return nil
}

// kindDenied returns the field that denies a kind, "" when it is permitted.
func (p *Project) kindDenied(kind schema.GroupKind, namespaced bool, name string) string {
	switch {
	case !namespaced && !listed(p.clusterAllowed, kind, name):
		return "clusterResourceWhitelist"
	case !namespaced && listed(p.clusterDenied, kind, name):
		return "clusterResourceBlacklist"
	case namespaced && !p.allNamespaced && !listed(p.namespaceAllowed, kind, ""):
		return "namespaceResourceWhitelist"
	case namespaced && listed(p.namespaceDenied, kind, ""):
		return "namespaceResourceBlacklist"
	}
	return ""
}

// listed looks a kind up; the item's name counts where the object has one.
func listed(list []v1alpha1.ResourcePattern, kind schema.GroupKind, name string) bool {
	return slices.ContainsFunc(list, func(item v1alpha1.ResourcePattern) bool {
		return matches(item.Kind, kind.Kind) && matches(item.Group, kind.Group) && (item.Name == "" || name == "" || matches(item.Name, name))
	})
}

// matches is path.Match of a pattern that Compile checked.
func matches(pattern, value string) bool {
	ok, err := path.Match(pattern, value)
	return ok && err == nil
}

func (p *Project) violation(field, what, hint string) *Violation {
	return &Violation{Project: p.Name, Field: field, What: what, Hint: hint}
}
