package logs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"time"
)

// Info is how much of a log there is.
type Info struct {
	Lines    int64
	Bytes    int64
	Last     time.Time // of the last line
	Complete bool      // nothing is added any more
}

// Stat tells about a log. fs.ErrNotExist says that there is none (yet).
func (s *Store) Stat(k Key) (Info, error) {
	v, err := s.view(k, false)
	if err != nil {
		return Info{}, err
	}
	return Info{Lines: v.end.line - 1, Bytes: v.end.offset, Last: v.end.time, Complete: v.log == nil}, nil
}

// Line is one line of a log.
type Line struct {
	Number int64 // from 1
	Time   time.Time
	Text   string
}

// Range chooses lines. The zero value is all of them.
type Range struct {
	From, To int64     // numbers from 1, both included; To 0 is to the end
	Since    time.Time // lines of that time and later
	Tail     int64     // only the last so many; with follow, those and what comes
	Follow   bool      // wait for more until the log is complete
}

// Lines reads lines one by one; it ends with an error at most once. The cost
// is what is read, wherever it begins. fs.ErrNotExist says that there is no
// such log (yet).
func (s *Store) Lines(ctx context.Context, k Key, r Range) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		if err := s.lines(ctx, k, r, func(l Line) bool { return yield(l, nil) }); err != nil {
			yield(Line{}, err)
		}
	}
}

func (s *Store) lines(ctx context.Context, k Key, r Range, yield func(Line) bool) error {
	return s.scan(ctx, k, r, func(n int64, raw []byte) bool {
		t, ok := stampOf(raw)
		if ok {
			raw = raw[stampLen:]
		}
		return yield(Line{n, t, string(raw)})
	})
}

// scan hands over lines as they are in the file, without their end. The bytes
// are valid during the call only.
func (s *Store) scan(ctx context.Context, k Key, r Range, yield func(number int64, raw []byte) bool) error {
	v, err := s.view(k, r.Follow)
	if err != nil {
		return err
	}
	f, err := openLog(k, v.path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	if r.Tail > 0 {
		r.From = max(r.From, v.end.line-r.Tail)
	}
	at := v.before(func(e entry) bool { return e.line <= r.From })
	if !r.Since.IsZero() {
		if t := v.before(func(e entry) bool { return e.time.Before(r.Since) }); t.line > at.line {
			at = t // whichever is later
		}
	}
	c := cursor{file: f, entry: at}
	for {
		done, err := c.read(ctx, v.end.offset, r, yield)
		if done || err != nil {
			return err
		}
		if v.grown == nil {
			if v.log == nil || !r.Follow {
				return nil
			}
			v.log = nil // it was closed: what came last is still read
			continue
		}
		select {
		case <-v.grown:
			v.refresh(true)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// cursor is a place in a log.
type cursor struct {
	file *os.File
	entry
	buffer *bufio.Reader
}

// checkEvery is how many lines are read between looks at the context.
const checkEvery = 4096

// read hands over the lines up to the byte end; done says that no more are
// wanted.
func (c *cursor) read(ctx context.Context, end int64, r Range, yield func(int64, []byte) bool) (done bool, err error) {
	section := io.NewSectionReader(c.file, c.offset, end-c.offset)
	if c.buffer == nil {
		c.buffer = bufio.NewReaderSize(section, 64<<10)
	} else {
		c.buffer.Reset(section)
	}
	var long []byte
	for n := 1; c.offset < end; n++ {
		if n%checkEvery == 0 && ctx.Err() != nil {
			return true, ctx.Err()
		}
		raw, err := c.buffer.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			long = append(long, raw...)
			continue
		}
		if err != nil { // a half line: it belongs to no one yet
			if errors.Is(err, io.EOF) {
				return false, nil
			}
			return true, fmt.Errorf("read log: %w", err)
		}
		if long != nil {
			raw, long = append(long, raw...), nil
		}
		number := c.line
		c.line, c.offset = c.line+1, c.offset+int64(len(raw))
		if r.To > 0 && number > r.To {
			return true, nil
		}
		if number < r.From {
			continue
		}
		if !r.Since.IsZero() {
			if t, ok := stampOf(raw); ok && t.Before(r.Since) {
				continue
			}
			r.Since = time.Time{} // times never go back
		}
		if !yield(number, bytes.TrimSuffix(raw, []byte("\n"))) {
			return true, nil
		}
	}
	return r.To > 0 && c.line > r.To, nil
}

// Open reads a log as bytes, each line with its time. With follow the reader
// waits for more until the log is complete or ctx ends. fs.ErrNotExist says
// that there is no such log (yet).
func (s *Store) Open(ctx context.Context, k Key, follow bool) (io.ReadCloser, error) {
	v, err := s.view(k, follow)
	if err != nil {
		return nil, err
	}
	f, err := openLog(k, v.path)
	if err != nil {
		return nil, err
	}
	return &reader{ctx: ctx, file: f, view: v, follow: follow}, nil
}

type reader struct {
	ctx    context.Context
	file   *os.File
	view   *view
	follow bool
	at     int64
}

func (r *reader) Read(p []byte) (int, error) {
	for {
		if left := r.view.end.offset - r.at; left > 0 {
			n, err := r.file.ReadAt(p[:min(int64(len(p)), left)], r.at)
			r.at += int64(n)
			if n > 0 {
				return n, nil
			}
			return 0, err
		}
		if !r.follow || r.view.log == nil || r.view.grown == nil {
			return 0, io.EOF
		}
		select {
		case <-r.view.grown:
			r.view.refresh(true)
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
}

func (r *reader) Close() error { return r.file.Close() }

// Marks lists the places of groups, annotations and commands, from the line
// from on, at most limit. The first 10,000 of a log are kept.
func (s *Store) Marks(k Key, from int64, limit int) ([]Mark, error) {
	v, err := s.view(k, false)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(marksPath(v.path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("marks of step %d: %w", k.Step, err)
	}
	defer func() { _ = f.Close() }() // read only
	var list []Mark
	for lines := bufio.NewScanner(f); len(list) < limit && lines.Scan(); {
		var m Mark
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			break // the last one is still being written
		}
		if m.Line >= from && m.Line < v.end.line {
			list = append(list, m)
		}
	}
	return list, nil
}
