package application

import (
	"context"
	"errors"
	"fmt"
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
	errSuperseded = errors.New("ended for a newer commit or sync")
	errDeleted    = errors.New("ended because the application is being deleted")
)

// operation is one sync under way. The goroutine that runs it writes the
// fields below mu; all others are set before it starts.
type operation struct {
	commit, params string
	serial         int // of the render that it applies
	plan           *plan.Plan
	wish           v1alpha1.Operation
	retries        int64
	started        time.Time
	heals          string // the drift that it takes back
	cancel         context.CancelCauseFunc

	mu       sync.Mutex
	finished bool
	at       time.Time
	err      error
	results  map[plan.Key]apply.Result
	order    []plan.Key
	message  string
}

func (op *operation) report(r apply.Result) {
	op.mu.Lock()
	defer op.mu.Unlock()
	if _, has := op.results[r.Key]; !has {
		op.order = append(op.order, r.Key)
	}
	op.results[r.Key] = r
}

func (op *operation) done() bool {
	op.mu.Lock()
	defer op.mu.Unlock()
	return op.finished
}

func (op *operation) counts() (written, pruned int) {
	op.mu.Lock()
	defer op.mu.Unlock()
	for _, r := range op.results {
		switch {
		case r.Err != nil || r.Skipped:
		case r.Action == plan.Prune:
			pruned++
		default:
			written++
		}
	}
	return written, pruned
}

// startOperation begins the sync that is asked for or due, if any.
func (p *pass) startOperation(ctx context.Context) {
	st := p.st
	wish := p.app.Operation
	if op := st.op; op != nil {
		newer := p.plan != nil && st.rendered != nil && st.rendered.serial != op.serial
		if op.wish.InitiatedBy.Automated && (wish != nil || newer) {
			op.cancel(errSuperseded) // its end brings the next pass
		}
		return
	}
	if wish == nil && p.interrupted() {
		resumed := p.app.Status.OperationState.Operation
		wish = &resumed
	}
	if wish != nil {
		p.takeOp = true
		p.startWished(ctx, *wish)
		return
	}
	p.startAutomated(ctx)
}

// interrupted reports whether an earlier process was in the middle of a sync
// that somebody asked for.
func (p *pass) interrupted() bool {
	s := p.app.Status.OperationState
	return s != nil && p.st.state == nil && s.Phase == v1alpha1.PhaseRunning && !s.Operation.InitiatedBy.Automated && s.Operation.Sync != nil
}

func (p *pass) startWished(ctx context.Context, wish v1alpha1.Operation) {
	refuse := func(format string, args ...any) {
		now := metav1.NewTime(p.Now())
		p.st.state = &v1alpha1.OperationState{Operation: wish, Phase: v1alpha1.PhaseError, Message: fmt.Sprintf(format, args...), StartedAt: now, FinishedAt: &now}
	}
	sync := wish.Sync
	switch {
	case sync == nil:
		refuse("the operation is not a sync; nothing else is carried out")
		return
	case len(sync.Manifests) > 0 || sync.Source != nil || len(sync.Sources) > 0 || len(sync.Revisions) > 1:
		refuse("operation.sync: manifests, source and sources are not carried out; set revision")
		return
	case p.failure != nil:
		refuse("%v", p.failure)
		return
	}
	commit, pl := p.st.commit, p.plan
	if sync.Revision != "" {
		asked, err := p.st.repo.Resolve(ctx, sync.Revision)
		if err != nil {
			refuse("operation.sync.revision: %v", err)
			return
		}
		if asked != commit {
			if automated(&p.app) {
				refuse("cannot sync to %s: automated sync would bring %s back; turn spec.syncPolicy.automated off first, or revert the commit", short(asked), short(commit))
				return
			}
			if pl, err = p.planAt(ctx, asked, false); err != nil {
				refuse("%v", err)
				return
			}
			commit = asked
		}
	}
	p.launch(ctx, wish, commit, pl, "")
}

// automated reports whether the application syncs by itself.
func automated(app *v1alpha1.Application) bool {
	policy := app.Spec.SyncPolicy
	return policy != nil && policy.Automated != nil && (policy.Automated.Enabled == nil || *policy.Automated.Enabled)
}

