// Package trace turns journal events into the story of a commit: when it was
// pushed, which workflow ran, which image came out, how each application was
// rendered, planned and applied, and when it became ready.
//
// Input: events ([Build]) or a journal and a commit ([Load]). Output: [Trace],
// a tree: a commit whose run pushed another one (write-back of an image
// digest) has that one as a child. [Render] draws it for a terminal.
//
// Invariants: Build is pure, and the same events and clock give the same
// trace; no event is lost: every attempt keeps a span of its own; an open span
// is never shown as finished.
//
// Start reading at [Trace], then [Build].
package trace

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// State says in one word where a trace stands.
type State string

// The states of a trace. Ready, Failed, Cancelled and Idle are settled: they
// change only if somebody does something new.
const (
	StatePending   State = "pending"   // a next step is expected and has not begun
	StateRunning   State = "running"   // something works
	StateWaiting   State = "waiting"   // something waits; Waiting says for what
	StateReady     State = "ready"     // every application that took the commit is ready
	StateFailed    State = "failed"    // Failed says where and why
	StateCancelled State = "cancelled" // a newer commit or a person ended it
	StateIdle      State = "idle"      // nothing has happened for a while and nothing is open
)

// Settled reports whether the state ends a wait.
func (s State) Settled() bool {
	switch s {
	case StateReady, StateFailed, StateCancelled, StateIdle:
		return true
	}
	return false
}

// idleAfter is how long a trace without open spans may expect a next step.
const idleAfter = 20 * time.Second

// Stages are the lanes in the order in which they are drawn.
var Stages = []journal.Stage{
	journal.StagePush, journal.StageRun, journal.StageImage,
	journal.StageRender, journal.StagePlan, journal.StageApply, journal.StageReady,
}

// Duration is a time.Duration that is milliseconds in JSON.
type Duration time.Duration

// MarshalJSON implements json.Marshaler.
func (d Duration) MarshalJSON() ([]byte, error) {
	return json.Marshal(float64(d) / float64(time.Millisecond))
}

// UnmarshalJSON implements json.Unmarshaler.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var ms float64
	if err := json.Unmarshal(b, &ms); err != nil {
		return err
	}
	*d = Duration(ms * float64(time.Millisecond))
	return nil
}

// Trace is the story of one commit and of the commits that it caused.
type Trace struct {
	Repo    string `json:"repo,omitempty"` // "owner/name"
	Commit  string `json:"commit"`         // full object id
	Ref     string `json:"ref,omitempty"`  // full name of the ref it was pushed to last
	Subject string `json:"subject,omitempty"`
	Author  string `json:"author,omitempty"` // the commit's author, else who pushed it
	Actor   string `json:"actor,omitempty"`  // who pushed it
	// Cause is the commit whose run pushed this one.
	Cause string `json:"cause,omitempty"`
	// LastID is the newest event in the tree: a cursor for following it.
	LastID int64  `json:"lastId"`
	Lanes  []Lane `json:"lanes"` // only lanes that have spans, in loop order
	// Children are the commits that this one caused, oldest first.
	Children []Trace `json:"children,omitempty"`

	State State  `json:"state"`
	Now   string `json:"now"` // one sentence: where it stands
	// Failed and Waiting say why a trace of that State stands where it does.
	Failed  *Reason `json:"failed,omitempty"`
	Waiting *Reason `json:"waiting,omitempty"`

	// Start is the push (or the first event), End the moment at which the tree
	// became ready or settled otherwise, or now while it is open. Total is the
	// time between, and Spent says where it went, the longest first.
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
	Total Duration  `json:"totalMs"`
	Spent []Share   `json:"spent,omitempty"`
}

// Lane holds the spans of one stage, by subject in order of appearance, each
// subject's attempts oldest first.
type Lane struct {
	Stage journal.Stage `json:"stage"`
	Spans []Span        `json:"spans"`
}

// Span is one attempt at one thing.
type Span struct {
	Subject  string            `json:"subject"`
	Status   journal.Status    `json:"status"`
	Start    time.Time         `json:"start"`
	End      time.Time         `json:"end,omitzero"` // zero while open
	Duration Duration          `json:"durationMs"`   // until now while open
	Attempt  int               `json:"attempt"`      // from 1, by subject
	Message  string            `json:"message,omitempty"`
	File     string            `json:"file,omitempty"`
	Line     int               `json:"line,omitempty"`
	Hint     string            `json:"hint,omitempty"`
	Data     map[string]string `json:"data,omitempty"`
}

// Open reports whether the span has not ended.
func (s Span) Open() bool { return s.End.IsZero() }

