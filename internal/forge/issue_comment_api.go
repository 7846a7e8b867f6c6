package forge

import (
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

func (f *Forge) apiIssueComments(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	condition, args := `kind = 'issue' and repo = ?`, []any{repo.id}
	if text := r.PathValue("number"); text != "" {
		i, err := issueOf(r.Context(), f.db, repo.id, numberOf(text))
		if err != nil {
			return nil, err
		}
		condition, args = condition+` and issue = ?`, append(args, i.id)
	}
	if text := r.URL.Query().Get("since"); text != "" {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return nil, fail(http.StatusUnprocessableEntity, "since: %.40q is not a time like 2026-01-31T12:00:00Z", text)
		}
		condition, args = condition+` and updated >= ?`, append(args, at.UnixMicro())
	}
	found, err := f.commentsWhere(r.Context(), f.db, condition, args...)
	if err != nil {
		return nil, err
	}
	if r.URL.Query().Get("direction") == "desc" {
		slices.Reverse(found)
	}
	return f.answerComments(r, repo, cutPage(w, r, found))
}

func (f *Forge) answerComments(r *http.Request, repo *repository, comments []*comment) ([]commentJSON, error) {
	sc, err := f.scene(r, repo)
	if err != nil {
		return nil, err
	}
	list := []commentJSON{}
	for _, c := range comments {
		found, err := issuesWhere(r.Context(), f.db, `i.id = ?`, c.Issue)
		if err != nil {
			return nil, err
		}
		if len(found) > 0 {
			list = append(list, sc.comment(found[0].number, found[0].Pull != nil, c))
		}
	}
	return list, nil
}

func (f *Forge) apiCreateComment(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.participant(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Body string `json:"body"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	i, c, err := f.addIssueComment(r.Context(), repo, numberOf(r.PathValue("number")), IdentityFrom(r.Context()), in.Body)
	if err != nil {
		return nil, err
	}
	sc, err := f.scene(r, repo, i)
	if err != nil {
		return nil, err
	}
	j := sc.comment(i.number, i.Pull != nil, c)
	w.Header().Set("Location", j.URL)
	writeJSON(w, http.StatusCreated, j)
	return nil, nil
}

// editedComment changes or deletes a comment as the request says; GET leaves it
// as it is. It reports whether the comment is still there.
func (f *Forge) editedComment(w http.ResponseWriter, r *http.Request, kind string) (*repository, *comment, error) {
	find := f.participant
	if r.Method == http.MethodGet {
		find = f.target
	}
	repo, err := find(r)
	if err != nil {
		return nil, nil, err
	}
	c, err := f.commentOf(r.Context(), repo, kind, r.PathValue("id"))
	if err != nil {
		return nil, nil, err
	}
	switch r.Method {
	case http.MethodDelete:
		if err := f.changeComment(r.Context(), repo, c, IdentityFrom(r.Context()), nil); err != nil {
			return nil, nil, err
		}
		w.WriteHeader(http.StatusNoContent)
		return repo, nil, nil
	case http.MethodPatch:
		var in struct {
			Body string `json:"body"`
		}
		if err := readJSON(r, &in); err != nil {
			return nil, nil, err
		}
		return repo, c, f.changeComment(r.Context(), repo, c, IdentityFrom(r.Context()), &in.Body)
	}
	return repo, c, nil
}

func (f *Forge) apiComment(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, c, err := f.editedComment(w, r, "issue")
	if err != nil || c == nil {
		return nil, err
	}
	list, err := f.answerComments(r, repo, []*comment{c})
	if err != nil || len(list) == 0 {
		return nil, orNotFound(err)
	}
	return list[0], nil
}

// commitComment describes a comment on a commit.
func (sc *scene) commitComment(c *comment) map[string]any {
	url := fmt.Sprintf("%s/comments/%d", sc.base(), c.ID)
	j := map[string]any{
		"id": c.ID, "node_id": nodeID("O", sc.repo.full()+"#"+strconv.FormatInt(c.ID, 10)), "url": url,
		"html_url": fmt.Sprintf("%s/commit/%s#commitcomment-%d", sc.page(), c.SHA, c.ID), "commit_id": c.SHA, "body": c.Body, "user": sc.account(c.Author),
		"created_at": *moment(c.Created), "updated_at": *moment(c.Updated), "author_association": sc.association(c.Author),
		"path": optional(c.Path), "position": nil, "line": nil, "reactions": sc.reactionsOf("commit_comment", c.ID, url),
	}
	if c.Position > 0 {
		j["position"] = c.Position
	}
	if c.Line > 0 {
		j["line"] = c.Line
	}
	return j
}

func (f *Forge) apiCommitComment(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, c, err := f.editedComment(w, r, "commit")
	if err != nil || c == nil {
		return nil, err
	}
	sc, err := f.scene(r, repo)
	if err != nil {
		return nil, err
	}
	return sc.commitComment(c), nil
}

func (f *Forge) apiCreateCommitComment(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.participant(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Body     string `json:"body"`
		Path     string `json:"path"`
		Position int    `json:"position"`
		Line     int    `json:"line"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if err := checkBody(in.Body); err != nil {
		return nil, err
	}
	sha, err := repo.git.Resolve(r.Context(), r.PathValue("sha"))
	if err != nil {
		return nil, revisionError(err, r.PathValue("sha"))
	}
	id, now := IdentityFrom(r.Context()), f.deps.Now().UTC()
	c := &comment{
		Kind: "commit", Repo: repo.id, SHA: sha, Author: id.Actor, Created: now, Updated: now,
		commentFacts: commentFacts{Body: in.Body, Path: in.Path, Position: in.Position, Line: in.Line},
	}
	event, err := f.eventScene(r.Context(), repo)
	if err != nil {
		return nil, err
	}
	err = f.publish(r.Context(), func(tx *sql.Tx, out *outbox) error {
		if err := c.insert(r.Context(), tx); err != nil {
			return err
		}
		payload, err := f.payloadOf(event.json, id.Actor, "created", map[string]any{"comment": event.commitComment(c)})
		if err != nil {
			return err
		}
		return out.add(Event{Repo: repo.full(), Name: "commit_comment", Action: "created", Commit: sha, Actor: id.Actor, Cause: id.Cause, Payload: payload})
	})
	if err != nil {
		return nil, err
	}
	sc, err := f.scene(r, repo)
	if err != nil {
		return nil, err
	}
	writeJSON(w, http.StatusCreated, sc.commitComment(c))
	return nil, nil
}

// reactionSubject is the id of what the request's path names.
func (f *Forge) reactionSubject(r *http.Request, repo *repository, kind string) (int64, error) {
	if kind == "issue" {
		i, err := issueOf(r.Context(), f.db, repo.id, numberOf(r.PathValue("number")))
		if err != nil {
			return 0, err
		}
		return i.id, nil
	}
	c, err := f.commentOf(r.Context(), repo, kind[:len(kind)-len("_comment")], r.PathValue("id"))
	if err != nil {
		return 0, err
	}
	return c.ID, nil
}

func (f *Forge) reactionJSON(r *http.Request, id int64, user, content string, created int64) map[string]any {
	return map[string]any{
		"id": id, "node_id": nodeID("X", strconv.FormatInt(id, 10)), "user": f.account(apiBase(r), user), "content": content, "created_at": *moment(time.UnixMicro(created)),
	}
}

func (f *Forge) apiReactions(kind string) endpoint {
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		repo, err := f.target(r)
		if err != nil {
			return nil, err
		}
		subject, err := f.reactionSubject(r, repo, kind)
		if err != nil {
			return nil, err
		}
		sc := &scene{f: f, r: r, repo: repo}
		list := []map[string]any{}
		err = sc.eachRow(func(rows *sql.Rows) error {
			var id, created int64
			var user, content string
			if err := rows.Scan(&id, &user, &content, &created); err != nil {
				return err
			}
			list = append(list, f.reactionJSON(r, id, user, content, created))
			return nil
		}, `select id, user, content, created from reaction where kind = ? and subject = ? order by id`, kind, subject)
		if err != nil {
			return nil, err
		}
		return cutPage(w, r, list), nil
	}
}

