package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
)

// Filter selects runs; zero fields select everything.
type Filter struct {
	Repo     string
	File     string // path or base name of the workflow
	Commit   string // full id or prefix
	Ref      string
	Event    string
	Status   string // of Status or Conclusion
	Before   int64  // only IDs below
	Limit    int    // default 30, at most 1000
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
	return s.queryRuns(ctx, `select body from run`+where+` order by id `+order+` limit ? offset ?`, args...)
}

// Count is how many runs a filter selects, without its page.
func (s *Store) Count(ctx context.Context, f Filter) (int, error) {
	where, args := f.where()
	var n int
	if err := s.db.QueryRowContext(ctx, `select count(*) from run`+where, args...).Scan(&n); err != nil {
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
		add("commit_id >= ? and commit_id < ?", f.Commit, f.Commit+"~")
	}
	if f.Ref != "" {
		add("json_extract(body, '$.ref') = ?", f.Ref)
	}
	if f.Event != "" {
		add("json_extract(body, '$.event') = ?", f.Event)
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

func (s *Store) queryRuns(ctx context.Context, query string, args ...any) ([]Run, error) {
	return queryBodies[Run](ctx, s.db, query, args...)
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
