package forge

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"
)

func (h *house) publishOne(name string) {
	h.t.Helper()
	err := h.publish(h.t.Context(), func(_ *sql.Tx, out *outbox) error { return out.add(Event{Repo: "a/b", Name: name, Actor: "ada"}) })
	if err != nil {
		h.t.Fatal(err)
	}
}

func TestEventsAreFollowedFromACursor(t *testing.T) {
	h := newHouse(t)
	h.publishOne("first")
	got := make(chan Event)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for e := range h.FollowEvents(ctx, 0) {
			got <- e
		}
	}()
	next := func() Event {
		select {
		case e := <-got:
			return e
		case <-time.After(10 * time.Second):
			t.Fatal("no event")
			return Event{}
		}
	}
	if e := next(); e.Name != "first" || e.ID != 1 || e.Time.IsZero() || string(e.Payload) != "{}" {
		t.Errorf("first: %+v", e)
	}
	// An event of a change that fails is not told, and leaves no gap.
	failed := errors.New("no")
	err := h.publish(ctx, func(_ *sql.Tx, out *outbox) error {
		return errors.Join(out.add(Event{Repo: "a/b", Name: "never"}), failed)
	})
	if !errors.Is(err, failed) {
		t.Error(err)
	}
	h.publishOne("second")
	if e := next(); e.Name != "second" || e.ID != 2 {
		t.Errorf("second: %+v", e)
	}
	cancel()
	<-ended
	if last, err := h.LastEvent(t.Context()); err != nil || last != 2 {
		t.Errorf("last: %d, %v", last, err)
	}
	h.stop()
	h = openHouse(t, h.dir)
	if events, err := h.Events(t.Context(), 1, 10); err != nil || len(events) != 1 || events[0].Name != "second" {
		t.Errorf("after a restart: %v, %v", events, err)
	}
}

func TestFollowingEndsWithTheForge(t *testing.T) {
	h := newHouse(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range h.FollowEvents(context.Background(), 0) {
			t.Error("an event out of nothing")
		}
	}()
	h.stop()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("it still follows")
	}
}
