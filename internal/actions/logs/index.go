package logs

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sort"
	"strings"
	"time"
)

// The index is a list of entries of one size: where a block of lines begins.
// The last entry of a complete log is its end.
const (
	blockBytes = 32 << 10 // a reader scans at most so much, and a line, to find a place
	entryBytes = 32
	blockKind  = 1
	endKind    = 2
	maxMarks   = 10_000
)

// entry says that line (from 1) begins at offset and was written at time.
type entry struct {
	kind         int64
	line, offset int64
	time         time.Time
}

func (e entry) encode() []byte {
	b := make([]byte, 0, entryBytes)
	b = binary.BigEndian.AppendUint64(b, uint64(e.kind))
	b = binary.BigEndian.AppendUint64(b, uint64(e.line))
	b = binary.BigEndian.AppendUint64(b, uint64(e.offset))
	return binary.BigEndian.AppendUint64(b, uint64(e.time.UnixNano()))
}

func decode(b []byte) entry {
	at := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[8*i:])) }
	return entry{at(0), at(1), at(2), time.Unix(0, at(3)).UTC()}
}

// Mark is a place of interest in a log.
type Mark struct {
	Line int64  `json:"line"` // from 1
	Kind string `json:"kind"` // "group", "endgroup", "error", "warning", "notice", "command"
	Text string `json:"text,omitempty"`
}

// markOf reads a line's text as a mark.
func markOf(text []byte) (kind, rest string, ok bool) {
	if !bytes.HasPrefix(text, []byte("##[")) {
		return "", "", false
	}
	head, tail, found := strings.Cut(string(text[3:min(len(text), 240)]), "]")
	switch head {
	case "group", "endgroup", "error", "warning", "notice", "command":
		return head, strings.ToValidUTF8(tail, ""), found
	}
	return "", "", false
}

// indexer writes the index and the marks of a log beside it. A fault of it is
// not one of the log: the index is made anew when it is found wanting.
type indexer struct {
	index, marks *os.File
	path         string
	indexed      int64 // offset up to which blocks are known
	count        int   // marks
	err          error
}

func indexPath(log string) string { return strings.TrimSuffix(log, ".log") + ".index" }
func marksPath(log string) string { return strings.TrimSuffix(log, ".log") + ".marks" }

