package generate

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/scm"
	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/template"
)

func (r *run) repositories(ctx context.Context, g *v1alpha1.SCMProviderGenerator, parent map[string]any) ([]map[string]any, error) {
	filters, err := scmFilters(g.Filters)
	if err != nil {
		return nil, err
	}
	provider, err := r.provider(ctx, g)
	if err != nil {
		return nil, err
	}
	repos, err := filtered(ctx, provider, g.CloneProtocol, filters)
	if err != nil {
		return nil, err
	}
	sets := []map[string]any{}
	for _, repo := range repos {
		set := map[string]any{
			"organization": repo.Organization, "repository": repo.Name, "repository_id": fmt.Sprint(repo.ID), "url": repo.URL,
			"branch": repo.Branch, "branchNormalized": template.Normalize(repo.Branch),
			"sha": repo.SHA, "short_sha": shorten(repo.SHA, 8), "short_sha_7": shorten(repo.SHA, 7), "labels": strings.Join(repo.Labels, ","),
		}
		if err := r.addValues(g.Values, set, parent); err != nil {
			return nil, fmt.Errorf("repository %s/%s: %w", repo.Organization, repo.Name, err)
		}
		sets = append(sets, set)
	}
	return sets, nil
}

func (r *run) provider(ctx context.Context, g *v1alpha1.SCMProviderGenerator) (scm.Provider, error) {
	switch {
	case g.GitHub != nil:
		c := g.GitHub
		api, err := r.github(ctx, c.API, c.TokenRef, c.AppSecretName)
		if err != nil {
			return nil, err
		}
		return api.Organization(c.Organization, c.AllBranches), nil
	case g.GitLab != nil:
		c := g.GitLab
		api, err := r.gitlab(ctx, c.API, c.TokenRef, c.Insecure, c.CARef)
		if err != nil {
			return nil, err
		}
		return api.Group(c.Group, c.IncludeSubgroups, c.IncludeSharedProjects == nil || *c.IncludeSharedProjects, c.Topic, c.AllBranches), nil
	case g.Gitea != nil:
		c := g.Gitea
		api, err := r.gitea(ctx, c.API, c.TokenRef, c.Insecure)
		if err != nil {
			return nil, err
		}
		return api.Owner(c.Owner, c.AllBranches), nil
	case g.Bitbucket != nil:
		return nil, unsupportedProvider("bitbucket")
	case g.BitbucketServer != nil:
		return nil, unsupportedProvider("bitbucketServer")
	case g.AzureDevOps != nil:
		return nil, unsupportedProvider("azureDevOps")
	case g.AWSCodeCommit != nil:
		return nil, unsupportedProvider("awsCodeCommit")
	}
	return nil, errors.New("names no provider; github, gitlab and gitea are known")
}

// scmFilter is one filter: what it says about the repository, which is asked
// before branches are listed, and about a branch.
type scmFilter struct {
	repository, label, branch *regexp.Regexp
	exist, doNotExist         []string
}

func scmFilters(filters []v1alpha1.SCMFilter) ([]scmFilter, error) {
	out := make([]scmFilter, len(filters))
	for i, f := range filters {
		out[i].exist, out[i].doNotExist = f.PathsExist, f.PathsDoNotExist
		for _, e := range []struct {
			name string
			from *string
			to   **regexp.Regexp
		}{{"repositoryMatch", f.RepositoryMatch, &out[i].repository}, {"labelMatch", f.LabelMatch, &out[i].label}, {"branchMatch", f.BranchMatch, &out[i].branch}} {
			if err := compileInto(e.from, e.to); err != nil {
				return nil, fmt.Errorf("filters[%d].%s: %w", i, e.name, err)
			}
		}
	}
	return out, nil
}

// filtered lists the branches of repositories that pass one filter in full.
func filtered(ctx context.Context, provider scm.Provider, protocol string, filters []scmFilter) ([]scm.Repository, error) {
	repos, err := provider.Repositories(ctx, protocol)
	if err != nil {
		return nil, err
	}
	var out []scm.Repository
	for _, repo := range repos {
		var open []scmFilter
		for _, f := range filters {
			if f.takes(repo) {
				open = append(open, f)
			}
		}
		if len(filters) > 0 && len(open) == 0 {
			continue
		}
		branches, err := provider.Branches(ctx, repo)
		if err != nil {
			return nil, err
		}
		for _, b := range branches {
			ok, err := anyTakes(ctx, provider, open, b)
			if err != nil {
				return nil, err
			}
			if ok || len(filters) == 0 {
				out = append(out, b)
			}
		}
	}
	return out, nil
}

func (f scmFilter) takes(repo scm.Repository) bool {
	if !match(f.repository, repo.Name) {
		return false
	}
	if f.label == nil {
		return true
	}
	for _, l := range repo.Labels {
		if f.label.MatchString(l) {
			return true
		}
	}
	return false
}

func anyTakes(ctx context.Context, provider scm.Provider, filters []scmFilter, b scm.Repository) (bool, error) {
	for _, f := range filters {
		ok, err := f.takesBranch(ctx, provider, b)
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (f scmFilter) takesBranch(ctx context.Context, provider scm.Provider, b scm.Repository) (bool, error) {
	if !match(f.branch, b.Branch) {
		return false, nil
	}
	for i, p := range append(append([]string(nil), f.exist...), f.doNotExist...) {
		has, err := provider.HasPath(ctx, b, strings.TrimRight(p, "/"))
		if err != nil {
			return false, err
		}
		if has != (i < len(f.exist)) {
			return false, nil
		}
	}
	return true, nil
}
