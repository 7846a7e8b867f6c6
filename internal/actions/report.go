package actions

import (
	"context"
	"fmt"
	"maps"
	"path"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/command"
	"github.com/lockstep-gitops/lockstep/internal/actions/execute"
	"github.com/lockstep-gitops/lockstep/internal/actions/logs"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

const (
	startedStatus = journal.StatusStarted
	waitingStatus = journal.StatusWaiting
)

// Bounds of what one job may leave in the database.
const (
	maxAnnotations = 100
	maxSummary     = 1 << 20
)

// tell writes one event of stage run.
func (a *Actions) tell(ctx context.Context, e journal.Event) {
	e.Stage = journal.StageRun
	if _, err := a.deps.Journal.Append(context.WithoutCancel(ctx), e); err != nil {
		a.log.Error("write to the journal", "subject", e.Subject, "err", err)
	}
}

func (a *Actions) runData(r *Run) map[string]string {
	return map[string]string{
		journal.DataRun: strconv.FormatInt(r.Number, 10), "run_id": strconv.FormatInt(r.ID, 10), "attempt": strconv.Itoa(r.Attempt),
		journal.DataActor: r.Actor, journal.DataRef: r.Ref, "event": r.Event,
	}
}

// startRun makes a run visible as going on.
func (p *performance) startRun(ctx context.Context) {
	r := &p.run
	if p.hard.Err() != nil && r.Problem == nil {
		return // it stays queued for the next start
	}
	r.Started = p.deps.Now().UTC()
	r.Status, r.Note = store.InProgress, ""
	if p.workflow != nil {
		r.Name = p.workflow.Name
	}
	if err := p.store.SaveRun(ctx, *r); err != nil {
		p.log.Error("store run", "run", r.ID, "err", err)
	}
	p.tell(ctx, journal.Event{Repo: r.Repo, Commit: r.Commit, Subject: subject(r, ""), Status: journal.StatusStarted,
		Message: fmt.Sprintf("run %d of %s", r.Number, r.Name), Data: p.runData(r)})
}

// waitRun says what a run waits for. It stays queued on disk, so that a restart
// starts it.
func (p *performance) waitRun(ctx context.Context, note string) {
	r := &p.run
	r.Note = note
	if err := p.store.SaveRun(ctx, *r); err != nil {
		p.log.Error("store run", "run", r.ID, "err", err)
	}
	p.tell(ctx, journal.Event{Repo: r.Repo, Commit: r.Commit, Subject: subject(r, ""), Status: journal.StatusWaiting, Message: note, Data: p.runData(r)})
}

// warn tells what of a workflow file has no effect.
func (p *performance) warn(diagnostics []syntax.Diagnostic) {
	for _, d := range diagnostics {
		p.tell(p.ctx, journal.Event{Repo: p.run.Repo, Commit: p.run.Commit, Subject: subject(&p.run, ""), Status: journal.StatusInfo,
			Message: d.Message, Hint: d.Hint, File: d.File, Line: d.Line, Data: p.runData(&p.run)})
	}
}

var closing = map[schedule.Result]journal.Status{
	schedule.Success: journal.StatusSucceeded, schedule.Failure: journal.StatusFailed,
	schedule.Cancelled: journal.StatusCancelled, schedule.Skipped: journal.StatusSkipped,
}

// endRun closes a run.
func (a *Actions) endRun(ctx context.Context, r *Run, result schedule.Result, problem *Problem) {
	r.Status, r.Conclusion, r.Problem, r.Note, r.Ended = store.Completed, string(result), problem, "", a.deps.Now().UTC()
	if err := a.store.SaveRun(ctx, *r); err != nil {
		a.log.Error("store run", "run", r.ID, "err", err)
	}
	e := journal.Event{Repo: r.Repo, Commit: r.Commit, Subject: subject(r, ""), Status: closing[result], Data: a.runData(r),
		Message: fmt.Sprintf("run %d of %s: %s", r.Number, r.Name, result)}
	explain(&e, problem)
	a.tell(ctx, e)
	a.log.Info("workflow ended", "repo", r.Repo, "file", r.File, "run", r.ID, "conclusion", result)
}

// explain puts the problem into an event.
func explain(e *journal.Event, problem *Problem) {
	if problem == nil {
		return
	}
	e.Message, e.Hint, e.File, e.Line = problem.Message, problem.Hint, problem.File, problem.Line
	if problem.Step > 0 {
		// Not DataStep: the event closes the job, it is not about a span of the step's own.
		e.Data["failed_step"], e.Data["failed_step_name"] = strconv.Itoa(problem.Step), problem.Name
		e.Message = fmt.Sprintf("step %q: %s", problem.Name, problem.Message)
	}
	if len(problem.Tail) > 0 {
		tail := strings.Join(problem.Tail, "\n")
		e.Data["tail"] = tail[max(0, len(tail)-4096):]
	}
}

// describe is a problem in one line.
func describe(p *Problem) string {
	if p.File != "" && p.Line > 0 {
		return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Message)
	}
	return p.Message
}

func (a *Actions) saveJob(ctx context.Context, j *Job) {
	if err := a.store.SaveJob(ctx, *j); err != nil {
		a.log.Error("store job", "job", j.ID, "err", err)
	}
}

