package application

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// pass is one reconcile of one Application.
type pass struct {
	*Controller
	key        string
	st         *state
	object     *unstructured.Unstructured
	app        v1alpha1.Application
	options    plan.Options
	conditions []v1alpha1.Condition
	plan       *plan.Plan // nil when the comparison failed
	failure    error      // why
	takeOp     bool       // remove the operation field: it was taken up
	refreshed  bool       // remove the refresh annotation
}

// reconcile brings one Application a step further. It returns an error only
// for faults of the surroundings; faults of the input become conditions.
func (c *Controller) reconcile(ctx context.Context, key string) error {
	obj, ok, err := c.apps.GetStore().GetByKey(key)
	if err != nil {
		return fmt.Errorf("look up the application: %w", err)
	}
	if !ok {
		c.forget(key)
		return nil
	}
	st := c.state(key)
	st.busy.Lock()
	defer st.busy.Unlock()
	p := &pass{Controller: c, key: key, st: st, object: newest(obj.(*unstructured.Unstructured), st.written)}
	if err := v1alpha1.Decode(p.object, &p.app); err != nil {
		return err
	}
	defer st.notify()
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
	p.finishOperation(ctx)
	p.startOperation(ctx)
	if err := p.writeStatus(ctx); err != nil {
		return err
	}
	return p.retryLater()
}

// newest is the younger of the watched Application and the one last written.
func newest(watched, written *unstructured.Unstructured) *unstructured.Unstructured {
	if written == nil || written.GetUID() != watched.GetUID() || !older(watched, written) {
		return watched
	}
	return written
}

func older(a, b *unstructured.Unstructured) bool {
	x, y := a.GetResourceVersion(), b.GetResourceVersion()
	return len(x) < len(y) || len(x) == len(y) && x < y
}

// begin takes up what the spec and the annotations ask for.
func (p *pass) begin() {
	params := paramsOf(&p.app)
	st := p.st
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.params == "" { // first pass after a start
		st.announced = p.app.Status.Sync.Revision
		st.last = lastAttempt(&p.app, params)
		if st.announced != "" {
			st.ready = readiness{commit: st.announced, told: "before this process"}
			if p.app.Status.Health.Status == v1alpha1.HealthHealthy {
				st.ready.told = toldHealthy(len(p.app.Status.Resources))
			}
		}
	}
	if st.params != params {
		st.params, st.resolve = params, true
	}
	if mode, ok := p.app.Annotations[v1alpha1.AnnotationRefresh]; ok {
		st.resolve, p.refreshed = true, true
		st.hard = st.hard || mode == "hard"
	}
	if now := p.Now(); now.After(st.resync) {
		st.resolve = true
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
	p.warn(warnings)
	p.warn(plan.UnsupportedIgnores(p.app.Spec.IgnoreDifferences))
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
	src, err := p.checkSpec()
	if err == nil {
		err = p.resolveCommit(ctx, src)
	}
	if err != nil {
		p.fail(ctx, err)
		return
	}
	pl, err := p.planAt(ctx, p.st.commit, true)
	if err != nil {
		p.fail(ctx, err)
		return
	}
	p.plan = pl
	p.st.mu.Lock()
	p.st.plan = pl
	p.st.mu.Unlock()
	p.warn(pl.Warnings)
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

// resolveCommit finds the repository and the commit of the source, when it has
// to.
func (p *pass) resolveCommit(ctx context.Context, src *v1alpha1.ApplicationSource) error {
	st := p.st
	st.mu.Lock()
	needed := st.resolve || st.repo == nil || st.commit == ""
	st.mu.Unlock()
	if !needed {
		return nil
	}
	repo, name, err := p.Repositories.Open(ctx, src.RepoURL)
	if err != nil {
		return fmt.Errorf("spec.source.repoURL %s: %w", src.RepoURL, err)
	}
	commit, err := source.Resolve(ctx, repo, src.TargetRevision)
	if err != nil {
		st.mu.Lock()
		st.repo, st.name, st.commit = repo, name, ""
		st.mu.Unlock()
		return fmt.Errorf("spec.source of %s: %w", name, err)
	}
	if err := p.lookBack(ctx, name, commit); err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.name != name && st.name != "" {
		p.index(st.name).Set(p.key, nil)
	}
	st.repo, st.name, st.commit, st.resolve = repo, name, commit, false
	return nil
}

// lookBack finds out, once per process, whether the journal has the commit
// already.
func (p *pass) lookBack(ctx context.Context, repo, commit string) error {
	if p.st.looked {
		return nil
	}
	told, err := p.Events.Events(ctx, journal.Query{
		Repo: repo, Commit: commit, Stages: []journal.Stage{journal.StageRender}, Subject: p.key, Limit: 1,
		Statuses: []journal.Status{journal.StatusSucceeded, journal.StatusFailed, journal.StatusSkipped},
	})
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	p.st.looked = true
	if len(told) > 0 {
		p.st.announced = commit
	}
	return nil
}

// retryLater asks for another pass where nothing else would wake one.
func (p *pass) retryLater() error {
	var bad *manifest.Error
	var invalid *specError
	if p.failure == nil || errors.As(p.failure, &bad) || errors.As(p.failure, &invalid) {
		return nil // only a change of the input helps
	}
	return fmt.Errorf("compare: %w", p.failure)
}

// short is a commit for people.
func short(commit string) string { return commit[:min(7, len(commit))] }

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
