package forge

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// commentInput is a review comment as REST and GraphQL send it.
type commentInput struct {
	Body      string `json:"body"`
	CommitID  string `json:"commit_id"`
	Path      string `json:"path"`
	Position  int    `json:"position"`
	Line      int    `json:"line"`
	Side      string `json:"side"`
	StartLine int    `json:"start_line"`
	StartSide string `json:"start_side"`
	ReplyTo   int64  `json:"in_reply_to"`
	Subject   string `json:"subject_type"`
}

// placed checks where a review comment is to stand and finds the hunk of the
// changes around it.
func (f *Forge) placed(ctx context.Context, repo *repository, i *issue, id Identity, in commentInput, sha string) (*comment, error) {
	if err := checkBody(in.Body); err != nil {
		return nil, err
	}
	if in.Side == "" {
		in.Side = "RIGHT"
	}
	if in.Subject == "" {
		in.Subject = "line"
	}
	now := f.deps.Now().UTC()
	c := &comment{
		Kind: "review", Repo: repo.id, Issue: i.id, Author: id.Actor, Created: now, Updated: now,
		commentFacts: commentFacts{
			Body: in.Body, Path: in.Path, Line: in.Line, Side: strings.ToUpper(in.Side), StartLine: in.StartLine, StartSide: strings.ToUpper(in.StartSide),
			Position: in.Position, Commit: sha, Subject: in.Subject,
		},
	}
	from := i.Pull.Test.MergeBase
	if from == "" {
		from = i.Pull.BaseSHA
	}
	files, err := compareFiles(ctx, repo, from, sha, in.Path)
	if err != nil {
		return nil, invalid("PullRequestReviewComment", "invalid", "commit_id", "commit_id is not part of the pull request")
	}
	if len(files) == 0 {
		return nil, invalid("PullRequestReviewComment", "invalid", "path", fmt.Sprintf("%q is not changed by the pull request", cut(in.Path, 200)))
	}
	if in.Subject == "file" {
		return c, nil
	}
	hunk, line, position, ok := findLine(files[0].Patch, c.Side, in.Line, in.Position)
	if !ok {
		return nil, invalid("PullRequestReviewComment", "invalid", "line", "line must be part of the diff")
	}
	c.Hunk, c.Line, c.Position = hunk, line, position
	return c, nil
}

// findLine looks for a line of one side in a patch, or for a position, which
// counts lines from the first hunk's header. It returns the hunk up to there.
func findLine(patch, side string, line, position int) (hunk string, found, at int, ok bool) {
	var left, right int
	var head []string
	for n, text := range strings.Split(patch, "\n") {
		var number int
		if strings.HasPrefix(text, "@@") {
			left, right = hunkStart(text)
			head = []string{text}
			continue
		}
		head = append(head, text)
		switch {
		case strings.HasPrefix(text, "-"):
			if side == "LEFT" || line == 0 {
				number = left
			}
			left++
		case strings.HasPrefix(text, "+"):
			if side == "RIGHT" || line == 0 {
				number = right
			}
			right++
		case strings.HasPrefix(text, "\\"):
			continue
		default:
			if number = right; side == "LEFT" {
				number = left
			}
			left++
			right++
		}
		if line > 0 && number == line || line == 0 && position > 0 && n == position {
			return strings.Join(head, "\n"), number, n, true
		}
	}
	return "", 0, 0, false
}

// hunkStart reads "@@ -left,n +right,m @@".
func hunkStart(header string) (left, right int) {
	fields := strings.Fields(header)
	if len(fields) < 3 {
		return 0, 0
	}
	number := func(s string) int {
		s, _, _ = strings.Cut(strings.TrimLeft(s, "+-"), ",")
		n, _ := strconv.Atoi(s)
		return n
	}
	return number(fields[1]), number(fields[2])
}

