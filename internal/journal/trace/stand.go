package trace

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// placed is a span with its place in the tree.
type placed struct {
	Span
	stage  journal.Stage
	commit string
	depth  int
	order  int // position of the stage
}

func (t *Trace) placed(depth int) []placed {
	var out []placed
	for _, l := range t.Lanes {
		for _, s := range l.Spans {
			out = append(out, placed{s, l.Stage, t.Commit, depth, slices.Index(Stages, l.Stage)})
		}
	}
	for i := range t.Children {
		out = append(out, t.Children[i].placed(depth+1)...)
	}
	return out
}

func (p placed) reason() *Reason {
	since := p.Start
	if !p.Open() {
		since = p.End
	}
	return &Reason{p.commit, p.stage, p.Subject, p.Message, p.File, p.Line, p.Hint, since}
}

// stand fills in State, Now, Failed, Waiting and the times of a trace whose
// children stand already.
func (t *Trace) stand(now time.Time) {
	all := t.placed(0)
	for _, c := range t.Children {
		t.LastID = max(t.LastID, c.LastID)
	}
	last := t.Start
	var failed, open, cancelled, ready []placed
	for _, p := range all {
		last = later(later(p.End, p.Start), last)
		if p.superseded(all) {
			continue
		}
		switch {
		case p.Open():
			open = append(open, p)
		case p.Status == journal.StatusFailed && !p.tolerated(all):
			failed = append(failed, p)
		case p.Status == journal.StatusCancelled && !p.tolerated(all):
			cancelled = append(cancelled, p)
		case p.stage == journal.StageReady && p.Status == journal.StatusSucceeded:
			ready = append(ready, p)
		}
	}
	t.End = now
	switch {
	case len(failed) > 0:
		t.fail(slices.MinFunc(failed, worse))
	case len(open) > 0:
		t.goOn(slices.MaxFunc(open, current), now)
	case len(cancelled) > 0 && len(ready) == 0:
		c := slices.MaxFunc(cancelled, current)
		t.State, t.End = StateCancelled, c.End
		t.Now = sentence(fmt.Sprintf("Cancelled in %s", where(c)), c.Message)
	case t.leavesReady():
		t.arrive(all, ready)
	case now.Sub(last) >= idleAfter:
		t.State, t.End = StateIdle, last
		t.Now = fmt.Sprintf("Nothing has happened since %s, %s ago: no application took this commit.", t.lastStage(), Format(now.Sub(last)))
		if why := skips(all); why != "" {
			t.Now = sentence("No application took this commit", why)
		}
	default:
		t.State = StatePending
		t.Now = fmt.Sprintf("After %s: nothing has picked it up yet, for %s.", t.lastStage(), Format(now.Sub(last)))
	}
	t.Total = Duration(max(0, t.End.Sub(t.Start)))
	t.Spent = spent(all, t.Start, t.End)
}

// leavesReady reports whether each commit at the end of the chain was taken by
// an application and is ready.
func (t *Trace) leavesReady() bool {
	for i := range t.Children {
		if !t.Children[i].leavesReady() {
			return false
		}
	}
	if len(t.Children) > 0 {
		return true
	}
	for _, l := range t.Lanes {
		if l.Stage == journal.StageReady {
			return slices.ContainsFunc(l.Spans, func(s Span) bool { return s.Status == journal.StatusSucceeded })
		}
	}
	return false
}

func (t *Trace) fail(p placed) {
	t.State, t.Failed, t.End = StateFailed, p.reason(), p.End
	at := ""
	if p.File != "" {
		at = position(p.File, p.Line) + ": "
	}
	t.Now = sentence(fmt.Sprintf("Failed in %s, %s after the push", where(p), Format(p.End.Sub(t.Start))), at+p.Message)
}

func (t *Trace) goOn(p placed, now time.Time) {
	if p.Status == journal.StatusWaiting {
		t.State, t.Waiting = StateWaiting, p.reason()
		t.Now = sentence(fmt.Sprintf("Waiting in %s for %s", where(p), Format(now.Sub(p.Start))), p.Message)
		return
	}
	t.State = StateRunning
	t.Now = sentence(fmt.Sprintf("In %s for %s", where(p), Format(now.Sub(p.Start))), p.Message)
}

// arrive ends the trace when the last application became ready for the first
// time; what is written later (a drift put right) does not count.
func (t *Trace) arrive(all, ready []placed) {
	var names []string
	t.End = t.Start
	deepest := placed{commit: t.Commit}
	for _, r := range ready {
		first := r.End
		for _, p := range all {
			if p.stage == r.stage && p.Status == r.Status && p.Subject == r.Subject && p.commit == r.commit && p.End.Before(first) {
				first = p.End
			}
		}
		t.End = later(first, t.End)
		if !slices.Contains(names, r.Subject) {
			names = append(names, r.Subject)
		}
		if r.depth > deepest.depth {
			deepest = r
		}
	}
	verb := "is"
	if len(names) > 1 {
		verb = "are"
	}
	t.State = StateReady
	t.Now = fmt.Sprintf("%s %s ready at %s, %s after the push.", list(names), verb, Short(deepest.commit), Format(t.End.Sub(t.Start)))
}

// lastStage names what happened last in the tree.
func (t *Trace) lastStage() string {
	if n := len(t.Children); n > 0 {
		return t.Children[n-1].lastStage()
	}
	if n := len(t.Lanes); n > 0 {
		return fmt.Sprintf("%s of %s", t.Lanes[n-1].Stage, Short(t.Commit))
	}
	return "push of " + Short(t.Commit)
}

// cause orders stages by what breaks what: an image is built within a run.
func cause(p placed) int {
	if p.stage == journal.StageImage {
		return slices.Index(Stages, journal.StagePush)
	}
	return p.order
}

// worse orders failures: the first stage, then the one that names a file, then
// the most specific.
func worse(a, b placed) int {
	return cmp.Or(cmp.Compare(a.depth, b.depth), cmp.Compare(cause(a), cause(b)),
		-cmp.Compare(min(1, len(a.File)), min(1, len(b.File))),
		-cmp.Compare(len(key(a.Subject, a.Data)), len(key(b.Subject, b.Data))), a.End.Compare(b.End))
}

// current orders open spans: deeper commits, later stages, more specific work.
func current(a, b placed) int {
	return cmp.Or(cmp.Compare(a.depth, b.depth), cmp.Compare(a.order, b.order),
		cmp.Compare(len(key(a.Subject, a.Data)), len(key(b.Subject, b.Data))), a.Start.Compare(b.Start))
}

func where(p placed) string {
	return fmt.Sprintf("%s of %s", p.stage, p.Subject)
}

func position(file string, line int) string {
	if line > 0 {
		return fmt.Sprintf("%s:%d", file, line)
	}
	return file
}

// sentence joins a fact and its reason and ends them with one full stop.
func sentence(fact, why string) string {
	if why != "" {
		fact += ": " + why
	}
	return strings.TrimSuffix(fact, ".") + "."
}

func list(names []string) string {
	const most = 3
	switch n := len(names); {
	case n == 0:
		return "Everything"
	case n > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n-most)
	case n > 1:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
	return names[0]
}