func (p *pass) startAutomated(ctx context.Context) {
	if p.plan == nil || !automated(&p.app) || p.plan.InSync() {
		return
	}
	auto := p.app.Spec.SyncPolicy.Automated
	actions := []plan.Action{plan.Create, plan.Update}
	if auto.Prune {
		actions = append(actions, plan.Prune)
	}
	if p.plan.Count(actions...) == 0 {
		return
	}
	if auto.Prune && !auto.AllowEmpty && p.plan.Count(plan.Prune) == len(p.plan.Changes) {
		p.condition(v1alpha1.ConditionSyncError, fmt.Sprintf(
			"the source has no objects: automated sync would delete all %d; set spec.syncPolicy.automated.allowEmpty if that is meant", len(p.plan.Changes)))
		return
	}
	retries, heals, wait := p.due(auto)
	if wait < 0 {
		return
	}
	if wait > 0 {
		p.queue.AddAfter(p.key, wait)
		p.announceRetry(ctx, retries, wait)
		return
	}
	p.setRetry(time.Time{})
	p.st.last.heals = heals
	drift := ""
	if heals > 0 {
		drift = driftOf(p.plan)
	}
	p.launch(ctx, v1alpha1.Operation{
		Sync:        &v1alpha1.SyncOperation{Revision: p.st.commit, Prune: auto.Prune, AutoHealAttemptsCount: int64(heals)},
		InitiatedBy: v1alpha1.Initiator{Automated: true},
	}, p.st.commit, p.plan, drift)
	p.st.op.retries = retries
}

func (p *pass) setRetry(at time.Time) {
	p.st.mu.Lock()
	defer p.st.mu.Unlock()
	p.st.retryAt = at
}

// announceRetry says once per failure when the next attempt comes.
func (p *pass) announceRetry(ctx context.Context, failures int64, wait time.Duration) {
	p.setRetry(p.Now().Add(wait))
	if failures == 0 || p.st.last.told {
		return
	}
	p.st.last.told = true
	p.tellAt(ctx, p.st.commit, journal.Event{Stage: journal.StageApply, Status: journal.StatusWaiting, Message: fmt.Sprintf(
		"tries again in %s (attempt %d); a newer commit ends the wait", wait.Round(time.Second), failures+1)})
}

const (
	healBackoff = 2 * time.Second
	healFactor  = 3
	healMax     = 300 * time.Second
	healForget  = 10 * time.Minute // drift after this long counts from one again
)

// due says how long to wait for the next automated attempt: 0 is now, less is
// not at all. It also returns what the attempt counts as.
func (p *pass) due(auto *v1alpha1.Automated) (retries int64, heals int, wait time.Duration) {
	last, now := p.st.last, p.Now()
	if last.commit != p.st.commit || last.params != p.st.params {
		return 0, 0, 0
	}
	until := func(at time.Time) time.Duration { return max(0, at.Sub(now)) }
	switch last.phase {
	case v1alpha1.PhaseSucceeded:
		if !auto.SelfHeal {
			return 0, 0, -1
		}
		heals = last.heals + 1
		if now.Sub(last.at) > healForget {
			heals = 1
		}
		pause := time.Duration(0)
		for i := 1; i < heals; i++ {
			pause = min(max(healBackoff, pause*healFactor), healMax)
		}
		return 0, heals, until(last.at.Add(pause))
	case v1alpha1.PhaseFailed, v1alpha1.PhaseError:
		limit, pause := retryPolicy(p.app.Spec.SyncPolicy.Retry, last.failures)
		if limit >= 0 && last.failures > limit {
			if !auto.SelfHeal {
				p.condition(v1alpha1.ConditionSyncError, fmt.Sprintf("commit %s failed %d times and is not tried again; push a fix, or sync by hand", short(last.commit), last.failures))
				return 0, 0, -1
			}
			pause = healMax
		}
		return last.failures, last.heals, until(last.at.Add(pause))
	}
	return 0, 0, 0
}

