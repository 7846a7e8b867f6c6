package logs

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestFollow(t *testing.T) {
	s := NewStore(t.TempDir(), time.Now)
	k := Key{Run: 1, Attempt: 1, Job: 2, Step: 3}
	if _, err := s.Open(t.Context(), k, true); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no log: %v", err)
	}
	l, err := s.Create(k)
	if err != nil {
		t.Fatal(err)
	}
	l.Line("one")
	r, err := s.Open(t.Context(), k, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	lines := bufio.NewScanner(r)
	if !lines.Scan() || !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z one$`).MatchString(lines.Text()) {
		t.Fatalf("line %q", lines.Text())
	}
	go func() {
		l.Line("two")
		_ = l.Close()
	}()
	if !lines.Scan() || !strings.HasSuffix(lines.Text(), " two") || lines.Scan() {
		t.Errorf("second line %q, then %q", lines.Text(), lines.Err())
	}
	l.Line("late") // dropped, not a panic
	all, err := s.Open(t.Context(), k, true)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(all)
	if err != nil || strings.Count(string(data), "\n") != 2 {
		t.Errorf("complete log %q %v", data, err)
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	s := NewStore(t.TempDir(), time.Now)
	l, err := s.Create(Key{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := s.Open(ctx, Key{}, true)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
}
