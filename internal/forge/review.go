package forge

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// States of a review, as GitHub names them.
const (
	reviewApproved  = "APPROVED"
	reviewChanges   = "CHANGES_REQUESTED"
	reviewCommented = "COMMENTED"
	reviewDismissed = "DISMISSED"
	reviewPending   = "PENDING"
)

// review is what one person said of a pull request as a whole.
type review struct {
	ID                       int64
	Issue                    int64
	Author, State, Body, SHA string
	Submitted                time.Time // zero while pending
}

// reviewsOf returns the reviews of a pull request, oldest first, without the
// pending ones of others than viewer.
func (f *Forge) reviewsOf(ctx context.Context, q querier, issue int64, viewer string) ([]review, error) {
	rows, err := q.QueryContext(ctx, `select id, issue, author, state, body, sha, submitted from review where issue = ? and (submitted != 0 or author = ?) order by id`, issue, viewer)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var all []review
	for rows.Next() {
		var r review
		var at int64
		if err := rows.Scan(&r.ID, &r.Issue, &r.Author, &r.State, &r.Body, &r.SHA, &at); err != nil {
			return nil, fmt.Errorf("forge state: %w", err)
		}
		if at != 0 {
			r.Submitted = time.UnixMicro(at).UTC()
		}
		all = append(all, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	return all, nil
}

// reviewState turns the event of a request into a state.
func reviewState(event string) (string, error) {
	switch strings.ToUpper(event) {
	case "":
		return reviewPending, nil
	case "APPROVE":
		return reviewApproved, nil
	case "REQUEST_CHANGES":
		return reviewChanges, nil
	case "COMMENT":
		return reviewCommented, nil
	}
	return "", invalid("PullRequestReview", "invalid", "event", fmt.Sprintf("%.20q is not APPROVE, REQUEST_CHANGES or COMMENT", event))
}

type reviewInput struct {
	Body     string         `json:"body"`
	Event    string         `json:"event"`
	CommitID string         `json:"commit_id"`
	Comments []commentInput `json:"comments"`
}

// addReview stores a review with its comments, and tells of it unless it is
// pending.
func (f *Forge) addReview(ctx context.Context, repo *repository, i *issue, id Identity, in reviewInput) (review, error) {
	state, err := reviewState(in.Event)
	if err != nil {
		return review{}, err
	}
	if err := mayReview(i, id, state, in.Body, len(in.Comments)); err != nil {
		return review{}, err
	}
	if in.CommitID == "" {
		in.CommitID = i.Pull.HeadSHA
	}
	var comments []*comment
	for _, c := range in.Comments {
		one, err := f.placed(ctx, repo, i, id, c, in.CommitID)
		if err != nil {
			return review{}, err
		}
		comments = append(comments, one)
	}
	sc, err := f.eventScene(ctx, repo, i)
	if err != nil {
		return review{}, err
	}
	rv := review{Issue: i.id, Author: id.Actor, State: state, Body: in.Body, SHA: in.CommitID}
	if state != reviewPending {
		rv.Submitted = f.deps.Now().UTC()
	}
	var refused error
	_, err = f.changeIssue(ctx, repo.id, i.number, func(now *issue, tx *sql.Tx, out *outbox) error {
		if state == reviewPending {
			var n int
			if err := tx.QueryRowContext(ctx, `select count(*) from review where issue = ? and author = ? and submitted = 0`, i.id, id.Actor).Scan(&n); err != nil {
				return err
			}
			if n > 0 {
				refused = invalid("PullRequestReview", "custom", "", "User can only have one pending review per pull request")
				return refused
			}
		}
		now.Pull.Reviewers = without(now.Pull.Reviewers, []string{id.Actor})
		result, err := tx.ExecContext(ctx, `insert into review (issue, author, state, body, sha, submitted) values (?,?,?,?,?,?)`, rv.Issue, rv.Author, rv.State, rv.Body, rv.SHA, micro(rv.Submitted))
		if err != nil {
			return err
		}
		if rv.ID, err = result.LastInsertId(); err != nil {
			return err
		}
		for _, c := range comments {
			c.Review = rv.ID
			if err := c.insert(ctx, tx); err != nil {
				return err
			}
			if state != reviewPending {
				if err := sc.tellReviewComment(out, now, id, "created", c); err != nil {
					return err
				}
			}
		}
		if state == reviewPending {
			return nil
		}
		return sc.tellReview(out, now, id, "submitted", rv)
	})
	return rv, err
}

func micro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// mayReview holds a review against GitHub's rules.
func mayReview(i *issue, id Identity, state, body string, comments int) error {
	switch {
	case len(body) > maxText:
		return invalid("PullRequestReview", "custom", "body", "body is too long")
	case (state == reviewApproved || state == reviewChanges) && strings.EqualFold(i.author, id.Actor):
		return fail(http.StatusUnprocessableEntity, "Can not %s your own pull request", map[string]string{reviewApproved: "approve", reviewChanges: "request changes on"}[state])
	case (state == reviewChanges || state == reviewCommented) && strings.TrimSpace(body) == "" && comments == 0:
		return fail(http.StatusUnprocessableEntity, "body is needed for this review")
	}
	return nil
}

// submitReview ends a pending review.
func (f *Forge) submitReview(ctx context.Context, repo *repository, i *issue, id Identity, rv review, event, body string) (review, error) {
	state, err := reviewState(event)
	if err != nil {
		return rv, err
	}
	if rv.State != reviewPending || state == reviewPending {
		return rv, invalid("PullRequestReview", "custom", "", "Could not submit: the review is not pending, or the event is missing")
	}
	if body == "" {
		body = rv.Body
	}
	comments, err := f.commentsWhere(ctx, f.db, `kind = 'review' and review = ?`, rv.ID)
	if err != nil {
		return rv, err
	}
	if err := mayReview(i, id, state, body, len(comments)); err != nil {
		return rv, err
	}
	rv.State, rv.Body, rv.Submitted = state, body, f.deps.Now().UTC()
	sc, err := f.eventScene(ctx, repo, i)
	if err != nil {
		return rv, err
	}
	_, err = f.changeIssue(ctx, repo.id, i.number, func(now *issue, tx *sql.Tx, out *outbox) error {
		now.Pull.Reviewers = without(now.Pull.Reviewers, []string{id.Actor})
		if _, err := tx.ExecContext(ctx, `update review set state=?, body=?, submitted=? where id = ?`, rv.State, rv.Body, micro(rv.Submitted), rv.ID); err != nil {
			return err
		}
		for _, c := range comments {
			if err := sc.tellReviewComment(out, now, id, "created", c); err != nil {
				return err
			}
		}
		return sc.tellReview(out, now, id, "submitted", rv)
	})
	return rv, err
}

type reviewJSON struct {
	ID          int64               `json:"id"`
	NodeID      string              `json:"node_id"`
	User        accountJSON         `json:"user"`
	Body        string              `json:"body"`
	State       string              `json:"state"`
	HTMLURL     string              `json:"html_url"`
	PullURL     string              `json:"pull_request_url"`
	Association string              `json:"author_association"`
	Links       map[string]linkJSON `json:"_links"`
	SubmittedAt *time.Time          `json:"submitted_at,omitempty"`
	CommitID    string              `json:"commit_id"`
}

func (sc *scene) review(i *issue, r review) reviewJSON {
	page := fmt.Sprintf("%s#pullrequestreview-%d", sc.pullURL(i), r.ID)
	pull := sc.base() + "/pulls/" + strconv.Itoa(i.number)
	return reviewJSON{
		ID: r.ID, NodeID: nodeID("V", sc.repo.full()+"#"+strconv.Itoa(i.number)+"/"+strconv.FormatInt(r.ID, 10)), User: sc.account(r.Author), Body: r.Body, State: r.State,
		HTMLURL: page, PullURL: pull, Association: sc.association(r.Author), SubmittedAt: moment(r.Submitted), CommitID: r.SHA,
		Links: map[string]linkJSON{"html": {page}, "pull_request": {pull}},
	}
}

func (sc *scene) tellReview(out *outbox, i *issue, id Identity, action string, r review) error {
	j := sc.review(i, r)
	j.State = strings.ToLower(j.State) // so are they in webhooks
	return sc.tellAs(out, "pull_request_review", action, i, id, map[string]any{"pull_request": sc.pullShort(i), "review": j})
}

// reviewOf is the review of the request's path.
func (f *Forge) reviewOf(ctx context.Context, i *issue, viewer string, text string) (review, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return review{}, ErrNotFound
	}
	all, err := f.reviewsOf(ctx, f.db, i.id, viewer)
	if err != nil {
		return review{}, err
	}
	at := slices.IndexFunc(all, func(r review) bool { return r.ID == n })
	if at < 0 {
		return review{}, ErrNotFound
	}
	return all[at], nil
}

// dismissReview takes the weight from a review.
func (f *Forge) dismissReview(ctx context.Context, repo *repository, i *issue, id Identity, rv review, message string) (review, error) {
	if rv.State != reviewApproved && rv.State != reviewChanges {
		return rv, invalid("PullRequestReview", "custom", "", "Can not dismiss a "+strings.ToLower(rv.State)+" pull request review")
	}
	if strings.TrimSpace(message) == "" {
		return rv, invalid("PullRequestReview", "missing_field", "message", "message is needed")
	}
	sc, err := f.eventScene(ctx, repo, i)
	if err != nil {
		return rv, err
	}
	rv.State = reviewDismissed
	_, err = f.changeIssue(ctx, repo.id, i.number, func(now *issue, tx *sql.Tx, out *outbox) error {
		if _, err := tx.ExecContext(ctx, `update review set state=? where id = ?`, rv.State, rv.ID); err != nil {
			return err
		}
		return sc.tellReview(out, now, id, "dismissed", rv)
	})
	return rv, err
}
