package actions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/execute"
	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/service"
	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// one runs one combination of a job.
func (l *level) one(ctx context.Context, o occurrence) schedule.Result {
	durable := context.WithoutCancel(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	record := l.newJob(o)
	if result, ok := l.takeOver(durable, o, &record); ok {
		return result
	}
	if problem := l.count(); problem != nil {
		l.blame(&record, problem)
		return schedule.Failure
	}
	l.begins()
	defer l.ends()
	if err := l.change(durable, false, func(t *telling) error {
		if err := t.SaveJob(&record); err != nil {
			return err
		}
		return l.tellCheck(t, &l.run, &record, "Queued")
	}); err != nil {
		return schedule.Failure
	}
	conclusion, problem := l.queueAndRun(ctx, cancel, o, &record)
	switch {
	case l.stopped() && record.Started.IsZero():
		return l.park()
	case l.stopped() && conclusion != schedule.Success:
		l.mu.Lock()
		l.stopping = true
		l.mu.Unlock()
		conclusion, problem = schedule.Failure, interrupted()
	case conclusion == schedule.Failure && l.continues(o):
		record.Note, record.Tolerated = "the job failed; continue-on-error lets the run go on", true
		l.endJob(durable, &l.run, &record, schedule.Failure, problem)
		l.done(o.job, expr.Strings(record.Outputs), true)
		return schedule.Success
	}
	l.endJob(durable, &l.run, &record, conclusion, problem)
	if conclusion == schedule.Failure {
		l.blame(&record, problem)
	}
	l.done(o.job, expr.Strings(record.Outputs), true)
	return conclusion
}

// count takes one of the jobs that a run may have.
func (p *performance) count() *Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.jobs++; p.jobs > maxJobs {
		return &Problem{Message: fmt.Sprintf("the run has more than %d jobs; the others are not started", maxJobs), Hint: "make the matrices smaller"}
	}
	return nil
}

// begins and ends count the jobs that go on or wait.
func (p *performance) begins() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.going++
}

func (p *performance) ends() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.going--
}

func (l *level) newJob(o occurrence) Job {
	j := o.job
	record := Job{RunID: l.run.ID, Attempt: l.run.Attempt, Key: l.keys + j.ID, Name: l.prefix + j.ID, Line: j.Line, Status: store.Queued, Created: l.deps.Now().UTC()}
	for _, n := range j.Needs {
		record.Needs = append(record.Needs, l.keys+l.callee.workflow.Job(n).ID)
	}
	if l.prefix != "" {
		record.File = l.callee.workflow.File
	}
	env := l.jobEnv(o.needs, o.matrix, o.strategy)
	cell := schedule.Combination{Label: o.label}
	record.Name = cell.Name(record.Name)
	if j.Name.IsSet() {
		if name, err := env.Interpolate(j.Name.Value); err == nil && strings.TrimSpace(name) != "" {
			record.Name = l.prefix + l.masked(name)
			if !strings.Contains(j.Name.Value, "${{") {
				record.Name = cell.Name(record.Name)
			}
		}
	}
	for _, t := range j.RunsOn {
		if v, err := env.Value(t.Value); err == nil {
			record.Labels = append(record.Labels, labels(v)...)
		}
	}
	return record
}

func labels(v any) []string {
	if list, ok := v.(expr.Array); ok {
		var out []string
		for _, e := range list {
			out = append(out, expr.Text(e))
		}
		return out
	}
	return []string{expr.Text(v)}
}

func (l *level) continues(o occurrence) bool {
	v, err := l.jobEnv(o.needs, o.matrix, o.strategy).Interpolate(o.job.ContinueOnError.Value)
	return err == nil && v == "true"
}

// takeOver keeps a job of the attempt before, or one that ended before Lockstep
// stopped. Of one that only waited then it takes the number and the gate.
func (l *level) takeOver(ctx context.Context, o occurrence, record *Job) (schedule.Result, bool) {
	old, ok := l.history.jobs[historyKey(record.Key, record.Name)]
	switch {
	case !ok:
		return "", false
	case l.history.resume && old.Status != store.Completed:
		record.ID, record.Gate, record.Created = old.ID, old.Gate, old.Created
		return "", false
	case !l.history.resume && (o.fresh || !l.takesOver(old)):
		return "", false
	case !l.history.resume:
		kept := old
		kept.ID, kept.Attempt, kept.Gate = 0, l.run.Attempt, nil
		kept.Note = fmt.Sprintf("taken over from attempt %d (job %d)", old.Attempt, old.ID)
		kept.Steps = nil // their logs belong to the attempt before
		if l.change(ctx, false, func(t *telling) error { return t.SaveJob(&kept) }) != nil {
			return schedule.Failure, true
		}
	}
	l.done(o.job, expr.Strings(old.Outputs), l.history.resume)
	result := schedule.Result(old.Conclusion)
	if old.Tolerated {
		result = schedule.Success
	}
	if result == schedule.Failure {
		l.blame(record, old.Problem)
	}
	return result, true
}

