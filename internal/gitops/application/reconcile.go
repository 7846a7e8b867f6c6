package application

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/project"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

// pass is one reconcile of one Application.
type pass struct {
	*Controller
	key     string
	st      *state
	app     v1alpha1.Application        // its fields are shared: replaced, never changed in place
	was     *v1alpha1.ApplicationStatus // as read
	cluster *Cluster
	set     *Policies
	rules   *project.Project
	hold    *hold
	exact   bool                          // ask the API server about all that looks different
	sources []*v1alpha1.ApplicationSource // that count: those of the hold, if there is one
	revs    []Revision                    // what they name
	main    int                           // the source that the commit in the journal is of

	dirty      bool // the sources had to be resolved anew
	options    plan.Options
	conditions []v1alpha1.Condition
	plan       *plan.Plan     // nil when the comparison failed
	failure    error          // why
	waiting    string         // why there is no comparison yet, although nothing failed
	annotate   map[string]any // annotations to write; nil values remove
	takeOp     bool           // remove the operation field: it was taken up
	quiet      bool           // the status is written by a later pass
}

// reconcile brings one Application a step further. It returns an error only
// for faults of the surroundings; faults of the input become conditions.
func (c *Controller) reconcile(ctx context.Context, key string) error {
	app, _ := c.application(key)
	if app == nil {
		c.forget(key)
		return nil
	}
	st := c.state(key)
	st.busy.Lock()
	defer st.busy.Unlock()
	app, _ = c.application(key)
	if app == nil {
		return nil
	}
	p := &pass{Controller: c, key: key, st: st, app: *app, was: &app.Status, set: c.policies(), annotate: map[string]any{}}
	defer st.notify()
	defer p.looked()
	if p.app.DeletionTimestamp != nil {
		return p.finalize(ctx)
	}
	if p.app.Annotations[v1alpha1.AnnotationSkipReconcile] == "true" {
		return nil
	}
	p.begin()
	p.compare(ctx)
	if ctx.Err() != nil {
		return nil
	}
	p.finishOperation()
	p.startOperation(ctx)
	if ctx.Err() != nil {
		return nil
	}
	p.tellFailure()
	if p.later() {
		return nil
	}
	if err := p.writeStatus(ctx); err != nil {
		return err
	}
	st.owes = time.Time{}
	return p.retryLater()
}

const (
	owesPause   = time.Second      // between looks at a status that is owed
	owesLongest = 20 * time.Second // that a status is owed
	owesWaiting = 2 * time.Second  // that it is owed by an application that waits for its cluster
)

// later reports whether the status can wait: while many syncs write, their
// objects come before writes about them, and what is found out within moments
// is told once.
func (p *pass) later() bool {
	now, st := p.Now(), p.st
	longest := owesLongest
	switch {
	case p.failure != nil || p.takeOp || len(p.annotate) > 0 || st.op != nil && st.op.waiting():
		return false
	case p.waiting != "":
		longest = owesWaiting
	case !p.busy():
		return false
	}
	if st.owes.IsZero() {
		st.owes = now
	}
	if now.Sub(st.owes) >= longest {
		return false
	}
	p.queue.AddAfter(p.key, jittered(owesPause))
	return true
}

// busy reports whether many syncs write, or did a moment ago.
func (p *pass) busy() bool {
	now := p.Now().UnixNano()
	if len(p.active) > p.Workers {
		p.burst.Store(now)
		return true
	}
	return now-p.burst.Load() < int64(owesPause)
}

// begin takes up what the spec and the annotations ask for.
func (p *pass) begin() {
	p.hold, p.sources = holdOf(&p.app), sourcesOf(&p.app)
	params := paramsOf(&p.app, p.hold)
	st := p.st
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.started { // first pass after a start
		st.started = true
		st.announced = mainRevision(p.app.Status.Sync)
		st.last = lastAttempt(&p.app, params)
		if st.announced != "" {
			st.ready = readiness{commit: st.announced, told: "before this process"}
			if p.app.Status.Health.Status == v1alpha1.HealthHealthy {
				st.ready.told = toldHealthy(len(p.app.Status.Resources))
			}
		}
	}
	if st.params != params {
		st.params, st.dirty = params, true
	}
	if mode, ok := p.app.Annotations[v1alpha1.AnnotationRefresh]; ok {
		st.dirty = true
		p.annotate[v1alpha1.AnnotationRefresh] = nil
		st.hard = st.hard || mode == "hard"
	}
	if now := p.Now(); now.After(st.resync) {
		if !st.resync.IsZero() {
			st.dirty = true
		}
		wait := jittered(p.ResyncInterval)
		st.resync = now.Add(wait)
		p.queue.AddAfter(p.key, wait)
	}
	var warnings []plan.Warning
	policy := p.app.Spec.SyncPolicy
	if policy == nil {
		policy = &v1alpha1.SyncPolicy{}
	}
	p.options, warnings = plan.ParseOptions(policy.SyncOptions)
	p.options.MigrationManager = p.app.Annotations[plan.AnnotationMigrationManager]
	p.warn(warnings)
}

