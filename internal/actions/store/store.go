// Package store keeps runs, jobs, secrets and variables in one SQLite file.
//
// Input and output: [Run], [Job] and what belongs to them. Secrets go in as
// plain values and are encrypted before they reach the disk (AES-256-GCM, key in
// a file of mode 0600 beside the database).
//
// Invariants: a change is on disk when the method returns; a push event starts
// each workflow at most once; the events' cursor never moves back.
//
// Start reading at [Open].
package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the "sqlite" driver of database/sql

	"github.com/lockstep-gitops/lockstep/internal/actions/command"
)

// ErrNotFound says that there is no such run, job, secret or variable.
var ErrNotFound = errors.New("not found")

// Status is how far a run, job or step is.
type Status string

// The states, in GitHub's words. Waiting is for a concurrency group.
const (
	Queued     Status = "queued"
	Waiting    Status = "waiting"
	InProgress Status = "in_progress"
	Completed  Status = "completed"
)

// Run is one run of a workflow file.
type Run struct {
	ID      int64             `json:"id"`
	Number  int64             `json:"run_number"` // per repository and file, from 1
	Attempt int               `json:"run_attempt"`
	Repo    string            `json:"repository"`
	File    string            `json:"path"` // ".github/workflows/ci.yaml"
	Name    string            `json:"name"`
	Title   string            `json:"display_title"`
	Event   string            `json:"event"` // "push", "workflow_dispatch"
	Ref     string            `json:"ref"`
	Commit  string            `json:"head_sha"`
	Before  string            `json:"before,omitempty"`
	Actor   string            `json:"actor"`
	EventID int64             `json:"event_id,omitempty"` // of the journal; 0 for a dispatch
	Inputs  map[string]string `json:"inputs,omitempty"`

	Status     Status    `json:"status"`
	Conclusion string    `json:"conclusion,omitempty"` // success, failure, cancelled, skipped
	Problem    *Problem  `json:"problem,omitempty"`    // why it failed
	Note       string    `json:"note,omitempty"`       // what it waits for
	Created    time.Time `json:"created_at"`
	Started    time.Time `json:"run_started_at,omitzero"`
	Ended      time.Time `json:"ended_at,omitzero"`
	// OnlyFailed: a re-run that takes over the jobs which succeeded before.
	OnlyFailed bool `json:"only_failed,omitempty"`

	// Jobs of the current attempt, where the method says so.
	Jobs []Job `json:"jobs,omitempty"`
}

// Problem is why something failed and what to try.
type Problem struct {
	Message string   `json:"message"`
	Hint    string   `json:"hint,omitempty"`
	File    string   `json:"file,omitempty"`
	Line    int      `json:"line,omitempty"`
	Step    int      `json:"step,omitempty"` // number, 0 for the job or run itself
	Name    string   `json:"name,omitempty"` // of the step
	Tail    []string `json:"tail,omitempty"` // last lines of its log
}

// Job is one job of one attempt of a run; a matrix has several with one Key.
type Job struct {
	ID          int64                `json:"id"`
	RunID       int64                `json:"run_id"`
	Attempt     int                  `json:"run_attempt"`
	Key         string               `json:"key"`  // id in the workflow
	Name        string               `json:"name"` // with the matrix values
	Needs       []string             `json:"needs,omitempty"`
	Line        int                  `json:"line,omitempty"`
	Status      Status               `json:"status"`
	Conclusion  string               `json:"conclusion,omitempty"`
	Problem     *Problem             `json:"problem,omitempty"`
	Note        string               `json:"note,omitempty"`
	Started     time.Time            `json:"started_at,omitzero"`
	Ended       time.Time            `json:"completed_at,omitzero"`
	Steps       []Step               `json:"steps,omitempty"`
	Annotations []command.Annotation `json:"annotations,omitempty"`
	Summary     string               `json:"summary,omitempty"` // Markdown of its steps
	Outputs     map[string]string    `json:"outputs,omitempty"`
}

// Step is one step of a job.
type Step struct {
	Number     int       `json:"number"`
	Name       string    `json:"name"`
	Status     Status    `json:"status"`
	Conclusion string    `json:"conclusion,omitempty"`
	Outcome    string    `json:"outcome,omitempty"` // before continue-on-error
	Started    time.Time `json:"started_at,omitzero"`
	Ended      time.Time `json:"completed_at,omitzero"`
}

const schema = `
create table if not exists run (
  id integer primary key autoincrement,
  repo text not null, file text not null, number integer not null, status text not null,
  commit_id text not null, event_id integer not null, body text not null);
create unique index if not exists run_number on run (repo, file, number);
create unique index if not exists run_event on run (event_id, repo, file) where event_id > 0;
create index if not exists run_status on run (status) where status != 'completed';
create index if not exists run_commit on run (commit_id);
create table if not exists job (
  id integer primary key autoincrement,
  run_id integer not null, attempt integer not null, body text not null);
create index if not exists job_run on job (run_id, attempt);
create table if not exists cursor (name text primary key, value integer not null);
create table if not exists secret (
  repo text not null, name text not null, sealed blob not null,
  created integer not null, updated integer not null, primary key (repo, name));
create table if not exists variable (
  repo text not null, name text not null, value text not null,
  created integer not null, updated integer not null, primary key (repo, name));
`

// Store is the database. It is safe for concurrent use.
type Store struct {
	db   *sql.DB
	keys keys
	now  func() time.Time
}

// Open opens or creates the database in dir.
func Open(ctx context.Context, dir string, now func() time.Time) (*Store, error) {
	keys, err := openKeys(filepath.Join(dir, "secrets.key"))
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "actions.db")
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.SetMaxOpenConns(1) // one writer; reads are short
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return &Store{db: db, keys: keys, now: now}, nil
}

