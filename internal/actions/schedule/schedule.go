// Package schedule decides which job of a run goes next.
//
// Input: the jobs of a workflow with what they need, and how far each is.
// Output: the jobs that can be decided now, what status functions say for
// them, and the combinations of a matrix.
//
// Invariants: pure; a job is decided exactly when all its own needs are done,
// whatever else still runs.
//
// Start reading at [Graph], then [Combine]. Package cron has the clock.
package schedule

import (
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// Result is how a job ended; "" while it has not.
type Result string

// The results, in GitHub's words.
const (
	Success   Result = "success"
	Failure   Result = "failure"
	Cancelled Result = "cancelled"
	Skipped   Result = "skipped"
)

// Graph knows the jobs of one run.
type Graph struct {
	jobs    []*syntax.Job
	started map[string]bool
	results map[string]Result
}

// NewGraph starts with nothing done.
func NewGraph(jobs []*syntax.Job) *Graph {
	return &Graph{jobs: jobs, started: map[string]bool{}, results: map[string]Result{}}
}

// Next returns the jobs whose needs are all done and marks them as taken.
func (g *Graph) Next() []*syntax.Job {
	var out []*syntax.Job
	for _, j := range g.jobs {
		if g.started[key(j.ID)] || slices.ContainsFunc(j.Needs, func(n string) bool { return g.results[key(n)] == "" }) {
			continue
		}
		g.started[key(j.ID)] = true
		out = append(out, j)
	}
	return out
}

// Done records how a job ended.
func (g *Graph) Done(id string, r Result) { g.results[key(id)] = r }

// Finished reports whether every job has a result.
func (g *Graph) Finished() bool { return len(g.results) == len(g.jobs) }

// Result is how a job ended, or "".
func (g *Graph) Result(id string) Result { return g.results[key(id)] }

// Status answers success(), failure(), always() and cancelled() in the `if` of
// a job: they look at everything that the job needs, directly or not.
func (g *Graph) Status(j *syntax.Job, cancelled bool) func(string) bool {
	before := g.ancestors(j, map[string]bool{})
	count := func(r Result) (n int) {
		for id := range before {
			if g.results[id] == r {
				n++
			}
		}
		return n
	}
	return func(name string) bool {
		switch name {
		case "always":
			return true
		case "cancelled":
			return cancelled
		case "failure":
			return !cancelled && count(Failure) > 0
		}
		return !cancelled && count(Success) == len(before)
	}
}

func (g *Graph) ancestors(j *syntax.Job, into map[string]bool) map[string]bool {
	for _, n := range j.Needs {
		if into[key(n)] {
			continue
		}
		into[key(n)] = true
		for _, other := range g.jobs {
			if key(other.ID) == key(n) {
				g.ancestors(other, into)
			}
		}
	}
	return into
}

// Conclusion is how the whole run ended.
func (g *Graph) Conclusion(cancelled bool) Result {
	failed, ran := false, false
	for _, r := range g.results {
		failed = failed || r == Failure
		ran = ran || r == Success
		cancelled = cancelled || r == Cancelled
	}
	switch {
	case failed:
		return Failure
	case cancelled:
		return Cancelled
	case !ran:
		return Skipped
	}
	return Success
}

// Merge is the result of a job with several combinations.
func Merge(results []Result) Result {
	for _, r := range []Result{Failure, Cancelled, Success} {
		if slices.Contains(results, r) {
			return r
		}
	}
	return Skipped
}

func key(id string) string { return strings.ToLower(id) }