// addReviewComment stores a single comment, which is a review of its own, or a
// reply.
func (f *Forge) addReviewComment(ctx context.Context, repo *repository, i *issue, id Identity, in commentInput) (*comment, error) {
	if in.ReplyTo != 0 {
		return f.replyTo(ctx, repo, i, id, in.ReplyTo, in.Body)
	}
	if in.CommitID == "" {
		in.CommitID = i.Pull.HeadSHA
	}
	rv, err := f.addReview(ctx, repo, i, id, reviewInput{Event: "COMMENT", CommitID: in.CommitID, Comments: []commentInput{in}})
	if err != nil {
		return nil, err
	}
	found, err := f.commentsWhere(ctx, f.db, `kind = 'review' and review = ?`, rv.ID)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

func (f *Forge) replyTo(ctx context.Context, repo *repository, i *issue, id Identity, to int64, body string) (*comment, error) {
	if err := checkBody(body); err != nil {
		return nil, err
	}
	parent, err := f.commentOf(ctx, repo, "review", strconv.FormatInt(to, 10))
	if err != nil || parent.Issue != i.id {
		return nil, ErrNotFound
	}
	if parent.ReplyTo != 0 {
		to = parent.ReplyTo
	}
	now := f.deps.Now().UTC()
	c := &comment{Kind: "review", Repo: repo.id, Issue: i.id, Author: id.Actor, Created: now, Updated: now, commentFacts: parent.commentFacts}
	c.Body, c.ReplyTo, c.ResolvedBy, c.EditedAfter = body, to, "", false
	rv := review{Issue: i.id, Author: id.Actor, State: reviewCommented, SHA: i.Pull.HeadSHA, Submitted: now}
	sc, err := f.eventScene(ctx, repo, i)
	if err != nil {
		return nil, err
	}
	_, err = f.changeIssue(ctx, repo.id, i.number, func(i *issue, tx *sql.Tx, out *outbox) error {
		result, err := tx.ExecContext(ctx, `insert into review (issue, author, state, body, sha, submitted) values (?,?,?,'',?,?)`, rv.Issue, rv.Author, rv.State, rv.SHA, now.UnixMicro())
		if err != nil {
			return err
		}
		if c.Review, err = result.LastInsertId(); err != nil {
			return err
		}
		if err := c.insert(ctx, tx); err != nil {
			return err
		}
		return sc.tellReviewComment(out, i, id, "created", c)
	})
	return c, err
}

// openThreads counts the threads that are not resolved.
func (f *Forge) openThreads(ctx context.Context, i *issue) (open int, err error) {
	all, err := f.commentsWhere(ctx, f.db, `kind = 'review' and repo = ? and issue = ?`, i.repo, i.id)
	for _, c := range all {
		if c.ReplyTo == 0 && c.ResolvedBy == "" {
			open++
		}
	}
	return open, err
}

type reviewCommentJSON struct {
	URL              string              `json:"url"`
	ReviewID         int64               `json:"pull_request_review_id"`
	ID               int64               `json:"id"`
	NodeID           string              `json:"node_id"`
	DiffHunk         string              `json:"diff_hunk"`
	Path             string              `json:"path"`
	Position         *int                `json:"position"`
	OriginalPosition int                 `json:"original_position"`
	CommitID         string              `json:"commit_id"`
	OriginalCommitID string              `json:"original_commit_id"`
	InReplyTo        int64               `json:"in_reply_to_id,omitempty"`
	User             accountJSON         `json:"user"`
	Body             string              `json:"body"`
	CreatedAt        time.Time           `json:"created_at"`
	UpdatedAt        time.Time           `json:"updated_at"`
	HTMLURL          string              `json:"html_url"`
	PullURL          string              `json:"pull_request_url"`
	Association      string              `json:"author_association"`
	Links            map[string]linkJSON `json:"_links"`
	StartLine        *int                `json:"start_line"`
	OriginalStart    *int                `json:"original_start_line"`
	StartSide        *string             `json:"start_side"`
	Line             *int                `json:"line,omitempty"`
	OriginalLine     int                 `json:"original_line,omitempty"`
	Side             string              `json:"side"`
	Subject          string              `json:"subject_type"`
	Reactions        reactionsJSON       `json:"reactions"`
}

// reviewComment describes a comment on a line. On another head than it was made
// on it is out of date, and its line is null.
func (sc *scene) reviewComment(i *issue, c *comment) reviewCommentJSON {
	url := fmt.Sprintf("%s/pulls/comments/%d", sc.base(), c.ID)
	page := fmt.Sprintf("%s#discussion_r%d", sc.pullURL(i), c.ID)
	pull := sc.base() + "/pulls/" + strconv.Itoa(i.number)
	j := reviewCommentJSON{
		URL: url, ReviewID: c.Review, ID: c.ID, NodeID: nodeID("D", sc.repo.full()+"#"+strconv.FormatInt(c.ID, 10)), DiffHunk: c.Hunk, Path: c.Path,
		OriginalPosition: c.Position, CommitID: i.Pull.HeadSHA, OriginalCommitID: c.Commit, InReplyTo: c.ReplyTo, User: sc.account(c.Author), Body: c.Body,
		CreatedAt: *moment(c.Created), UpdatedAt: *moment(c.Updated), HTMLURL: page, PullURL: pull, Association: sc.association(c.Author),
		Links: map[string]linkJSON{"self": {url}, "html": {page}, "pull_request": {pull}}, OriginalLine: c.Line, Side: c.Side, Subject: c.Subject,
		Reactions: sc.reactionsOf("review_comment", c.ID, url), StartSide: optional(c.StartSide),
	}
	if c.StartLine > 0 {
		j.StartLine, j.OriginalStart = &c.StartLine, &c.StartLine
	}
	if c.Commit == i.Pull.HeadSHA && c.Line > 0 {
		j.Position, j.Line = &c.Position, &c.Line
	}
	return j
}

func (sc *scene) tellReviewComment(out *outbox, i *issue, id Identity, action string, c *comment) error {
	return sc.tellAs(out, "pull_request_review_comment", action, i, id, map[string]any{"pull_request": sc.pullShort(i), "comment": sc.reviewComment(i, c)})
}

// resolveThread marks a thread as resolved, or as open again (by is "").
func (f *Forge) resolveThread(ctx context.Context, repo *repository, i *issue, c *comment, id Identity, resolved bool) error {
	c.ResolvedBy = ""
	action := "unresolved"
	if resolved {
		c.ResolvedBy, action = id.Actor, "resolved"
	}
	sc, err := f.eventScene(ctx, repo, i)
	if err != nil {
		return err
	}
	return f.publish(ctx, func(tx *sql.Tx, out *outbox) error {
		if err := c.update(ctx, tx); err != nil {
			return err
		}
		thread := map[string]any{"node_id": nodeID("T", repo.full()+"#"+strconv.FormatInt(c.ID, 10)), "comments": []reviewCommentJSON{sc.reviewComment(i, c)}}
		return sc.tellAs(out, "pull_request_review_thread", action, i, id, map[string]any{"pull_request": sc.pullShort(i), "thread": thread})
	})
}

func threadMutation(resolved bool) gqlMutation {
	return func(e *gqlExecution, in map[string]any) (gqlObject, error) {
		repo, i, c, err := e.commentOfNode(gqlString(in, "threadId"), "T", "review")
		if err != nil {
			return nil, err
		}
		if err := e.may(repo, scopePulls, true); err != nil {
			return nil, err
		}
		if err := e.f.resolveThread(e.ctx(), repo, i, c, IdentityFrom(e.ctx()), resolved); err != nil {
			return nil, err
		}
		o := gqlObject{"__typename": "PullRequestReviewThread", "id": gqlString(in, "threadId"), "isResolved": resolved}
		return gqlObject{"thread": o}, nil
	}
}
