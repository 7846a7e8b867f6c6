package generate

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/scm"
	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/template"
)

const maxSlug = 50 // leaves room in a DNS label for what is put around it

func (r *run) pullRequests(ctx context.Context, g *v1alpha1.PullRequestGenerator, parent map[string]any) ([]map[string]any, error) {
	filters, err := pullFilters(g.Filters)
	if err != nil {
		return nil, err
	}
	pulls, err := r.listPulls(ctx, g)
	if errors.Is(err, scm.ErrNotFound) && g.ContinueOnRepoNotFoundError {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sets := []map[string]any{}
	for _, p := range pulls {
		if !passes(filters, p) {
			continue
		}
		set := map[string]any{
			"number": strconv.FormatInt(p.Number, 10), "title": p.Title, "author": p.Author,
			"branch": p.Branch, "branch_slug": template.Slug(p.Branch, maxSlug, true),
			"target_branch": p.TargetBranch, "target_branch_slug": template.Slug(p.TargetBranch, maxSlug, true),
			"head_sha": p.HeadSHA, "head_short_sha": shorten(p.HeadSHA, 8), "head_short_sha_7": shorten(p.HeadSHA, 7),
		}
		if r.engine.Go() {
			labels := make([]any, len(p.Labels))
			for i, l := range p.Labels {
				labels[i] = l
			}
			set["labels"] = labels
		}
		if err := r.addValues(g.Values, set, parent); err != nil {
			return nil, fmt.Errorf("pull request %d: %w", p.Number, err)
		}
		sets = append(sets, set)
	}
	return sets, nil
}

func (r *run) listPulls(ctx context.Context, g *v1alpha1.PullRequestGenerator) ([]scm.PullRequest, error) {
	switch {
	case g.GitHub != nil:
		c := g.GitHub
		r.result.Pulls = append(r.result.Pulls, c.Owner+"/"+c.Repo)
		api, err := r.githubOf(ctx, c)
		if err != nil {
			return nil, err
		}
		return api.PullRequests(ctx, c.Owner, c.Repo, c.Labels, c.ExcludedLabels)
	case g.GitLab != nil:
		c := g.GitLab
		r.result.Pulls = append(r.result.Pulls, c.Project)
		api, err := r.gitlab(ctx, c.API, c.TokenRef, c.Insecure, c.CARef)
		if err != nil {
			return nil, err
		}
		return api.MergeRequests(ctx, c.Project, c.Labels, c.PullRequestState)
	case g.Gitea != nil:
		c := g.Gitea
		r.result.Pulls = append(r.result.Pulls, c.Owner+"/"+c.Repo)
		api, err := r.gitea(ctx, c.API, c.TokenRef, c.Insecure)
		if err != nil {
			return nil, err
		}
		return api.PullRequests(ctx, c.Owner, c.Repo, c.Labels)
	case g.BitbucketServer != nil:
		return nil, unsupportedProvider("bitbucketServer")
	case g.Bitbucket != nil:
		return nil, unsupportedProvider("bitbucket")
	case g.AzureDevOps != nil:
		return nil, unsupportedProvider("azuredevops")
	}
	return nil, errors.New("names no provider; github, gitlab and gitea are known")
}

// githubOf is the forge of this machine where it has the repository, else the
// API that the generator names. The forge asks for none of the generator's
// credentials, which are those of github.com.
func (r *run) githubOf(ctx context.Context, g *v1alpha1.PullRequestGitHub) (*scm.GitHub, error) {
	if r.Forge != nil {
		own, err := r.Forge.PullRequests(ctx, g.API, g.Owner, g.Repo)
		if err != nil {
			return nil, fmt.Errorf("the pull requests of %s/%s on this machine: %w", g.Owner, g.Repo, err)
		}
		if own != nil {
			return scm.NewGitHub(own.HTTP, own.Base, scm.Bearer(own.Token)), r.allowed(g.API)
		}
	}
	return r.github(ctx, g.API, g.TokenRef, g.AppSecretName)
}

func (r *run) gitlab(ctx context.Context, api string, ref *v1alpha1.SecretRef, insecure bool, ca *v1alpha1.ConfigMapRef) (*scm.GitLab, error) {
	if err := r.allowed(api); err != nil {
		return nil, err
	}
	token, err := r.secret(ctx, ref)
	if err != nil {
		return nil, err
	}
	client, err := r.client(ctx, insecure, ca)
	if err != nil {
		return nil, err
	}
	return scm.NewGitLab(client, api, token), nil
}

func (r *run) gitea(ctx context.Context, api string, ref *v1alpha1.SecretRef, insecure bool) (*scm.Gitea, error) {
	if err := r.allowed(api); err != nil {
		return nil, err
	}
	if api == "" {
		return nil, errors.New("gitea: api is missing")
	}
	token, err := r.secret(ctx, ref)
	if err != nil {
		return nil, err
	}
	client, err := r.client(ctx, insecure, nil)
	if err != nil {
		return nil, err
	}
	return scm.NewGitea(client, api, token), nil
}

type pullFilter struct{ branch, target, title *regexp.Regexp }

func pullFilters(filters []v1alpha1.PullRequestFilter) ([]pullFilter, error) {
	out := make([]pullFilter, len(filters))
	for i, f := range filters {
		for _, e := range []struct {
			name string
			from *string
			to   **regexp.Regexp
		}{{"branchMatch", f.BranchMatch, &out[i].branch}, {"targetBranchMatch", f.TargetBranchMatch, &out[i].target}, {"titleMatch", f.TitleMatch, &out[i].title}} {
			if err := compileInto(e.from, e.to); err != nil {
				return nil, fmt.Errorf("filters[%d].%s: %w", i, e.name, err)
			}
		}
	}
	return out, nil
}

func compileInto(from *string, to **regexp.Regexp) error {
	if from == nil {
		return nil
	}
	re, err := regexp.Compile(*from)
	*to = re
	return err
}

// passes reports whether one filter matches in full, or there is none.
func passes(filters []pullFilter, p scm.PullRequest) bool {
	for _, f := range filters {
		if match(f.branch, p.Branch) && match(f.target, p.TargetBranch) && match(f.title, p.Title) {
			return true
		}
	}
	return len(filters) == 0
}

func match(re *regexp.Regexp, s string) bool { return re == nil || re.MatchString(s) }
