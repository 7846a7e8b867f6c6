// Package logs keeps what steps print.
//
// Input: masked lines. Output: one append-only file per step, each line with
// its time in front; lines by number and by time, from the end, and as they
// come; matches of a search; places of groups and annotations; the log of a
// whole job and run as GitHub serves them.
//
// Layout: <dir>/<run>/<attempt>/<job>/<step>.log, a line is an RFC 3339 time
// with seven digits of a second, a blank and the text, as GitHub's logs are.
// Beside it .index and .marks, which are made from it and can be deleted.
//
// Invariants: a file is only appended to, and a line that [Log.Line] took is in
// it; a reader sees whole lines; times never go back; a writer never waits for
// a reader; no reader holds more than a line and a buffer; a log is hardly
// longer than [Store.StepBytes] and then says so.
//
// Start reading at [Store], [Log] and [Store.Lines].
package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// DefaultStepBytes bounds the log of one step.
const DefaultStepBytes = 256 << 20

// timeLayout is the time in front of each line, UTC.
const timeLayout = "2006-01-02T15:04:05.0000000Z "

const (
	stampLen = len(timeLayout)
	// maxLine bounds a line, in bytes; a longer one is cut in several.
	maxLine = 256 << 10
	// What is kept of the end of a log that is too long.
	tailLines, tailBytes = 300, 64 << 10
)

// Store is the folder of all logs. It is safe for concurrent use.
type Store struct {
	// StepBytes bounds the log of one step; the beginning and the last lines of
	// a longer one are kept. Set it before the first use.
	StepBytes int64

	dir string
	now func() time.Time

	mu   sync.Mutex
	open map[string]*Log // those still being written

	rebuilding sync.Mutex // one log at a time is indexed anew
}

// NewStore keeps logs below dir.
func NewStore(dir string, now func() time.Time) *Store {
	return &Store{StepBytes: DefaultStepBytes, dir: dir, now: now, open: map[string]*Log{}}
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

// Log is one file while it is written. It is safe for concurrent use.
type Log struct {
	store *Store
	path  string

	mu      sync.Mutex
	file    *os.File
	index   *indexer
	size    int64
	lines   int64
	last    time.Time
	failed  bool          // the disk is full: nothing more is written
	left    *leftOut      // when the bound is reached
	grown   chan struct{} // made by a waiting reader, closed at the next line
	scratch []byte
}

// leftOut is the end of a log that is too long.
type leftOut struct {
	lines, bytes int64
	tail         []string // formatted
	tailBytes    int
}

// Create starts a log, or goes on with one that a crash cut off. The caller
// must Close it.
func (s *Store) Create(k Key) (*Log, error) {
	l := &Log{store: s, path: s.path(k)}
	if err := l.begin(); err != nil {
		return nil, fmt.Errorf("create log of step %d: %w", k.Step, err)
	}
	s.mu.Lock()
	s.open[l.path] = l
	s.mu.Unlock()
	return l, nil
}

func (l *Log) begin() error {
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return err
	}
	if info, err := os.Stat(l.path); err == nil && info.Size() > 0 {
		if err := l.resume(); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if l.index, err = openIndexer(l.path, l.size > 0); err != nil {
		return errors.Join(err, f.Close())
	}
	l.file = f
	return nil
}

// resume cuts off a half line and takes over what is there.
func (l *Log) resume() error {
	l.store.rebuilding.Lock()
	defer l.store.rebuilding.Unlock()
	end, err := rebuild(l.path)
	if err != nil {
		return err
	}
	l.size, l.lines, l.last = end.offset, end.line-1, end.time
	return os.Truncate(l.path, end.offset)
}

// Line appends one line; the caller has masked it. A text with line ends is
// several lines of one time.
func (l *Log) Line(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil || l.failed {
		return
	}
	if now := l.store.now(); now.After(l.last) {
		l.last = now
	}
	l.scratch = l.scratch[:0]
	first, at := l.lines, l.size
	for {
		line, rest, more := strings.Cut(text, "\n")
		if len(line) > maxLine {
			end := maxLine
			for end > maxLine-utf8.UTFMax && !utf8.RuneStart(text[end]) {
				end--
			}
			line, rest, more = text[:end], text[end:], true
		}
		l.add(strings.TrimSuffix(line, "\r"))
		if !more {
			break
		}
		text = rest
	}
	l.flush(first, at)
}

// add puts one line into scratch, or leaves it out.
func (l *Log) add(line string) {
	from := len(l.scratch)
	if l.left == nil && l.size+int64(from+stampLen+len(line)+1) > l.store.StepBytes {
		l.left = &leftOut{}
		l.scratch = l.last.UTC().AppendFormat(l.scratch, timeLayout)
		l.scratch = fmt.Appendf(l.scratch, "##[warning]The log of this step is longer than %s: the rest is not kept, except for its last lines when the step has ended.\n", sizeText(l.store.StepBytes))
		l.lines++
		from = len(l.scratch)
	}
	l.scratch = l.last.UTC().AppendFormat(l.scratch, timeLayout)
	l.scratch = append(append(l.scratch, line...), '\n')
	if l.left == nil {
		l.lines++
		return
	}
	l.left.add(string(l.scratch[from:]))
	l.scratch = l.scratch[:from]
}

func (o *leftOut) add(line string) {
	o.lines, o.bytes = o.lines+1, o.bytes+int64(len(line))
	if len(line) > tailBytes/4 {
		line = strings.ToValidUTF8(line[:tailBytes/4], "") + "…\n"
	}
	o.tail, o.tailBytes = append(o.tail, line), o.tailBytes+len(line)
	for len(o.tail) > tailLines || o.tailBytes > tailBytes {
		o.tailBytes -= len(o.tail[0])
		o.tail = o.tail[1:]
	}
}

func sizeText(n int64) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d bytes", n)
}

