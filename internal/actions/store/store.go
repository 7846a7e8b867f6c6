// Package store keeps runs, jobs, environments, secrets and variables in one
// SQLite file.
//
// Input and output: [Run], [Job] and what belongs to them. Secrets go in as
// plain values and are encrypted before they reach the disk (AES-256-GCM, key in
// a file of mode 0600 beside the database).
//
// Invariants: when a method returns, its change survives the end of the process;
// what is promised to others (runs that were asked for, ends of jobs and runs,
// secrets, approvals) also survives a power failure. An event starts each
// workflow at most once; the events' cursors never move back. What a change
// tells others (events, checks) is stored with it, in the outbox.
//
// Start reading at [Open], then change.go.
package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the "sqlite" driver of database/sql
)

// ErrNotFound says that there is no such run, job, environment, secret or
// variable.
var ErrNotFound = errors.New("not found")

const schema = `
create table if not exists run (
  id integer primary key autoincrement,
  repo text not null, file text not null, number integer not null, status text not null,
  commit_id text not null, event_id integer not null, body text not null);
create unique index if not exists run_number on run (repo, file, number);
create index if not exists run_status on run (status) where status != 'completed';
create index if not exists run_commit on run (commit_id);
create table if not exists job (
  id integer primary key autoincrement,
  run_id integer not null, attempt integer not null, body text not null);
create index if not exists job_run on job (run_id, attempt);
create table if not exists payload (run_id integer primary key, body text not null);
create table if not exists attempt (run_id integer not null, attempt integer not null, body text not null, primary key (run_id, attempt));
create table if not exists review (id integer primary key autoincrement, run_id integer not null, body text not null);
create index if not exists review_run on review (run_id);
create table if not exists outbox (id integer primary key autoincrement, kind text not null, body text not null);
create table if not exists cursor (name text primary key, value integer not null);
create table if not exists workflow (repo text not null, file text not null, state text not null, primary key (repo, file));
create table if not exists schedule (
  repo text not null, file text not null, cron text not null, zone text not null, actor text not null,
  last integer not null, primary key (repo, file, cron, zone));
create table if not exists environment (
  id integer primary key autoincrement, repo text not null collate nocase, name text not null collate nocase, body text not null,
  unique (repo, name));
create table if not exists secret (
  repo text not null, name text not null, sealed blob not null,
  created integer not null, updated integer not null, primary key (repo, name));
create table if not exists variable (
  repo text not null, name text not null, value text not null,
  created integer not null, updated integer not null, primary key (repo, name));
`

// upgrades bring databases of earlier versions up, one after the other; the
// number of those that were done is the file's user_version.
var upgrades = []string{
	`alter table run add column source text not null default 'push';
	 alter table run add column head_id text not null default '';
	 drop index if exists run_event;
	 create unique index run_event on run (source, event_id, repo, file) where event_id > 0;
	 create index run_head on run (head_id) where head_id != ''`,
}

// Store is the database. It is safe for concurrent use.
type Store struct {
	// SQLite has one writer: writing serializes the two handles that write.
	// full waits for the disk, fast only for the operating system.
	writing    sync.Mutex
	full, fast *sql.DB
	read       *sql.DB
	keys       keys
	now        func() time.Time
}

// Open opens or creates the database in dir.
func Open(ctx context.Context, dir string, now func() time.Time) (*Store, error) {
	keys, err := openKeys(filepath.Join(dir, "secrets.key"))
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "actions.db")
	s := &Store{keys: keys, now: now}
	for _, h := range []struct {
		db      **sql.DB
		options string
		conns   int
	}{
		{&s.full, "&_pragma=synchronous(full)&_txlock=immediate", 1},
		{&s.fast, "&_pragma=synchronous(normal)&_txlock=immediate", 1},
		{&s.read, "&_pragma=query_only(1)", 4},
	} {
		if *h.db, err = sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)"+h.options); err != nil {
			return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), s.Close())
		}
		(*h.db).SetMaxOpenConns(h.conns)
		(*h.db).SetMaxIdleConns(h.conns)
	}
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), s.Close())
	}
	return s, nil
}

func (s *Store) migrate(ctx context.Context) error {
	return s.update(ctx, func(tx *sql.Tx) error {
		var done int
		if err := tx.QueryRowContext(ctx, `pragma user_version`).Scan(&done); err != nil {
			return err
		}
		if done > len(upgrades) {
			return fmt.Errorf("the database was written by a newer Lockstep (version %d, this one knows %d)", done, len(upgrades))
		}
		if _, err := tx.ExecContext(ctx, schema); err != nil {
			return err
		}
		for _, statement := range upgrades[done:] {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf(`pragma user_version = %d`, len(upgrades)))
		return err
	})
}

