package application

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/apply"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// maxMessage bounds what one event says, in bytes.
const maxMessage = 2000

// tell leaves an event about the application at a commit. Events are written
// in their order, many at a time, by [Controller.writeEvents].
func (c *Controller) tell(key, repo, commit string, e journal.Event) {
	e.Repo, e.Commit = repo, commit
	if key != "" {
		e.Subject = key
		e.Data = withData(e.Data, journal.DataApp, key)
	}
	if e.Time.IsZero() {
		e.Time = c.Now()
	}
	if len(e.Message) > maxMessage {
		e.Message = strings.ToValidUTF8(e.Message[:maxMessage], "") + "…"
	}
	select {
	case c.outbox <- outgoing{event: e}:
	case <-c.silent: // after Run
	}
}

func withData(data map[string]string, key, value string) map[string]string {
	if data == nil {
		data = map[string]string{}
	}
	data[key] = value
	return data
}

const (
	eventBatch   = 500
	eventTimeout = 10 * time.Second
)

// outgoing is an event on its way to the journal, or a question whether those
// before it have arrived.
type outgoing struct {
	event   journal.Event
	arrived chan<- struct{}
}

// Flush returns when every event told so far is in the journal, or with the
// error of ctx.
func (c *Controller) Flush(ctx context.Context) error {
	arrived := make(chan struct{})
	select {
	case c.outbox <- outgoing{arrived: arrived}:
	case <-c.silent:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flush events: %w", context.Cause(ctx))
	}
	select {
	case <-arrived:
		return nil
	case <-c.silent:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flush events: %w", context.Cause(ctx))
	}
}

// writeEvents writes what tell leaves, until ended and nothing is left. The
// journal is not worth failing a sync for, so its errors are logged.
func (c *Controller) writeEvents(ended <-chan struct{}) {
	for {
		var batch []outgoing
		select {
		case first := <-c.outbox:
			batch = append(batch, first)
		case <-ended:
			if len(c.outbox) == 0 {
				return
			}
		}
		for len(batch) < eventBatch && len(c.outbox) > 0 {
			batch = append(batch, <-c.outbox)
		}
		c.write(batch)
	}
}

func (c *Controller) write(batch []outgoing) {
	var events []journal.Event
	for _, o := range batch {
		if o.arrived == nil {
			events = append(events, o.event)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), eventTimeout)
	defer cancel()
	if len(events) > 0 {
		if _, err := c.Journal.AppendAll(ctx, events); err != nil {
			c.Log.Error("write to the journal", "events", len(events), "error", err)
		}
	}
	for _, o := range batch {
		if o.arrived != nil {
			close(o.arrived)
		}
	}
}

func (p *pass) tellAt(commit string, e journal.Event) {
	p.tell(p.key, p.st.repo(), commit, e)
}

// news reports whether the journal has not seen the commit yet.
func (p *pass) news(commit string) bool { return p.st.announced != commit }

func (p *pass) announceRender(commit string, r *rendered) {
	if !p.news(commit) {
		return
	}
	if r.err != nil {
		p.tellAt(commit, failed(journal.StageRender, r.err))
		if r.fault == nil { // else it is tried again, and that is told too
			p.st.announced = commit
		}
		return
	}
	files := 0
	for _, in := range r.inputs {
		files += render.Files(in)
	}
	p.tellAt(commit, journal.Event{Stage: journal.StageRender, Status: journal.StatusSucceeded, Data: lasted(r.took), Message: fmt.Sprintf("%s from %s by %s in %s",
		plural(len(r.objects), "object"), plural(files, "file"), toolsOf(r), r.took.Round(time.Millisecond))})
}

// lasted is the data of an event that closes what had no event of its start,
// for it took only moments.
func lasted(d time.Duration) map[string]string {
	return map[string]string{journal.DataDuration: d.Round(100 * time.Microsecond).String()}
}

func toolsOf(r *rendered) string {
	var names []string
	for _, t := range r.tools {
		if t != "" && !slices.Contains(names, string(t)) {
			names = append(names, string(t))
		}
	}
	return strings.Join(names, " and ")
}

// failed is the event of an error, with the place where the input is bad.
func failed(stage journal.Stage, err error) journal.Event {
	e := journal.Event{Stage: stage, Status: journal.StatusFailed, Message: err.Error()}
	var bad *manifest.Error
	if errors.As(err, &bad) {
		e.Message, e.File, e.Line, e.Hint = bad.Message, bad.File, bad.Line, bad.Hint
	}
	return e
}

