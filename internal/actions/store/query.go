package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Filter selects runs; zero fields select everything.
type Filter struct {
	Repo     string
	File     string // path or base name of the workflow
	Commit   string // full id or prefix, of the commit it ran for or of the proposed one
	Ref      string
	Branch   string // name of the branch or tag; of a pull request its head's
	Event    string
	Status   string // of Status or Conclusion
	Actor    string
	Pull     int64
	After    time.Time // created at or after
	Until    time.Time // created at or before
	Before   int64     // only IDs below
	Limit    int       // default 30, at most 1000
	Offset   int
	NotEnded bool // only those that are not completed; oldest first
}

// Runs lists runs without their jobs, newest first.
func (s *Store) Runs(ctx context.Context, f Filter) ([]Run, error) {
	where, args := f.where()
	limit := f.Limit
	if limit <= 0 {
		limit = 30
	}
	order := "desc"
	if f.NotEnded {
		order = "asc"
	}
	args = append(args, min(limit, 1000), f.Offset)
	return queryBodies[Run](ctx, s.read, `select body from run`+where+` order by id `+order+` limit ? offset ?`, args...)
}

// Count is how many runs a filter selects, without its page.
func (s *Store) Count(ctx context.Context, f Filter) (int, error) {
	where, args := f.where()
	var n int
	if err := s.read.QueryRowContext(ctx, `select count(*) from run`+where, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("count runs: %w", err)
	}
	return n, nil
}

func (f Filter) where() (string, []any) {
	var conds []string
	var args []any
	add := func(cond string, values ...any) {
		conds = append(conds, cond)
		args = append(args, values...)
	}
	if f.Repo != "" {
		add("repo = ? collate nocase", f.Repo)
	}
	if f.File != "" {
		add("(file = ? or file = ?)", f.File, ".github/workflows/"+f.File)
	}
	if f.Commit != "" {
		add("(commit_id >= ? and commit_id < ? or head_id >= ? and head_id < ?)", f.Commit, f.Commit+"~", f.Commit, f.Commit+"~")
	}
	if f.Ref != "" {
		add("json_extract(body, '$.ref') = ?", f.Ref)
	}
	if f.Branch != "" {
		add("(json_extract(body, '$.head_ref') = ? or json_extract(body, '$.head_ref') is null and json_extract(body, '$.ref') in (?, ?))",
			f.Branch, "refs/heads/"+f.Branch, "refs/tags/"+f.Branch)
	}
	if f.Event != "" {
		add("json_extract(body, '$.event') = ?", f.Event)
	}
	if f.Actor != "" {
		add("json_extract(body, '$.actor') = ? collate nocase", f.Actor)
	}
	if f.Pull > 0 {
		add("json_extract(body, '$.pull') = ?", f.Pull)
	}
	if !f.After.IsZero() {
		add("json_extract(body, '$.created_at') >= ?", f.After.UTC().Format(time.RFC3339))
	}
	if !f.Until.IsZero() {
		add("json_extract(body, '$.created_at') < ?", f.Until.UTC().Add(time.Second).Format(time.RFC3339))
	}
	if f.Status != "" {
		add("(status = ? or json_extract(body, '$.conclusion') = ?)", f.Status, f.Status)
	}
	if f.Before > 0 {
		add("id < ?", f.Before)
	}
	if f.NotEnded {
		add("status != 'completed'")
	}
	if len(conds) == 0 {
		return "", nil
	}
	return " where " + strings.Join(conds, " and "), args
}

// Run returns one run with the jobs of its current attempt.
func (s *Store) Run(ctx context.Context, id int64) (Run, error) {
	r, err := one[Run](ctx, s.read, fmt.Sprintf("run %d", id), `select body from run where id = ?`, id)
	if err != nil {
		return Run{}, err
	}
	r.Jobs, err = s.Jobs(ctx, id, r.Attempt)
	return r, err
}

// Attempt returns a run as it was at the end of an earlier attempt, with that
// attempt's jobs; for the current attempt it is Run.
func (s *Store) Attempt(ctx context.Context, id int64, attempt int) (Run, error) {
	r, err := s.Run(ctx, id)
	if err != nil || r.Attempt == attempt {
		return r, err
	}
	if r, err = one[Run](ctx, s.read, fmt.Sprintf("attempt %d of run %d", attempt, id), `select body from attempt where run_id = ? and attempt = ?`, id, attempt); err != nil {
		return Run{}, err
	}
	r.Jobs, err = s.Jobs(ctx, id, attempt)
	return r, err
}

// Payload is the event of a run, nil when none was stored.
func (s *Store) Payload(ctx context.Context, run int64) (json.RawMessage, error) {
	var body string
	err := s.read.QueryRowContext(ctx, `select body from payload where run_id = ?`, run).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the event of run %d: %w", run, err)
	}
	return json.RawMessage(body), nil
}

// Reviews are the decisions about a run's environments, oldest first.
func (s *Store) Reviews(ctx context.Context, run int64) ([]Review, error) {
	return queryBodies[Review](ctx, s.read, `select body from review where run_id = ? order by id`, run)
}

// Jobs returns the jobs of an attempt in the order of their creation.
func (s *Store) Jobs(ctx context.Context, run int64, attempt int) ([]Job, error) {
	return queryBodies[Job](ctx, s.read, `select body from job where run_id = ? and attempt = ? order by id`, run, attempt)
}

// AllJobs returns the jobs of all attempts of a run.
func (s *Store) AllJobs(ctx context.Context, run int64) ([]Job, error) {
	return queryBodies[Job](ctx, s.read, `select body from job where run_id = ? order by id`, run)
}

// Job returns one job.
func (s *Store) Job(ctx context.Context, id int64) (Job, error) {
	return one[Job](ctx, s.read, fmt.Sprintf("job %d", id), `select body from job where id = ?`, id)
}

func one[T any](ctx context.Context, db *sql.DB, what, query string, args ...any) (T, error) {
	list, err := queryBodies[T](ctx, db, query, args...)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	if err != nil {
		var zero T
		return zero, err
	}
	return list[0], nil
}

func queryBodies[T any](ctx context.Context, db *sql.DB, query string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read runs: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var out []T
	for rows.Next() {
		var body []byte
		var v T
		if err := rows.Scan(&body); err != nil {
			return nil, fmt.Errorf("read runs: %w", err)
		}
		if err := json.Unmarshal(body, &v); err != nil {
			return nil, fmt.Errorf("read runs: %w", err)
		}
		out = append(out, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read runs: %w", err)
	}
	return out, nil
}
