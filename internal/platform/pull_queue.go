package platform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/durable"
	"github.com/lockstep-gitops/lockstep/internal/forge"
)

const (
	pullWorkers   = 2
	maxPulls      = 1000 // that wait; further events stay in the forge
	maxPullTries  = 8
	firstPullWait = 2 * time.Second // doubles with each try
	lastPullWait  = time.Minute
	skipsPerSave  = 200
)

// pullKey names a pull request.
type pullKey struct {
	repo   string // "owner/name"
	number int
}

func (k pullKey) String() string { return fmt.Sprintf("%s#%d", k.repo, k.number) }

// pullOf is the pull request whose preview an event makes stale.
func pullOf(e forge.Event) (number int, ok bool) {
	if e.Name != "pull_request" {
		return 0, false
	}
	var body struct {
		Number  int `json:"number"`
		Changes struct {
			Base json.RawMessage `json:"base"`
		} `json:"changes"`
	}
	if err := json.Unmarshal(e.Payload, &body); err != nil || body.Number <= 0 {
		return 0, false
	}
	switch e.Action {
	case "opened", "synchronize", "reopened":
		return body.Number, true
	case "edited":
		return body.Number, body.Changes.Base != nil
	}
	return 0, false
}

// pullQueue holds the pull requests that are to be looked at, each once, and
// how far the events were seen to. A newer event of a pull request ends the
// work on an older one.
type pullQueue struct {
	file  string
	log   *slog.Logger
	wait  time.Duration // after the first failure
	room  chan struct{}
	ready chan pullKey // has room for every item

	mu      sync.Mutex
	items   map[pullKey]*pullItem
	seen    int64 // newest event
	saved   int64
	skipped int
}

type pullItem struct {
	first, last int64 // events that are not seen to
	cancel      context.CancelFunc
	again       bool // a newer event came while it was worked on
	tries       int
}

type pullCursor struct {
	After int64 `json:"after"` // the event up to which everything is seen to
}

// newPullQueue reads the cursor; last is the newest event that there is.
func newPullQueue(file string, log *slog.Logger, last int64) *pullQueue {
	q := &pullQueue{file: file, log: log, wait: firstPullWait, room: make(chan struct{}, maxPulls), ready: make(chan pullKey, maxPulls), items: map[pullKey]*pullItem{}}
	data, err := os.ReadFile(file)
	var c pullCursor
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("it is not known which pull requests were seen to; all are looked at", "file", file, "error", err)
	}
	if err == nil && c.After <= last {
		q.seen, q.saved = c.After, c.After
	}
	return q
}

func (q *pullQueue) after() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.seen
}

// skip notes an event that asks for nothing.
func (q *pullQueue) skip(id int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.seen = id
	if q.skipped++; q.skipped >= skipsPerSave {
		q.save()
	}
}

// add asks for a look at a pull request. It waits for room; false says that
// ctx ended.
func (q *pullQueue) add(ctx context.Context, key pullKey, id int64) bool {
	if q.join(key, id) {
		return true
	}
	select {
	case q.room <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.seen = id
	q.items[key] = &pullItem{first: id, last: id}
	q.ready <- key
	return true
}

// join adds an event to what is asked for already.
func (q *pullQueue) join(key pullKey, id int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.items[key]
	if it == nil {
		return false
	}
	q.seen, it.last, it.tries = id, id, 0
	if it.cancel != nil {
		it.again = true
		it.cancel()
	}
	return true
}

// work looks at pull requests until ctx ends. look gets the newest event, and
// whether it is the last try.
func (q *pullQueue) work(ctx context.Context, look func(ctx context.Context, key pullKey, event int64, last bool) error) {
	for {
		select {
		case <-ctx.Done():
			return
		case key := <-q.ready:
			one, event, last := q.begin(ctx, key)
			err := look(one, key, event, last)
			q.end(ctx, key, err)
		}
	}
}

func (q *pullQueue) begin(ctx context.Context, key pullKey) (context.Context, int64, bool) {
	one, cancel := context.WithCancel(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.items[key]
	it.cancel = cancel
	it.tries++
	return one, it.last, it.tries >= maxPullTries
}

// end takes a pull request off the queue, or puts it back.
func (q *pullQueue) end(ctx context.Context, key pullKey, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.items[key]
	it.cancel()
	it.cancel = nil
	switch {
	case ctx.Err() != nil:
		return // the next start does it
	case it.again:
		it.again, it.first = false, it.last
		q.ready <- key
		return
	case err != nil && it.tries < maxPullTries:
		wait := min(q.wait<<(it.tries-1), lastPullWait)
		q.log.Warn("what a pull request changes could not be shown; trying again", "pull request", key.String(), "error", err, "after", wait)
		time.AfterFunc(wait, func() { q.ready <- key }) // there is room for each item
		return
	case err != nil:
		q.log.Error("what a pull request changes is not shown", "pull request", key.String(), "error", err)
	}
	delete(q.items, key)
	<-q.room
	q.save()
}

// save writes down what is seen to; mu is held.
func (q *pullQueue) save() {
	c := pullCursor{After: q.seen}
	for _, it := range q.items {
		c.After = min(c.After, it.first-1)
	}
	q.skipped = 0
	if c.After == q.saved {
		return
	}
	data, err := json.Marshal(c)
	if err == nil {
		err = durable.WriteFile(q.file, data, 0o600)
	}
	if err != nil {
		q.log.Warn("which pull requests were seen to is not written down; after a restart they are looked at again", "error", err)
		return
	}
	q.saved = c.After
}