// openIndexer begins an index, or goes on with one that rebuild made.
func openIndexer(log string, resume bool) (*indexer, error) {
	x := &indexer{path: log}
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if !resume {
		flags |= os.O_TRUNC
		if err := os.Remove(marksPath(log)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	f, err := os.OpenFile(indexPath(log), flags, 0o600)
	if err != nil {
		return nil, err
	}
	x.index = f
	if resume { // forget the end
		info, err := f.Stat()
		if err == nil && info.Size() >= entryBytes {
			err = f.Truncate(info.Size() - entryBytes)
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return x, nil
}

// add indexes lines that were written: data begins after line first, at byte
// offset at.
func (x *indexer) add(first, at int64, t time.Time, data []byte) {
	if x.err != nil {
		return
	}
	if at == 0 || at-x.indexed >= blockBytes {
		x.indexed = at
		_, x.err = x.index.Write(entry{blockKind, first + 1, at, t}.encode())
	}
	for line := first + 1; len(data) > 0 && x.err == nil; line++ {
		end := bytes.IndexByte(data, '\n')
		if end >= stampLen {
			x.mark(line, data[stampLen:end])
		}
		data = data[end+1:]
	}
}

func (x *indexer) mark(line int64, text []byte) {
	kind, rest, ok := markOf(text)
	if !ok || x.count >= maxMarks {
		return
	}
	if x.marks == nil {
		if x.marks, x.err = os.OpenFile(marksPath(x.path), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); x.err != nil {
			return
		}
	}
	x.count++
	data, err := json.Marshal(Mark{line, kind, rest})
	if err == nil {
		_, err = x.marks.Write(append(data, '\n'))
	}
	x.err = err
}

// finish writes the end, unless something went wrong before.
func (x *indexer) finish(end entry) error {
	if x.err == nil {
		_, x.err = x.index.Write(end.encode())
	}
	err := x.index.Close()
	if x.marks != nil {
		err = errors.Join(err, x.marks.Close())
	}
	return errors.Join(x.err, err)
}

// rebuild makes the index of a log from the log and returns its end. A half
// line at the end of the file is not counted.
func rebuild(log string) (end entry, err error) {
	in, err := os.Open(log)
	if err != nil {
		return end, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	for _, path := range []string{indexPath(log), marksPath(log)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return end, err
		}
	}
	x, err := openIndexer(log, false)
	if err != nil {
		return end, err
	}
	end = entry{kind: endKind, line: 1}
	r := bufio.NewReaderSize(in, stampLen+maxLine+1)
	for {
		line, err := r.ReadSlice('\n')
		length := int64(len(line))
		for errors.Is(err, bufio.ErrBufferFull) { // an older log: only its beginning tells
			line = bytes.Clone(line)
			var rest []byte
			rest, err = r.ReadSlice('\n')
			length += int64(len(rest))
		}
		if errors.Is(err, io.EOF) {
			return end, x.finish(end)
		}
		if err != nil {
			return end, errors.Join(err, x.finish(end))
		}
		if t, ok := stampOf(line); ok && t.After(end.time) {
			end.time = t
		}
		x.add(end.line-1, end.offset, end.time, line)
		end.line, end.offset = end.line+1, end.offset+length
	}
}

// stampOf reads the time in front of a line.
func stampOf(line []byte) (time.Time, bool) {
	if len(line) < stampLen {
		return time.Time{}, false
	}
	t, err := time.Parse(timeLayout, string(line[:stampLen]))
	return t, err == nil
}

// view is a log as a reader sees it: complete, or up to now.
type view struct {
	log   *Log // nil when it is not being written here
	path  string
	end   entry // size, the number of the next line, time of the last
	grown <-chan struct{}
}

// view looks at a log. With wait it has a channel for more.
func (s *Store) view(k Key, wait bool) (*view, error) {
	v := &view{path: s.path(k)}
	if v.log = s.live(v.path); v.log != nil {
		v.refresh(wait)
		return v, nil
	}
	info, err := os.Stat(v.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("log of step %d: %w", k.Step, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	var ok bool
	if v.end, ok = lastEntry(v.path); ok && v.end.offset == info.Size() {
		return v, nil
	}
	s.rebuilding.Lock()
	defer s.rebuilding.Unlock()
	if v.end, ok = lastEntry(v.path); ok && v.end.offset <= info.Size() {
		return v, nil // somebody did it meanwhile
	}
	if v.end, err = rebuild(v.path); err != nil {
		return nil, fmt.Errorf("index log of step %d: %w", k.Step, err)
	}
	return v, nil
}

func (v *view) refresh(wait bool) {
	size, lines, last, grown := v.log.state(wait)
	v.end, v.grown = entry{line: lines + 1, offset: size, time: last}, grown
}

// lastEntry is the end of a complete index.
func lastEntry(log string) (entry, bool) {
	f, err := os.Open(indexPath(log))
	if err != nil {
		return entry{}, false
	}
	defer func() { _ = f.Close() }() // read only
	info, err := f.Stat()
	if err != nil || info.Size() < entryBytes || info.Size()%entryBytes != 0 {
		return entry{}, false
	}
	b := make([]byte, entryBytes)
	if _, err := f.ReadAt(b, info.Size()-entryBytes); err != nil {
		return entry{}, false
	}
	e := decode(b)
	return e, e.kind == endKind
}

// before finds the last block for which ok holds, or the beginning. ok holds
// for blocks up to some place and for none after.
func (v *view) before(ok func(entry) bool) entry {
	start := entry{line: 1}
	f, err := os.Open(indexPath(v.path))
	if err != nil {
		return start // slower, but right
	}
	defer func() { _ = f.Close() }() // read only
	info, err := f.Stat()
	if err != nil {
		return start
	}
	read := func(i int) entry {
		b := make([]byte, entryBytes)
		if _, err := f.ReadAt(b, int64(i)*entryBytes); err != nil {
			return entry{kind: endKind}
		}
		return decode(b)
	}
	n := int(info.Size() / entryBytes)
	i := sort.Search(n, func(i int) bool { e := read(i); return e.kind != blockKind || e.offset >= v.end.offset || !ok(e) })
	if i == 0 {
		return start
	}
	return read(i - 1)
}
