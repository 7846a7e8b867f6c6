package forge

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// comment is a comment on an issue or pull request, on a line of a pull
// request's changes, or on a commit.
type comment struct {
	ID, Repo, Issue  int64
	Kind             string // issue, review, commit
	SHA              string // of a commit comment
	Review           int64
	Author           string
	Created, Updated time.Time
	commentFacts
}

// commentFacts are stored as JSON.
type commentFacts struct {
	Body        string `json:"body"`
	Path        string `json:"path,omitempty"`
	Line        int    `json:"line,omitempty"`
	Side        string `json:"side,omitempty"`
	StartLine   int    `json:"start_line,omitempty"`
	StartSide   string `json:"start_side,omitempty"`
	Position    int    `json:"position,omitempty"`
	Hunk        string `json:"hunk,omitempty"`
	Commit      string `json:"commit,omitempty"` // head that the comment was made on
	ReplyTo     int64  `json:"reply_to,omitempty"`
	Subject     string `json:"subject,omitempty"` // line or file
	ResolvedBy  string `json:"resolved_by,omitempty"`
	Minimized   string `json:"minimized,omitempty"` // why
	EditedAfter bool   `json:"edited,omitempty"`
}

func (f *Forge) commentsWhere(ctx context.Context, q querier, condition string, args ...any) ([]*comment, error) {
	rows, err := q.QueryContext(ctx, `select id, kind, repo, issue, sha, review, author, created, updated, facts from comment where `+condition+` order by id`, args...)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var all []*comment
	for rows.Next() {
		c := &comment{}
		var created, updated int64
		var facts []byte
		if err := rows.Scan(&c.ID, &c.Kind, &c.Repo, &c.Issue, &c.SHA, &c.Review, &c.Author, &created, &updated, &facts); err != nil {
			return nil, fmt.Errorf("forge state: %w", err)
		}
		if err := json.Unmarshal(facts, &c.commentFacts); err != nil {
			return nil, fmt.Errorf("forge state: comment %d: %w", c.ID, err)
		}
		c.Created, c.Updated = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
		all = append(all, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	return all, nil
}

// commentOf returns the comment of a kind with an id, or ErrNotFound.
func (f *Forge) commentOf(ctx context.Context, repo *repository, kind, text string) (*comment, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, ErrNotFound
	}
	found, err := f.commentsWhere(ctx, f.db, `kind = ? and repo = ? and id = ?`, kind, repo.id, id)
	if err == nil && len(found) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return found[0], nil
}

func (c *comment) insert(ctx context.Context, tx *sql.Tx) error {
	facts, err := json.Marshal(c.commentFacts)
	if err != nil {
		return err
	}
	result, err := tx.ExecContext(ctx, `insert into comment (kind, repo, issue, sha, review, author, created, updated, facts) values (?,?,?,?,?,?,?,?,?)`,
		c.Kind, c.Repo, c.Issue, c.SHA, c.Review, c.Author, c.Created.UnixMicro(), c.Updated.UnixMicro(), facts)
	if err == nil {
		c.ID, err = result.LastInsertId()
	}
	return err
}

func (c *comment) update(ctx context.Context, tx *sql.Tx) error {
	facts, err := json.Marshal(c.commentFacts)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `update comment set review = ?, updated = ?, facts = ? where id = ?`, c.Review, c.Updated.UnixMicro(), facts, c.ID)
	return err
}

func checkBody(body string) error {
	if strings.TrimSpace(body) == "" {
		return invalid("IssueComment", "missing_field", "body", "Body cannot be blank")
	}
	if len(body) > maxText {
		return invalid("IssueComment", "custom", "body", "body is too long (maximum is 65536 characters)")
	}
	return nil
}

