package actions

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/actions/trigger"
)

// site is where a job runs: the repository, or one of its environments with
// secrets and variables of its own.
type site struct {
	l             *level
	name          string // of the environment, "" without one
	record        *Job
	secrets, vars map[string]string
}

// enter brings a job into its environment: it waits for the protection rules, or
// returns why they refuse.
func (l *level) enter(ctx context.Context, o occurrence, env expr.Env, record *Job) (*site, error) {
	s := &site{l: l, record: record, secrets: l.secrets, vars: l.vars}
	declared := o.job.Environment
	if declared == nil {
		return s, nil
	}
	bad := func(err error) error {
		return &LocatedError{File: l.callee.workflow.File, Line: declared.Line, Msg: "environment: " + err.Error()}
	}
	name, err := env.Interpolate(declared.Name.Value)
	if err != nil {
		return nil, bad(err)
	}
	if name == "" {
		return s, nil
	}
	e, _, err := l.store.ChangeEnvironment(ctx, l.run.Repo, name, nil)
	if err != nil {
		return nil, bad(err)
	}
	s.name = e.Name
	if err := l.allows(ctx, e); err != nil {
		return nil, &LocatedError{File: l.callee.workflow.File, Line: declared.Line, Msg: err.Error(),
			Hint: fmt.Sprintf("run it for a branch or tag that environment %q allows, or change its deployment branch policy", e.Name)}
	}
	if record.Gate == nil {
		record.Gate = &store.Gate{Environment: e.Name, EnvironmentID: e.ID, Since: l.deps.Now().UTC()}
		if e.WaitTimer > 0 {
			record.Gate.Until = record.Gate.Since.Add(time.Duration(e.WaitTimer) * l.minute)
		}
		record.Gate.Reviewers = e.Reviewers
		deploys, err := env.Interpolate(declared.Deployment.Value)
		if err != nil {
			return nil, bad(err)
		}
		if deploys != "false" {
			l.deploy(ctx, record)
		}
	}
	if err := l.waitAtGate(ctx, record); err != nil {
		s.leave(context.WithoutCancel(ctx), schedule.Cancelled)
		return nil, err
	}
	l.setDeployment(context.WithoutCancel(ctx), record, "in_progress")
	return s, s.load(ctx)
}

// load adds the environment's secrets and variables; they win.
func (s *site) load(ctx context.Context) error {
	if s.l.run.Fork {
		return nil
	}
	scope := store.Scope(s.l.run.Repo, s.name)
	secrets, err := s.l.store.Secrets(ctx, scope)
	if err != nil {
		return err
	}
	vars, err := s.l.store.Variables(ctx, scope)
	if err != nil {
		return err
	}
	s.secrets, s.vars = maps.Clone(s.secrets), maps.Clone(s.vars)
	maps.Copy(s.secrets, secrets)
	maps.Copy(s.vars, vars)
	return nil
}

// leave says how the deployment ended.
func (s *site) leave(ctx context.Context, r schedule.Result) {
	state := map[schedule.Result]string{schedule.Success: "success", schedule.Failure: "failure"}[r]
	if state == "" {
		state = "error"
	}
	if s.l.stopped() && s.record.Started.IsZero() {
		return // it waits on at the next start
	}
	s.l.setDeployment(ctx, s.record, state)
}

// deploy makes the deployment of a job that came to its gate.
func (l *level) deploy(ctx context.Context, record *Job) {
	if l.deps.Deployments == nil {
		return
	}
	id, err := l.deps.Deployments.CreateDeployment(ctx, Deployment{Repo: l.run.Repo, Ref: l.run.Ref, Commit: l.run.Head(), Environment: record.Gate.Environment,
		Creator: l.run.Actor, Run: l.run.ID, Job: record.ID})
	if err != nil {
		l.log.Warn("create deployment", "run", l.run.ID, "environment", record.Gate.Environment, "err", err)
		return
	}
	record.Gate.Deployment = id
}

func (l *level) setDeployment(ctx context.Context, record *Job, state string) {
	if l.deps.Deployments == nil || record.Gate == nil || record.Gate.Deployment == 0 {
		return
	}
	if err := l.deps.Deployments.SetDeploymentStatus(ctx, l.run.Repo, record.Gate.Deployment, state, record.Gate.URL); err != nil {
		l.log.Warn("set deployment status", "run", l.run.ID, "deployment", record.Gate.Deployment, "state", state, "err", err)
	}
}

// allows says why a ref may not deploy to an environment.
func (l *level) allows(ctx context.Context, e store.Environment) error {
	kind, short := shortRef(l.run.Ref)
	what := map[string]string{"branch": "Branch", "tag": "Tag"}[kind]
	switch e.Branches {
	case "protected":
		protected := false
		if l.deps.Protection != nil && kind == "branch" {
			var err error
			if protected, err = l.deps.Protection.Protected(ctx, l.run.Repo, short); err != nil {
				return fmt.Errorf("look up whether %s is protected: %w", short, err)
			}
		}
		if !protected {
			return fmt.Errorf("%s %q is not allowed to deploy to %s due to environment protection rules: only protected branches are", what, short, e.Name)
		}
	case "custom":
		for _, p := range e.Policies {
			if p.Type != "" && p.Type != kind {
				continue
			}
			if ok, err := trigger.MatchAny([]string{p.Name}, short); err == nil && ok {
				return nil
			}
		}
		return fmt.Errorf("%s %q is not allowed to deploy to %s due to environment protection rules: its deployment branch policies name %s", what, short, e.Name, policyNames(e.Policies))
	}
	return nil
}

