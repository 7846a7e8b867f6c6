package forge

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// pullChange is what PATCH may change of a pull request.
type pullChange struct {
	Title      *string `json:"title"`
	Body       *string `json:"body"`
	State      *string `json:"state"`
	Base       *string `json:"base"`
	Draft      *bool   `json:"draft"`
	Maintained *bool   `json:"maintainer_can_modify"`
}

// mayEdit reports whether the identity may change what author wrote.
func (f *Forge) mayEdit(repo *repository, author string, id Identity) error {
	if strings.EqualFold(author, id.Actor) || id.mayChange(repo.key, scopeIssues+","+scopePulls) {
		return nil
	}
	return fail(http.StatusForbidden, "Must have admin rights to Repository.")
}

// changePull changes a pull request, one event for each kind of change.
func (f *Forge) changePull(ctx context.Context, repo *repository, i *issue, id Identity, in pullChange) (*issue, error) {
	if err := f.mayEdit(repo, i.author, id); err != nil {
		return nil, err
	}
	if i.Pull == nil {
		return nil, ErrNotFound
	}
	unlock, err := f.pulls.lock(ctx, repo.id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if i, err = pullOf(ctx, f.db, repo.id, i.number); err != nil {
		return nil, err
	}
	tried, err := f.retarget(ctx, repo, i, in)
	if err != nil {
		return nil, err
	}
	sc, err := f.eventScene(ctx, repo, i)
	if err != nil {
		return nil, err
	}
	return f.changeIssue(ctx, repo.id, i.number, func(i *issue, _ *sql.Tx, out *outbox) error {
		changes := map[string]any{}
		if in.Title != nil && *in.Title != i.title {
			changes["title"] = map[string]string{"from": i.title}
			i.title = *in.Title
		}
		if in.Body != nil && *in.Body != i.Body {
			changes["body"] = map[string]string{"from": i.Body}
			i.Body = *in.Body
		}
		if tried != nil && in.Base != nil && *in.Base != i.Pull.Base {
			changes["base"] = map[string]any{"ref": map[string]string{"from": i.Pull.Base}, "sha": map[string]string{"from": i.Pull.BaseSHA}}
		}
		if tried != nil {
			i.Pull.Base, i.Pull.BaseSHA, i.Pull.HeadSHA, i.Pull.Test = tried.Base, tried.BaseSHA, tried.HeadSHA, tried.Test
		}
		if in.Maintained != nil {
			i.Pull.Maintained = *in.Maintained
		}
		if len(changes) > 0 {
			if err := sc.tell(out, i, id, "edited", map[string]any{"changes": changes}); err != nil {
				return err
			}
		}
		return f.changeState(sc, out, i, id, in)
	})
}

// changeState closes, reopens, and takes a draft for ready or the other way.
func (f *Forge) changeState(sc *scene, out *outbox, i *issue, id Identity, in pullChange) error {
	if in.Draft != nil && *in.Draft != i.Pull.Draft {
		i.Pull.Draft = *in.Draft
		action := "ready_for_review"
		if *in.Draft {
			action, i.Pull.Auto = "converted_to_draft", nil
		}
		if err := sc.tell(out, i, id, action, nil); err != nil {
			return err
		}
	}
	if in.State == nil || (*in.State == "open") == i.open {
		return nil
	}
	if *in.State == "closed" {
		i.shut(out.now, id.Actor, "")
		i.Pull.Auto = nil
		return sc.tell(out, i, id, "closed", nil)
	}
	i.open, i.ClosedBy = true, ""
	i.Closed = time.Time{}
	return sc.tell(out, i, id, "reopened", nil)
}

// retarget checks a change, and tries out the merge when it has another base
// or opens the pull request again.
func (f *Forge) retarget(ctx context.Context, repo *repository, i *issue, in pullChange) (*pull, error) {
	title := i.title
	if in.Title != nil {
		title = *in.Title
	}
	body := ""
	if in.Body != nil {
		body = *in.Body
	}
	if err := checkTexts("PullRequest", title, body); err != nil {
		return nil, err
	}
	if in.State != nil && *in.State != "open" && *in.State != "closed" {
		return nil, invalid("PullRequest", "invalid", "state", "state must be open or closed")
	}
	reopen := in.State != nil && *in.State == "open" && !i.open
	if reopen && !i.Pull.Merged.IsZero() {
		return nil, invalid("PullRequest", "custom", "state", "state cannot be changed. The pull request cannot be reopened because it was merged.")
	}
	if in.Base == nil && !reopen {
		return nil, nil
	}
	if in.Base != nil && !i.open && !reopen {
		return nil, invalid("PullRequest", "invalid", "base", "Cannot change the base branch of a closed pull request.")
	}
	tried := &issue{repo: i.repo, number: i.number, author: i.author}
	p := *i.Pull
	tried.Pull = &p
	if in.Base != nil {
		p.Base = strings.TrimPrefix(*in.Base, "refs/heads/")
	}
	tip, err := repo.git.Resolve(ctx, "refs/heads/"+p.Base)
	if err != nil {
		return nil, revisionErrorAs(err, http.StatusUnprocessableEntity, fmt.Sprintf("Proposed base branch '%.100s' was not found", p.Base))
	}
	head, err := f.findID(ctx, p.HeadRepo)
	if err != nil {
		return nil, invalid("PullRequest", "custom", "state", "state cannot be changed. The repository that submitted this pull request has been deleted.")
	}
	if p.HeadSHA, err = head.git.Resolve(ctx, "refs/heads/"+p.Head); err != nil {
		return nil, revisionErrorAs(err, http.StatusUnprocessableEntity, fmt.Sprintf("state cannot be changed. The %s branch has been deleted.", p.Head))
	}
	if err := f.tryOut(ctx, repo, head, tried, tip); err != nil {
		return nil, err
	}
	return tried.Pull, nil
}

// reviewersChange says whose review is asked for, and whose no longer.
type reviewersChange struct {
	add, remove, addTeams, removeTeams []string
}

// changeReviewers changes whose review is asked for, one event for each.
func (f *Forge) changeReviewers(ctx context.Context, repo *repository, i *issue, id Identity, change reviewersChange) (*issue, error) {
	for _, login := range slices.Concat(change.add, change.addTeams) {
		if !ownerName.MatchString(strings.TrimSuffix(login, "[bot]")) && !strings.Contains(login, "/") {
			return nil, invalid("PullRequest", "invalid", "reviewers", fmt.Sprintf("%.40q is not a login", login))
		}
		if strings.EqualFold(login, i.author) {
			return nil, fail(http.StatusUnprocessableEntity, "Review cannot be requested from pull request author.")
		}
	}
	sc, err := f.eventScene(ctx, repo, i)
	if err != nil {
		return nil, err
	}
	return f.changeIssue(ctx, repo.id, i.number, func(i *issue, _ *sql.Tx, out *outbox) error {
		before, teams := i.Pull.Reviewers, i.Pull.Teams
		i.Pull.Reviewers = without(distinct(append(slices.Clone(before), change.add...)), change.remove)
		i.Pull.Teams = without(distinct(append(slices.Clone(teams), change.addTeams...)), change.removeTeams)
		for _, part := range []struct {
			action, field string
			logins        []string
			team          bool
		}{
			{"review_requested", "requested_reviewer", without(i.Pull.Reviewers, before), false},
			{"review_request_removed", "requested_reviewer", without(before, i.Pull.Reviewers), false},
			{"review_requested", "requested_team", without(i.Pull.Teams, teams), true},
			{"review_request_removed", "requested_team", without(teams, i.Pull.Teams), true},
		} {
			for _, login := range part.logins {
				extra := map[string]any{part.field: sc.account(login)}
				if part.team {
					extra[part.field] = map[string]any{"name": login, "slug": login}
				}
				if err := sc.tell(out, i, id, part.action, extra); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// setAuto asks for a merge as soon as it is possible, or takes that back (how is
// nil).
func (f *Forge) setAuto(ctx context.Context, repo *repository, i *issue, id Identity, how *auto) (*issue, error) {
	if !id.mayChange(repo.key, scopePulls) {
		return nil, errScope
	}
	action := "auto_merge_disabled"
	if how != nil {
		action = "auto_merge_enabled"
		state, err := f.mergeState(ctx, repo, i)
		if err != nil {
			return nil, err
		}
		switch {
		case !repo.settings.AllowAutoMerge:
			return nil, fail(http.StatusUnprocessableEntity, "Auto merge is not allowed for this repository")
		case !i.open:
			return nil, fail(http.StatusUnprocessableEntity, "Pull request is closed")
		case state == "clean":
			return nil, fail(http.StatusUnprocessableEntity, "Pull request is in clean status")
		case !slices.Contains(mergeMethods(repo), how.Method):
			return nil, fail(http.StatusUnprocessableEntity, "Merge method %s merging is not allowed on this repository", how.Method)
		}
	}
	sc, err := f.eventScene(ctx, repo, i)
	if err != nil {
		return nil, err
	}
	return f.changeIssue(ctx, repo.id, i.number, func(i *issue, _ *sql.Tx, out *outbox) error {
		i.Pull.Auto = how
		return sc.tell(out, i, id, action, nil)
	})
}
