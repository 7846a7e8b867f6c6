package platform

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lockstep-gitops/lockstep/internal/forge"
)

func quietQueue(file string) *pullQueue {
	q := newPullQueue(file, slog.New(slog.DiscardHandler), 1<<40)
	q.wait = time.Nanosecond
	return q
}

func cursorIn(t interface{ Fatal(...any) }, file string) int64 {
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	var c pullCursor
	if err := errors.Join(err, json.Unmarshal(data, &c)); err != nil {
		t.Fatal(err)
	}
	return c.After
}

// TestPullQueueLosesNothing adds, works and crashes in any order: in the end the
// last look at each pull request was at its newest event, or one that came later.
func TestPullQueueLosesNothing(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		file := filepath.Join(dir, "cursor.json")
		_ = os.Remove(file)
		type event struct {
			id  int64
			key pullKey
		}
		var outbox []event
		newest, looked := map[pullKey]int64{}, map[pullKey]int64{}
		q := quietQueue(file)
		next := 0 // of the outbox, that the queue gets
		deliver := func() {
			e := outbox[next]
			next++
			if e.key.number == 0 {
				q.skip(e.id)
			} else if !q.add(t.Context(), e.key, e.id) {
				t.Fatal("not added")
			}
		}
		work := func(fails bool, during func()) {
			key := <-q.ready
			_, id, last := q.begin(t.Context(), key)
			during()
			var err error
			if fails && !last {
				err = errors.New("not now")
			} else {
				looked[key] = id
			}
			q.end(t.Context(), key, err)
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1:
				key := pullKey{"o/r", rapid.IntRange(0, 3).Draw(t, "number")}
				outbox = append(outbox, event{int64(len(outbox) + 1), key})
				if key.number != 0 {
					newest[key] = int64(len(outbox))
				}
			case 2:
				if next < len(outbox) {
					deliver()
				}
			case 3:
				if len(q.items) > 0 {
					work(rapid.Bool().Draw(t, "fails"), func() {
						if next < len(outbox) && rapid.Bool().Draw(t, "meanwhile") {
							deliver()
						}
					})
				}
			case 4: // kill -9
				q = quietQueue(file)
				next = int(q.after())
			}
			done := cursorIn(t, file)
			for key, it := range q.items {
				if it.first <= done {
					t.Fatalf("%s: event %d is not seen to, and the cursor is %d", key, it.first, done)
				}
			}
		}
		for next < len(outbox) || len(q.items) > 0 {
			if next < len(outbox) {
				deliver()
			} else {
				work(false, func() {})
			}
		}
		for key, id := range newest {
			if looked[key] < id {
				t.Fatalf("%s was last looked at for event %d, its newest is %d", key, looked[key], id)
			}
		}
	})
}

func TestNewestCommitOfAPullRequestWins(t *testing.T) {
	q := quietQueue(filepath.Join(t.TempDir(), "cursor.json"))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	key := pullKey{"o/r", 1}
	q.add(ctx, key, 1)
	started, seen := make(chan struct{}), make(chan int64, 4)
	go q.work(ctx, func(one context.Context, _ pullKey, event int64, _ bool) error {
		if event == 1 {
			close(started)
			<-one.Done() // as a rendering does
			return context.Cause(one)
		}
		seen <- event
		return nil
	})
	<-started
	q.add(ctx, key, 2)
	select {
	case event := <-seen:
		if event != 2 {
			t.Errorf("looked at event %d", event)
		}
	case <-ctx.Done():
		t.Fatal("the older commit was not left")
	}
}

func TestPullQueueIsBounded(t *testing.T) {
	q := quietQueue(filepath.Join(t.TempDir(), "cursor.json"))
	for i := range maxPulls {
		q.add(t.Context(), pullKey{"o/r", i + 1}, int64(i+1))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if q.add(ctx, pullKey{"o/r", maxPulls + 1}, maxPulls+1) {
		t.Error("there was room")
	}
	if !q.add(ctx, pullKey{"o/r", 1}, maxPulls+2) {
		t.Error("what waits already needs no room")
	}
}

func TestPullThatFailsIsGivenUp(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cursor.json")
	q := quietQueue(file)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tries := make(chan bool, 2*maxPullTries)
	go q.work(ctx, func(_ context.Context, _ pullKey, _ int64, last bool) error {
		tries <- last
		return errors.New("no")
	})
	q.add(ctx, pullKey{"o/r", 1}, 7)
	for i := range maxPullTries {
		if last := <-tries; last != (i == maxPullTries-1) {
			t.Errorf("try %d: last is %v", i+1, last)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); cursorIn(t, file) != 7; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not given up")
		}
	}
}

func TestPullCursorOfAnotherForge(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cursor.json")
	for name, content := range map[string]string{"later than all events": `{"after":99}`, "damaged": `{"aft`} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if q := newPullQueue(file, slog.New(slog.DiscardHandler), 5); q.after() != 0 {
			t.Errorf("%s: starts after %d", name, q.after())
		}
	}
}

func TestPullOf(t *testing.T) {
	for _, tc := range []struct {
		name, action, payload string
		want                  int
	}{
		{"pull_request", "opened", `{"number": 3}`, 3},
		{"pull_request", "synchronize", `{"number": 3}`, 3},
		{"pull_request", "reopened", `{"number": 3}`, 3},
		{"pull_request", "edited", `{"number": 3, "changes": {"base": {"ref": {"from": "main"}}}}`, 3},
		{"pull_request", "edited", `{"number": 3, "changes": {"title": {"from": "x"}}}`, 0},
		{"pull_request", "closed", `{"number": 3}`, 0},
		{"pull_request", "opened", `{"number": -1}`, 0},
		{"pull_request", "opened", `{`, 0},
		{"issues", "opened", `{"number": 3}`, 0},
	} {
		got, ok := pullOf(forge.Event{Name: tc.name, Action: tc.action, Payload: []byte(tc.payload)})
		if ok != (tc.want != 0) || ok && got != tc.want {
			t.Errorf("%s %s %s: %d, %v", tc.name, tc.action, tc.payload, got, ok)
		}
	}
}
