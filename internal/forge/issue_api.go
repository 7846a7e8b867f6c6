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

func (f *Forge) issueRoutes(rt, numbered, comments routes) {
	const repo, either = "/repos/{owner}/{repo}", scopeIssues + "," + scopePulls
	rt.handle("GET "+repo+"/issues", scopeIssues, f.apiIssues)
	rt.handle("POST "+repo+"/issues", scopeIssues, f.apiCreateIssue)
	numbered.handle("GET "+repo+"/issues/{number}", either, f.apiIssue)
	numbered.handle("PATCH "+repo+"/issues/{number}", either, f.apiChangeIssue)
	numbered.handle("PUT "+repo+"/issues/{number}/lock", either, f.apiLock)
	numbered.handle("DELETE "+repo+"/issues/{number}/lock", either, f.apiLock)
	numbered.handle("POST "+repo+"/issues/{number}/assignees", either, f.apiAssignees)
	numbered.handle("DELETE "+repo+"/issues/{number}/assignees", either, f.apiAssignees)
	numbered.handle("GET "+repo+"/issues/{number}/comments", either, f.apiIssueComments)
	numbered.handle("POST "+repo+"/issues/{number}/comments", either, f.apiCreateComment)
	comments.handle("GET "+repo+"/issues/comments", either, f.apiIssueComments)
	comments.handle("GET "+repo+"/issues/comments/{id}", either, f.apiComment)
	comments.handle("PATCH "+repo+"/issues/comments/{id}", either, f.apiComment)
	comments.handle("DELETE "+repo+"/issues/comments/{id}", either, f.apiComment)
	rt.handle("GET "+repo+"/comments/{id}", scopeContents, f.apiCommitComment)
	rt.handle("PATCH "+repo+"/comments/{id}", scopeContents, f.apiCommitComment)
	rt.handle("DELETE "+repo+"/comments/{id}", scopeContents, f.apiCommitComment)
	rt.handle("POST "+repo+"/commits/{sha}/comments", scopeContents, f.apiCreateCommitComment)
	rt.handle("GET /search/issues", "", f.apiSearchIssues)
	for _, kind := range []struct {
		rt         routes
		path, kind string
	}{
		{numbered, "/issues/{number}", "issue"}, {comments, "/issues/comments/{id}", "issue_comment"}, {comments, "/pulls/comments/{id}", "review_comment"},
	} {
		kind.rt.handle("GET "+repo+kind.path+"/reactions", either, f.apiReactions(kind.kind))
		kind.rt.handle("POST "+repo+kind.path+"/reactions", either, f.apiReact(kind.kind))
		kind.rt.handle("DELETE "+repo+kind.path+"/reactions/{reaction}", either, f.apiUnreact(kind.kind))
	}
}

// issueTarget is the repository and the issue or pull request of the request.
func (f *Forge) issueTarget(r *http.Request, find func(*http.Request) (*repository, error)) (*repository, *issue, error) {
	repo, err := find(r)
	if err != nil {
		return nil, nil, err
	}
	i, err := issueOf(r.Context(), f.db, repo.id, numberOf(r.PathValue("number")))
	return repo, i, err
}

func (f *Forge) apiIssues(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	condition, args := `i.repo = ?`, []any{repo.id}
	switch q.Get("state") {
	case "", "open":
		condition += ` and i.open`
	case "closed":
		condition += ` and not i.open`
	}
	if author := q.Get("creator"); author != "" {
		condition, args = condition+` and lower(i.author) = lower(?)`, append(args, author)
	}
	found, err := issuesWhere(r.Context(), f.db, condition+issueOrder(q.Get("sort"), q.Get("direction")), args...)
	if err != nil {
		return nil, err
	}
	var labels []string
	if text := q.Get("labels"); text != "" {
		labels = strings.Split(text, ",")
	}
	found = slices.DeleteFunc(found, func(i *issue) bool {
		assignee, milestone := q.Get("assignee"), q.Get("milestone")
		return len(without(labels, i.Labels)) > 0 ||
			assignee != "" && assignee != "*" && len(without([]string{assignee}, i.Assignees)) > 0 ||
			milestone != "" && milestone != "*" && milestone != strconv.Itoa(i.Milestone)
	})
	found = cutPage(w, r, found)
	sc, err := f.scene(r, repo, found...)
	if err != nil {
		return nil, err
	}
	return sc.issuesOf(found), nil
}