// flush writes scratch, which begins after line first at byte at.
func (l *Log) flush(first, at int64) {
	if len(l.scratch) == 0 {
		return
	}
	n, err := l.file.Write(l.scratch)
	if err != nil { // disk full: the run itself goes on
		l.failed = true
		if n > 0 {
			_ = l.file.Truncate(at) // or the next reader does
		}
		l.lines = first
		return
	}
	l.size += int64(n)
	l.index.add(first, at, l.last, l.scratch)
	if cap(l.scratch) > 2*maxLine {
		l.scratch = nil
	}
	if l.grown != nil {
		close(l.grown)
		l.grown = nil
	}
}

// Close makes the log complete.
func (l *Log) Close() error {
	err := l.end()
	l.store.mu.Lock()
	if l.store.open[l.path] == l { // only now: until then readers ask the Log
		delete(l.store.open, l.path)
	}
	l.store.mu.Unlock()
	return err
}

func (l *Log) end() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	if l.left != nil && l.left.lines > 0 && !l.failed {
		l.scratch = l.last.UTC().AppendFormat(l.scratch[:0], timeLayout)
		l.scratch = fmt.Appendf(l.scratch, "##[warning]%d lines (%s) were left out; the last %d follow.\n", l.left.lines-int64(len(l.left.tail)), sizeText(l.left.bytes-int64(l.left.tailBytes)), len(l.left.tail))
		first := l.lines
		l.lines += int64(len(l.left.tail)) + 1
		for _, line := range l.left.tail {
			// Times must not go back: they follow the line above.
			l.scratch = append(l.last.UTC().AppendFormat(l.scratch, timeLayout), line[stampLen:]...)
		}
		l.flush(first, l.size)
	}
	err := errors.Join(l.index.finish(entry{kind: endKind, line: l.lines + 1, offset: l.size, time: l.last}), l.file.Close())
	l.file = nil
	if l.grown != nil {
		close(l.grown)
		l.grown = nil
	}
	return err
}

// state is how far the log is, and a channel that closes when there is more.
// The channel is nil when the log is complete.
func (l *Log) state(wait bool) (size, lines int64, last time.Time, grown <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil && wait {
		if l.grown == nil {
			l.grown = make(chan struct{})
		}
		grown = l.grown
	}
	return l.size, l.lines, l.last, grown
}

// Remove deletes the logs of a run.
func (s *Store) Remove(run int64) error {
	return os.RemoveAll(filepath.Join(s.dir, strconv.FormatInt(run, 10)))
}

// live is the log while it is written in this process, or nil.
func (s *Store) live(path string) *Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[path]
}

func openLog(k Key, path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("log of step %d: %w", k.Step, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}
