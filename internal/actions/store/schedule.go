package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"
)

// Schedule is one `schedule` entry of a workflow on a default branch.
type Schedule struct {
	Repo, File, Cron, Zone string
	Actor                  string    // who wrote it, as far as is known
	Last                   time.Time // until when it was looked at
}

// Schedules lists all schedules.
func (s *Store) Schedules(ctx context.Context) ([]Schedule, error) {
	rows, err := s.read.QueryContext(ctx, `select repo, file, cron, zone, actor, last from schedule order by repo, file, cron`)
	if err != nil {
		return nil, fmt.Errorf("read schedules: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var out []Schedule
	for rows.Next() {
		var e Schedule
		var last int64
		if err := rows.Scan(&e.Repo, &e.File, &e.Cron, &e.Zone, &e.Actor, &last); err != nil {
			return nil, fmt.Errorf("read schedules: %w", err)
		}
		e.Last = time.Unix(last, 0).UTC()
		out = append(out, e)
	}
	return out, rows.Err()
}

// SetSchedules replaces the schedules of a repository. Those that stay keep
// their Last.
func (t *Tx) SetSchedules(repo string, list []Schedule) error {
	keep := map[[3]string]bool{}
	for _, e := range list {
		keep[[3]string{e.File, e.Cron, e.Zone}] = true
		if _, err := t.tx.ExecContext(t.ctx, `insert or ignore into schedule (repo, file, cron, zone, actor, last) values (?,?,?,?,?,?)`,
			repo, e.File, e.Cron, e.Zone, e.Actor, e.Last.Unix()); err != nil {
			return err
		}
	}
	rows, err := t.tx.QueryContext(t.ctx, `select file, cron, zone from schedule where repo = ?`, repo)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	var gone [][3]string
	for rows.Next() {
		var k [3]string
		if err := rows.Scan(&k[0], &k[1], &k[2]); err != nil {
			return err
		}
		if !keep[k] {
			gone = append(gone, k)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, k := range gone {
		if _, err := t.tx.ExecContext(t.ctx, `delete from schedule where repo = ? and file = ? and cron = ? and zone = ?`, repo, k[0], k[1], k[2]); err != nil {
			return err
		}
	}
	return nil
}

// Looked records until when a schedule was looked at.
func (t *Tx) Looked(e Schedule, until time.Time) error {
	_, err := t.tx.ExecContext(t.ctx, `update schedule set last = ? where repo = ? and file = ? and cron = ? and zone = ?`, until.Unix(), e.Repo, e.File, e.Cron, e.Zone)
	return err
}

// WorkflowStates are the states of the workflow files that were disabled:
// "disabled_manually".
func (s *Store) WorkflowStates(ctx context.Context, repo string) (map[string]string, error) {
	rows, err := s.read.QueryContext(ctx, `select file, state from workflow where repo = ?`, strings.ToLower(repo))
	if err != nil {
		return nil, fmt.Errorf("read states of workflows: %w", err)
	}
	defer func() { _ = rows.Close() }()
	out := map[string]string{}
	for rows.Next() {
		var file, state string
		if err := rows.Scan(&file, &state); err != nil {
			return nil, fmt.Errorf("read states of workflows: %w", err)
		}
		out[file] = state
	}
	return out, rows.Err()
}

// SetWorkflowState disables a workflow file, or with "" enables it.
func (s *Store) SetWorkflowState(ctx context.Context, repo, file, state string) error {
	err := s.update(ctx, func(tx *sql.Tx) error {
		if state == "" {
			_, err := tx.ExecContext(ctx, `delete from workflow where repo = ? and file = ?`, strings.ToLower(repo), file)
			return err
		}
		_, err := tx.ExecContext(ctx, `insert or replace into workflow (repo, file, state) values (?,?,?)`, strings.ToLower(repo), file, state)
		return err
	})
	if err != nil {
		return fmt.Errorf("store state of workflow %s: %w", file, err)
	}
	return nil
}
