package platform

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lockstep-gitops/lockstep/internal/forge"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops"
	"github.com/lockstep-gitops/lockstep/internal/gitops/preview"
)

const (
	previewBot     = "lockstep[bot]" // who comments
	previewApp     = "lockstep"
	previewCheck   = "lockstep/render"
	previewMark    = "<!-- lockstep/render -->\n" // begins the comment
	previewTimeout = 10 * time.Minute             // of one pull request
	publishTimeout = time.Minute                  // of what is written about it
	maxRemarks     = 50                           // annotations of a check run
)

// pullEvents are the forge's events; see [forge.Forge.FollowEvents].
type pullEvents interface {
	FollowEvents(ctx context.Context, after int64) iter.Seq[forge.Event]
	LastEvent(ctx context.Context) (int64, error)
}

// previewer says what a proposed commit changes; see [gitops.Engine.Preview].
type previewer interface {
	Preview(ctx context.Context, p gitops.Proposal) (preview.Report, error)
	PullRequestsChanged(repo string)
}

// pulls shows on each open pull request what it would change in the clusters:
// one comment, which the next push replaces, and one check run. What it has
// seen to is in a file, so that after kill -9 nothing is left out; a comment is
// found by its first line, so that it is not made twice.
type pulls struct {
	log    *slog.Logger
	events pullEvents
	forge  pullForge
	engine previewer
	file   string // of the cursor
}

// newPulls connects the forge's pull requests with the GitOps engine.
func (s *system) newPulls(engine *gitops.Engine) *pulls {
	return &pulls{log: s.named("pull requests"), events: s.forge, engine: engine, file: s.cfg.path("gitops", "pulls.json"), forge: s.pullForge()}
}

func (s *system) pullForge() pullForge {
	return pullForge{forge: s.forge, api: s.cfg.URL("api.github.localhost"), client: &http.Client{Transport: s.gateway.Transport(), Timeout: publishTimeout}}
}

// Run works until ctx ends.
func (p *pulls) Run(ctx context.Context) error {
	last, err := p.events.LastEvent(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	q := newPullQueue(p.file, p.log, last)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { p.wake(ctx, last); return nil })
	g.Go(func() error { p.collect(ctx, q); return nil })
	for range pullWorkers {
		g.Go(func() error {
			q.work(ctx, p.show)
			return nil
		})
	}
	return g.Wait()
}

// wake tells ApplicationSets that list pull requests of what happens to them.
func (p *pulls) wake(ctx context.Context, after int64) {
	for e := range p.events.FollowEvents(ctx, after) {
		if e.Name == "pull_request" {
			p.engine.PullRequestsChanged(e.Repo)
		}
	}
}

// collect puts the pull requests that changed into the queue.
func (p *pulls) collect(ctx context.Context, q *pullQueue) {
	for e := range p.events.FollowEvents(ctx, q.after()) {
		number, ok := pullOf(e)
		if !ok {
			q.skip(e.ID)
			continue
		}
		if !q.add(ctx, pullKey{e.Repo, number}, e.ID) {
			return
		}
	}
}

// show looks at one pull request as it is now, and writes what it changes.
// Until it writes it ends with ctx; what it writes, it writes whole.
func (p *pulls) show(ctx context.Context, key pullKey, event int64, last bool) error {
	ctx, cancel := context.WithTimeout(ctx, previewTimeout)
	defer cancel()
	pull, err := p.forge.get(ctx, key)
	if errors.Is(err, errNoPull) || err == nil && !pull.open {
		return nil
	}
	if err != nil {
		return err
	}
	report, err := p.engine.Preview(ctx, gitops.Proposal{Repo: key.repo, Ref: "refs/heads/" + pull.branch, Base: pull.base, Head: pull.proposed})
	if err != nil {
		return err
	}
	if report.Faults() && !last {
		return fmt.Errorf("not everything could be rendered: %s", report.Summary())
	}
	report.Note = pull.note
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer done()
	body := previewMark + report.Markdown(preview.Limit-len(previewMark))
	if err := p.forge.comment(ctx, key, pull, body, len(report.Affected()) > 0); err != nil {
		return err
	}
	if report.Followers == 0 {
		return nil // nothing of it is deployed from here
	}
	return p.forge.check(ctx, key, pull, event, report)
}

// pullState is what counts of a pull request.
type pullState struct {
	open     bool
	branch   string // that it would go to
	head     string // its own newest commit
	base     string // what the proposal is compared with
	proposed string // the branch with the pull request merged, or its head when that conflicts
	note     string
}

// sidesOf finds out what to compare: the test merge with the branch, or where
// there is none the head with what both have in common.
func sidesOf(ctx context.Context, repo *git.Repository, s pullState, merge string) (pullState, error) {
	if merge != "" {
		base, err := repo.Resolve(ctx, merge+"^1")
		s.base, s.proposed = base, merge
		return s, err
	}
	out, err := repo.Run(ctx, "merge-base", "refs/heads/"+s.branch, s.head)
	if err != nil {
		return s, fmt.Errorf("what %s and %.7s have in common: %w", s.branch, s.head, err)
	}
	s.base, s.proposed = string(out[:min(40, len(out))]), s.head
	s.note = "It conflicts with the branch: this compares its own commit with what both have in common."
	return s, nil
}
