package actions

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// followEvents turns the forge's events into runs until ctx ends.
func (a *Actions) followEvents(ctx context.Context) error {
	if a.deps.Events == nil {
		return nil
	}
	cursor, err := a.store.Cursor(ctx, store.FromForge)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	for e := range a.deps.Events.FollowEvents(ctx, cursor) {
		a.insist(ctx, store.FromForge, e.ID, e.Repo, e.Commit, describeEvent(e.Name, e.Action), func() error { return a.consumeEvent(ctx, e) })
		if ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

// insist tries a few times to consume an event. What cannot be read is told in
// the journal, and passed over.
func (a *Actions) insist(ctx context.Context, source string, id int64, repo, commit, what string, consume func() error) {
	var err error
	for pause := 200 * time.Millisecond; pause < 5*time.Second; pause *= 4 {
		if err = consume(); err == nil || ctx.Err() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
	a.log.Error("an event starts no workflow", "repo", repo, "event", what, "commit", commit, "err", err)
	a.tellNow(ctx, journal.Event{Repo: repo, Commit: commit, Subject: "workflows", Status: journal.StatusFailed,
		Message: fmt.Sprintf("the workflows for %s could not be read: %v", what, err), Hint: "push again, or start the workflow by hand"})
	if err := a.consume(ctx, source, id, nil, nil); err != nil {
		a.log.Error("store cursor", "err", err)
	}
}

func (a *Actions) consumeEvent(ctx context.Context, e Event) error {
	var starts []store.Start
	// What a job's token does starts nothing but dispatches, which are no events
	// or repository_dispatch, as on GitHub.
	if e.Cause == "" && e.Actor != bot || e.Name == "repository_dispatch" {
		repo, err := a.deps.Repositories.Repository(ctx, e.Repo)
		if err != nil {
			return err
		}
		list, err := a.happenings(ctx, repo, e)
		if err != nil {
			return err
		}
		for _, h := range list {
			more, err := a.starts(ctx, repo, h)
			if err != nil {
				return err
			}
			starts = append(starts, more...)
		}
	}
	return a.consume(ctx, store.FromForge, e.ID, starts, nil)
}

// facts is what the engine reads of a payload.
type facts struct {
	Number      int64 `json:"number"`
	PullRequest *struct {
		Number int64  `json:"number"`
		Title  string `json:"title"`
		Head   end    `json:"head"`
		Base   end    `json:"base"`
	} `json:"pull_request"`
	Release *struct {
		Name    string `json:"name"`
		TagName string `json:"tag_name"`
	} `json:"release"`
	Issue *struct {
		Title string `json:"title"`
	} `json:"issue"`
	Deployment *struct {
		Ref string `json:"ref"`
		SHA string `json:"sha"`
	} `json:"deployment"`
}

// end is one side of a pull request.
type end struct {
	Ref  string `json:"ref"`
	SHA  string `json:"sha"`
	Repo *struct {
		FullName string `json:"full_name"`
	} `json:"repo"`
}

// atMerge are the events of a pull request whose workflows come from the test
// merge. atRef are those that run at the ref of the event; all others run at the
// head of the default branch.
var (
	atMerge = []string{"pull_request", "pull_request_review", "pull_request_review_comment"}
	atRef   = []string{"create", "release", "deployment", "deployment_status", "merge_group", "registry_package"}
)

// happenings are what an event of the forge is for workflows: none, one, or for
// a pull request two.
func (a *Actions) happenings(ctx context.Context, repo *git.Repository, e Event) ([]*happening, error) {
	var f facts
	if err := json.Unmarshal(e.Payload, &f); err != nil {
		return nil, fmt.Errorf("payload of %s: %w", describeEvent(e.Name, e.Action), err)
	}
	h := &happening{id: e.ID, repo: e.Repo, name: e.Name, action: e.Action, actor: e.Actor, payload: e.Payload, ref: e.Ref, commit: e.Commit, fork: e.Fork}
	switch {
	case e.Name == "push", e.Name == "workflow_run", e.Name == "workflow_job", e.Name == "workflow_dispatch", e.Name == "ping":
		return nil, nil // they come another way, or start nothing
	case slices.Contains(atMerge, e.Name) && f.PullRequest != nil:
		return a.pullHappenings(ctx, repo, h, &f)
	case slices.Contains(atRef, e.Name):
		if e.Name == "release" && f.Release != nil {
			h.ref, h.title = "refs/tags/"+f.Release.TagName, f.Release.Name
			if h.title == "" {
				h.title = f.Release.TagName
			}
		}
		if strings.HasPrefix(e.Name, "deployment") && f.Deployment != nil && h.commit == "" {
			h.commit = f.Deployment.SHA
		}
		return a.atCommit(ctx, repo, h)
	}
	if f.Issue != nil {
		h.title = f.Issue.Title
	}
	if e.Name == "repository_dispatch" {
		h.title = e.Action
	}
	return a.atDefault(ctx, repo, h)
}

// atCommit finishes a happening of a ref: its commit must be there.
func (a *Actions) atCommit(ctx context.Context, repo *git.Repository, h *happening) ([]*happening, error) {
	rev := h.commit
	if rev == "" {
		rev = h.ref
	}
	c, err := repo.Commit(ctx, rev)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	h.commit = c.ID
	if h.title == "" {
		h.title = c.Subject
	}
	return []*happening{h}, nil
}

// atDefault makes it a happening of the default branch.
func (a *Actions) atDefault(ctx context.Context, repo *git.Repository, h *happening) ([]*happening, error) {
	h.ref = "refs/heads/" + defaultBranch(repo)
	commit, err := repo.Resolve(ctx, h.ref)
	if err != nil {
		return nil, ignoreMissing(err) // an empty repository
	}
	h.commit = commit
	return []*happening{h}, nil
}

// pullHappenings are pull_request and its like at the test merge, and
// pull_request_target at the default branch.
func (a *Actions) pullHappenings(ctx context.Context, repo *git.Repository, h *happening, f *facts) ([]*happening, error) {
	pr := f.PullRequest
	h.pull, h.title, h.head, h.headRef, h.baseRef = max(pr.Number, f.Number), pr.Title, pr.Head.SHA, pr.Head.Ref, pr.Base.Ref
	if pr.Head.Repo != nil && pr.Base.Repo != nil && !strings.EqualFold(pr.Head.Repo.FullName, pr.Base.Repo.FullName) {
		h.fork = true
	}
	if c, err := repo.Commit(ctx, h.head); err == nil {
		h.message = c.Subject + "\n\n" + c.Body
	}
	h.paths = func() ([]string, error) {
		base := mergeBase(ctx, repo, pr.Base.SHA, pr.Head.SHA)
		if base == "" {
			base = pr.Base.SHA
		}
		return repo.Changed(ctx, base, pr.Head.SHA)
	}
	h.ref = fmt.Sprintf("refs/pull/%d/merge", h.pull)
	var out []*happening
	if h.name == "pull_request" {
		target := *h
		target.name, target.fork = "pull_request_target", false // trusted files, with secrets
		list, err := a.atDefault(ctx, repo, &target)
		if err != nil {
			return nil, err
		}
		out = list
	}
	if h.commit == "" {
		a.tellNow(ctx, journal.Event{Repo: h.repo, Commit: h.head, Subject: "workflows", Status: journal.StatusSkipped,
			Message: fmt.Sprintf("no workflow of %s runs for pull request %d: it cannot be merged as it is", describeEvent(h.name, h.action), h.pull),
			Hint:    "resolve the conflicts with " + h.baseRef})
		return out, nil
	}
	return append([]*happening{h}, out...), nil
}
