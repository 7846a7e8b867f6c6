// Package project holds Applications against their AppProject.
//
// Input: an AppProject, with the global projects merged into it by [Merge].
// Output: [Project], which answers questions: may an Application use its
// sources and its destination ([Project.CheckApplication]), may it hold an
// object ([Project.CheckObject]), may it sync now ([Project.Windows]), must its
// commits be signed ([Project.Signatures]), whom does a sync act as
// ([Project.ServiceAccount]), which live objects are orphans
// ([Project.Orphans]), what may a role do ([Project.Allows]).
//
// Invariants: everything here is pure, without I/O and without a clock. A
// project that cannot be understood permits nothing: [Compile] returns an
// error that names the field.
//
// Start reading at [Compile].
package project

import (
	"errors"
	"fmt"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// Cluster is a destination cluster as it is registered. Applications name it
// by one of Name and Server; projects are compared with both.
type Cluster struct {
	Name    string
	Server  string
	Project string // that the cluster is scoped to, "" for all
}

// Project is a compiled AppProject. It never changes and is safe for
// concurrent use.
type Project struct {
	Name string

	namespaces     []matcher // sourceNamespaces
	repos          []rule    // sourceRepos
	destinations   []destination
	scopedClusters bool

	clusterAllowed, clusterDenied     []v1alpha1.ResourcePattern
	namespaceAllowed, namespaceDenied []v1alpha1.ResourcePattern
	allNamespaced                     bool // namespaceResourceWhitelist is missing

	windows    []*window
	orphans    *orphanRules
	roles      []role
	accounts   []account
	signatures []signaturePolicy
	warnings   []string
}

// Warnings say what in the project has no effect, such as a policy that is
// malformed. They never widen what is permitted.
func (p *Project) Warnings() []string { return p.warnings }

// Compile makes a Project. The error names every field that cannot be
// understood; until it is repaired, nothing of the project may be synced.
func Compile(from *v1alpha1.AppProject) (*Project, error) {
	spec := &from.Spec
	p := &Project{
		Name: from.Name, scopedClusters: spec.PermitOnlyProjectScopedClusters,
		clusterAllowed: spec.ClusterResourceWhitelist, clusterDenied: spec.ClusterResourceBlacklist,
		namespaceAllowed: spec.NamespaceResourceWhitelist, namespaceDenied: spec.NamespaceResourceBlacklist,
		allNamespaced: spec.NamespaceResourceWhitelist == nil,
	}
	c := &compiler{}
	for i, s := range spec.SourceNamespaces {
		p.namespaces = append(p.namespaces, c.expression(fmt.Sprintf("sourceNamespaces[%d]", i), s))
	}
	for i, s := range spec.SourceRepos {
		p.repos = append(p.repos, c.repo(fmt.Sprintf("sourceRepos[%d]", i), s))
	}
	for i, d := range spec.Destinations {
		at := fmt.Sprintf("destinations[%d].", i)
		p.destinations = append(p.destinations, destination{c.rule(at+"server", d.Server), c.rule(at+"name", d.Name), c.rule(at+"namespace", d.Namespace)})
	}
	for name, list := range map[string][]v1alpha1.ResourcePattern{
		"clusterResourceWhitelist": spec.ClusterResourceWhitelist, "clusterResourceBlacklist": spec.ClusterResourceBlacklist,
		"namespaceResourceWhitelist": spec.NamespaceResourceWhitelist, "namespaceResourceBlacklist": spec.NamespaceResourceBlacklist,
	} {
		c.patterns(name, list)
	}
	for i := range spec.SyncWindows {
		p.windows = append(p.windows, c.window(i, &spec.SyncWindows[i]))
	}
	p.orphans = c.orphans(spec.OrphanedResources)
	for i, a := range spec.DestinationServiceAccounts {
		p.accounts = append(p.accounts, c.account(i, a))
	}
	p.signatures = c.signatures(spec)
	p.roles = c.roles(from.Name, spec.Roles)
	p.warnings = c.warnings
	if len(c.errs) > 0 {
		return nil, fmt.Errorf("AppProject %s: %w; nothing is synced until it is repaired", from.Name, errors.Join(c.errs...))
	}
	return p, nil
}

// compiler collects what is wrong.
type compiler struct {
	errs     []error
	warnings []string
}

func (c *compiler) bad(field, format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("spec.%s: "+format, append([]any{field}, args...)...))
}

// Violation says what an AppProject does not permit, and by which field.
type Violation struct {
	Project string
	Field   string // of the project's spec
	What    string // "the repository https://…", "ConfigMap web/a"
	Hint    string // what to try
}

// Error implements error.
func (v *Violation) Error() string {
	return fmt.Sprintf("AppProject %s does not permit %s (%s)", v.Project, v.What, v.Field)
}