// retryPolicy returns the limit of retries (-1 for none) and the wait before
// the one after n failures.
func retryPolicy(r *v1alpha1.Retry, n int64) (limit int64, wait time.Duration) {
	limit, wait, factor, longest := int64(5), 5*time.Second, int64(2), 3*time.Minute
	if r != nil {
		limit = r.Limit
		if b := r.Backoff; b != nil {
			if d, err := time.ParseDuration(b.Duration); err == nil && d > 0 {
				wait = d
			}
			if b.Factor != nil && *b.Factor > 0 {
				factor = *b.Factor
			}
			if d, err := time.ParseDuration(b.MaxDuration); err == nil && d > 0 {
				longest = d
			}
		}
	}
	for i := int64(1); i < n && wait < longest; i++ {
		wait *= time.Duration(factor)
	}
	return limit, min(wait, longest)
}

// launch runs a sync in a goroutine of its own.
func (p *pass) launch(ctx context.Context, wish v1alpha1.Operation, commit string, pl *plan.Plan, heals string) {
	options := p.options
	if len(wish.Sync.SyncOptions) > 0 {
		var warnings []plan.Warning
		options, warnings = plan.ParseOptions(wish.Sync.SyncOptions)
		p.warn(warnings)
	}
	run, cancel := context.WithCancelCause(p.life)
	op := &operation{
		commit: commit, params: p.st.params, serial: p.st.rendered.serial, plan: pl, wish: wish, started: p.Now(),
		heals: heals, cancel: cancel, results: map[plan.Key]apply.Result{}, message: "syncing",
	}
	p.st.mu.Lock()
	p.st.op = op
	p.st.mu.Unlock()
	if wish.Sync.DryRun {
		op.finish(nil, p.Now(), fmt.Sprintf("dry run: %d to write, %d to prune", pl.Count(plan.Create, plan.Update), pl.Count(plan.Prune)))
		cancel(nil)
		p.queue.Add(p.key)
		return
	}
	p.tellAt(ctx, commit, journal.Event{Stage: journal.StageApply, Status: journal.StatusStarted, Message: fmt.Sprintf("%d to write, %d to prune", pl.Count(plan.Create, plan.Update), pl.Count(plan.Prune))})
	key, name, st := p.key, p.st.name, p.st
	req := apply.Request{
		Plan: pl, Options: options, Prune: wish.Sync.Prune, Namespace: p.namespaceFor(options), Selected: selection(wish.Sync.Resources),
		NoHooks: wish.Sync.SyncStrategy != nil && wish.Sync.SyncStrategy.Apply != nil, Changed: st.wake, Report: op.report, Kinds: p.Mapper.Reset,
		Waiting: func(why string) {
			op.mu.Lock()
			op.message = why
			op.mu.Unlock()
			p.tell(run, key, name, commit, journal.Event{Stage: journal.StageApply, Status: journal.StatusWaiting, Message: why})
			p.queue.Add(key)
		},
	}
	p.ops.Go(func() {
		defer cancel(nil)
		op.finish(apply.Run(run, p.Writer, p.live, req), p.Now(), "")
		p.queue.Add(key)
	})
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

func selection(list []v1alpha1.SyncResource) func(plan.Key) bool {
	if len(list) == 0 {
		return nil
	}
	return func(k plan.Key) bool {
		for _, r := range list {
			if r.Group == k.Group && r.Kind == k.Kind && r.Name == k.Name && (r.Namespace == "" || r.Namespace == k.Namespace) {
				return true
			}
		}
		return false
	}
}

// namespaceFor is the Namespace that CreateNamespace=true makes, nil when the
// source has it or it is not wanted.
func (p *pass) namespaceFor(o plan.Options) *unstructured.Unstructured {
	name := p.app.Spec.Destination.Namespace
	if !o.CreateNamespace || name == "" {
		return nil
	}
	for _, c := range p.plan.Changes {
		if c.Kind == "Namespace" && c.Name == name {
			return nil
		}
	}
	ns := &unstructured.Unstructured{}
	ns.SetAPIVersion("v1")
	ns.SetKind("Namespace")
	ns.SetName(name)
	if m := p.app.Spec.SyncPolicy.ManagedNamespaceMetadata; m != nil {
		ns.SetLabels(m.Labels)
		ns.SetAnnotations(m.Annotations)
	}
	return ns
}

// finishOperation takes in a sync that has ended.
func (p *pass) finishOperation(ctx context.Context) {
	st := p.st
	op := st.op
	if op == nil {
		return
	}
	if !op.done() {
		st.state = op.state(&p.app)
		return
	}
	st.state = op.state(&p.app)
	superseded := errors.Is(op.err, errSuperseded)
	if !op.wish.Sync.DryRun {
		p.applied(ctx, op)
		if !superseded {
			p.remember(op)
		}
		if op.err == nil {
			p.record(op)
			st.ready = readiness{commit: op.commit}
			if st.state.Operation.InitiatedBy.Automated && op.heals != "" {
				st.drift = ""
			}
		}
	}
	st.mu.Lock()
	st.op = nil
	st.mu.Unlock()
}

func (p *pass) remember(op *operation) {
	last := attempt{commit: op.commit, params: op.params, phase: v1alpha1.PhaseSucceeded, at: op.at, heals: p.st.last.heals}
	if op.err != nil {
		last.phase = v1alpha1.PhaseFailed
		last.failures = op.retries + 1
	}
	if p.st.last.commit != op.commit {
		last.heals = 0
	}
	p.st.last = last
}

// state is the operation as the status has it.
func (op *operation) state(app *v1alpha1.Application) *v1alpha1.OperationState {
	op.mu.Lock()
	defer op.mu.Unlock()
	s := &v1alpha1.OperationState{
		Operation: op.wish, Phase: v1alpha1.PhaseRunning, Message: op.message, StartedAt: metav1.NewTime(op.started), RetryCount: op.retries,
		SyncResult: &v1alpha1.SyncResult{Revision: op.commit, Source: sourceOf(app)},
	}
	if op.finished {
		at := metav1.NewTime(op.at)
		s.FinishedAt, s.Phase = &at, v1alpha1.PhaseSucceeded
		if op.err != nil {
			s.Phase = v1alpha1.PhaseFailed
		}
	}
	for _, k := range op.order {
		r := op.results[k]
		res := &v1alpha1.ResourceResult{
			Group: k.Group, Version: r.Version, Kind: k.Kind, Namespace: k.Namespace, Name: k.Name,
			Status: "Synced", Message: r.Message, SyncPhase: string(r.Phase),
		}
		switch {
		case r.Err != nil:
			res.Status, res.Message = "SyncFailed", r.Err.Error()
		case r.Skipped:
			res.Status = "PruneSkipped"
		case r.Action == plan.Prune:
			res.Status = "Pruned"
		}
		if r.Hook {
			res.HookType, res.HookPhase = string(r.Phase), v1alpha1.PhaseRunning
			if r.Complete {
				res.HookPhase = v1alpha1.PhaseSucceeded
			}
			if r.Err != nil {
				res.HookPhase = v1alpha1.PhaseFailed
			}
		}
		s.SyncResult.Resources = append(s.SyncResult.Resources, res)
	}
	return s
}

// lastAttempt is what the status says of the last sync, for a process that has
// just started.
func lastAttempt(app *v1alpha1.Application, params string) attempt {
	s := app.Status.OperationState
	if s == nil || s.SyncResult == nil || !s.Phase.Completed() || s.FinishedAt == nil {
		return attempt{}
	}
	last := attempt{commit: s.SyncResult.Revision, params: params, phase: s.Phase, at: s.FinishedAt.Time}
	if s.Phase != v1alpha1.PhaseSucceeded {
		last.failures = s.RetryCount + 1
	}
	return last
}

const defaultHistory = 10

// record adds a successful sync to the history.
func (p *pass) record(op *operation) {
	if len(op.wish.Sync.Resources) > 0 {
		return
	}
	history := p.app.Status.History
	id := int64(0)
	if n := len(history); n > 0 {
		id = history[n-1].ID + 1
	}
	started := metav1.NewTime(op.started)
	history = append(history, v1alpha1.RevisionHistory{
		ID: id, Revision: op.commit, DeployedAt: metav1.NewTime(op.at), DeployStartedAt: &started,
		Source: sourceOf(&p.app), InitiatedBy: &op.wish.InitiatedBy,
	})
	limit := int64(defaultHistory)
	if p.app.Spec.RevisionHistoryLimit != nil {
		limit = max(0, *p.app.Spec.RevisionHistoryLimit)
	}
	if over := int64(len(history)) - limit; over > 0 {
		history = history[over:]
	}
	p.app.Status.History = history
}
