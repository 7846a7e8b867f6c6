package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the "sqlite" driver of database/sql
)

// Appender is what a box needs to leave events.
type Appender interface {
	// Append records the event durably and returns its ID.
	Append(ctx context.Context, e Event) (int64, error)
}

// Reader is what a box needs to react to events and to show them.
type Reader interface {
	// Events returns the events that match q, oldest first.
	Events(ctx context.Context, q Query) ([]Event, error)
	// Follow sends every event with an ID above after that matches q, first
	// the stored ones, then new ones as they come, until ctx ends; then the
	// channel is closed. A slow receiver delays only itself: events wait in
	// the database, not in memory. q.Limit and q.Newest do not count here.
	Follow(ctx context.Context, after int64, q Query) <-chan Event
	// Last is the ID of the newest event, 0 when there is none.
	Last(ctx context.Context) (int64, error)
}

// Query selects events. Zero fields select everything.
type Query struct {
	After    int64    // only IDs above
	Before   int64    // only IDs below; 0 means no bound
	Repo     string   // "owner/name"
	Commit   string   // full object id, or a prefix of at least 4 digits
	Stages   []Stage  // any of these
	Subject  string   // exact
	Statuses []Status // any of these
	Cause    string   // only events whose DataCause is this commit
	Limit    int      // at most this many; 0 means 1000, never more than 10000
	Newest   bool     // take the newest Limit events (still returned oldest first)
}

const (
	defaultLimit = 1000
	maxLimit     = 10_000
	followPage   = 256
	// keepEvents bounds the journal: the newest of this many events stay, about
	// half a gigabyte and some ten thousand pushes. They are trimmed by the
	// event whose id divides by trimEvery.
	keepEvents = 1_000_000
	trimEvery  = 1000
)

const schema = `
create table if not exists event (
  id integer primary key autoincrement,
  time integer not null, -- microseconds since 1970, UTC
  repo text not null, commit_id text not null, stage text not null,
  subject text not null, status text not null, cause text not null,
  body text not null -- the whole event as JSON
);
create index if not exists event_commit on event (commit_id, id);
create index if not exists event_stage on event (stage, id);
create index if not exists event_cause on event (cause) where cause != '';
`

// Journal is an event store in one SQLite file. It is safe for concurrent use.
type Journal struct {
	db   *sql.DB
	keep int64 // newest events that are kept
	now  func() time.Time

	// writing holds one token: SQLite has one writer, and waiting here is fair
	// and ends with the caller's context, while waiting in SQLite is neither.
	writing chan struct{}

	mu      sync.Mutex
	changed chan struct{}   // closed and replaced by each append
	last    map[Stage]int64 // newest event of a stage that was appended since Open
}

var (
	_ Appender = (*Journal)(nil)
	_ Reader   = (*Journal)(nil)
)

// Open opens or creates the journal in the file at path, readable only by its
// owner. The folder must exist.
func Open(ctx context.Context, path string) (*Journal, error) {
	// SQLite gives its -wal and -shm files the mode of the file itself.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: path,
		RawQuery: "_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)"}
	if !filepath.IsAbs(path) {
		dsn.Path, dsn.Opaque = "", (&url.URL{Path: path}).EscapedPath()
	}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", path, err)
	}
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal %s: %w", path, err), db.Close())
	}
	return &Journal{db: db, now: time.Now, keep: keepEvents, writing: make(chan struct{}, 1), changed: make(chan struct{}), last: map[Stage]int64{}}, nil
}

// Close releases the file. Followers end when their contexts do.
func (j *Journal) Close() error { return j.db.Close() }

// Append implements [Appender].
func (j *Journal) Append(ctx context.Context, e Event) (int64, error) {
	return j.AppendAll(ctx, []Event{e})
}

// AppendAll records events durably in their order, all or none, at the cost of
// one. It returns the ID of the last.
func (j *Journal) AppendAll(ctx context.Context, events []Event) (int64, error) {
	bodies := make([]string, len(events))
	for i := range events {
		e := &events[i]
		if e.Stage == "" || e.Status == "" {
			return 0, fmt.Errorf("append to journal: event for %q needs a stage and a status", e.Subject)
		}
		if e.Time.IsZero() {
			e.Time = j.now()
		}
		e.Time, e.ID = e.Time.UTC(), 0
		body, err := json.Marshal(e)
		if err != nil {
			return 0, fmt.Errorf("append to journal: %w", err)
		}
		bodies[i] = string(body)
	}
	select {
	case j.writing <- struct{}{}:
		defer func() { <-j.writing }()
	case <-ctx.Done():
		return 0, fmt.Errorf("append to journal: %w", ctx.Err())
	}
	last, err := j.insert(ctx, events, bodies)
	if err != nil {
		return 0, fmt.Errorf("append to journal: %w", err)
	}
	j.mu.Lock()
	for _, e := range events {
		j.last[e.Stage] = last
	}
	close(j.changed)
	j.changed = make(chan struct{})
	j.mu.Unlock()
	if last/trimEvery != (last-int64(len(events)))/trimEvery {
		// The events are stored whatever comes of this; the next trim makes
		// good for one that failed.
		_, _ = j.db.ExecContext(ctx, `delete from event where id <= ?`, last-j.keep)
	}
	return last, nil
}