// issueChange is what POST and PATCH say of an issue.
type issueChange struct {
	Title     *string           `json:"title"`
	Body      *string           `json:"body"`
	State     *string           `json:"state"`
	Reason    *string           `json:"state_reason"`
	Labels    *[]any            `json:"labels"`
	Assignees *[]string         `json:"assignees"`
	Assignee  *string           `json:"assignee"`
	Milestone nullable[numeric] `json:"milestone"`
}

// numeric is a number that may be written as a string.
type numeric int

// UnmarshalJSON implements json.Unmarshaler.
func (n *numeric) UnmarshalJSON(data []byte) error {
	v, err := strconv.Atoi(strings.Trim(string(data), `"`))
	*n = numeric(v)
	return err
}

// labelNames reads labels, which may be texts or objects with a name.
func labelNames(list []any) []string {
	var names []string
	for _, l := range list {
		switch l := l.(type) {
		case string:
			names = append(names, l)
		case map[string]any:
			if name, ok := l["name"].(string); ok {
				names = append(names, name)
			}
		}
	}
	return distinct(names)
}

func (f *Forge) apiCreateIssue(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.participant(r)
	if err != nil {
		return nil, err
	}
	var in issueChange
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	i, err := f.createIssue(r.Context(), repo, IdentityFrom(r.Context()), in)
	if err != nil {
		return nil, err
	}
	sc, err := f.scene(r, repo, i)
	if err != nil {
		return nil, err
	}
	j := sc.issue(i)
	w.Header().Set("Location", j.URL)
	writeJSON(w, http.StatusCreated, j)
	return nil, nil
}

// createIssue opens an issue and tells of it.
func (f *Forge) createIssue(ctx context.Context, repo *repository, id Identity, in issueChange) (*issue, error) {
	i := &issue{repo: repo.id, open: true, author: id.Actor, created: f.deps.Now().UTC()}
	i.updated, i.Cause = i.created, id.Cause
	if in.Title != nil {
		i.title = *in.Title
	}
	if in.Body != nil {
		i.Body = *in.Body
	}
	if err := checkTexts("Issue", i.title, i.Body); err != nil {
		return nil, err
	}
	if id.mayChange(repo.key, scopeIssues) { // others can't set these; GitHub drops them silently too
		if in.Labels != nil {
			i.Labels = labelNames(*in.Labels)
		}
		if in.Assignees != nil {
			i.Assignees = distinct(*in.Assignees)
		}
		if in.Milestone.value != nil {
			i.Milestone = int(*in.Milestone.value)
		}
	}
	if err := f.ensureLabels(ctx, repo, i.Labels); err != nil {
		return nil, err
	}
	var err error
	if i.number, err = f.nextNumber(ctx, repo.id); err != nil {
		return nil, err
	}
	return i, f.announce(ctx, repo, i, id, "opened", nil)
}

// ensureLabels makes the labels that are not there yet.
func (f *Forge) ensureLabels(ctx context.Context, repo *repository, names []string) error {
	if len(names) == 0 {
		return nil
	}
	if len(names) > 100 || slices.ContainsFunc(names, func(n string) bool { return len(n) > 200 }) {
		return invalid("Label", "invalid", "name", "an issue has at most 100 labels of at most 50 characters")
	}
	return f.publish(ctx, func(_ *sql.Tx, out *outbox) error {
		for _, name := range names {
			if err := ensureLabel(out, repo.id, name); err != nil {
				return err
			}
		}
		return nil
	})
}

func (f *Forge) apiIssue(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, i, err := f.issueTarget(r, f.target)
	if err != nil {
		return nil, err
	}
	return f.answerIssue(r, repo, i)
}

func (f *Forge) answerIssue(r *http.Request, repo *repository, i *issue) (any, error) {
	sc, err := f.scene(r, repo, i)
	if err != nil {
		return nil, err
	}
	return sc.issue(i), nil
}

func (f *Forge) apiChangeIssue(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, i, err := f.issueTarget(r, f.participant)
	if err != nil {
		return nil, err
	}
	var in issueChange
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if i, err = f.editIssue(r.Context(), repo, i, IdentityFrom(r.Context()), in); err != nil {
		return nil, err
	}
	return f.answerIssue(r, repo, i)
}