func (f *Forge) apiReact(kind string) endpoint {
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		repo, err := f.participant(r)
		if err != nil {
			return nil, err
		}
		subject, err := f.reactionSubject(r, repo, kind)
		if err != nil {
			return nil, err
		}
		var in struct {
			Content string `json:"content"`
		}
		if err := readJSON(r, &in); err != nil {
			return nil, err
		}
		if !slices.Contains(reactionContents, in.Content) {
			return nil, invalid("Reaction", "invalid", "content", "")
		}
		id, actor, now, status := int64(0), IdentityFrom(r.Context()).Actor, f.deps.Now().UnixMicro(), http.StatusOK
		err = f.transact(r.Context(), func(tx *sql.Tx) error {
			err := tx.QueryRowContext(r.Context(), `select id, created from reaction where kind = ? and subject = ? and user = ? and content = ?`, kind, subject, actor, in.Content).Scan(&id, &now)
			if !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			status = http.StatusCreated
			result, err := tx.ExecContext(r.Context(), `insert into reaction (repo, kind, subject, user, content, created) values (?,?,?,?,?,?)`, repo.id, kind, subject, actor, in.Content, now)
			if err == nil {
				id, err = result.LastInsertId()
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		writeJSON(w, status, f.reactionJSON(r, id, actor, in.Content, now))
		return nil, nil
	}
}

func (f *Forge) apiUnreact(kind string) endpoint {
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		repo, err := f.participant(r)
		if err != nil {
			return nil, err
		}
		subject, err := f.reactionSubject(r, repo, kind)
		if err != nil {
			return nil, err
		}
		if _, err := f.db.ExecContext(r.Context(), `delete from reaction where id = ? and kind = ? and subject = ? and user = ?`,
			r.PathValue("reaction"), kind, subject, IdentityFrom(r.Context()).Actor); err != nil {
			return nil, fmt.Errorf("forge state: %w", err)
		}
		w.WriteHeader(http.StatusNoContent)
		return nil, nil
	}
}
