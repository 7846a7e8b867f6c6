package application

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/apply"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

var (
	errSuperseded = fmt.Errorf("ended for a newer commit or sync: %w", apply.ErrTerminated)
	errDeleted    = fmt.Errorf("ended because the application is being deleted: %w", apply.ErrTerminated)
	errTerminated = fmt.Errorf("ended by hand: %w", apply.ErrTerminated)
	errWindow     = fmt.Errorf("ended with its sync window: %w", apply.ErrTerminated)
)

// operation is one sync under way. The goroutine that runs it writes the
// fields below mu; all others are set before it starts.
type operation struct {
	revision string // of all sources
	commit   string // for the journal
	params   string
	serial   int // of the render that it applies
	plan     *plan.Plan
	want     *rendered
	sources  []*v1alpha1.ApplicationSource
	wish     v1alpha1.Operation
	asked    bool // by the operation field; else automated sync began it
	retries  int64
	started  time.Time
	heals    string // the drift that it takes back
	cancel   context.CancelCauseFunc
	announce sync.Once // of its start, which is told when it takes longer
	resumed  *resumed  // nil unless an earlier process began it

	mu       sync.Mutex
	finished bool
	waits    bool
	at       time.Time
	err      error
	results  map[step]apply.Result
	order    []step
	message  string
	wrote    []*unstructured.Unstructured // the API server's answers
}

// step is an object in a phase: a hook may run in several.
type step struct {
	plan.Key
	phase plan.Phase
}

func (op *operation) report(r apply.Result) {
	op.mu.Lock()
	defer op.mu.Unlock()
	at := step{r.Key, r.Phase}
	if _, has := op.results[at]; !has {
		op.order = append(op.order, at)
	}
	op.results[at] = r
}

func (op *operation) done() bool {
	op.mu.Lock()
	defer op.mu.Unlock()
	return op.finished
}

// waiting reports whether the sync waits or waited for health.
func (op *operation) waiting() bool {
	op.mu.Lock()
	defer op.mu.Unlock()
	return op.waits
}

func (op *operation) counts() (written, pruned int) {
	op.mu.Lock()
	defer op.mu.Unlock()
	for _, r := range op.results {
		switch {
		case r.Err != nil || r.Skipped || r.Action == plan.None:
		case r.Action == plan.Prune:
			pruned++
		default:
			written++
		}
	}
	return written, pruned
}

// launch is what a sync is made of.
type launch struct {
	wish    v1alpha1.Operation
	asked   bool // by the operation field
	want    *rendered
	plan    *plan.Plan
	sources []*v1alpha1.ApplicationSource
	main    int
	heals   string
	retries int64
}

// launch runs a sync in a goroutine of its own.
func (p *pass) launch(ctx context.Context, l launch) {
	sync := l.wish.Sync
	options := p.options
	if len(sync.SyncOptions) > 0 {
		var warnings []plan.Warning
		options, warnings = plan.ParseOptions(sync.SyncOptions)
		p.warn(warnings)
	}
	run, cancel := context.WithCancelCause(p.life)
	op := &operation{
		revision: joinIDs(l.want.revisions), commit: l.want.revisions[min(l.main, len(l.want.revisions)-1)], params: p.st.params, serial: l.want.serial,
		plan: whole(l.plan), want: l.want, sources: l.sources, wish: l.wish, asked: l.asked, started: p.Now(), retries: l.retries,
		heals: l.heals, cancel: cancel, results: map[step]apply.Result{}, message: "syncing",
	}
	from := resumedFrom(p.resumes(l.wish.InitiatedBy.Automated, op.revision))
	if from != nil {
		op.started, op.resumed = from.started, from
	}
	p.setOperation(op)
	if sync.DryRun {
		op.finish(nil, p.Now(), fmt.Sprintf("dry run: %d to write, %d to prune", l.plan.Count(plan.Create, plan.Update), l.plan.Count(plan.Prune)))
		cancel(nil)
		p.queue.Add(p.key)
		return
	}
	// A sync that writes holds a token; one that waits does not.
	select {
	case p.active <- struct{}{}:
	case <-ctx.Done():
		cancel(nil)
		p.setOperation(nil)
		return
	}
	release := onlyOnce(func() { <-p.active })
	writer, err := p.writer()
	if err != nil {
		release()
		op.finish(err, p.Now(), "")
		cancel(nil)
		p.queue.Add(p.key)
		return
	}
	req := p.request(op, options, func(why string) { p.operationWaits(op, why, release) })
	cluster, key := p.cluster, p.key
	p.ops.Go(func() {
		defer cancel(nil)
		defer release()
		op.finish(apply.Run(run, writer, capture{cluster.Live, op}, req), p.Now(), "")
		p.queue.Add(key)
	})
	if !l.asked {
		p.quiet = true // most syncs end within moments: the status is written once
		p.queue.AddAfter(p.key, quietTime)
	}
}

// quietTime is how long an automated sync may run before the status tells of it.
const quietTime = time.Second

func (p *pass) setOperation(op *operation) {
	p.st.mu.Lock()
	defer p.st.mu.Unlock()
	p.st.op = op
}

// operationWaits tells that a sync waits for something; from its goroutine.
func (p *pass) operationWaits(op *operation, why string, release func()) {
	op.mu.Lock()
	op.message, op.waits = why, true
	op.mu.Unlock()
	release()
	op.announce.Do(func() { p.announceApply(op) })
	p.tellAt(op.commit, journal.Event{Stage: journal.StageApply, Status: journal.StatusWaiting, Message: why})
	p.queue.Add(p.key)
}

