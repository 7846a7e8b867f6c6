package progress_test

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/lockstep-gitops/lockstep/internal/cli/progress"
)

func TestDone(t *testing.T) {
	failed := errors.New("broke")
	for name, tc := range map[string]struct {
		printer *progress.Printer
		took    time.Duration
		note    string
		err     error
		want    string
	}{
		"plain":        {&progress.Printer{}, 3210 * time.Millisecond, "", nil, "✓ network                               3.2s\n"},
		"note":         {&progress.Printer{}, 84 * time.Millisecond, "10.200.0.0/16", nil, "✓ network                               84ms  10.200.0.0/16\n"},
		"failed":       {&progress.Printer{}, 125 * time.Second, "waits", failed, "✗ network                              2m05s\n"},
		"colour":       {&progress.Printer{Color: true}, 0, "", nil, "\x1b[32m✓\x1b[0m network                                0ms\n"},
		"failed, red":  {&progress.Printer{Color: true}, 0, "", failed, "\x1b[31m✗\x1b[0m network                                0ms\n"},
		"live":         {&progress.Printer{Live: true}, 0, "", nil, "\r\x1b[K✓ network                                0ms\n"},
		"hostile note": {&progress.Printer{}, 0, "one\ntwo\x1b[2J", nil, "✓ network                                0ms  one two[2J\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			tc.printer.Writer = &out
			tc.printer.Done("network", tc.took, tc.note, tc.err)
			if out.String() != tc.want {
				t.Errorf("%q, want %q", out.String(), tc.want)
			}
		})
	}
}

func TestStepShowsOnlyItsEndInAFile(t *testing.T) {
	var out bytes.Buffer
	p := progress.Printer{Writer: &out}
	failed := errors.New("broke")
	err := p.Step(t.Context(), "push", func(_ context.Context, note func(string)) error {
		note("one")
		note("two")
		if out.Len() > 0 {
			t.Errorf("%q before the end", &out)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := p.Step(t.Context(), "ready", func(context.Context, func(string)) error { return failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
	if !regexp.MustCompile(`^✓ push +\dms  two\n✗ ready +\dms\n$`).Match(out.Bytes()) {
		t.Errorf("%q", &out)
	}
}

func TestStepIsWrittenOverOnATerminal(t *testing.T) {
	var out bytes.Buffer
	p := progress.Printer{Writer: &out, Live: true}
	long := strings.Repeat("ü", 200)
	if err := p.Step(t.Context(), "ready", func(_ context.Context, note func(string)) error {
		note("waits")
		note("waits")
		note(long)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(out.String(), "\r\x1b[K")
	if len(parts) != 5 || !strings.Contains(parts[2], "waits") || !strings.HasPrefix(parts[4], "✓ ready") {
		t.Errorf("%q", parts)
	}
	if n := utf8.RuneCountInString(parts[3]); n != 100 || !utf8.ValidString(parts[3]) {
		t.Errorf("a line of %d characters: %q", n, parts[3])
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0ms", 999 * time.Millisecond: "999ms", time.Second: "1.0s", 59900 * time.Millisecond: "59.9s", time.Minute: "1m00s", time.Hour + 61*time.Second: "61m01s",
	} {
		if got := progress.Duration(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
