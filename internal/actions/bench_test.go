package actions

import (
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// BenchmarkTrivialJob is from the event of a push to the first line of the log
// of its only step, and to the end of the run.
func BenchmarkTrivialJob(b *testing.B) {
	w := newWorldWith(b, &world{})
	commit := w.push("x", map[string]string{".github/workflows/ci.yml": "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo hi\n"})
	w.ended(commit, "ci.yml")
	var line, end time.Duration
	for b.Loop() {
		last, _ := w.journal.Last(b.Context())
		started := time.Now()
		w.tellPush(commit, "ann")
		e := w.event(last, func(e journal.Event) bool { return e.Subject == "ci.yml" && e.Status.Closes() })
		end += time.Since(started)
		runs, err := w.engine.Runs(b.Context(), Filter{Limit: 1})
		if err != nil || e.Status != journal.StatusSucceeded {
			b.Fatal(e, err)
		}
		r, err := w.engine.GetRun(b.Context(), runs[0].ID)
		if err != nil {
			b.Fatal(err)
		}
		line += r.Jobs[0].Steps[1].Ended.Sub(started)
	}
	b.ReportMetric(float64(line.Milliseconds())/float64(b.N), "ms/line")
	b.ReportMetric(float64(end.Milliseconds())/float64(b.N), "ms/run")
}

// BenchmarkHundredJobs is a hundred pushes at once, each with one trivial job.
func BenchmarkHundredJobs(b *testing.B) {
	w := newWorldWith(b, &world{})
	commit := w.push("x", map[string]string{".github/workflows/ci.yml": "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo hi\n"})
	w.ended(commit, "ci.yml")
	for b.Loop() {
		last, _ := w.journal.Last(b.Context())
		for range 100 {
			w.tellPush(commit, "ann")
		}
		ended := 0
		w.event(last, func(e journal.Event) bool {
			if e.Subject == "ci.yml" && e.Status.Closes() {
				ended++
			}
			return ended == 100
		})
	}
}
