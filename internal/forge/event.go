package forge

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"iter"
	"sync"
	"time"
)

// Event is what GitHub would send to a webhook: all events but push, which the
// journal tells of. Payload is in GitHub's form.
type Event struct {
	ID      int64 // grows by one with each event, never reused
	Time    time.Time
	Repo    string // "owner/name"
	Name    string // as in the header X-GitHub-Event: "pull_request"
	Action  string // "opened"; "" where GitHub has none
	Ref     string // full ref name; of pull_request "refs/pull/N/merge"
	Commit  string // object that Ref names when the event happens, "" without one
	Actor   string // login of who did it
	Cause   string // commit whose workflow run did it, "" when a person did
	Fork    bool   // it is about a pull request from another repository
	Payload json.RawMessage
}

const (
	// maxEvents is how many events are kept. A reader that is further behind
	// has lost the oldest, which is logged.
	maxEvents  = 20_000
	eventsPage = 100
)

const eventSchema = `
create table if not exists event ( -- the outbox: webhooks and workflows read it by cursor
  id integer primary key autoincrement,
  time integer not null, repo text not null, name text not null, action text not null,
  ref text not null, commit_id text not null, actor text not null, cause text not null,
  fork integer not null, payload blob not null
);
`

// feed wakes those who follow the events.
type feed struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced with every change
}

func (n *feed) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.changed == nil {
		n.changed = make(chan struct{})
	}
	return n.changed
}

func (n *feed) wake() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.changed != nil {
		close(n.changed)
		n.changed = nil
	}
}

// outbox takes the events of a transaction: they are told if and only if it
// commits.
type outbox struct {
	ctx   context.Context
	tx    *sql.Tx
	now   time.Time
	added int
}

// add puts an event into the outbox. ID and a zero Time are filled in.
func (o *outbox) add(e Event) error {
	if e.Time.IsZero() {
		e.Time = o.now
	}
	if len(e.Payload) == 0 {
		e.Payload = json.RawMessage(`{}`)
	}
	result, err := o.tx.ExecContext(o.ctx, `insert into event (time, repo, name, action, ref, commit_id, actor, cause, fork, payload) values (?,?,?,?,?,?,?,?,?,?)`,
		e.Time.UnixMicro(), e.Repo, e.Name, e.Action, e.Ref, e.Commit, e.Actor, e.Cause, e.Fork, []byte(e.Payload))
	if err != nil {
		return err
	}
	id, err := result.LastInsertId()
	if err != nil {
		return err
	}
	o.added++
	_, err = o.tx.ExecContext(o.ctx, `delete from event where id <= ?`, id-maxEvents)
	return err
}

// publish runs fn in one transaction together with the events that it adds.
// Whoever follows the events wakes when it has committed.
func (f *Forge) publish(ctx context.Context, fn func(tx *sql.Tx, out *outbox) error) error {
	added := 0
	err := f.transact(ctx, func(tx *sql.Tx) error {
		out := &outbox{ctx: ctx, tx: tx, now: f.deps.Now()}
		defer func() { added = out.added }()
		return fn(tx, out)
	})
	if err == nil && added > 0 {
		f.events.wake()
	}
	return err
}

// FollowEvents yields every event after the one with the ID after, oldest
// first, and then waits for more, until ctx ends or the forge closes. The
// caller keeps the ID of the last event that it is done with as its cursor.
func (f *Forge) FollowEvents(ctx context.Context, after int64) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(f.base, cancel)()
		for ctx.Err() == nil {
			changed := f.events.wait()
			events, err := f.Events(ctx, after, eventsPage)
			if err != nil {
				if !f.pause(ctx, err) {
					return
				}
				continue
			}
			if len(events) > 0 && after > 0 && events[0].ID > after+1 {
				f.log.Warn("a reader of the events was too far behind and lost some", "lost", events[0].ID-after-1, "kept", maxEvents)
			}
			for _, e := range events {
				if !yield(e) {
					return
				}
				after = e.ID
			}
			if len(events) > 0 {
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
}

// pause waits a second after a failed read; false says that ctx ended.
func (f *Forge) pause(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	f.log.Warn("events can't be read; the next try is in a second", "error", err)
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Events returns up to limit events after the one with the ID after, oldest
// first.
func (f *Forge) Events(ctx context.Context, after int64, limit int) ([]Event, error) {
	rows, err := f.db.QueryContext(ctx, `select id, time, repo, name, action, ref, commit_id, actor, cause, fork, payload from event where id > ? order by id limit ?`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var all []Event
	for rows.Next() {
		var e Event
		var at int64
		var payload []byte
		if err := rows.Scan(&e.ID, &at, &e.Repo, &e.Name, &e.Action, &e.Ref, &e.Commit, &e.Actor, &e.Cause, &e.Fork, &payload); err != nil {
			return nil, fmt.Errorf("forge state: %w", err)
		}
		e.Time, e.Payload = time.UnixMicro(at).UTC(), payload
		all = append(all, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	return all, nil
}

// LastEvent is the ID of the newest event, 0 without one: where a new reader
// starts that doesn't want what was before it.
func (f *Forge) LastEvent(ctx context.Context) (int64, error) {
	var id int64
	if err := f.db.QueryRowContext(ctx, `select coalesce(max(id), 0) from event`).Scan(&id); err != nil {
		return 0, fmt.Errorf("forge state: %w", err)
	}
	return id, nil
}
