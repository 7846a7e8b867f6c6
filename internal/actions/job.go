package actions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/execute"
	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/mask"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
	"github.com/lockstep-gitops/lockstep/internal/actions/trigger"
)

// one runs one combination of a job.
func (p *performance) one(ctx context.Context, j *syntax.Job, needs, matrix, strategy *expr.Object) schedule.Result {
	durable := context.WithoutCancel(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	record, err := p.store.CreateJob(durable, p.newJob(j, matrix))
	if err != nil {
		p.log.Error("store job", "run", p.run.ID, "job", j.ID, "err", err)
		return schedule.Failure
	}
	p.setStatus(durable, &p.run, record.Name, "pending", "Queued")
	conclusion, problem := p.queueAndRun(ctx, cancel, j, &record, needs, matrix, strategy)
	switch {
	case p.hard.Err() != nil && conclusion != schedule.Success:
		conclusion, problem = schedule.Failure, interrupted()
	case conclusion == schedule.Failure && p.continues(j, matrix):
		record.Note = "the job failed; continue-on-error lets the run go on"
		p.endJob(durable, &p.run, &record, schedule.Failure, problem)
		return schedule.Success
	}
	p.endJob(durable, &p.run, &record, conclusion, problem)
	p.mu.Lock()
	defer p.mu.Unlock()
	if conclusion == schedule.Failure && p.problem == nil && problem != nil {
		named := *problem
		named.Message = record.Name + ": " + named.Message
		p.problem = &named
	}
	if o := p.outputs[strings.ToLower(j.ID)]; o == nil {
		p.outputs[strings.ToLower(j.ID)] = expr.Strings(record.Outputs)
	} else {
		for _, k := range slices.Sorted(maps.Keys(record.Outputs)) {
			o.Set(k, record.Outputs[k]) // a matrix: the last one wins
		}
	}
	return conclusion
}

func (p *performance) newJob(j *syntax.Job, matrix *expr.Object) Job {
	record := Job{RunID: p.run.ID, Attempt: p.run.Attempt, Key: j.ID, Name: j.ID, Needs: j.Needs, Line: j.Line, Status: store.Queued}
	env := p.runEnv()
	if matrix != nil {
		env.Contexts["matrix"] = matrix
		record.Name = j.ID + " " + schedule.Label(matrix)
	}
	if j.Name.IsSet() {
		if name, err := env.Interpolate(j.Name.Value); err == nil && name != "" {
			record.Name = p.masked(name)
			if matrix != nil && !strings.Contains(j.Name.Value, "${{") {
				record.Name += " " + schedule.Label(matrix)
			}
		}
	}
	return record
}

func (p *performance) continues(j *syntax.Job, matrix *expr.Object) bool {
	env := p.runEnv()
	if matrix != nil {
		env.Contexts["matrix"] = matrix
	}
	v, err := env.Interpolate(j.ContinueOnError.Value)
	return err == nil && v == "true"
}

// queueAndRun waits for the job's concurrency group and for a free place, then
// runs it.
func (p *performance) queueAndRun(ctx context.Context, cancel context.CancelCauseFunc, j *syntax.Job, record *Job, needs, matrix, strategy *expr.Object) (schedule.Result, *Problem) {
	durable := context.WithoutCancel(ctx)
	env := p.runEnv()
	env.Contexts["needs"], env.Contexts["strategy"] = needs, strategy
	if matrix != nil {
		env.Contexts["matrix"] = matrix
	}
	leave, err := p.enterGroup(j.Concurrency, env, fmt.Sprintf("job %d", record.ID), cancel, func(behind string) {
		record.Status, record.Note = store.Waiting, "waits in its concurrency group until "+behind+" has ended"
		p.saveJob(durable, record)
		p.tellJob(durable, &p.run, record, waitingStatus, record.Note, nil)
	})
	if err != nil {
		return cancelledOr(err)
	}
	defer leave()
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return schedule.Cancelled, &Problem{Message: context.Cause(ctx).Error()}
	}
	defer func() { <-p.slots }()
	if ctx.Err() != nil {
		return schedule.Cancelled, &Problem{Message: context.Cause(ctx).Error()}
	}
	token, revoke, err := p.deps.Tokens.IssueJobToken(ctx, JobToken{Repo: p.run.Repo, Commit: p.run.Commit, Run: p.run.ID, Write: contentsWrite(p.workflow, j)})
	if err != nil {
		return schedule.Failure, &Problem{Message: "issue the job's token: " + err.Error()}
	}
	defer func() {
		ctx, cancel := context.WithTimeout(durable, 10*time.Second)
		defer cancel()
		if err := revoke(ctx); err != nil {
			p.log.Error("revoke a job's token", "job", record.ID, "err", err)
		}
	}()
	record.Status, record.Note, record.Started = store.InProgress, "", p.deps.Now().UTC()
	p.saveJob(durable, record)
	p.tellJob(durable, &p.run, record, startedStatus, "", nil)
	p.setStatus(durable, &p.run, record.Name, "pending", "In progress")
	report := &jobReport{p: p, record: record, ctx: durable}
	result := p.runner.Run(ctx, p.plan(j, record, token, needs, matrix, strategy), report)
	record.Outputs = result.Outputs
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

func (p *performance) plan(j *syntax.Job, record *Job, token string, needs, matrix, strategy *expr.Object) *execute.Plan {
	r := p.run
	return &execute.Plan{
		ID: record.ID, Workflow: p.workflow, Job: j, Repo: r.Repo, Commit: r.Commit, Ref: r.Ref, Event: r.Event, Payload: p.payload, Actor: r.Actor,
		RunID: r.ID, RunNumber: r.Number, Attempt: r.Attempt, Token: token, Secrets: p.secrets, Vars: p.vars, Needs: needs,
		Inputs: trigger.Typed(p.workflow, r.Inputs), Matrix: matrix, Strategy: strategy, Hard: p.hard,
		Archive: func(ctx context.Context, commit string, w io.Writer) error {
			return writeArchive(ctx, p.repo, commit, w)
		},
	}
}

// refuse ends a job that cannot start.
func (p *performance) refuse(ctx context.Context, j *syntax.Job, problem *Problem) schedule.Result {
	problem.Message = p.masked(problem.Message)
	record, err := p.store.CreateJob(ctx, p.newJob(j, nil))
	if err != nil {
		p.log.Error("store job", "run", p.run.ID, "job", j.ID, "err", err)
		return schedule.Failure
	}
	p.tellJob(ctx, &p.run, &record, startedStatus, "", nil)
	p.endJob(ctx, &p.run, &record, schedule.Failure, problem)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.problem == nil {
		named := *problem
		named.Message = record.Name + ": " + named.Message
		p.problem = &named
	}
	return schedule.Failure
}

// skip ends a job whose `if` is false.
func (p *performance) skip(ctx context.Context, j *syntax.Job, result schedule.Result, note string) {
	record, err := p.store.CreateJob(ctx, p.newJob(j, nil))
	if err != nil {
		p.log.Error("store job", "run", p.run.ID, "job", j.ID, "err", err)
		return
	}
	record.Note = note
	p.endJob(ctx, &p.run, &record, result, nil)
}

// takeOver copies a job that succeeded in the attempt before.
func (p *performance) takeOver(ctx context.Context, j *syntax.Job, previous []Job) schedule.Result {
	outputs := expr.NewObject()
	result := schedule.Skipped
	for _, old := range previous {
		id := old.ID
		old.Attempt = p.run.Attempt
		old.Note = fmt.Sprintf("taken over from attempt %d (job %d)", p.run.Attempt-1, id)
		old.Steps = nil // their logs belong to the attempt before
		if _, err := p.store.CreateJob(ctx, old); err != nil {
			p.log.Error("store job", "run", p.run.ID, "job", j.ID, "err", err)
		}
		for _, k := range slices.Sorted(maps.Keys(old.Outputs)) {
			outputs.Set(k, old.Outputs[k])
		}
		if old.Conclusion == string(schedule.Success) {
			result = schedule.Success
		}
	}
	p.mu.Lock()
	p.outputs[strings.ToLower(j.ID)] = outputs
	p.mu.Unlock()
	return result
}

// masked hides the repository's secrets in a text of the engine.
func (p *performance) masked(s string) string {
	m := &mask.Masker{}
	for _, v := range p.secrets {
		m.Add(v)
	}
	return m.Text(s)
}

// subject names a run, or with a name a job, in the journal.
func subject(r *Run, job string) string {
	s := path.Base(r.File)
	if job != "" {
		s += "/" + job
	}
	return s
}
