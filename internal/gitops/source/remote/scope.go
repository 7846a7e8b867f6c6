package remote

import (
	"context"
	"fmt"
	"strings"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/chart"
)

// Scope fetches what a source names outside its tree, on behalf of a project.
// It is a render.Remote.
type Scope struct {
	service *Service
	project string
	// PassCredentials sends the credentials of a Helm repository to the other
	// hosts that its index names, as spec.source.helm.passCredentials.
	PassCredentials bool
}

// For returns the scope of a project.
func (s *Service) For(project string) *Scope { return &Scope{service: s, project: project} }

// Chart returns the archive of the newest version of a chart that the
// constraint allows. repoURL is https://, oci://, or "@name" and "alias:name"
// of a Helm repository that has a Secret with that name.
func (r *Scope) Chart(ctx context.Context, repoURL, name, constraint string) ([]byte, string, error) {
	if alias, ok := strings.CutPrefix(repoURL, "@"); ok || strings.HasPrefix(repoURL, "alias:") {
		if !ok {
			alias = strings.TrimPrefix(repoURL, "alias:")
		}
		url, known := r.service.credentials.Load().Named(r.project, alias)
		if !known {
			return nil, "", fmt.Errorf("chart %s: no repository Secret of type helm has the name %q: %w", name, alias, chart.ErrNotFound)
		}
		repoURL = url
	}
	data, v, err := r.service.charts.Archive(ctx, chart.Ref{Project: r.project, RepoURL: repoURL, Chart: name, Constraint: constraint, PassCredentials: r.PassCredentials})
	return data, v.Version, err
}

// Base returns the tree of a Git repository at a branch, tag or commit ("" is
// HEAD).
func (r *Scope) Base(ctx context.Context, repoURL, revision string) (*source.Tree, error) {
	at, err := r.service.ResolveSource(ctx, r.project, v1alpha1.ApplicationSource{RepoURL: repoURL, TargetRevision: revision})
	if err != nil {
		return nil, err
	}
	return r.service.TreeAt(ctx, at)
}

// File returns a file by its URL, for value files and the like.
func (r *Scope) File(ctx context.Context, url string) ([]byte, error) {
	return r.service.charts.File(ctx, url)
}