func mainRevision(s v1alpha1.SyncStatus) string {
	if s.Revision != "" {
		return s.Revision
	}
	for _, r := range s.Revisions {
		if len(r) == 40 {
			return r
		}
	}
	return ""
}

func (p *pass) warn(ws []plan.Warning) {
	for _, w := range ws {
		p.condition(w.Type, w.Message)
	}
}

const maxConditions = 50

func (p *pass) condition(kind, message string) {
	if len(p.conditions) >= maxConditions {
		return
	}
	for _, c := range p.conditions {
		if c.Type == kind && c.Message == message {
			return
		}
	}
	p.conditions = append(p.conditions, v1alpha1.Condition{Type: kind, Message: message})
}

// compare runs source, render and plan. It leaves the plan or the failure in p.
func (p *pass) compare(ctx context.Context) {
	p.takeAnswers()
	err := p.checkSpec()
	if err == nil {
		err = p.cluster.reach(p.Now)
	}
	if errors.Is(err, errConnecting) {
		p.waiting = err.Error()
		p.queue.AddAfter(p.key, probePause)
		return
	}
	var want *rendered
	if err == nil {
		want, err = p.sourced(ctx)
	}
	var pl *plan.Plan
	if err == nil {
		pl, err = p.compareWith(ctx, want, true)
	}
	if err != nil {
		p.fail(ctx, err)
		return
	}
	if pl == nil {
		return // waiting says why
	}
	p.plan = pl
	p.st.mu.Lock()
	p.st.plan = pl
	p.st.mu.Unlock()
	p.warn(pl.Warnings)
	p.findOrphans()
}

// sourced returns what the sources give now.
func (p *pass) sourced(ctx context.Context) (want *rendered, err error) {
	if err = p.resolve(ctx); err == nil {
		err = p.checkSignatures(ctx)
	}
	if err == nil {
		want, err = p.rendered(ctx)
	}
	if want == nil && p.dirty { // it is still to be found out
		p.markDirty(p.key)
	}
	return want, err
}

// looked ends what resolve began.
func (p *pass) looked() {
	if !p.dirty {
		return
	}
	p.st.mu.Lock()
	p.st.looking = false
	p.st.mu.Unlock()
	p.wakeDependents(p.key)
}

// fail turns a failed comparison into a condition.
func (p *pass) fail(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	p.failure = err
	kind := v1alpha1.ConditionComparisonError
	var invalid *specError
	if errors.As(err, &invalid) {
		kind = v1alpha1.ConditionInvalidSpecError
	}
	msg := err.Error()
	var bad *manifest.Error
	if errors.As(err, &bad) && bad.Hint != "" {
		msg += ". " + bad.Hint
	}
	p.condition(kind, msg)
	p.st.mu.Lock()
	p.st.plan = nil
	p.st.mu.Unlock()
}

// retryLater asks for another pass where nothing else would wake one.
func (p *pass) retryLater() error {
	var bad *manifest.Error
	var invalid *specError
	var later *laterError
	switch {
	case p.failure != nil && p.st.rendered != nil && p.st.rendered.fault != nil: // whatever it looks like
	case p.failure == nil || errors.As(p.failure, &bad) || errors.As(p.failure, &invalid):
		return nil // only a change of the input helps
	case errors.As(p.failure, &later):
		p.queue.AddAfter(p.key, later.wait)
		return nil
	}
	return fmt.Errorf("compare: %w", p.failure)
}

// laterError says that a pass is of no use for a while.
type laterError struct {
	wait time.Duration
	err  error
}

func (e *laterError) Error() string { return e.err.Error() }
func (e *laterError) Unwrap() error { return e.err }

// short is a commit for people.
func short(commit string) string {
	if len(commit) == 40 {
		return commit[:7]
	}
	return commit
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %s", n, what+"s")
}

func join(parts ...string) string {
	var out []string
	for _, s := range parts {
		if s != "" {
			out = append(out, s)
		}
	}
	return strings.Join(out, ", ")
}