// addIssueComment comments on an issue or pull request and tells of it.
func (f *Forge) addIssueComment(ctx context.Context, repo *repository, number int, id Identity, body string) (*issue, *comment, error) {
	if err := checkBody(body); err != nil {
		return nil, nil, err
	}
	i, err := issueOf(ctx, f.db, repo.id, number)
	if err != nil {
		return nil, nil, err
	}
	if i.Locked && !id.mayChange(repo.key, scopeIssues+","+scopePulls) {
		return nil, nil, fail(http.StatusForbidden, "Unable to create comment because issue is locked.")
	}
	sc, err := f.eventScene(ctx, repo, i)
	if err != nil {
		return nil, nil, err
	}
	now := f.deps.Now().UTC()
	c := &comment{Kind: "issue", Repo: repo.id, Issue: i.id, Author: id.Actor, Created: now, Updated: now, commentFacts: commentFacts{Body: body}}
	i, err = f.changeIssue(ctx, repo.id, number, func(i *issue, tx *sql.Tx, out *outbox) error {
		if err := c.insert(ctx, tx); err != nil {
			return err
		}
		i.comments++
		return sc.tellComment(out, i, id, "created", c, nil)
	})
	return i, c, err
}

// changeComment changes the text of a comment, or deletes it (body is nil), and
// tells of it.
func (f *Forge) changeComment(ctx context.Context, repo *repository, c *comment, id Identity, body *string) error {
	var i *issue
	if c.Issue != 0 {
		found, err := issuesWhere(ctx, f.db, `i.id = ?`, c.Issue)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return ErrNotFound
		}
		i = found[0]
	}
	if !strings.EqualFold(c.Author, id.Actor) && !id.mayChange(repo.key, scopeIssues+","+scopePulls) {
		return fail(http.StatusForbidden, "Must have admin rights to Repository.")
	}
	action, extra := "deleted", map[string]any{}
	if body != nil {
		if err := checkBody(*body); err != nil {
			return err
		}
		action, extra["changes"] = "edited", map[string]any{"body": map[string]any{"from": c.Body}}
		c.Body, c.Updated, c.EditedAfter = *body, f.deps.Now().UTC(), true
	}
	var sc *scene
	var err error
	if i != nil {
		if sc, err = f.eventScene(ctx, repo, i); err != nil {
			return err
		}
	}
	return f.publish(ctx, func(tx *sql.Tx, out *outbox) error {
		if body == nil {
			if _, err := tx.ExecContext(ctx, `delete from comment where id = ?`, c.ID); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `delete from reaction where kind = ? and subject = ?`, c.Kind+"_comment", c.ID); err != nil {
				return err
			}
		} else if err := c.update(ctx, tx); err != nil {
			return err
		}
		switch c.Kind {
		case "issue":
			return sc.tellComment(out, i, id, action, c, extra)
		case "review":
			return sc.tellReviewComment(out, i, id, action, c)
		}
		return nil
	})
}

type commentJSON struct {
	ID          int64         `json:"id"`
	NodeID      string        `json:"node_id"`
	URL         string        `json:"url"`
	HTMLURL     string        `json:"html_url"`
	IssueURL    string        `json:"issue_url"`
	Body        string        `json:"body"`
	User        accountJSON   `json:"user"`
	CreatedAt   time.Time     `json:"created_at"`
	UpdatedAt   time.Time     `json:"updated_at"`
	Association string        `json:"author_association"`
	Reactions   reactionsJSON `json:"reactions"`
	App         any           `json:"performed_via_github_app"`
}

func (sc *scene) comment(number int, isPull bool, c *comment) commentJSON {
	kind := "issues"
	if isPull {
		kind = "pull"
	}
	url := fmt.Sprintf("%s/issues/comments/%d", sc.base(), c.ID)
	return commentJSON{
		ID: c.ID, NodeID: nodeID("C", sc.repo.full()+"#"+strconv.FormatInt(c.ID, 10)), URL: url,
		HTMLURL: fmt.Sprintf("%s/%s/%d#issuecomment-%d", sc.page(), kind, number, c.ID), IssueURL: fmt.Sprintf("%s/issues/%d", sc.base(), number),
		Body: c.Body, User: sc.account(c.Author), CreatedAt: *moment(c.Created), UpdatedAt: *moment(c.Updated),
		Association: sc.association(c.Author), Reactions: sc.reactionsOf("issue_comment", c.ID, url),
	}
}

func (sc *scene) tellComment(out *outbox, i *issue, id Identity, action string, c *comment, extra map[string]any) error {
	return sc.tellAs(out, "issue_comment", action, i, id, map[string]any{"issue": sc.issue(i), "comment": sc.comment(i.number, i.Pull != nil, c)}, extra)
}