func (p *pass) announcePlan(commit string, pl *plan.Plan) {
	if !p.news(commit) {
		p.announceDrift(commit, pl)
		return
	}
	p.st.announced = commit
	changed := pl.Count(plan.Create, plan.Update, plan.Prune)
	msg := fmt.Sprintf("%d of %s %s", changed, plural(len(pl.Changes), "object"), map[bool]string{true: "changes", false: "change"}[changed == 1])
	if parts := join(counted(pl, plan.Create, "to create"), counted(pl, plan.Update, "to update"), counted(pl, plan.Prune, "to prune")); parts != "" {
		msg += ": " + parts
	}
	p.tellAt(commit, journal.Event{Stage: journal.StagePlan, Status: journal.StatusSucceeded, Message: msg})
	p.st.drift = ""
	if changed == 0 {
		p.tellAt(commit, journal.Event{Stage: journal.StageApply, Status: journal.StatusSkipped, Message: "live objects are as the commit wants them"})
		p.st.ready = readiness{commit: commit}
		return
	}
	if !automated(&p.app) && p.app.Operation == nil {
		p.tellAt(commit, journal.Event{Stage: journal.StageApply, Status: journal.StatusWaiting,
			Message: "waits for somebody to sync: spec.syncPolicy.automated is off"})
	}
}

func counted(pl *plan.Plan, a plan.Action, what string) string {
	if n := pl.Count(a); n > 0 {
		return fmt.Sprintf("%d %s", n, what)
	}
	return ""
}

// announceDrift tells once when live objects left a commit that was synced.
func (p *pass) announceDrift(commit string, pl *plan.Plan) {
	st := p.st
	if st.op != nil || st.last.commit != p.revision() || st.last.phase != v1alpha1.PhaseSucceeded {
		return
	}
	drift := driftOf(pl)
	if drift == st.drift {
		return
	}
	st.drift = drift
	if drift == "" {
		return
	}
	p.tellAt(commit, journal.Event{Stage: journal.StagePlan, Status: journal.StatusInfo, Message: "drift: " + drift})
}

// driftOf says which objects differ, in which field, by whom. It has no
// values: they may be secrets.
func driftOf(pl *plan.Plan) string {
	var parts []string
	for _, ch := range pl.Changes {
		if ch.InSync() || ch.Action == plan.Prune && ch.Kept != "" {
			continue
		}
		if len(parts) == 5 {
			parts = append(parts, "…")
			break
		}
		switch {
		case ch.Action == plan.Create:
			parts = append(parts, ch.Key.String()+" is gone")
		case ch.Action == plan.Prune:
			parts = append(parts, ch.Key.String()+" is not in the source")
		case len(ch.Differences) > 0:
			d := ch.Differences[0]
			part := fmt.Sprintf("%s: %s %s", ch.Key, d.Path, d.Why)
			if n := len(ch.Differences) - 1; n > 0 {
				part += fmt.Sprintf(" (and %s)", plural(n, "more field"))
			}
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "; ")
}

// announceHealth keeps the ready lane of the commit that was applied last.
func (p *pass) announceHealth(code v1alpha1.HealthCode, message string, objects int) {
	r := &p.st.ready
	if r.commit == "" || p.st.op != nil && p.st.op.commit != r.commit {
		return
	}
	e := journal.Event{Stage: journal.StageReady, Status: journal.StatusWaiting, Message: message}
	switch code {
	case v1alpha1.HealthHealthy, v1alpha1.HealthSuspended:
		e.Status, e.Message = journal.StatusSucceeded, strings.ToLower(string(code))+": "+plural(objects, "object")
	case v1alpha1.HealthDegraded:
		e.Status = journal.StatusFailed
	}
	told := string(e.Status) + " " + e.Message
	if told == r.told {
		return
	}
	if r.told == "" && e.Status != journal.StatusSucceeded {
		p.tellAt(r.commit, journal.Event{Stage: journal.StageReady, Status: journal.StatusStarted})
	}
	r.told = told
	p.tellAt(r.commit, e)
}

func toldHealthy(objects int) string {
	return string(journal.StatusSucceeded) + " healthy: " + plural(objects, "object")
}

// applied closes the apply lane of an operation.
func (p *pass) applied(op *operation) {
	written, pruned := op.counts()
	e := journal.Event{Stage: journal.StageApply, Status: journal.StatusSucceeded, Data: lasted(op.at.Sub(op.started)), Message: join(fmt.Sprintf("%d applied", written), fmt.Sprintf("%d pruned", pruned))}
	if op.heals != "" {
		e.Message += "; healed drift: " + op.heals
	}
	var objects *apply.Error
	switch err := op.err; {
	case err == nil:
	case errors.Is(err, errSuperseded), errors.Is(err, errDeleted), errors.Is(err, errTerminated):
		e.Status, e.Message = journal.StatusCancelled, err.Error()
	case errors.As(err, &objects):
		first := objects.Failed[0]
		e.Status, e.Message = journal.StatusFailed, err.Error()
		e.File, e.Line = placeOf(first.Place)
	default:
		e.Status, e.Message = journal.StatusFailed, err.Error()
	}
	p.tellAt(op.commit, e)
}

func placeOf(place string) (file string, line int) {
	i := strings.LastIndexByte(place, ':')
	if i < 0 {
		return place, 0
	}
	if _, err := fmt.Sscanf(place[i+1:], "%d", &line); err != nil {
		return place, 0
	}
	return place[:i], line
}
