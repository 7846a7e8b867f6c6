package platform

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/forge"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops"
)

const reviewDeadline = 45 * time.Second // of one branch; the forge waits a minute for all

// reviewPush is forge.Deps.Review: it refuses what does not render, and did
// before.
func (s *system) reviewPush(ctx context.Context, p forge.Proposed) ([]string, error) {
	engine := s.node.gitops()
	if engine == nil {
		return nil, errors.New("the GitOps engine, which renders what is pushed here, is still starting; push again in a moment")
	}
	return reviewOf(ctx, engine, p)
}

func reviewOf(ctx context.Context, engine previewer, p forge.Proposed) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, reviewDeadline)
	defer cancel()
	repo, err := git.Open(p.GitDir)
	if err != nil {
		return nil, err
	}
	defer repo.Close()
	report, err := engine.Preview(ctx, gitops.Proposal{Repo: p.Repo, Ref: p.Ref, Base: p.Before, Head: p.After, Git: repo})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("rendering the applications took more than %s; push again, or turn the review of %s off: %w", reviewDeadline, p.Repo, err)
	}
	if err != nil {
		return nil, err
	}
	return report.Refusals(), nil
}

// ownForge is the forge as ApplicationSets ask it for pull requests.
type ownForge struct{ pulls pullForge }

// PullRequests implements gitops.Forge.
func (f ownForge) PullRequests(ctx context.Context, api, owner, repo string) (*gitops.ForgeAPI, error) {
	full := owner + "/" + repo
	if api != "" {
		u, err := url.Parse(api)
		if err != nil || u.Hostname() != "github.localhost" && !strings.HasSuffix(u.Hostname(), ".github.localhost") {
			return nil, nil
		}
	}
	if _, err := f.pulls.forge.Repository(ctx, full); errors.Is(err, forge.ErrNotFound) {
		return nil, nil // on github.com, or nowhere
	} else if err != nil {
		return nil, err
	}
	// It is used for one list, and then expires.
	token, _, err := f.pulls.token(ctx, full, "", map[string]string{"pull-requests": "read"})
	if err != nil {
		return nil, err
	}
	return &gitops.ForgeAPI{HTTP: f.pulls.client, Base: f.pulls.api, Token: token}, nil
}