// queueAndRun waits for the job's concurrency group, its environment and a free
// place, then runs it.
func (l *level) queueAndRun(ctx context.Context, cancel context.CancelCauseFunc, o occurrence, record *Job) (schedule.Result, *Problem) {
	durable := context.WithoutCancel(ctx)
	env := l.jobEnv(o.needs, o.matrix, o.strategy)
	ticket, err := l.joinGroup(o.job.Concurrency, env, l.callee.workflow.File, fmt.Sprintf("job %d", record.ID), cancel)
	if err != nil {
		return cancelledOr(err)
	}
	if ticket != nil {
		defer ticket.leave()
		if ticket.behind != "" {
			record.Status, record.Note = store.Pending, "waits in its concurrency group until "+ticket.behind+" has ended"
			l.tellWaiting(durable, record)
		}
		if err := ticket.wait(ctx); err != nil {
			return cancelledOr(err)
		}
	}
	site, err := l.enter(ctx, o, env, record)
	if err != nil {
		return cancelledOr(err)
	}
	conclusion, problem := l.place(ctx, o, record, site)
	site.leave(durable, conclusion)
	return conclusion, problem
}

// place waits for a place and runs the job there.
func (l *level) place(ctx context.Context, o occurrence, record *Job, site *site) (schedule.Result, *Problem) {
	durable := context.WithoutCancel(ctx)
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		return schedule.Cancelled, &Problem{Message: context.Cause(ctx).Error()}
	}
	defer func() { <-l.slots }()
	if ctx.Err() != nil {
		return schedule.Cancelled, &Problem{Message: context.Cause(ctx).Error()}
	}
	permissions := permissionsOf(l.callee.workflow, o.job, l.ceiling, l.run.Fork)
	token, revoke, err := l.deps.Tokens.IssueJobToken(ctx, JobToken{Repo: l.run.Repo, Commit: l.run.Commit, Run: l.run.ID, Permissions: permissions})
	if err != nil {
		return schedule.Failure, &Problem{Message: "issue the job's token: " + err.Error()}
	}
	defer func() {
		ctx, cancel := context.WithTimeout(durable, 10*time.Second)
		defer cancel()
		if err := revoke(ctx); err != nil {
			l.log.Error("revoke a job's token", "job", record.ID, "err", err)
		}
	}()
	plan := l.plan(o, record, token, site)
	if l.deps.Services != nil {
		scope := l.scope(record, site, permissions)
		vars, end := l.deps.Services.Open(scope)
		defer end()
		kept := newStorage(l.deps.Services, scope)
		plan.ServiceEnv, plan.Store, plan.Scans = vars, kept, kept
	}
	record.Status, record.Note, record.Started = store.InProgress, "", l.deps.Now().UTC()
	_ = l.change(durable, false, func(t *telling) error {
		if err := t.SaveJob(record); err != nil {
			return err
		}
		if err := t.event(record.Started, l.jobEvent(&l.run, record, journal.StatusStarted, "", nil)); err != nil {
			return err
		}
		return l.tellCheck(t, &l.run, record, "In progress")
	})
	result := l.runner.Run(ctx, plan, &jobReport{p: l.performance, record: record, ctx: durable})
	record.Outputs = result.Outputs
	if record.Gate != nil {
		record.Gate.URL = result.EnvironmentURL
	}
	if f := result.Failure; f != nil && result.Conclusion != schedule.Success {
		return result.Conclusion, &Problem{Message: f.Message, Hint: f.Hint, File: f.File, Line: f.Line, Step: f.Step, Name: f.Name, Tail: f.Tail}
	}
	if result.Conclusion == schedule.Cancelled {
		return result.Conclusion, &Problem{Message: context.Cause(ctx).Error()}
	}
	return result.Conclusion, nil
}