// insert stores events in one transaction and returns the ID of the last.
func (j *Journal) insert(ctx context.Context, events []Event, bodies []string) (last int64, err error) {
	tx, err := j.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }()
	for i, e := range events {
		res, err := tx.ExecContext(ctx,
			`insert into event (time, repo, commit_id, stage, subject, status, cause, body) values (?,?,?,?,?,?,?,?)`,
			e.Time.UnixMicro(), e.Repo, e.Commit, e.Stage, e.Subject, e.Status, e.Data[DataCause], bodies[i])
		if err != nil {
			return 0, err
		}
		if last, err = res.LastInsertId(); err != nil {
			return 0, err
		}
	}
	return last, tx.Commit()
}

// Last implements [Reader].
func (j *Journal) Last(ctx context.Context) (int64, error) {
	var id int64
	if err := j.db.QueryRowContext(ctx, `select coalesce(max(id), 0) from event`).Scan(&id); err != nil {
		return 0, fmt.Errorf("read journal: %w", err)
	}
	return id, nil
}

// Events implements [Reader].
func (j *Journal) Events(ctx context.Context, q Query) ([]Event, error) {
	where, args := q.where()
	order, limit := "asc", q.Limit
	if q.Newest {
		order = "desc"
	}
	if limit <= 0 {
		limit = defaultLimit
	}
	args = append(args, min(limit, maxLimit))
	rows, err := j.db.QueryContext(ctx, `select id, body from event`+where+` order by id `+order+` limit ?`, args...)
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var events []Event
	for rows.Next() {
		var id int64
		var body []byte
		if err := rows.Scan(&id, &body); err != nil {
			return nil, fmt.Errorf("read journal: %w", err)
		}
		var e Event
		if err := json.Unmarshal(body, &e); err != nil {
			return nil, fmt.Errorf("read journal event %d: %w", id, err)
		}
		e.ID = id
		events = append(events, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	if q.Newest {
		slices.Reverse(events)
	}
	return events, nil
}

// where turns the query into a condition and its arguments.
func (q Query) where() (string, []any) {
	var conds []string
	var args []any
	add := func(cond string, values ...any) {
		conds = append(conds, cond)
		args = append(args, values...)
	}
	anyOf := func(column string, n int) string {
		return column + " in (?" + strings.Repeat(",?", n-1) + ")"
	}
	if q.After > 0 {
		add("id > ?", q.After)
	}
	if q.Before > 0 {
		add("id < ?", q.Before)
	}
	if q.Repo != "" {
		add("repo = ?", q.Repo)
	}
	if q.Commit != "" {
		// A range serves the index; '~' sorts after every hexadecimal digit.
		add("commit_id >= ? and commit_id < ?", q.Commit, q.Commit+"~")
	}
	if q.Subject != "" {
		add("subject = ?", q.Subject)
	}
	if q.Cause != "" {
		add("cause = ?", q.Cause)
	}
	if len(q.Stages) > 0 {
		values := make([]any, len(q.Stages))
		for i, s := range q.Stages {
			values[i] = string(s)
		}
		add(anyOf("stage", len(values)), values...)
	}
	if len(q.Statuses) > 0 {
		values := make([]any, len(q.Statuses))
		for i, s := range q.Statuses {
			values[i] = string(s)
		}
		add(anyOf("status", len(values)), values...)
	}
	if len(conds) == 0 {
		return "", nil
	}
	return " where " + strings.Join(conds, " and "), args
}

// Follow implements [Reader].
func (j *Journal) Follow(ctx context.Context, after int64, q Query) <-chan Event {
	out := make(chan Event)
	q.Newest, q.Limit, after = false, followPage, max(after, q.After)
	go func() {
		defer close(out)
		for ctx.Err() == nil {
			j.mu.Lock()
			changed := j.changed
			j.mu.Unlock()
			q.After = after
			last, err := j.Last(ctx)
			var events []Event
			if err == nil {
				events, err = j.Events(ctx, q)
			}
			if err != nil {
				// The next append or this pause tries again; a closed
				// database ends with the context of whoever closed it.
				select {
				case <-ctx.Done():
				case <-time.After(time.Second):
				}
				continue
			}
			for _, e := range events {
				select {
				case out <- e:
					after = e.ID
				case <-ctx.Done():
					return
				}
			}
			if len(events) == followPage {
				continue
			}
			// Nothing up to last is left to send: the next look starts there.
			after = max(after, last)
			j.await(ctx, changed, q.Stages, after)
		}
	}()
	return out
}

// await returns when an event of one of the stages (any, when there is none)
// may have been appended after the one given, or ctx ended. Appends of other
// stages cost no look into the database.
func (j *Journal) await(ctx context.Context, changed <-chan struct{}, stages []Stage, after int64) {
	for {
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
		j.mu.Lock()
		news := len(stages) == 0 || slices.ContainsFunc(stages, func(s Stage) bool { return j.last[s] > after })
		changed = j.changed
		j.mu.Unlock()
		if news {
			return
		}
	}
}
