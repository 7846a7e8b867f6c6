package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 11, 24, 4, 0, 0, 0, time.UTC)

// ticking is a clock that moves with each look; it may go back.
func ticking(steps ...time.Duration) func() time.Time {
	var mu sync.Mutex
	now, i := epoch, 0
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(steps[i%len(steps)])
		i++
		return now
	}
}

type test interface {
	Context() context.Context
	Fatal(...any)
}

func texts(t test, s *Store, k Key, r Range) (got []string) {
	for l, err := range s.Lines(t.Context(), k, r) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d %s", l.Number, l.Text))
	}
	return got
}

// TestRangesAreRight compares ranges by number, time and from the end with a
// plain list, for live logs, complete ones, and ones whose index is gone.
func TestRangesAreRight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "logs")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		s := NewStore(dir, ticking(time.Second, 3*time.Second, -2*time.Second))
		k := Key{Run: 1, Attempt: 1, Job: 1, Step: 1}
		l, err := s.Create(k)
		if err != nil {
			t.Fatal(err)
		}
		var all []Line
		clock, last := ticking(time.Second, 3*time.Second, -2*time.Second), time.Time{}
		for i := range rapid.IntRange(0, 120).Draw(t, "lines") {
			text := fmt.Sprintf("line %d %s", i, strings.Repeat("x", rapid.IntRange(0, 3000).Draw(t, "length")))
			if now := clock(); now.After(last) {
				last = now
			}
			l.Line(text)
			all = append(all, Line{int64(i + 1), last, text})
		}
		state := rapid.SampledFrom([]string{"live", "complete", "no index", "half line"}).Draw(t, "state")
		switch path := s.path(k); state {
		case "complete":
			err = l.Close()
		case "no index":
			err = errors.Join(l.Close(), os.Remove(indexPath(path)))
		case "half line": // a process that was killed
			err = appendTo(path, "2026-11-24T04:00:00.00")
			s = NewStore(dir, s.now)
		}
		if err != nil {
			t.Fatal(err)
		}
		r := Range{From: rapid.Int64Range(0, 130).Draw(t, "from"), To: rapid.Int64Range(0, 130).Draw(t, "to"), Tail: rapid.Int64Range(0, 20).Draw(t, "tail")}
		if rapid.Bool().Draw(t, "since") {
			r.Since = epoch.Add(time.Duration(rapid.IntRange(-5, 100).Draw(t, "seconds")) * time.Second)
		}
		var want []string
		for i, line := range all {
			if line.Number >= r.From && (r.To == 0 || line.Number <= r.To) && !line.Time.Before(r.Since) && (r.Tail == 0 || int64(len(all)-i) <= r.Tail) {
				want = append(want, fmt.Sprintf("%d %s", line.Number, line.Text))
			}
		}
		for range 2 { // the second time from the index that was made
			if got := texts(t, s, k, r); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s, %+v\n got %.200q\nwant %.200q", state, r, got, want)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// TestKilledWriter: another process goes on with a log whose writer was killed
// in the midst of a line.
func TestKilledWriter(t *testing.T) {
	dir, k := t.TempDir(), Key{Step: 1}
	first := NewStore(dir, time.Now)
	l, err := first.Create(k)
	if err != nil {
		t.Fatal(err)
	}
	l.Line("one")
	l.Line("##[group]two")
	if err := appendTo(first.path(k), "2026-11-24T04:00:00.0000000Z hal"); err != nil {
		t.Fatal(err)
	}
	second := NewStore(dir, time.Now)
	info, err := second.Stat(k)
	if err != nil || info.Lines != 2 || !info.Complete {
		t.Fatalf("%+v %v", info, err)
	}
	again, err := second.Create(k)
	if err != nil {
		t.Fatal(err)
	}
	again.Line("three")
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if got := texts(t, second, k, Range{}); !reflect.DeepEqual(got, []string{"1 one", "2 ##[group]two", "3 three"}) {
		t.Errorf("%q", got)
	}
	if marks, err := second.Marks(k, 1, 10); err != nil || !reflect.DeepEqual(marks, []Mark{{2, "group", "two"}}) {
		t.Errorf("%v %v", marks, err)
	}
}

func TestTooLongLog(t *testing.T) {
	s := NewStore(t.TempDir(), ticking(time.Second))
	s.StepBytes = 10_000
	l, err := s.Create(Key{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10_000 {
		l.Line(fmt.Sprintf("line %d", i))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	got := texts(t, s, Key{}, Range{})
	all := strings.Join(got, "\n")
	for _, want := range []string{"1 line 0\n", "longer than 10000 bytes", "were left out; the last 300 follow.", " line 9700\n", " line 9999"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%.3000s", want, all)
		}
	}
	info, err := s.Stat(Key{})
	if err != nil || info.Bytes > 10_000+300*60 || int(info.Lines) != len(got) {
		t.Errorf("%+v of %d lines, %v", info, len(got), err)
	}
}

// TestManyFollowers: everybody who follows sees every line once, in order, and
// ends when the log does.
func TestManyFollowers(t *testing.T) {
	s := NewStore(t.TempDir(), time.Now)
	l, err := s.Create(Key{})
	if err != nil {
		t.Fatal(err)
	}
	const lines = 2000
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if i%2 == 0 {
				r, err := s.Open(t.Context(), Key{}, true)
				if err != nil {
					t.Error(err)
					return
				}
				data, err := io.ReadAll(r)
				if n := bytes.Count(data, []byte("\n")); n != lines || err != nil || r.Close() != nil {
					t.Errorf("%d lines, %v", n, err)
				}
				return
			}
			next := int64(1)
			for line, err := range s.Lines(t.Context(), Key{}, Range{Follow: true}) {
				if err != nil || line.Number != next || line.Text != fmt.Sprint(next) {
					t.Errorf("%+v, %v, want line %d", line, err, next)
				}
				next++
			}
			if next != lines+1 {
				t.Errorf("ended before line %d", next)
			}
		})
	}
	for i := range lines {
		l.Line(fmt.Sprint(i + 1))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
}

func TestSearchAndMarks(t *testing.T) {
	s := NewStore(t.TempDir(), ticking(time.Second))
	l, err := s.Create(Key{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		switch {
		case i%10 == 0:
			l.Line(fmt.Sprintf("##[group]part %d", i/10))
		case i%10 == 9:
			l.Line("##[error]Failed with 2026-11")
		default:
			l.Line("plain")
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		query Query
		lines []int64
		next  int64
	}{
		{Query{Text: "2026-11", Limit: 2}, []int64{10, 20}, 21},
		{Query{Text: "2026-11", Limit: 2, From: 91}, []int64{100}, 0},
		{Query{Text: "failed WITH", IgnoreCase: true, From: 85}, []int64{90, 100}, 0},
		{Query{Expression: `part [12]$`}, []int64{11, 21}, 0},
		{Query{Text: "nowhere", MaxBytes: 100}, nil, 4},
		{Query{Text: "nowhere"}, nil, 0},
	} {
		found, err := s.Search(t.Context(), Key{}, c.query)
		var lines []int64
		for _, m := range found.Matches {
			lines = append(lines, m.Number)
		}
		if err != nil || !reflect.DeepEqual(lines, c.lines) || found.Next != c.next {
			t.Errorf("%+v: lines %v, next %d, %v", c.query, lines, found.Next, err)
		}
	}
	for _, q := range []Query{{}, {Text: "a", Expression: "b"}, {Expression: "("}} {
		if _, err := s.Search(t.Context(), Key{}, q); err == nil {
			t.Errorf("%+v is no error", q)
		}
	}
	marks, err := s.Marks(Key{}, 15, 2)
	if err != nil || !reflect.DeepEqual(marks, []Mark{{20, "error", "Failed with 2026-11"}, {21, "group", "part 2"}}) {
		t.Errorf("%v %v", marks, err)
	}
	if _, err := s.Marks(Key{Step: 9}, 1, 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no log: %v", err)
	}
}

func TestJobLog(t *testing.T) {
	s := NewStore(t.TempDir(), func() time.Time { return epoch })
	for step := 1; step <= 2; step++ {
		l, err := s.Create(Key{1, 1, 2, step})
		if err != nil {
			t.Fatal(err)
		}
		l.Line(fmt.Sprintf("step %d\nsecond line\r", step))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var b strings.Builder
	j := JobLog{1, 1, 2, "build", []StepLog{{1, "a"}, {2, "b/c"}, {3, "skipped"}}}
	if err := s.WriteJob(t.Context(), &b, j); err != nil {
		t.Fatal(err)
	}
	const stamp = "2026-11-24T04:00:00.0000000Z "
	if want := "\ufeff" + stamp + "step 1\n" + stamp + "second line\n" + stamp + "step 2\n" + stamp + "second line\n"; b.String() != want {
		t.Errorf("got %q", b.String())
	}
	if err := s.WriteRun(t.Context(), io.Discard, []JobLog{j}); err != nil {
		t.Error(err)
	}
	if got := fileName(`a/b: "c"?`); got != "ab c" {
		t.Errorf("file name %q", got)
	}
}

// TestLargeLogCostsLittle: what a page reads of a large log takes little memory.
func TestLargeLogCostsLittle(t *testing.T) {
	s, k := large(t, 32<<20)
	info, err := s.Stat(k)
	if err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func(){
		"tail":   func() { texts(t, s, k, Range{Tail: 50}) },
		"middle": func() { texts(t, s, k, Range{From: info.Lines / 2, To: info.Lines/2 + 50}) },
		"since":  func() { texts(t, s, k, Range{Since: info.Last}) },
		"search": func() { _, err = s.Search(t.Context(), k, Query{Text: "nowhere"}) },
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		read()
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 || err != nil {
			t.Errorf("%s of a log of %d MiB allocates %d KiB, %v", name, info.Bytes>>20, used>>10, err)
		}
	}
}

type folder interface {
	TempDir() string
	Fatal(...any)
}

// large makes a complete log of so many bytes.
func large(t folder, size int64) (*Store, Key) {
	s := NewStore(t.TempDir(), ticking(time.Second))
	s.StepBytes = 4 << 30
	l, err := s.Create(Key{})
	if err != nil {
		t.Fatal(err)
	}
	block := strings.Repeat("go: downloading github.com/acme/library v1.2.3, which is an ordinary line\n", 1000)
	for l.size < size {
		l.Line(block[:len(block)-1])
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return s, Key{}
}

func BenchmarkWrite(b *testing.B) {
	s := NewStore(b.TempDir(), time.Now)
	s.StepBytes = 1 << 40
	l, err := s.Create(Key{})
	if err != nil {
		b.Fatal(err)
	}
	line := "go: downloading github.com/acme/library v1.2.3, which is an ordinary line"
	b.SetBytes(int64(len(line) + stampLen + 1))
	for b.Loop() {
		l.Line(line)
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRead is of a log of 1 GiB.
func BenchmarkRead(b *testing.B) {
	s, k := large(b, 1<<30)
	info, err := s.Stat(k)
	if err != nil {
		b.Fatal(err)
	}
	run := func(name string, f func()) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
	run("stat", func() { _, _ = s.Stat(k) })
	run("tail", func() { texts(b, s, k, Range{Tail: 100}) })
	run("middle", func() { texts(b, s, k, Range{From: info.Lines / 2, To: info.Lines/2 + 100}) })
	run("since", func() { texts(b, s, k, Range{Since: info.Last}) })
	run("search", func() { _, _ = s.Search(b.Context(), k, Query{Text: "nowhere", MaxBytes: 1 << 40}) })
	run("rebuild", func() {
		if _, err := rebuild(s.path(k)); err != nil {
			b.Fatal(err)
		}
	})
}