func cancelledOr(err error) (schedule.Result, *Problem) {
	if errors.Is(err, execute.ErrCancelled) {
		return schedule.Cancelled, &Problem{Message: err.Error()}
	}
	return schedule.Failure, problemOf(err)
}

func (l *level) plan(o occurrence, record *Job, token string, site *site) *execute.Plan {
	r := l.run
	github := l.githubValues()
	github["job_workflow_ref"], github["job_workflow_sha"] = l.callee.name(), l.callee.commit
	return &execute.Plan{
		ID: record.ID, Workflow: l.callee.workflow, Job: o.job, Repo: r.Repo, Commit: r.Commit, Ref: r.Ref, Event: r.Event, Payload: l.payload, Actor: r.Actor, TriggeringActor: r.TriggeredBy,
		RunID: r.ID, RunNumber: r.Number, Attempt: r.Attempt, Token: token, Secrets: site.secrets, Vars: site.vars, Needs: o.needs,
		Inputs: l.inputs, Matrix: o.matrix, Strategy: o.strategy, Hard: l.hard, GitHub: github, Untrusted: r.Fork, RefProtected: l.refProtected(r.Repo, r.Ref),
		Archive: func(ctx context.Context, commit string, w io.Writer) error {
			return writeArchive(ctx, l.repo, commit, w)
		},
	}
}

// refProtected is github.ref_protected.
func (l *level) refProtected(repo, ref string) bool {
	branch, ok := strings.CutPrefix(ref, "refs/heads/")
	if !ok || l.deps.Protection == nil {
		return false
	}
	protected, err := l.deps.Protection.Protected(l.ctx, repo, branch)
	return err == nil && protected
}

// scope is the job for the runner's services.
func (l *level) scope(record *Job, site *site, permissions map[string]string) service.Scope {
	r := l.run
	owner, _, _ := strings.Cut(r.Repo, "/")
	scope := service.Scope{
		Repo: r.Repo, Run: r.ID, Attempt: r.Attempt, Job: record.ID, Ref: r.Ref, BaseRef: r.BaseRef, DefaultBranch: defaultBranch(l.repo),
		IDToken: permissions["id-token"] == writeLevel,
		Identity: service.Identity{
			RepositoryID: accountID(r.Repo), OwnerID: accountID(owner), Commit: r.Commit, HeadRef: r.HeadRef, Actor: r.Actor, ActorID: accountID(r.Actor),
			RunNumber: r.Number, Event: r.Event, Workflow: l.called.workflow.Name, WorkflowRef: describeFile(r.Repo, r.File, r.Ref), WorkflowSHA: r.Commit,
			JobRef: l.callee.name(), JobSHA: l.callee.commit, Environment: site.name,
		},
	}
	if record.Gate != nil {
		scope.Identity.EnvironmentID = record.Gate.EnvironmentID
	}
	return scope
}

// refuse ends a job that cannot start.
func (l *level) refuse(ctx context.Context, j *syntax.Job, problem *Problem) schedule.Result {
	problem.Message = l.masked(problem.Message)
	record := l.newJob(occurrence{job: j, needs: expr.NewObject()})
	if old, ok := l.history.jobs[historyKey(record.Key, record.Name)]; ok && l.history.resume {
		record.ID = old.ID
	}
	_ = l.change(ctx, false, func(t *telling) error {
		if err := t.SaveJob(&record); err != nil {
			return err
		}
		return t.event(l.deps.Now(), l.jobEvent(&l.run, &record, journal.StatusStarted, "", nil))
	})
	l.endJob(ctx, &l.run, &record, schedule.Failure, problem)
	l.blame(&record, problem)
	l.done(j, expr.NewObject(), true)
	return schedule.Failure
}

// skip ends a job that does not start.
func (l *level) skip(ctx context.Context, j *syntax.Job, result schedule.Result, note string) {
	record := l.newJob(occurrence{job: j, needs: expr.NewObject()})
	if old, ok := l.history.jobs[historyKey(record.Key, record.Name)]; ok && l.history.resume {
		if old.Status == store.Completed {
			return
		}
		record.ID = old.ID
	}
	record.Note = note
	l.endJob(ctx, &l.run, &record, result, nil)
}

// subject names a run, or with a name a job, in the journal.
func subject(r *Run, job string) string {
	s := path.Base(r.File)
	if job != "" {
		s += "/" + job
	}
	return s
}
