package trace

import (
	"slices"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// weight orders stages that are busy at once: the time goes to the one that
// the commit was really waiting for. Work on a caused commit comes first.
var weight = map[journal.Stage]int{
	journal.StageImage: 7, journal.StageRun: 6, journal.StageApply: 5,
	journal.StagePlan: 4, journal.StageRender: 3, journal.StageReady: 2, journal.StagePush: 1,
}

// spent divides the time from start to end among the stages: each moment
// belongs to one.
func spent(all []placed, start, end time.Time) []Share {
	cuts := []time.Time{start, end}
	spans := slices.DeleteFunc(slices.Clone(all), func(p placed) bool { return p.Status == journal.StatusInfo })
	for i, p := range spans {
		if p.Open() {
			spans[i].End = end
		}
		for _, at := range []time.Time{spans[i].Start, spans[i].End} {
			if at.After(start) && at.Before(end) {
				cuts = append(cuts, at)
			}
		}
	}
	slices.SortFunc(cuts, time.Time.Compare)
	sums := map[journal.Stage]time.Duration{}
	for i := 1; i < len(cuts); i++ {
		if d := cuts[i].Sub(cuts[i-1]); d > 0 {
			sums[busiest(spans, cuts[i-1], cuts[i])] += d
		}
	}
	var out []Share
	for stage, d := range sums {
		out = append(out, Share{stage, Duration(d)})
	}
	slices.SortFunc(out, func(a, b Share) int {
		if a.Time != b.Time {
			return int(b.Time - a.Time)
		}
		return weight[b.Stage] - weight[a.Stage]
	})
	return out
}

// busiest is the stage that a stretch of time belongs to, "" for none.
func busiest(spans []placed, from, to time.Time) journal.Stage {
	var best placed
	found := false
	for _, p := range spans {
		if p.Start.After(from) || p.End.Before(to) {
			continue
		}
		if !found || p.depth > best.depth || p.depth == best.depth && weight[p.stage] > weight[best.stage] {
			best, found = p, true
		}
	}
	return best.stage
}
