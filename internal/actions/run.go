package actions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"strings"
	"sync"

	"github.com/lockstep-gitops/lockstep/internal/actions/execute"
	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/mask"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/actions/trigger"
	"github.com/lockstep-gitops/lockstep/internal/git"
)

// maxJobs bounds the jobs of one attempt of a run, matrices and called
// workflows together.
const maxJobs = 2048

// performance is one attempt of a run while it goes on.
type performance struct {
	*Actions
	ctx     context.Context // ends with a cancellation
	hard    context.Context // ends when Lockstep stops, or the run is ended at once
	repo    *git.Repository
	payload *expr.Object
	secrets map[string]string
	vars    map[string]string
	called  *callee // the workflow of the run with those it calls
	history history

	mu       sync.Mutex
	run      Run
	problem  *Problem // of the first job that failed
	jobs     int      // that were made
	going    int      // jobs that are neither done nor waiting for an environment
	gated    int      // jobs that wait for an environment
	parked   bool     // a job was left waiting for the next start
	stopping bool     // a job was ended because Lockstep stops
}

// stopped reports whether the run ends because Lockstep does.
func (p *performance) stopped() bool { return errors.Is(context.Cause(p.ctx), errStopped) }

// perform runs one attempt to its end. Everything it does is stored before the
// next step.
func (a *Actions) perform(ctx, hard context.Context, r Run, t turn) {
	defer t.done()
	p := &performance{Actions: a, ctx: ctx, hard: hard, run: r}
	durable := context.WithoutCancel(ctx)
	leave, err := p.prepare(t)
	if leave != nil {
		defer leave()
	}
	if err != nil {
		p.refuseRun(durable, err)
		return
	}
	p.startRun(durable)
	top := p.level()
	top.loop(p.ctx)
	if p.parked && !p.stopping {
		return // it goes on at the next start
	}
	p.endLeftovers(durable)
	conclusion, problem := top.graph.Conclusion(p.ctx.Err() != nil), p.problem
	switch {
	case p.stopped():
		conclusion, problem = schedule.Failure, interrupted()
	case conclusion == schedule.Cancelled && p.ctx.Err() != nil:
		problem = &Problem{Message: context.Cause(p.ctx).Error()}
	}
	a.endRun(durable, &p.run, conclusion, problem)
}

// park leaves a job that has not begun for the next start of Lockstep.
func (p *performance) park() schedule.Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parked = true
	return schedule.Cancelled
}

// endLeftovers ends the jobs that were parked beside one that was going on.
func (p *performance) endLeftovers(ctx context.Context) {
	if !p.parked {
		return
	}
	jobs, err := p.store.Jobs(ctx, p.run.ID, p.run.Attempt)
	if err != nil {
		p.log.Error("read jobs", "run", p.run.ID, "err", err)
	}
	for i := range jobs {
		if jobs[i].Status != store.Completed {
			p.endJob(ctx, &p.run, &jobs[i], schedule.Failure, interrupted())
		}
	}
}

// refuseRun ends a run of which no job can start.
func (p *performance) refuseRun(ctx context.Context, err error) {
	switch {
	case p.stopped() && p.run.Problem == nil: // it did not begin: it stays queued
	case errors.Is(err, execute.ErrCancelled):
		p.startRun(ctx)
		p.endRun(ctx, &p.run, schedule.Cancelled, &Problem{Message: err.Error()})
	default:
		problem := problemOf(err)
		p.startRun(ctx)
		p.checkFile(ctx, problem)
		p.endRun(ctx, &p.run, schedule.Failure, problem)
	}
}

// prepare loads what the run needs and waits for its concurrency group.
func (p *performance) prepare(t turn) (leave func(), err error) {
	r := &p.run
	if p.repo, err = p.deps.Repositories.Repository(p.ctx, r.Repo); err != nil {
		return nil, err
	}
	if r.Problem != nil && r.Attempt == 1 { // the file or a filter of its trigger is not valid
		p.tellAnnotations()
		return nil, &LocatedError{File: r.Problem.File, Line: r.Problem.Line, Msg: r.Problem.Message, Hint: r.Problem.Hint}
	}
	content, err := p.repo.ReadFile(p.ctx, r.Commit, r.File)
	if err != nil {
		return nil, fmt.Errorf("read %s at %s: %w", r.File, r.Commit, err)
	}
	w, diagnostics := p.files.load(r.File, content)
	r.Annotations = annotations(diagnostics)
	p.tellAnnotations()
	if w == nil {
		d := firstFatal(diagnostics)
		return nil, &LocatedError{File: d.File, Line: d.Line, Msg: d.Message, Hint: d.Hint}
	}
	p.called = &callee{workflow: w, repo: r.Repo, store: p.repo, commit: r.Commit, ref: r.Ref}
	r.Name = w.Name
	if err := p.resolveCalls(); err != nil {
		return nil, err
	}
	if p.payload, err = p.Actions.payload(p.ctx, p.repo, *r); err != nil {
		return nil, err
	}
	p.secrets = map[string]string{}
	if !r.Fork { // what comes from a fork gets no secrets
		if p.secrets, err = p.store.Secrets(p.ctx, r.Repo); err != nil {
			return nil, err
		}
	}
	if p.vars, err = p.store.Variables(p.ctx, r.Repo); err != nil {
		return nil, err
	}
	if err := p.loadHistory(); err != nil {
		return nil, err
	}
	env := p.level().env()
	if w.RunName.IsSet() {
		if title, err := env.Interpolate(w.RunName.Value); err == nil && strings.TrimSpace(title) != "" {
			r.Title = p.masked(title)
		}
	}
	t.wait(p.ctx)
	ticket, err := p.joinGroup(w.Concurrency, env, w.File, fmt.Sprintf("run %d", r.ID), p.cancelRun)
	t.done()
	if err != nil || ticket == nil {
		return nil, err
	}
	if ticket.behind != "" {
		p.pendRun(context.WithoutCancel(p.ctx), fmt.Sprintf("waits in its concurrency group until %s has ended", ticket.behind))
		p.setWaiting(r.ID, true)
	}
	err = ticket.wait(p.ctx)
	p.setWaiting(r.ID, false)
	return ticket.leave, err
}