// Close releases the file.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.fast, s.full} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// update runs f in a transaction that survives a power failure.
func (s *Store) update(ctx context.Context, f func(tx *sql.Tx) error) error {
	return s.transact(ctx, s.full, f)
}

func (s *Store) transact(ctx context.Context, db *sql.DB, f func(tx *sql.Tx) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// Cursor is the last event of a source that was consumed.
func (s *Store) Cursor(ctx context.Context, source string) (int64, error) {
	var id int64
	err := s.read.QueryRowContext(ctx, `select value from cursor where name = ?`, source).Scan(&id)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("read cursor: %w", err)
	}
	return id, nil
}

// Start is a run to begin, with the payload of its event; nil where the engine
// makes the payload from the repository.
type Start struct {
	Run     Run
	Payload json.RawMessage
}

// Consume stores the runs that an event starts and moves the source's cursor
// past it, both or none. Runs that exist already are left out of the result.
// more is stored with them.
func (s *Store) Consume(ctx context.Context, source string, event int64, starts []Start, more func(tx *Tx, created []Run) error) (created []Run, err error) {
	// The cursor is in the same file: after a power failure the event comes again.
	err = s.Change(ctx, len(starts) > 0 && source == FromSchedule, func(tx *Tx) error {
		for _, start := range starts {
			r := start.Run
			r.Source = source
			var n int
			if err := tx.tx.QueryRowContext(ctx, `select count(*) from run where source = ? and event_id = ? and repo = ? and file = ?`, source, r.EventID, r.Repo, r.File).Scan(&n); err != nil {
				return err
			}
			if n > 0 {
				continue
			}
			if err := tx.CreateRun(&r, start.Payload); err != nil {
				return err
			}
			created = append(created, r)
		}
		if more != nil {
			if err := more(tx, created); err != nil {
				return err
			}
		}
		_, err := tx.tx.ExecContext(ctx, `insert into cursor (name, value) values (?, ?) on conflict (name) do update set value = max(value, excluded.value)`, source, event)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store runs of event %d of %s: %w", event, source, err)
	}
	return created, nil
}

// CreateRun stores a run that somebody asked for.
func (s *Store) CreateRun(ctx context.Context, r Run, payload json.RawMessage) (Run, error) {
	err := s.Change(ctx, true, func(tx *Tx) error { return tx.CreateRun(&r, payload) })
	return r, err
}

// Prune deletes the runs that have ended, except the newest keep, and returns
// the IDs of those deleted. Their numbers are not used again, for the newest
// run of each workflow stays.
func (s *Store) Prune(ctx context.Context, keep int) (ids []int64, err error) {
	var total int
	if err := s.read.QueryRowContext(ctx, `select count(*) from run`).Scan(&total); err != nil || total <= keep {
		return nil, err
	}
	err = s.update(ctx, func(tx *sql.Tx) error {
		ids, err = queryIDs(ctx, tx, `select id from run where status = 'completed'
			and id not in (select id from run order by id desc limit ?)
			and id not in (select max(id) from run group by repo, file)`, keep)
		if err != nil {
			return err
		}
		return deleteRuns(ctx, tx, ids)
	})
	if err != nil {
		return nil, fmt.Errorf("delete old runs: %w", err)
	}
	return ids, nil
}

// DeleteRun removes a run that has ended with all that belongs to it.
func (s *Store) DeleteRun(ctx context.Context, id int64) error {
	err := s.update(ctx, func(tx *sql.Tx) error { return deleteRuns(ctx, tx, []int64{id}) })
	if err != nil {
		return fmt.Errorf("delete run %d: %w", id, err)
	}
	return nil
}

func deleteRuns(ctx context.Context, tx *sql.Tx, ids []int64) error {
	for _, id := range ids {
		for _, statement := range []string{
			`delete from job where run_id = ?`, `delete from payload where run_id = ?`, `delete from attempt where run_id = ?`,
			`delete from review where run_id = ?`, `delete from run where id = ?`,
		} {
			if _, err := tx.ExecContext(ctx, statement, id); err != nil {
				return err
			}
		}
	}
	return nil
}

func queryIDs(ctx context.Context, tx *sql.Tx, query string, args ...any) (ids []int64, err error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}