func policyNames(list []store.RefPolicy) string {
	if len(list) == 0 {
		return "no branch and no tag"
	}
	var names []string
	for _, p := range list {
		names = append(names, p.Name)
	}
	return strings.Join(names, ", ")
}

// waitAtGate returns when the wait timer is over and somebody approved, or with
// the reason why the job must not go on.
func (l *level) waitAtGate(ctx context.Context, record *Job) error {
	g := record.Gate
	if g.Passed || g.Until.IsZero() && len(g.Reviewers) == 0 {
		return nil
	}
	decided := l.gate(record.ID)
	defer l.closeGate(record.ID)
	durable := context.WithoutCancel(ctx)
	l.setDeployment(durable, record, "waiting")
	record.Status, record.Note = store.Waiting, gateNote(g)
	l.tellWaiting(durable, record)
	l.waits(1)
	defer l.waits(-1)
	for {
		// What was decided while nobody listened is in the store.
		stored, err := l.store.Job(durable, record.ID)
		if err != nil {
			return err
		}
		if stored.Gate != nil {
			*g = *stored.Gate
		}
		left := g.Until.Sub(l.deps.Now())
		switch {
		case g.State == "rejected":
			return fmt.Errorf("the deployment to %s was rejected by %s", g.Environment, g.By)
		case left <= 0 && (len(g.Reviewers) == 0 || g.State == "approved"):
			g.Passed = true
			return nil
		}
		timer := time.NewTimer(max(left, time.Millisecond))
		if g.Until.IsZero() || left <= 0 {
			timer.Stop()
		}
		select {
		case <-decided:
			decided = l.gate(record.ID)
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		timer.Stop()
		record.Note = gateNote(g)
	}
}

// gateNote says what a job at a gate waits for.
func gateNote(g *store.Gate) string {
	var parts []string
	if len(g.Reviewers) > 0 && g.State == "" {
		var names []string
		for _, r := range g.Reviewers {
			names = append(names, r.Login)
		}
		parts = append(parts, "waits for a review by "+strings.Join(names, " or "))
	}
	if !g.Until.IsZero() {
		parts = append(parts, "waits until "+g.Until.UTC().Format("2006-01-02 15:04:05 MST"))
	}
	return strings.Join(parts, ", and ") + " to deploy to " + g.Environment
}

// gate is closed at the next decision about a job.
func (a *Actions) gate(job int64) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gates[job] == nil {
		a.gates[job] = make(chan struct{})
	}
	return a.gates[job]
}

func (a *Actions) closeGate(job int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.gates, job)
}

// errNotReviewer says that somebody may not decide about a deployment.
type errNotReviewer struct{ msg string }

func (e *errNotReviewer) Error() string { return e.msg }

// ReviewOptions are one decision.
type ReviewOptions struct {
	Environments []int64 // IDs; none for all that wait
	Approve      bool
	Comment      string
	User         string
	// Bypass lets an administrator decide who is no reviewer, and ends wait
	// timers, where the environment allows it.
	Bypass bool
}

// Review approves or rejects the jobs of a run that wait for environments. It
// returns the jobs.
func (a *Actions) Review(ctx context.Context, run int64, o ReviewOptions) ([]Job, error) {
	r, err := a.store.Run(ctx, run)
	if err != nil {
		return nil, err
	}
	var jobs []Job
	var names []string
	for _, j := range r.Jobs {
		if j.Status != store.Waiting || j.Gate == nil || len(o.Environments) > 0 && !slices.Contains(o.Environments, j.Gate.EnvironmentID) {
			continue
		}
		if err := a.mayReview(ctx, r, j, &o); err != nil {
			return nil, err
		}
		jobs = append(jobs, j)
		if !slices.Contains(names, j.Gate.Environment) {
			names = append(names, j.Gate.Environment)
		}
	}
	if len(jobs) == 0 {
		return nil, fmt.Errorf("no job of run %d waits for such an environment: %w", run, errConflict)
	}
	review := Review{Run: run, Attempt: r.Attempt, Environments: names, State: "rejected", User: o.User, Comment: o.Comment, Time: a.deps.Now().UTC()}
	if o.Approve {
		review.State = "approved"
	}
	err = a.change(ctx, true, func(t *telling) error {
		for i := range jobs {
			jobs[i].Gate.State, jobs[i].Gate.By = review.State, o.User
			if o.Bypass {
				jobs[i].Gate.Until = time.Time{}
			}
			if err := t.SaveJob(&jobs[i]); err != nil {
				return err
			}
		}
		return t.Review(review)
	})
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, j := range jobs {
		if c := a.gates[j.ID]; c != nil {
			close(c)
			delete(a.gates, j.ID)
		}
	}
	return jobs, nil
}

func (a *Actions) mayReview(ctx context.Context, r Run, j Job, o *ReviewOptions) error {
	e, err := a.store.Environment(ctx, r.Repo, j.Gate.Environment)
	if err != nil {
		return err
	}
	is := func(v store.Reviewer) bool { return strings.EqualFold(v.Login, o.User) }
	switch {
	case o.Bypass && !e.NoBypass:
		return nil
	case o.Bypass:
		return &errNotReviewer{fmt.Sprintf("the rules of environment %s cannot be bypassed", e.Name)}
	case !slices.ContainsFunc(j.Gate.Reviewers, is):
		return &errNotReviewer{fmt.Sprintf("%s is not a required reviewer of environment %s", o.User, e.Name)}
	case e.PreventSelfReview && strings.EqualFold(r.Triggerer(), o.User):
		return &errNotReviewer{fmt.Sprintf("%s started the run and may not approve its own deployment to %s", o.User, e.Name)}
	}
	return nil
}
