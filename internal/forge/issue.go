package forge

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// pullSchema has the tables of issues, pull requests and what is said of them.
// repo is repository.id.
const pullSchema = `
create table if not exists issue ( -- issues and pull requests, which share their numbers
  id integer primary key autoincrement,
  repo integer not null, number integer not null, is_pull integer not null,
  open integer not null, title text not null, author text not null,
  base_ref text not null, head_repo integer not null, head_ref text not null, -- of pull requests
  waiting integer not null, -- it is to be merged when it can be
  created integer not null, updated integer not null,
  facts blob not null, -- JSON of issueFacts
  unique (repo, number)
);
create index if not exists issue_head on issue (head_repo, head_ref) where is_pull and open;
create index if not exists issue_base on issue (repo, base_ref) where is_pull and open;
create table if not exists issue_number (repo integer primary key, last integer not null);
create table if not exists pull_merge ( -- what the base is about to become by the merge of an issue
  issue integer primary key, sha text not null, actor text not null
);
create table if not exists comment (
  id integer primary key autoincrement,
  kind text not null, -- issue, review or commit
  repo integer not null, issue integer not null, sha text not null, review integer not null,
  author text not null, created integer not null, updated integer not null,
  facts blob not null -- JSON of commentFacts
);
create index if not exists comment_of on comment (kind, repo, issue, sha, id);
create table if not exists review (
  id integer primary key autoincrement,
  issue integer not null, author text not null, state text not null, body text not null, sha text not null,
  submitted integer not null -- 0: pending
);
create index if not exists review_of on review (issue, id);
create table if not exists reaction (
  id integer primary key autoincrement, repo integer not null,
  kind text not null, subject integer not null, user text not null, content text not null, created integer not null,
  unique (kind, subject, user, content)
);
create table if not exists label (
  id integer primary key autoincrement,
  repo integer not null, key text not null, name text not null, color text not null, description text not null,
  unique (repo, key)
);
create table if not exists milestone (
  id integer primary key autoincrement,
  repo integer not null, number integer not null, title text not null, description text not null,
  open integer not null, due integer not null, author text not null, created integer not null, updated integer not null,
  unique (repo, number)
);
create table if not exists check_suite (
  id integer primary key autoincrement,
  repo integer not null, sha text not null, app text not null, external text not null, branch text not null,
  created integer not null, updated integer not null,
  unique (repo, sha, app, external)
);
create table if not exists check_run (
  id integer primary key autoincrement,
  repo integer not null, suite integer not null, sha text not null, name text not null, external text not null,
  facts blob not null -- JSON of CheckRun
);
create index if not exists check_run_of on check_run (repo, sha, id);
create table if not exists check_annotation (
  run integer not null, n integer not null, facts blob not null,
  primary key (run, n)
) without rowid;
`

// pullTables are those whose rows go with their repository.
var pullTables = []string{"issue", "issue_number", "comment", "reaction", "label", "milestone", "check_suite", "check_run"}

// forgetPulls removes what hangs on a repository that is being deleted.
func forgetPulls(ctx context.Context, tx *sql.Tx, key string) error {
	const those = ` (select id from repository where key = ?)`
	statements := []string{
		`delete from review where issue in (select id from issue where repo in` + those + `)`,
		`delete from pull_merge where issue in (select id from issue where repo in` + those + `)`,
		`delete from check_annotation where run in (select id from check_run where repo in` + those + `)`,
	}
	for _, table := range pullTables {
		statements = append(statements, `delete from `+table+` where repo in`+those)
	}
	for _, statement := range statements {
		if _, err := tx.ExecContext(ctx, statement, key); err != nil {
			return err
		}
	}
	return nil
}

// issue is an issue or, with pull, a pull request.
type issue struct {
	id       int64
	repo     int64
	number   int
	open     bool
	title    string
	author   string
	created  time.Time
	updated  time.Time
	comments int
	issueFacts
}

// issueFacts are stored as JSON: nothing is looked up by them.
type issueFacts struct {
	Body      string    `json:"body,omitempty"`
	Reason    string    `json:"reason,omitempty"` // completed, not_planned, duplicate, reopened
	Closed    time.Time `json:"closed,omitzero"`
	ClosedBy  string    `json:"closed_by,omitempty"`
	Labels    []string  `json:"labels,omitempty"`
	Assignees []string  `json:"assignees,omitempty"`
	Milestone int       `json:"milestone,omitempty"` // its number
	Locked    bool      `json:"locked,omitempty"`
	Lock      string    `json:"lock_reason,omitempty"`
	Cause     string    `json:"cause,omitempty"` // commit whose run opened it
	Pull      *pull     `json:"pull,omitempty"`
}

const issueColumns = `i.id, i.repo, i.number, i.open, i.title, i.author, i.created, i.updated, i.facts,
	(select count(*) from comment c where c.kind = 'issue' and c.repo = i.repo and c.issue = i.id)`