// announceApply tells of a sync that is under way for a while.
func (p *pass) announceApply(op *operation) {
	p.tellAt(op.commit, journal.Event{Time: op.started, Stage: journal.StageApply, Status: journal.StatusStarted, Message: fmt.Sprintf(
		"%d to write, %d to prune", op.plan.Count(plan.Create, plan.Update), op.plan.Count(plan.Prune))})
}

func onlyOnce(f func()) func() {
	var once sync.Once
	return func() { once.Do(f) }
}

// capture notes what the API server answers to the writes of a sync.
type capture struct {
	apply.Live
	op *operation
}

func (c capture) Wrote(o *unstructured.Unstructured) {
	c.Live.Wrote(o)
	c.op.mu.Lock()
	c.op.wrote = append(c.op.wrote, o)
	c.op.mu.Unlock()
}

// whole gives changes without objects stubs of them, for waits name and find
// objects by them.
func whole(pl *plan.Plan) *plan.Plan {
	out := &plan.Plan{Changes: slices.Clone(pl.Changes), Hooks: pl.Hooks, Warnings: pl.Warnings}
	for i, c := range out.Changes {
		if c.Desired == nil && c.Action != plan.Prune {
			out.Changes[i].Desired = stub(c.Key, c.Version)
			if c.IgnoreHealth {
				out.Changes[i].Desired.SetAnnotations(map[string]string{v1alpha1.AnnotationIgnoreHealth: "true"})
			}
		}
	}
	return out
}

func (op *operation) finish(err error, at time.Time, message string) {
	op.mu.Lock()
	op.finished, op.err, op.at = true, err, at
	op.mu.Unlock()
	written, pruned := op.counts()
	op.mu.Lock()
	defer op.mu.Unlock()
	switch {
	case err != nil:
		op.message = err.Error()
	case message != "":
		op.message = message
	default:
		op.message = fmt.Sprintf("successfully synced (%d applied, %d pruned)", written, pruned)
	}
}

// finishOperation takes in a sync that has ended.
func (p *pass) finishOperation() {
	st := p.st
	op := st.op
	if op == nil {
		return
	}
	st.state = op.state(&p.app)
	if !op.done() {
		return
	}
	if !op.wish.Sync.DryRun {
		p.applied(op)
		if !errors.Is(op.err, errSuperseded) {
			p.remember(op)
		}
		if op.err == nil {
			p.record(op)
			st.ready = readiness{commit: op.commit}
			if op.wish.InitiatedBy.Automated && op.heals != "" {
				st.drift = ""
			}
		}
	}
	p.setOperation(nil)
}

// takeAnswers learns from what a sync wrote. It comes before the comparison of
// the pass that sees its end.
func (p *pass) takeAnswers() {
	op := p.st.op
	if op == nil || !op.done() {
		return
	}
	op.mu.Lock()
	wrote := op.wrote
	op.wrote = nil
	op.mu.Unlock()
	for _, answer := range wrote {
		key := plan.KeyOf(answer)
		i := slices.IndexFunc(op.want.objects, func(d desired) bool { return d.key == key })
		if i < 0 {
			continue
		}
		d := op.want.objects[i]
		o, err := d.object()
		if err != nil {
			continue
		}
		left := plan.AcceptedOf(plan.Normalize(o.Unstructured), answer, p.FieldManager)
		if left == nil {
			delete(p.st.accepted, key)
			continue
		}
		if p.st.accepted == nil {
			p.st.accepted = map[plan.Key]accepted{}
		}
		p.st.accepted[key] = accepted{d.digest, left}
	}
}

func (op *operation) hookFailed() bool {
	op.mu.Lock()
	defer op.mu.Unlock()
	for _, r := range op.results {
		if hookFailed(r.Record()) {
			return true
		}
	}
	return false
}

func (p *pass) remember(op *operation) {
	last := attempt{commit: op.revision, params: op.params, phase: v1alpha1.PhaseSucceeded, at: op.at, heals: p.st.last.heals}
	if op.err != nil {
		last.phase = v1alpha1.PhaseFailed
		last.failures, last.why, last.hook = op.retries+1, op.err.Error(), op.hookFailed()
	}
	if p.st.last.commit != op.revision {
		last.heals = 0
	}
	if len(op.wish.Sync.Resources) > 0 && op.err == nil {
		return // the rest was not synced
	}
	p.st.last = last
}

// state is the operation as the status has it.
func (op *operation) state(app *v1alpha1.Application) *v1alpha1.OperationState {
	op.mu.Lock()
	defer op.mu.Unlock()
	s := &v1alpha1.OperationState{
		Operation: op.wish, Phase: v1alpha1.PhaseRunning, Message: op.message, StartedAt: metav1.NewTime(op.started), RetryCount: op.retries,
		SyncResult: &v1alpha1.SyncResult{},
	}
	if len(app.Spec.Sources) > 0 {
		s.SyncResult.Revisions, s.SyncResult.Sources = op.want.revisions, op.sources
	} else {
		s.SyncResult.Revision, s.SyncResult.Source = op.revision, op.sources[0]
	}
	if op.finished {
		at := metav1.NewTime(op.at)
		s.FinishedAt, s.Phase = &at, v1alpha1.PhaseSucceeded
		if op.err != nil {
			s.Phase = v1alpha1.PhaseFailed
		}
	}
	for _, k := range op.order {
		s.SyncResult.Resources = append(s.SyncResult.Resources, op.results[k].Record())
	}
	return s
}
