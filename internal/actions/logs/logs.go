// Package logs keeps what steps print.
//
// Input: masked lines. Output: one append-only file per step, each line with
// its time in front, and readers that follow a file while it grows.
//
// Layout: <dir>/<run>/<attempt>/<job>/<step>.log, a line is an RFC 3339 time
// with seven digits of a second, a blank and the text, as GitHub's logs are.
//
// Invariants: a file is only appended to; a reader sees whole lines; a file is
// at most MaxBytes long and then says so.
//
// Start reading at [Store].
package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// MaxBytes bounds the log of one step.
const MaxBytes = 64 << 20

// timeLayout is the time in front of each line, UTC.
const timeLayout = "2006-01-02T15:04:05.0000000Z "

// Store is the folder of all logs. It is safe for concurrent use.
type Store struct {
	dir string
	now func() time.Time

	mu   sync.Mutex
	open map[string]*Log // those still being written
}

// NewStore keeps logs below dir.
func NewStore(dir string, now func() time.Time) *Store {
	return &Store{dir: dir, now: now, open: map[string]*Log{}}
}

// Key names one log.
type Key struct {
	Run     int64
	Attempt int
	Job     int64
	Step    int
}

func (s *Store) path(k Key) string {
	return filepath.Join(s.dir, strconv.FormatInt(k.Run, 10), strconv.Itoa(k.Attempt), strconv.FormatInt(k.Job, 10), strconv.Itoa(k.Step)+".log")
}

// Log is one file while it is written.
type Log struct {
	store *Store
	path  string

	mu      sync.Mutex
	file    *os.File
	size    int64
	grown   chan struct{} // closed and replaced when lines were added
	written bool          // size bound reached
}

// Create starts a log. The caller must Close it.
func (s *Store) Create(k Key) (*Log, error) {
	path := s.path(k)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("create log: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create log: %w", err)
	}
	l := &Log{store: s, path: path, file: f, grown: make(chan struct{})}
	s.mu.Lock()
	s.open[path] = l
	s.mu.Unlock()
	return l, nil
}

// Line appends one line; the caller has masked it.
func (l *Log) Line(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil || l.written {
		return
	}
	line := l.store.now().UTC().Format(timeLayout) + text + "\n"
	if l.size+int64(len(line)) > MaxBytes {
		l.written = true
		line = l.store.now().UTC().Format(timeLayout) + fmt.Sprintf("(the log of this step is longer than %d MiB; the rest is not kept)\n", MaxBytes>>20)
	}
	n, err := l.file.WriteString(line)
	l.size += int64(n)
	if err != nil {
		l.written = true // disk full: stop, the run itself goes on
	}
	close(l.grown)
	l.grown = make(chan struct{})
}

// Close makes the log complete.
func (l *Log) Close() error {
	l.store.mu.Lock()
	delete(l.store.open, l.path)
	l.store.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	close(l.grown)
	return err
}

// wait returns a channel that closes at the next growth, or nil when the log
// is complete.
func (l *Log) wait() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	return l.grown
}

// Open reads a log. With follow the reader waits for more until the log is
// complete or ctx ends. fs.ErrNotExist says that there is no such log (yet).
func (s *Store) Open(ctx context.Context, k Key, follow bool) (io.ReadCloser, error) {
	path := s.path(k)
	s.mu.Lock()
	l := s.open[path]
	s.mu.Unlock()
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("log of step %d: %w", k.Step, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if !follow {
		l = nil
	}
	return &reader{ctx: ctx, file: f, log: l}, nil
}

// Remove deletes the logs of a run.
func (s *Store) Remove(run int64) error {
	return os.RemoveAll(filepath.Join(s.dir, strconv.FormatInt(run, 10)))
}

type reader struct {
	ctx  context.Context
	file *os.File
	log  *Log // nil when complete or not followed
}

func (r *reader) Read(p []byte) (int, error) {
	for {
		var grown <-chan struct{}
		if r.log != nil {
			grown = r.log.wait() // before the read, so that nothing is missed
		}
		n, err := r.file.Read(p)
		if n > 0 || !errors.Is(err, io.EOF) {
			return n, err
		}
		if grown == nil {
			return 0, io.EOF
		}
		select {
		case <-grown:
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
}

func (r *reader) Close() error { return r.file.Close() }
