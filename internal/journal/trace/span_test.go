package trace

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

func TestSpans(t *testing.T) {
	spans := func(text string) []Span {
		return spansOf(journal.StageRender, script(t, text), start.Add(10*time.Second))
	}
	type row struct {
		Status   journal.Status
		From, To float64 // seconds; -1 is open
		Attempt  int
	}
	for name, tc := range map[string]struct {
		events string
		want   []row
	}{
		"two attempts": {"1 S render started a\n2 S render failed a\n3 S render started a\n4 S render succeeded a",
			[]row{{journal.StatusFailed, 1, 2, 1}, {journal.StatusSucceeded, 3, 4, 2}}},
		"open":                            {"1 S render started a", []row{{journal.StatusStarted, 1, -1, 1}}},
		"waiting then goes on":            {"1 S render waiting a\n2 S render started a", []row{{journal.StatusStarted, 1, -1, 1}}},
		"interrupted":                     {"1 S render started a\n2 S render started a", []row{{journal.StatusCancelled, 1, 2, 1}, {journal.StatusStarted, 2, -1, 2}}},
		"only an end":                     {"1 S render skipped a", []row{{journal.StatusSkipped, 1, 1, 1}}},
		"end that knows how long it took": {"3 S render succeeded a duration=500ms", []row{{journal.StatusSucceeded, 2.5, 3, 1}}},
		"end before start":                {"3 S render succeeded a\n1 S render started a", []row{{journal.StatusSucceeded, 1, 3, 1}}},
		"clock went back":                 {"3 S render started a\n1 S render succeeded a", []row{{journal.StatusSucceeded, 3, 3, 1}}},
		"interleaved": {"1 S render started a\n2 S render started b\n3 S render succeeded b\n4 S render failed a",
			[]row{{journal.StatusFailed, 1, 4, 1}, {journal.StatusSucceeded, 2, 3, 1}}},
		"two runs at once": {"1 S render started a run=1\n2 S render started a run=2\n3 S render failed a run=1\n4 S render succeeded a run=2",
			[]row{{journal.StatusFailed, 1, 3, 1}, {journal.StatusSucceeded, 2, 4, 2}}},
		"info alone":         {"1 S render info a", []row{{journal.StatusInfo, 1, 1, 1}}},
		"info after the end": {"1 S render started a\n2 S render succeeded a\n3 S render info a x=y", []row{{journal.StatusSucceeded, 1, 2, 1}}},
		"skipped":            {"1 S render started a\n2 S render skipped a | nothing changed", []row{{journal.StatusSkipped, 1, 2, 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []row
			for _, s := range spans(tc.events) {
				r := row{s.Status, s.Start.Sub(start).Seconds(), -1, s.Attempt}
				if !s.Open() {
					r.To = s.End.Sub(start).Seconds()
				}
				got = append(got, r)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
