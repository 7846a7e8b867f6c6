package execute

import (
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
)

// BenchmarkTrivialJob is a job with one step that prints a line: from Run to
// its end, and to the line.
func BenchmarkTrivialJob(b *testing.B) {
	w := newWorld(b)
	p := w.plan(nil, head+"      - run: echo the-line\n")
	p.Needs, p.Inputs = expr.NewObject(), expr.NewObject()
	var toLine time.Duration
	for b.Loop() {
		w.next++
		p.ID = w.next
		start, seen := time.Now(), false
		o := w.runCtx(b.Context(), p, func(line string) {
			if line == "the-line" && !seen {
				seen = true
				toLine += time.Since(start)
			}
		})
		if o.Failure != nil || !seen {
			b.Fatal(o.Failure, o.log())
		}
	}
	b.ReportMetric(float64(toLine.Milliseconds())/float64(b.N), "ms/first-line")
}