// tellJob writes an event of a job.
func (a *Actions) tellJob(ctx context.Context, r *Run, j *Job, status journal.Status, message string, problem *Problem) {
	data := a.runData(r)
	data[journal.DataJob], data["job_id"] = j.Key, strconv.FormatInt(j.ID, 10)
	e := journal.Event{Repo: r.Repo, Commit: r.Commit, Subject: subject(r, j.Name), Status: status, Message: message, Data: data}
	explain(&e, problem)
	a.tell(ctx, e)
}

// endJob closes a job.
func (a *Actions) endJob(ctx context.Context, r *Run, j *Job, result schedule.Result, problem *Problem) {
	now := a.deps.Now().UTC()
	j.Status, j.Conclusion, j.Problem, j.Ended = store.Completed, string(result), problem, now
	for i := range j.Steps {
		if s := &j.Steps[i]; s.Status != store.Completed {
			s.Status, s.Conclusion, s.Ended = store.Completed, string(schedule.Cancelled), now
		}
	}
	a.saveJob(ctx, j)
	message := ""
	if problem == nil && result != schedule.Success {
		if message = j.Note; message == "" {
			message = "job " + string(result)
		}
	}
	a.tellJob(ctx, r, j, closing[result], message, problem)
	description := map[schedule.Result]string{schedule.Success: "Successful", schedule.Skipped: "Skipped", schedule.Cancelled: "Cancelled", schedule.Failure: "Failed"}[result]
	if !j.Started.IsZero() && result == schedule.Success {
		description = fmt.Sprintf("Successful in %s", now.Sub(j.Started).Round(100_000_000))
	}
	if problem != nil {
		description = describe(problem)
	}
	a.setStatus(ctx, r, j.Name, stateOf(result), description)
}

// setStatus puts the state of a job, or with "" of the workflow file, on the
// commit.
func (a *Actions) setStatus(ctx context.Context, r *Run, job, state, description string) {
	if a.deps.Statuses == nil {
		return
	}
	name := r.Name
	if name == r.File {
		name = path.Base(name)
	}
	if job != "" {
		name += "/" + job
	}
	if runes := []rune(description); len(runes) > 140 { // GitHub's limit
		description = string(runes[:139]) + "…"
	}
	err := a.deps.Statuses.SetCommitStatus(ctx, CommitStatus{Repo: r.Repo, Commit: r.Commit, Context: name, State: state, Description: description,
		TargetURL: fmt.Sprintf("%s/%s/actions/runs/%d", a.cfg.ServerURL, r.Repo, r.ID)})
	if err != nil {
		a.log.Warn("set commit status", "repo", r.Repo, "commit", r.Commit, "context", name, "err", err)
	}
}

// jobReport stores what a job tells while it runs. It is used by one goroutine
// at a time.
type jobReport struct {
	p      *performance
	record *Job
	ctx    context.Context
	log    *logs.Log
}

var _ execute.Reporter = (*jobReport)(nil)

// StepStarted implements execute.Reporter.
func (r *jobReport) StepStarted(s execute.Step) {
	r.record.Steps = append(r.record.Steps, Step{Number: s.Number, Name: s.Name, Status: store.InProgress, Started: r.p.deps.Now().UTC()})
	log, err := r.p.logs.Create(logs.Key{Run: r.record.RunID, Attempt: r.record.Attempt, Job: r.record.ID, Step: s.Number})
	if err != nil {
		r.p.log.Error("create log", "job", r.record.ID, "err", err)
	}
	r.log = log
	r.p.saveJob(r.ctx, r.record)
}

// StepDone implements execute.Reporter.
func (r *jobReport) StepDone(s execute.Step) {
	if r.log != nil {
		if err := r.log.Close(); err != nil {
			r.p.log.Error("close log", "job", r.record.ID, "err", err)
		}
		r.log = nil
	}
	for i := range r.record.Steps {
		if step := &r.record.Steps[i]; step.Number == s.Number {
			step.Status, step.Conclusion, step.Outcome, step.Ended = store.Completed, string(s.Conclusion), string(s.Outcome), r.p.deps.Now().UTC()
		}
	}
	r.p.saveJob(r.ctx, r.record)
}

// Log implements execute.Reporter.
func (r *jobReport) Log(line string) {
	if r.log != nil {
		r.log.Line(line)
	}
}

// Annotate implements execute.Reporter.
func (r *jobReport) Annotate(a command.Annotation) {
	if len(r.record.Annotations) >= maxAnnotations {
		return
	}
	const longest = 4096
	if len(a.Message) > longest {
		a.Message = a.Message[:longest] + "…"
	}
	r.record.Annotations = append(r.record.Annotations, a)
	if a.Level != "error" {
		return // a job's failure tells its errors
	}
	data := r.p.runData(&r.p.run)
	maps.Copy(data, map[string]string{journal.DataJob: r.record.Key, "annotated_step": strconv.Itoa(a.Step)})
	r.p.tell(r.ctx, journal.Event{Repo: r.p.run.Repo, Commit: r.p.run.Commit, Subject: subject(&r.p.run, r.record.Name), Status: journal.StatusInfo,
		Message: a.Message, File: a.File, Line: a.Line, Data: data})
}

// Summary implements execute.Reporter.
func (r *jobReport) Summary(_ int, markdown string) {
	if len(r.record.Summary)+len(markdown) <= maxSummary {
		r.record.Summary += strings.TrimRight(markdown, "\n") + "\n"
	}
}
