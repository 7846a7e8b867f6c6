package actions

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// Kinds of the outbox: what a change of a run tells others.
const (
	eventKind = "event" // a journal.Event
	checkKind = "check" // a Check
	runKind   = "run"   // a runMessage, for workflow_run
)

// outboxPage is how many messages are delivered at once.
const outboxPage = 256

// change stores something together with what it tells, and wakes those who
// deliver it. What fails is logged: the run goes on.
func (a *Actions) change(ctx context.Context, durable bool, f func(t *telling) error) error {
	t := &telling{}
	err := a.store.Change(context.WithoutCancel(ctx), durable, func(tx *store.Tx) error {
		*t = telling{Tx: tx}
		return f(t)
	})
	if err != nil {
		a.log.Error("store a run", "err", err)
		return err
	}
	for _, kind := range t.kinds {
		a.deliverSoon(kind)
	}
	return nil
}

func (a *Actions) deliverSoon(kind string) {
	select {
	case a.told[kind] <- struct{}{}:
	default:
	}
}

// telling is a change with its messages.
type telling struct {
	*store.Tx
	kinds []string
}

func (t *telling) tell(kind string, message any) error {
	if !slices.Contains(t.kinds, kind) {
		t.kinds = append(t.kinds, kind)
	}
	return t.Tell(kind, message)
}

// event puts an event of stage run into the journal.
func (t *telling) event(now time.Time, e journal.Event) error {
	e.Stage, e.Time = journal.StageRun, now
	return t.tell(eventKind, e)
}

// deliver brings the messages of a kind to where they belong, in order, until
// ctx ends; then it brings those that are left.
func (a *Actions) deliver(ctx context.Context, kind string, to func(context.Context, []store.Message) error) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	pause := 100 * time.Millisecond
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if _, err := a.deliverAll(last, kind, to); err != nil {
				a.log.Warn("messages of runs wait for the next start", "kind", kind, "err", err)
			}
			return
		case <-a.told[kind]:
		case <-retry.C:
		}
		_, err := a.deliverAll(ctx, kind, to)
		switch {
		case err == nil:
			pause = 100 * time.Millisecond
		case ctx.Err() == nil:
			a.log.Warn("tell others of runs", "kind", kind, "err", err)
			retry.Reset(pause)
			pause = min(2*pause, time.Minute)
		}
	}
}

func (a *Actions) deliverAll(ctx context.Context, kind string, to func(context.Context, []store.Message) error) (n int, err error) {
	for {
		messages, err := a.store.Outbox(ctx, kind, outboxPage)
		if err != nil || len(messages) == 0 {
			return n, err
		}
		if err := to(ctx, messages); err != nil {
			return n, err
		}
		if err := a.store.Told(ctx, kind, messages[len(messages)-1].ID); err != nil {
			return n, err
		}
		n += len(messages)
	}
}

// toJournal appends events, all at once where the journal can.
func (a *Actions) toJournal(ctx context.Context, messages []store.Message) error {
	events := make([]journal.Event, 0, len(messages))
	for _, m := range messages {
		var e journal.Event
		if err := json.Unmarshal(m.Body, &e); err != nil {
			a.log.Error("an event is damaged", "id", m.ID, "err", err)
			continue
		}
		events = append(events, e)
	}
	if all, ok := a.deps.Journal.(interface {
		AppendAll(context.Context, []journal.Event) (int64, error)
	}); ok && len(events) > 0 {
		_, err := all.AppendAll(ctx, events)
		return err
	}
	for _, e := range events {
		if _, err := a.deps.Journal.Append(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// maxCheckTries bounds how often one check is tried; then it is given up.
const maxCheckTries = 5

// toChecks sets check runs; of several states of one only the last.
func (a *Actions) toChecks(ctx context.Context, messages []store.Message) error {
	if a.deps.Checks == nil {
		return nil
	}
	var order []string
	last := map[string]Check{}
	for _, m := range messages {
		var c Check
		if err := json.Unmarshal(m.Body, &c); err != nil {
			a.log.Error("a check is damaged", "id", m.ID, "err", err)
			continue
		}
		key := c.Repo + "\x00" + c.ExternalID
		if _, ok := last[key]; ok {
			order = slices.DeleteFunc(order, func(k string) bool { return k == key })
		}
		order, last[key] = append(order, key), c
	}
	for _, key := range order {
		c := last[key]
		var err error
		pause := 50 * time.Millisecond
		for range maxCheckTries {
			if err = a.deps.Checks.SetCheck(ctx, c); err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(pause):
			}
			pause *= 3
		}
		if err != nil {
			a.log.Warn("set check run", "repo", c.Repo, "commit", c.Commit, "name", c.Name, "err", err)
		}
	}
	return nil
}
