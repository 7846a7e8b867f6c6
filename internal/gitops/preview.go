package gitops

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/generate"
	"github.com/lockstep-gitops/lockstep/internal/gitops/preview"
)

// Proposal is a commit that a branch does not name yet.
type Proposal struct {
	Repo string          // "owner/name"
	Ref  string          // that it would go to, "refs/heads/main"
	Base string          // commit that it is compared with, git.ZeroID for none
	Head string          // the proposed commit
	Git  *git.Repository // has both; nil for that of Deps.Repositories
}

// maxKept bounds the differences that one preview keeps, in bytes.
const maxKept = 4 << 20

// Preview says what a proposal would change in the clusters. It writes
// nothing. An error says that nothing is known: ctx ended, or the repository
// cannot be read.
func (e *Engine) Preview(ctx context.Context, p Proposal) (preview.Report, error) {
	r := preview.Report{Base: p.Base, Head: p.Head, Branch: strings.TrimPrefix(p.Ref, "refs/heads/")}
	if p.Git == nil {
		if e.deps.Repositories == nil {
			return r, errors.New("gitops: a preview needs Deps.Repositories")
		}
		repo, _, err := e.deps.Repositories.Open(ctx, "https://github.com/"+p.Repo)
		if err != nil {
			return r, fmt.Errorf("preview of %s: %w", p.Repo, err)
		}
		p.Git = repo
	}
	kept := 0
	var err error
	r.Followers, err = e.controller.Propose(ctx, application.Proposal{
		Repo: p.Repo, Ref: p.Ref, Base: p.Base, Head: p.Head, Git: p.Git, Name: e.sets.Name,
	}, func(a application.Proposed) error {
		out := preview.Compare(previewOf(a))
		for i := range out.Objects {
			if o := &out.Objects[i]; kept > maxKept {
				o.Cut += strings.Count(o.Text, "\n")
				o.Text = ""
			}
			kept += len(out.Objects[i].Text)
		}
		r.Outcomes = append(r.Outcomes, out)
		return nil
	})
	if err != nil {
		return r, fmt.Errorf("preview of %s at %.7s: %w", p.Repo, p.Head, err)
	}
	return r, nil
}

// previewOf turns what a proposal does to an application into the preview's words.
func previewOf(a application.Proposed) preview.Application {
	out := preview.Application{
		Namespace: a.Application.Namespace, Name: a.Application.Name, Cluster: a.Cluster, Target: a.Application.Spec.Destination.Namespace,
		Path: a.Path, Before: a.Before, After: a.After, Same: a.Same, Masked: a.Masked,
	}
	switch {
	case a.Fixed:
		out.Note = "it does not render without this change"
	case a.Held:
		out.Note = "held by a rollback: nothing changes until that ends"
	}
	for _, p := range a.Problems {
		out.Problems = append(out.Problems, preview.Problem{File: p.File, Line: p.Line, Message: p.Message, Hint: p.Hint, Old: p.Old, Fault: p.Fault})
	}
	return out
}

// Forge is the Git host of this machine, as ApplicationSets ask it for pull
// requests.
type Forge = generate.Forge

// ForgeAPI is where a [Forge] answers.
type ForgeAPI = generate.ForgeAPI

// PullRequestsChanged tells that a pull request of a repository, "owner/name",
// was opened, changed or closed: ApplicationSets that list them look again.
func (e *Engine) PullRequestsChanged(repo string) {
	select {
	case <-e.sets.started:
		e.sets.controller.PullRequestsChanged(repo)
	default: // the first ApplicationSet will list them
	}
}
