package trace

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// interrupted is the message of a span whose writer died before it ended.
const interrupted = "interrupted: it was started again before it ended"

// spansOf folds the events of one stage of one commit into spans.
func spansOf(stage journal.Stage, events []journal.Event, now time.Time) []Span {
	f := folder{}
	for _, e := range events {
		if e.Stage == stage {
			f.add(e)
		}
	}
	var out []Span
	for _, key := range f.order {
		for i, s := range f.spans[key] {
			s.Attempt = i + 1
			end := s.End
			if s.Open() {
				end = now
			}
			s.Duration = Duration(max(0, end.Sub(s.Start)))
			out = append(out, s.Span)
		}
	}
	return out
}

// folder collects spans by what they are about.
type folder struct {
	order []string
	spans map[string][]folding
}

type folding struct {
	Span
	begun bool // an event opened it; a lone closing event does not
}

// key is what an attempt is an attempt at. A step has the subject of its job.
func key(subject string, data map[string]string) string {
	if step := data[journal.DataStep]; step != "" {
		return subject + "#" + step
	}
	return subject
}

func (f *folder) add(e journal.Event) {
	k := key(e.Subject, e.Data)
	if f.spans == nil {
		f.spans = map[string][]folding{}
	}
	if f.spans[k] == nil {
		f.order = append(f.order, k)
	}
	switch open := f.open(k, e.Data[journal.DataRun]); {
	case e.Status == journal.StatusStarted:
		f.start(k, open, e)
	case e.Status.Closes() && open != nil:
		open.take(e)
		open.Status, open.End = e.Status, later(e.Time, open.Start)
	case e.Status.Closes():
		s := folding{Span: Span{Subject: e.Subject, Status: e.Status, Start: e.Time, End: e.Time}}
		if d, err := time.ParseDuration(e.Data[journal.DataDuration]); err == nil && d > 0 && d < 24*time.Hour {
			s.Start = e.Time.Add(-d)
		}
		s.take(e)
		f.spans[k] = append(f.spans[k], s)
	case open != nil: // waiting or info
		open.take(e)
		if e.Status == journal.StatusWaiting {
			open.Status = e.Status
		}
	case e.Status == journal.StatusWaiting:
		f.begin(k, e)
	default:
		f.inform(k, e)
	}
}

// open is the newest open span of the key that belongs to the run, or nil.
func (f *folder) open(k, run string) *folding {
	spans := f.spans[k]
	for i := range slices.Backward(spans) {
		s := &spans[i]
		if had := s.Data[journal.DataRun]; s.Open() && (run == "" || had == "" || had == run) {
			return s
		}
	}
	return nil
}

// start opens a span. An open one is either one that only waited until now,
// and goes on, or one that a dead writer left.
func (f *folder) start(k string, open *folding, e journal.Event) {
	if open != nil && open.Status == journal.StatusWaiting {
		open.Status = journal.StatusStarted
		open.take(e)
		return
	}
	if open != nil {
		open.Status, open.End = journal.StatusCancelled, later(e.Time, open.Start)
		open.Message = interrupted
	}
	// The end may have been written before the start.
	if spans := f.spans[k]; open == nil && len(spans) > 0 {
		last := &spans[len(spans)-1]
		if !last.begun && last.Status != journal.StatusInfo && e.Time.Before(last.End) {
			last.Start, last.begun = e.Time, true
			return
		}
	}
	f.begin(k, e)
}

func (f *folder) begin(k string, e journal.Event) {
	s := folding{Span: Span{Subject: e.Subject, Status: e.Status, Start: e.Time}, begun: true}
	s.take(e)
	f.spans[k] = append(f.spans[k], s)
}

// inform adds what a lone info says: to the last span, whose outcome it does
// not change, or as a point of its own.
func (f *folder) inform(k string, e journal.Event) {
	if spans := f.spans[k]; len(spans) > 0 {
		last := &spans[len(spans)-1]
		if last.Status == journal.StatusInfo {
			last.End = later(e.Time, last.Start)
			last.take(e)
		} else {
			last.merge(e.Data)
		}
		return
	}
	s := folding{Span: Span{Subject: e.Subject, Status: e.Status, Start: e.Time, End: e.Time}}
	s.take(e)
	f.spans[k] = append(f.spans[k], s)
}

// take overwrites what the event knows better.
func (s *folding) take(e journal.Event) {
	if e.Message != "" || e.Status.Closes() {
		s.Message = e.Message
	}
	if e.File != "" {
		s.File, s.Line = e.File, e.Line
	}
	if e.Hint != "" {
		s.Hint = e.Hint
	}
	s.merge(e.Data)
}

func (s *folding) merge(data map[string]string) {
	if len(data) == 0 {
		return
	}
	if s.Data == nil {
		s.Data = make(map[string]string, len(data))
	}
	maps.Copy(s.Data, data)
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// within reports whether span a is a part of span b of the same lane: a step
// of a job, or a job of a run ("ci.yaml/build" of "ci.yaml").
func within(a, b Span) bool {
	if ra, rb := a.Data[journal.DataRun], b.Data[journal.DataRun]; ra != "" && rb != "" && ra != rb {
		return false
	}
	if a.Subject == b.Subject {
		return a.Detail() && !b.Detail()
	}
	return !b.Detail() && strings.HasPrefix(a.Subject, b.Subject+"/")
}

// group is what supersedes: a workflow in the lane of runs, an application in
// the lanes of the loop, the subject itself elsewhere.
func group(stage journal.Stage, s Span) string {
	switch stage {
	case journal.StageRun:
		workflow, _, _ := strings.Cut(s.Subject, "/")
		return workflow
	case journal.StageRender, journal.StagePlan, journal.StageApply, journal.StageReady:
		if app := s.Data[journal.DataApp]; app != "" {
			return app
		}
	}
	return s.Subject
}