// Close releases the file.
func (s *Store) Close() error { return s.db.Close() }

// Cursor is the last journal event that was consumed.
func (s *Store) Cursor(ctx context.Context) (int64, error) {
	var id int64
	err := s.db.QueryRowContext(ctx, `select value from cursor where name = 'push'`).Scan(&id)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("read cursor: %w", err)
	}
	return id, nil
}

// Consume stores the runs that an event starts and moves the cursor past it,
// both or none. Runs that exist already are left out of the result.
func (s *Store) Consume(ctx context.Context, event int64, runs []Run) (created []Run, err error) {
	err = s.update(ctx, func(tx *sql.Tx) error {
		for _, r := range runs {
			var n int
			if err := tx.QueryRowContext(ctx, `select count(*) from run where event_id = ? and repo = ? and file = ?`, r.EventID, r.Repo, r.File).Scan(&n); err != nil {
				return err
			}
			if n > 0 {
				continue
			}
			if err := insertRun(ctx, tx, &r); err != nil {
				return err
			}
			created = append(created, r)
		}
		_, err := tx.ExecContext(ctx, `insert into cursor (name, value) values ('push', ?) on conflict (name) do update set value = max(value, excluded.value)`, event)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store runs of event %d: %w", event, err)
	}
	return created, nil
}

// CreateRun stores a run that no push started.
func (s *Store) CreateRun(ctx context.Context, r Run) (Run, error) {
	if err := s.update(ctx, func(tx *sql.Tx) error { return insertRun(ctx, tx, &r) }); err != nil {
		return Run{}, fmt.Errorf("store run: %w", err)
	}
	return r, nil
}

func insertRun(ctx context.Context, tx *sql.Tx, r *Run) error {
	if err := tx.QueryRowContext(ctx, `select coalesce(max(number), 0) + 1 from run where repo = ? and file = ?`, r.Repo, r.File).Scan(&r.Number); err != nil {
		return err
	}
	res, err := tx.ExecContext(ctx, `insert into run (repo, file, number, status, commit_id, event_id, body) values (?,?,?,?,?,?,'{}')`,
		r.Repo, r.File, r.Number, r.Status, r.Commit, r.EventID)
	if err != nil {
		return err
	}
	if r.ID, err = res.LastInsertId(); err != nil {
		return err
	}
	return updateRun(ctx, tx, *r)
}

type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func updateRun(ctx context.Context, db execer, r Run) error {
	r.Jobs = nil
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, `update run set status = ?, body = ? where id = ?`, r.Status, string(body), r.ID)
	return err
}

// SaveRun stores a run as it is now.
func (s *Store) SaveRun(ctx context.Context, r Run) error {
	if err := updateRun(ctx, s.db, r); err != nil {
		return fmt.Errorf("store run %d: %w", r.ID, err)
	}
	return nil
}

// Prune deletes the runs that have ended, except the newest keep, and returns
// the IDs of those deleted. Their numbers are not used again, for the newest
// run of each workflow stays.
func (s *Store) Prune(ctx context.Context, keep int) (ids []int64, err error) {
	err = s.update(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `select id from run where status = 'completed'
			and id not in (select id from run order by id desc limit ?)
			and id not in (select max(id) from run group by repo, file)`, keep)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var id int64
			if err := rows.Scan(&id); err != nil {
				return err
			}
			ids = append(ids, id)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		for _, id := range ids {
			for _, statement := range []string{`delete from job where run_id = ?`, `delete from run where id = ?`} {
				if _, err := tx.ExecContext(ctx, statement, id); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("delete old runs: %w", err)
	}
	return ids, nil
}

// Run returns one run with the jobs of its current attempt.
func (s *Store) Run(ctx context.Context, id int64) (Run, error) {
	runs, err := s.queryRuns(ctx, `select body from run where id = ?`, id)
	if err != nil {
		return Run{}, err
	}
	if len(runs) == 0 {
		return Run{}, fmt.Errorf("run %d: %w", id, ErrNotFound)
	}
	r := runs[0]
	r.Jobs, err = s.Jobs(ctx, id, r.Attempt)
	return r, err
}

// CreateJob stores a new job and returns it with its ID.
func (s *Store) CreateJob(ctx context.Context, j Job) (Job, error) {
	res, err := s.db.ExecContext(ctx, `insert into job (run_id, attempt, body) values (?,?,'{}')`, j.RunID, j.Attempt)
	if err == nil {
		j.ID, err = res.LastInsertId()
	}
	if err != nil {
		return Job{}, fmt.Errorf("store job: %w", err)
	}
	return j, s.SaveJob(ctx, j)
}

// SaveJob stores a job as it is now.
func (s *Store) SaveJob(ctx context.Context, j Job) error {
	body, err := json.Marshal(j)
	if err == nil {
		_, err = s.db.ExecContext(ctx, `update job set body = ? where id = ?`, string(body), j.ID)
	}
	if err != nil {
		return fmt.Errorf("store job %d: %w", j.ID, err)
	}
	return nil
}

// Jobs lists the jobs of one attempt of a run, in the order of their creation.
func (s *Store) Jobs(ctx context.Context, run int64, attempt int) ([]Job, error) {
	return queryBodies[Job](ctx, s.db, `select body from job where run_id = ? and attempt = ? order by id`, run, attempt)
}

// Job returns one job.
func (s *Store) Job(ctx context.Context, id int64) (Job, error) {
	jobs, err := queryBodies[Job](ctx, s.db, `select body from job where id = ?`, id)
	if err != nil {
		return Job{}, err
	}
	if len(jobs) == 0 {
		return Job{}, fmt.Errorf("job %d: %w", id, ErrNotFound)
	}
	return jobs[0], nil
}

func (s *Store) update(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}