// Detail reports whether the span is a step within another span: views fold
// it away unless it failed or is open.
func (s Span) Detail() bool { return s.Data[journal.DataStep] != "" }

// Reason says where in the tree something stands and why.
type Reason struct {
	Commit  string        `json:"commit"`
	Stage   journal.Stage `json:"stage"`
	Subject string        `json:"subject"`
	Message string        `json:"message,omitempty"`
	File    string        `json:"file,omitempty"`
	Line    int           `json:"line,omitempty"`
	Hint    string        `json:"hint,omitempty"`
	Since   time.Time     `json:"since"`
}

// Share is the part of Total that one stage took, without the time in which a
// more specific stage was busy. An empty Stage is time in which nothing ran.
type Share struct {
	Stage journal.Stage `json:"stage,omitempty"`
	Time  Duration      `json:"ms"`
}

// Build makes the traces of all commits that events name, oldest first. The
// events are in journal order and may be of any mix of commits; those without
// a commit are left out. A commit whose cause is among them stands below it.
func Build(events []journal.Event, now time.Time) []Trace {
	byCommit := map[string][]journal.Event{}
	var order []string
	for _, e := range events {
		if e.Commit == "" {
			continue
		}
		if byCommit[e.Commit] == nil {
			order = append(order, e.Commit)
		}
		byCommit[e.Commit] = append(byCommit[e.Commit], e)
	}
	single := make(map[string]Trace, len(order))
	children := map[string][]string{}
	var roots []string
	for _, c := range order {
		t := one(c, byCommit[c], now)
		single[c] = t
		if t.Cause != "" && byCommit[t.Cause] != nil && !leadsTo(single, byCommit, t.Cause, c) {
			children[t.Cause] = append(children[t.Cause], c)
		} else {
			roots = append(roots, c)
		}
	}
	var assemble func(commit string) Trace
	assemble = func(commit string) Trace {
		t := single[commit]
		for _, c := range children[commit] {
			t.Children = append(t.Children, assemble(c))
		}
		t.yield()
		t.stand(now)
		return t
	}
	out := make([]Trace, len(roots))
	for i, c := range roots {
		out[i] = assemble(c)
	}
	return out
}

// leadsTo reports whether following causes from a commit arrives at target, so
// that a circle of causes (which only broken data has) is cut.
func leadsTo(single map[string]Trace, known map[string][]journal.Event, from, target string) bool {
	for range len(known) + 1 {
		if from == target {
			return true
		}
		t, ok := single[from]
		if !ok {
			from = causeOf(known[from])
		} else {
			from = t.Cause
		}
		if from == "" {
			return false
		}
	}
	return true
}

// causeOf is the cause that the last push among the events names.
func causeOf(events []journal.Event) string {
	for _, e := range slices.Backward(events) {
		if c := e.Data[journal.DataCause]; e.Stage == journal.StagePush && c != "" {
			return c
		}
	}
	return ""
}

// one makes the trace of a single commit, without children and standing.
func one(commit string, events []journal.Event, now time.Time) Trace {
	t := Trace{Commit: commit, Cause: causeOf(events), Start: events[0].Time}
	for _, e := range events {
		t.LastID = max(t.LastID, e.ID)
		if e.Time.Before(t.Start) {
			t.Start = e.Time
		}
		if t.Repo == "" || e.Stage == journal.StagePush {
			t.Repo = e.Repo
		}
		if e.Stage != journal.StagePush {
			continue
		}
		t.Ref, t.Actor = e.Data[journal.DataRef], e.Data[journal.DataActor]
		if t.Ref == "" {
			t.Ref = e.Subject
		}
		t.Subject, t.Author = e.Data[journal.DataSubject], e.Data[journal.DataAuthor]
		if t.Subject == "" && e.Message != t.Ref {
			t.Subject = e.Message
		}
		if t.Author == "" {
			t.Author = t.Actor
		}
	}
	for _, stage := range Stages {
		spans := spansOf(stage, events, now)
		for _, s := range spans {
			if s.Start.Before(t.Start) {
				t.Start = s.Start
			}
		}
		if len(spans) > 0 {
			t.Lanes = append(t.Lanes, Lane{stage, spans})
		}
	}
	return t
}

// ShortRef is a ref without its "refs/heads/" or "refs/tags/".
func ShortRef(ref string) string {
	return strings.TrimPrefix(strings.TrimPrefix(ref, "refs/heads/"), "refs/tags/")
}

// Short is the first seven digits of a commit.
func Short(commit string) string { return commit[:min(7, len(commit))] }