// querier is the database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// issues returns the issues that a condition with "i." names, as it orders them.
func issuesWhere(ctx context.Context, q querier, condition string, args ...any) ([]*issue, error) {
	rows, err := q.QueryContext(ctx, `select `+issueColumns+` from issue i where `+condition, args...)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var all []*issue
	for rows.Next() {
		i := &issue{}
		var created, updated int64
		var facts []byte
		if err := rows.Scan(&i.id, &i.repo, &i.number, &i.open, &i.title, &i.author, &created, &updated, &facts, &i.comments); err != nil {
			return nil, fmt.Errorf("forge state: %w", err)
		}
		if err := json.Unmarshal(facts, &i.issueFacts); err != nil {
			return nil, fmt.Errorf("forge state: issue %d: %w", i.id, err)
		}
		i.created, i.updated = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
		all = append(all, i)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	return all, nil
}

var errNoIssue = errors.New("no such issue")

// issueOf returns the issue or pull request with a number, or ErrNotFound.
func issueOf(ctx context.Context, q querier, repo int64, number int) (*issue, error) {
	found, err := issuesWhere(ctx, q, `i.repo = ? and i.number = ?`, repo, number)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("#%d: %w: %w", number, errNoIssue, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return found[0], nil
}

// pullOf is issueOf for a pull request alone.
func pullOf(ctx context.Context, q querier, repo int64, number int) (*issue, error) {
	i, err := issueOf(ctx, q, repo, number)
	if err == nil && i.Pull == nil {
		return nil, fmt.Errorf("pull request #%d: %w", number, ErrNotFound)
	}
	return i, err
}

// save writes an issue, and inserts it when it has no id.
func (i *issue) save(ctx context.Context, tx *sql.Tx) error {
	facts, err := json.Marshal(i.issueFacts)
	if err != nil {
		return err
	}
	p := i.Pull
	if p == nil {
		p = &pull{}
	}
	if i.id != 0 {
		_, err = tx.ExecContext(ctx, `update issue set open=?, title=?, base_ref=?, head_repo=?, head_ref=?, waiting=?, updated=?, facts=? where id = ?`,
			i.open, i.title, p.Base, p.HeadRepo, p.Head, p.Auto != nil, i.updated.UnixMicro(), facts, i.id)
		return err
	}
	result, err := tx.ExecContext(ctx, `insert into issue (repo, number, is_pull, open, title, author, base_ref, head_repo, head_ref, waiting, created, updated, facts) values (?,?,?,?,?,?,?,?,?,?,?,?,?)`,
		i.repo, i.number, i.Pull != nil, i.open, i.title, i.author, p.Base, p.HeadRepo, p.Head, p.Auto != nil, i.created.UnixMicro(), i.updated.UnixMicro(), facts)
	if err == nil {
		i.id, err = result.LastInsertId()
	}
	return err
}

// nextNumber takes a number for an issue. One that is not used after a crash
// is a gap.
func (f *Forge) nextNumber(ctx context.Context, repo int64) (n int, err error) {
	err = f.transact(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `insert into issue_number (repo, last) values (?, 1)
			on conflict (repo) do update set last = last + 1 returning last`, repo).Scan(&n)
	})
	return n, err
}

// changeIssue changes one issue in a transaction together with its events.
// An error of change is returned as it is, and nothing is changed.
func (f *Forge) changeIssue(ctx context.Context, repo int64, number int, change func(i *issue, tx *sql.Tx, out *outbox) error) (*issue, error) {
	var changed *issue
	var refused error
	err := f.publish(ctx, func(tx *sql.Tx, out *outbox) error {
		i, err := issueOf(ctx, tx, repo, number)
		if err != nil {
			refused = err
			return err
		}
		i.updated = f.deps.Now().UTC()
		if err := change(i, tx, out); err != nil {
			refused = err
			return err
		}
		changed = i
		return i.save(ctx, tx)
	})
	if refused != nil {
		return nil, refused
	}
	return changed, err
}

// limits of texts, in bytes: GitHub's are in characters.
const (
	maxTitle = 256 * 4
	maxText  = 65536 * 4
)

func checkTexts(resource, title, body string) error {
	switch {
	case strings.TrimSpace(title) == "":
		return invalid(resource, "missing_field", "title", "title is empty")
	case len(title) > maxTitle:
		return invalid(resource, "custom", "title", "title is too long (maximum is 256 characters)")
	case len(body) > maxText:
		return invalid(resource, "custom", "body", "body is too long (maximum is 65536 characters)")
	}
	return nil
}

// shut closes an issue.
func (i *issue) shut(now time.Time, actor, reason string) {
	i.open, i.Reason, i.Closed, i.ClosedBy = false, reason, now.UTC(), actor
}

// distinct removes what is there twice, in any case of letters, and empty ones.
func distinct(list []string) []string {
	var out []string
	for _, s := range list {
		if s = strings.TrimSpace(s); s != "" && !slices.ContainsFunc(out, func(o string) bool { return strings.EqualFold(o, s) }) {
			out = append(out, s)
		}
	}
	return out
}

// without removes from list what is in others, in any case of letters.
func without(list, others []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool {
		return slices.ContainsFunc(others, func(o string) bool { return strings.EqualFold(o, s) })
	})
}