func (p *performance) cancelRun(cause error) {
	p.Actions.mu.Lock()
	defer p.Actions.mu.Unlock()
	if active := p.active[p.run.ID]; active != nil {
		active.cancel(cause)
	}
}

// history is what earlier attempts, or the time before a stop, left of the jobs.
type history struct {
	resume bool // the jobs are of this attempt
	jobs   map[string]Job
}

func historyKey(key, name string) string { return strings.ToLower(key) + "\x00" + name }

func (p *performance) loadHistory() error {
	attempt := 0
	switch {
	case p.run.Resume:
		attempt, p.history.resume = p.run.Attempt, true
	case (p.run.OnlyFailed || p.run.OnlyJob != "") && p.run.Attempt > 1:
		attempt = p.run.Attempt - 1
	default:
		return nil
	}
	jobs, err := p.store.Jobs(p.ctx, p.run.ID, attempt)
	p.history.jobs = map[string]Job{}
	for _, j := range jobs {
		p.history.jobs[historyKey(j.Key, j.Name)] = j
	}
	p.jobs = len(jobs)
	return err
}

// takesOver reports whether a job of the attempt before is kept.
func (p *performance) takesOver(old Job) bool {
	switch {
	case p.run.OnlyJob != "":
		return old.Name != p.run.OnlyJob
	case p.run.OnlyFailed:
		return old.Conclusion == string(schedule.Success) || old.Conclusion == string(schedule.Skipped)
	}
	return false
}

// level is the top one: the workflow of the run itself.
func (p *performance) level() *level {
	secrets := maps.Clone(p.secrets)
	inputs := trigger.Typed(p.called.workflow, p.run.Inputs)
	return &level{performance: p, callee: p.called, graph: schedule.NewGraph(p.called.workflow.Jobs), outputs: map[string]*expr.Object{}, fresh: map[string]bool{},
		inputs: inputs, secrets: secrets}
}

// githubValues are the values of the github context that are the same in all
// jobs of the run.
func (p *performance) githubValues() map[string]string {
	r := p.run
	kind, short := shortRef(r.Ref)
	owner, _, _ := strings.Cut(r.Repo, "/")
	return map[string]string{
		"ref": r.Ref, "ref_name": short, "ref_type": kind, "sha": r.Commit, "repository": r.Repo,
		"repository_id": fmt.Sprint(accountID(r.Repo)), "repository_owner": owner, "repository_owner_id": fmt.Sprint(accountID(owner)),
		"actor": r.Actor, "actor_id": fmt.Sprint(accountID(r.Actor)), "triggering_actor": r.Triggerer(),
		"event_name": r.Event, "workflow": p.called.workflow.Name, "head_ref": r.HeadRef, "base_ref": r.BaseRef,
		"workflow_ref": describeFile(r.Repo, r.File, r.Ref), "workflow_sha": r.Commit,
		"run_id": fmt.Sprint(r.ID), "run_number": fmt.Sprint(r.Number), "run_attempt": fmt.Sprint(r.Attempt),
		"server_url": p.cfg.ServerURL, "api_url": p.cfg.APIURL, "graphql_url": p.cfg.APIURL + "/graphql",
	}
}

// masked hides the repository's secrets in a text of the engine.
func (p *performance) masked(s string) string {
	m := &mask.Masker{}
	for _, v := range p.secrets {
		m.Add(v)
	}
	return m.Text(s)
}

// waits counts a job that waits for an environment, or no longer does. A run
// of which every job waits is waiting itself.
func (p *performance) waits(by int) {
	p.mu.Lock()
	p.gated += by
	p.going -= by
	waiting := p.going == 0 && p.gated > 0
	status := store.InProgress
	if waiting {
		status = store.Waiting
	}
	changed := p.run.Status != status && p.run.Status != store.Completed && !p.stopped()
	p.run.Status = status
	run := p.run
	p.mu.Unlock()
	p.setWaiting(run.ID, waiting)
	if changed {
		_ = p.change(p.ctx, false, func(t *telling) error { return t.SaveRun(run) })
	}
}

// writeArchive streams the tree of a commit as tar.
func writeArchive(ctx context.Context, repo *git.Repository, commit string, w io.Writer) error {
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, "git", "archive", "--format=tar", commit)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = repo.Dir(), git.Env(), w, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("git archive: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

func problemOf(err error) *Problem {
	var e *LocatedError
	if errors.As(err, &e) {
		return &Problem{Message: e.Msg, Hint: e.Hint, File: e.File, Line: e.Line}
	}
	return &Problem{Message: err.Error()}
}
