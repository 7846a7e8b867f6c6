// Package saved keeps renders on disk, so that a start renders nothing anew.
//
// Input: one [application.SavedRender] per application. Output: the same after
// a restart. It is a cache in one SQLite file: what it loses is rendered again,
// so a file that is damaged or of another format is replaced, writes are
// gathered and not synced one by one, and the newest write of an application
// takes the place of one that still waits.
//
// Invariants: no value of a Secret is on disk in clear, see seal.go; [Store.Load]
// hands a render out once and forgets it; at most maxQueued renders wait for
// the disk; rows of applications that are gone are dropped.
//
// Start reading at [Store.Run].
package saved

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
)

var _ application.Saved = (*Store)(nil)

const (
	// maxQueued bounds the renders that wait for the disk; while it is full,
	// renders of more applications are not kept.
	maxQueued = 20_000
	batch     = 512
	gather    = 200 * time.Millisecond // how long writes wait for others
	// loaded is how long renders that were read at the start, and that nobody
	// asked for, stay: their applications are gone.
	loaded = 10 * time.Minute
)

// Store is the file. It is safe for concurrent use.
type Store struct {
	log  *slog.Logger
	file *file
	key  *sealer

	mu      sync.Mutex
	read    map[string][]byte // rows as read at the start, until they are asked for
	queue   map[string]change // what is to be written, by application
	dropped int
	closed  bool
	wake    chan struct{} // of the writer
	ended   chan struct{}
	once    sync.Once
}

// change is a row to write, or one to delete.
type change struct {
	render application.SavedRender
	gone   bool
}

// Open opens or creates the store in the file at path, readable only by its
// owner, with a key beside it. The folder must exist. A file that cannot be
// used is replaced; only a folder that cannot be written to is an error.
func Open(ctx context.Context, path string, log *slog.Logger) (*Store, error) {
	key, err := openKey(path + ".key")
	if err != nil {
		return nil, fmt.Errorf("open the saved renders: %w", err)
	}
	f, rows, err := open(ctx, path)
	if err != nil {
		log.Warn("the saved renders cannot be used and are made anew", "file", path, "error", err)
		if err := remove(path); err != nil {
			return nil, fmt.Errorf("replace the saved renders: %w", err)
		}
		if f, rows, err = open(ctx, path); err != nil {
			return nil, fmt.Errorf("open the saved renders: %w", err)
		}
	}
	return &Store{log: log, file: f, key: key, read: rows, queue: map[string]change{}, wake: make(chan struct{}, 1), ended: make(chan struct{})}, nil
}

// Load implements [application.Saved].
func (s *Store) Load(key string) (application.SavedRender, bool) {
	s.mu.Lock()
	row, ok := s.read[key]
	delete(s.read, key)
	if len(s.read) == 0 {
		s.read = nil
	}
	waiting, queued := s.queue[key]
	s.mu.Unlock()
	if queued {
		return waiting.render, !waiting.gone
	}
	if !ok {
		return application.SavedRender{}, false
	}
	r, err := decode(key, row, s.key)
	if err != nil {
		s.log.Debug("a saved render is of no use", "app", key, "error", err)
		return r, false
	}
	return r, true
}

// Save implements [application.Saved].
func (s *Store) Save(key string, r application.SavedRender) { s.put(key, change{render: r}) }

// Delete implements [application.Saved].
func (s *Store) Delete(key string) { s.put(key, change{gone: true}) }

func (s *Store) put(key string, c change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	delete(s.read, key)
	if _, waits := s.queue[key]; !waits && len(s.queue) >= maxQueued {
		s.dropped++ // the row that is there, if any, names other inputs and is not used
		return
	}
	s.queue[key] = c
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run writes what is saved until ctx ends, then what is left.
func (s *Store) Run(ctx context.Context) error {
	defer close(s.ended)
	forget := time.NewTimer(loaded)
	defer forget.Stop()
	for {
		select {
		case <-s.wake:
		case <-forget.C:
			s.dropUnread()
			continue
		case <-ctx.Done():
			s.mu.Lock()
			s.closed = true
			s.mu.Unlock()
			s.flush()
			return nil
		}
		select { // others follow soon
		case <-time.After(gather):
		case <-ctx.Done():
		}
		s.flush()
	}
}

// Close writes what waits, and releases the file. It is called after Run, or
// instead of it.
func (s *Store) Close() error {
	var err error
	s.once.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.flush()
		err = s.file.Close()
	})
	return err
}

// dropUnread deletes the rows that nobody asked for.
func (s *Store) dropUnread() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.read {
		if _, waits := s.queue[key]; !waits {
			s.queue[key] = change{gone: true}
		}
	}
	s.read = nil
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// flush writes all that waits, some at a time so that memory is given back.
func (s *Store) flush() {
	for {
		s.mu.Lock()
		part := make(map[string]change, min(batch, len(s.queue)))
		for key, c := range s.queue {
			part[key] = c
			delete(s.queue, key)
			if len(part) == batch {
				break
			}
		}
		dropped := s.dropped
		s.dropped = 0
		s.mu.Unlock()
		if dropped > 0 {
			s.log.Warn("renders were not saved: the disk is too slow", "applications", dropped)
		}
		if len(part) == 0 {
			return
		}
		if err := s.write(part); err != nil {
			s.log.Warn("save renders; they are rendered again after a restart", "applications", len(part), "error", err)
			return // what is left goes with the next
		}
	}
}

const writeTimeout = 30 * time.Second

func (s *Store) write(part map[string]change) error {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	rows := make(map[string][]byte, len(part))
	var errs []error
	for key, c := range part {
		rows[key] = nil
		if c.gone {
			continue
		}
		row, err := encode(key, c.render, s.key)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
		rows[key] = row
	}
	return errors.Join(append(errs, s.file.write(ctx, rows))...)
}
