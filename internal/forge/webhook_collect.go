package forge

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// deliverHooks puts what happened into the queues of the hooks and sends it, until
// ctx ends.
func (f *Forge) deliverHooks(ctx context.Context) {
	sending := make(chan struct{})
	go func() {
		defer close(sending)
		f.sendDeliveries(ctx)
	}()
	defer func() { <-sending }()
	for ctx.Err() == nil {
		happened, pushed := f.events.wait(), f.pushed.wait()
		more, err := f.collect(ctx)
		if err != nil {
			if !f.pause(ctx, fmt.Errorf("webhooks: %w", err)) {
				return
			}
			continue
		}
		if more {
			continue
		}
		select {
		case <-happened:
		case <-pushed:
		case <-ctx.Done():
		}
	}
}

// collect queues the next events and pushes. It says whether there may be more.
func (f *Forge) collect(ctx context.Context) (more bool, err error) {
	at, err := f.hookCursor(ctx, "event", f.LastEvent)
	if err != nil {
		return false, err
	}
	events, err := f.Events(ctx, at, eventsPage)
	if err != nil {
		return false, err
	}
	for _, e := range events {
		if err := f.queue(ctx, "event", e.ID, e, func() (json.RawMessage, error) { return e.Payload, nil }); err != nil {
			return false, err
		}
	}
	at, err = f.hookCursor(ctx, "push", f.lastPush)
	if err != nil {
		return false, err
	}
	pushes, err := f.deps.Journal.Events(ctx, journal.Query{After: at, Stages: []journal.Stage{journal.StagePush}, Limit: eventsPage})
	if err != nil {
		return false, err
	}
	for _, p := range pushes {
		e := Event{Repo: p.Repo, Name: "push", Time: p.Time}
		if err := f.queue(ctx, "push", p.ID, e, func() (json.RawMessage, error) { return f.pushPayload(ctx, p) }); err != nil {
			return false, err
		}
	}
	return len(events) == eventsPage || len(pushes) == eventsPage, nil
}

// lastPush is the ID of the newest push event in the journal.
func (f *Forge) lastPush(ctx context.Context) (int64, error) {
	events, err := f.deps.Journal.Events(ctx, journal.Query{Stages: []journal.Stage{journal.StagePush}, Newest: true, Limit: 1})
	if err != nil || len(events) == 0 {
		return 0, err
	}
	return events[0].ID, nil
}

// hookCursor is up to where hooks have been told. The first time it is what last says.
func (f *Forge) hookCursor(ctx context.Context, source string, last func(context.Context) (int64, error)) (int64, error) {
	var id int64
	err := f.db.QueryRowContext(ctx, `select id from hook_cursor where source = ?`, source).Scan(&id)
	if !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	if id, err = last(ctx); err != nil {
		return 0, err
	}
	_, err = f.db.ExecContext(ctx, `insert into hook_cursor (source, id) values (?, ?)`, source, id)
	return id, err
}

// queue puts one event into the queues of the hooks that want it, together with the cursor:
// a crash neither loses it nor queues it twice.
func (f *Forge) queue(ctx context.Context, source string, cursor int64, e Event, payload func() (json.RawMessage, error)) error {
	repo, err := f.find(ctx, e.Repo)
	var hooks []*hook
	if err == nil {
		hooks, err = f.hooksOf(ctx, `repo = ?`, repo.key)
	} else if errors.Is(err, ErrNotFound) {
		err = nil // deleted meanwhile, with its hooks
	}
	if err != nil {
		return err
	}
	var wanted []*hook
	for _, h := range hooks {
		if h.wants(e.Name) {
			wanted = append(wanted, h)
		}
	}
	var body json.RawMessage
	if len(wanted) > 0 {
		if body, err = payload(); err != nil {
			f.log.Warn("webhooks are not sent for an event: its payload can't be made", "repo", e.Repo, "event", e.Name, "error", err)
			wanted = nil
		}
	}
	err = f.transact(ctx, func(tx *sql.Tx) error {
		for _, h := range wanted {
			if _, err := f.addDelivery(ctx, tx, h, newGUID(), e.Name, e.Action, body, false); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `update hook_cursor set id = ? where source = ?`, cursor, source)
		return err
	})
	if err == nil && len(wanted) > 0 {
		f.queued.wake()
	}
	return err
}

// addDelivery puts a delivery into the queue of a hook. When the queue is full, its oldest is given up.
func (f *Forge) addDelivery(ctx context.Context, tx *sql.Tx, h *hook, guid, event, action string, payload []byte, again bool) (int64, error) {
	now := f.deps.Now().UnixMicro()
	result, err := tx.ExecContext(ctx, `insert into delivery (repo, hook, guid, event, action, created, redelivery, pending, attempts, due, code, message, took, payload, request, response, body)
		values (?,?,?,?,?,?,?,1,0,?,0,'',0,?,'{}','{}','')`, h.repo, h.id, guid, event, action, now, again, now, payload)
	if err != nil {
		return 0, err
	}
	if _, err := tx.ExecContext(ctx, `update delivery set pending = 0, message = 'given up: more than 1000 deliveries wait for this hook'
		where hook = ?1 and pending = 1 and id <= (select id from delivery where hook = ?1 and pending = 1 order by id desc limit 1 offset ?2)`, h.id, maxPending); err != nil {
		return 0, err
	}
	if _, err := tx.ExecContext(ctx, `delete from delivery where hook = ?1 and pending = 0
		and id <= (select id from delivery where hook = ?1 and pending = 0 order by id desc limit 1 offset ?2)`, h.id, maxDeliveries); err != nil {
		return 0, err
	}
	return result.LastInsertId()
}

func newGUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// nextDue is when the next delivery is due; false when none waits.
func (f *Forge) nextDue(ctx context.Context) (time.Time, bool, error) {
	var due sql.NullInt64
	err := f.db.QueryRowContext(ctx, `select min(due) from delivery where pending = 1`).Scan(&due)
	return time.UnixMicro(due.Int64), due.Valid, err
}

// newestPush is the last push event of a repository, nil without one.
func (f *Forge) newestPush(ctx context.Context, repo *repository) (*journal.Event, error) {
	events, err := f.deps.Journal.Events(ctx, journal.Query{Repo: repo.full(), Stages: []journal.Stage{journal.StagePush}, Newest: true, Limit: 1})
	if err != nil || len(events) == 0 {
		return nil, err
	}
	return &events[0], nil
}