// editIssue changes an issue, or what a pull request has of one.
func (f *Forge) editIssue(ctx context.Context, repo *repository, i *issue, id Identity, in issueChange) (*issue, error) {
	if err := f.mayEdit(repo, i.author, id); err != nil {
		return nil, err
	}
	if i.Pull != nil && (in.State != nil || in.Title != nil || in.Body != nil) {
		var err error
		if i, err = f.changePull(ctx, repo, i, id, pullChange{Title: in.Title, Body: in.Body, State: in.State}); err != nil {
			return nil, err
		}
		in.State, in.Title, in.Body = nil, nil, nil
	}
	title, body := i.title, ""
	if in.Title != nil {
		title = *in.Title
	}
	if in.Body != nil {
		body = *in.Body
	}
	if err := checkTexts("Issue", title, body); err != nil {
		return nil, err
	}
	var labels []string
	if in.Labels != nil {
		labels = labelNames(*in.Labels)
		if err := f.ensureLabels(ctx, repo, labels); err != nil {
			return nil, err
		}
	}
	if in.Assignee != nil && in.Assignees == nil {
		in.Assignees = &[]string{*in.Assignee}
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
		if len(changes) > 0 {
			if err := sc.tell(out, i, id, "edited", map[string]any{"changes": changes}); err != nil {
				return err
			}
		}
		if in.Labels != nil {
			if err := sc.relabel(out, i, id, labels); err != nil {
				return err
			}
		}
		if in.Assignees != nil {
			if err := sc.reassign(out, i, id, distinct(*in.Assignees)); err != nil {
				return err
			}
		}
		if in.Milestone.set {
			i.Milestone = 0
			if in.Milestone.value != nil {
				i.Milestone = int(*in.Milestone.value)
			}
		}
		return sc.openOrShut(out, i, id, in)
	})
}

// openOrShut closes or reopens an issue.
func (sc *scene) openOrShut(out *outbox, i *issue, id Identity, in issueChange) error {
	if in.State == nil {
		return nil
	}
	reason := "completed"
	if in.Reason != nil && *in.Reason != "" {
		reason = *in.Reason
	}
	switch {
	case *in.State == "closed" && i.open:
		i.shut(out.now, id.Actor, reason)
		return sc.tell(out, i, id, "closed", nil)
	case *in.State == "open" && !i.open:
		i.open, i.Reason, i.ClosedBy = true, "reopened", ""
		i.Closed = time.Time{}
		return sc.tell(out, i, id, "reopened", nil)
	case *in.State != "closed" && *in.State != "open":
		return invalid("Issue", "invalid", "state", "state must be open or closed")
	}
	return nil
}

// relabel gives an issue these labels, one event for each that comes or goes.
func (sc *scene) relabel(out *outbox, i *issue, id Identity, labels []string) error {
	before := i.Labels
	i.Labels = labels
	for _, name := range without(labels, before) {
		if err := sc.tell(out, i, id, "labeled", map[string]any{"label": sc.labels[strings.ToLower(name)]}); err != nil {
			return err
		}
	}
	for _, name := range without(before, labels) {
		if err := sc.tell(out, i, id, "unlabeled", map[string]any{"label": sc.labels[strings.ToLower(name)]}); err != nil {
			return err
		}
	}
	return nil
}

func (sc *scene) reassign(out *outbox, i *issue, id Identity, logins []string) error {
	before := i.Assignees
	i.Assignees = logins
	for _, login := range without(logins, before) {
		if err := sc.tell(out, i, id, "assigned", map[string]any{"assignee": sc.account(login)}); err != nil {
			return err
		}
	}
	for _, login := range without(before, logins) {
		if err := sc.tell(out, i, id, "unassigned", map[string]any{"assignee": sc.account(login)}); err != nil {
			return err
		}
	}
	return nil
}

func (f *Forge) apiAssignees(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, i, err := f.issueTarget(r, f.writable)
	if err != nil {
		return nil, err
	}
	var in struct {
		Assignees []string `json:"assignees"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	logins := distinct(append(slices.Clone(i.Assignees), in.Assignees...))
	if r.Method == http.MethodDelete {
		logins = without(i.Assignees, in.Assignees)
	}
	if i, err = f.editIssue(r.Context(), repo, i, IdentityFrom(r.Context()), issueChange{Assignees: &logins}); err != nil {
		return nil, err
	}
	j, err := f.answerIssue(r, repo, i)
	if err == nil && r.Method == http.MethodPost {
		writeJSON(w, http.StatusCreated, j)
		return nil, nil
	}
	return j, err
}

func (f *Forge) apiLock(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, i, err := f.issueTarget(r, f.writable)
	if err != nil {
		return nil, err
	}
	var in struct {
		Reason string `json:"lock_reason"`
	}
	if r.Method == http.MethodPut && r.ContentLength > 0 {
		if err := readJSON(r, &in); err != nil {
			return nil, err
		}
	}
	_, err = f.changeIssue(r.Context(), repo.id, i.number, func(i *issue, _ *sql.Tx, _ *outbox) error {
		i.Locked, i.Lock = r.Method == http.MethodPut, in.Reason
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("lock #%d: %w", i.number, err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil, nil
}
