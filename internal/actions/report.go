package actions

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/command"
	"github.com/lockstep-gitops/lockstep/internal/actions/execute"
	"github.com/lockstep-gitops/lockstep/internal/actions/logs"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// Bounds of what one job may leave in the database.
const (
	maxAnnotations = 100
	maxSummary     = 1 << 20
	maxUses        = 200
)

func (a *Actions) runData(r *Run) map[string]string {
	data := map[string]string{
		journal.DataRun: strconv.FormatInt(r.Number, 10), "run_id": strconv.FormatInt(r.ID, 10), "attempt": strconv.Itoa(r.Attempt),
		journal.DataActor: r.Actor, journal.DataRef: r.Ref, "event": r.Event,
	}
	if r.Pull > 0 {
		data["pull"] = strconv.FormatInt(r.Pull, 10)
	}
	return data
}

// runEvent is an event of a run as a whole.
func (a *Actions) runEvent(r *Run, status journal.Status, message string, problem *Problem) journal.Event {
	e := journal.Event{Repo: r.Repo, Commit: r.Head(), Subject: subject(r, ""), Status: status, Message: message, Data: a.runData(r)}
	explain(&e, problem)
	return e
}

// jobEvent is an event of a job.
func (a *Actions) jobEvent(r *Run, j *Job, status journal.Status, message string, problem *Problem) journal.Event {
	data := a.runData(r)
	data[journal.DataJob], data["job_id"] = j.Key, strconv.FormatInt(j.ID, 10)
	e := journal.Event{Repo: r.Repo, Commit: r.Head(), Subject: subject(r, j.Name), Status: status, Message: message, Data: data}
	explain(&e, problem)
	return e
}

// startRun makes a run visible as going on.
func (p *performance) startRun(ctx context.Context) {
	p.mu.Lock()
	r := &p.run
	if r.Started.IsZero() || !r.Resume {
		r.Started = p.deps.Now().UTC()
	}
	r.Status, r.Note, r.Resume = store.InProgress, "", false
	run := *r
	p.mu.Unlock()
	_ = p.change(ctx, false, func(t *telling) error {
		if err := t.SaveRun(run); err != nil {
			return err
		}
		if err := t.event(run.Started, p.runEvent(&run, journal.StatusStarted, fmt.Sprintf("run %d of %s", run.Number, run.Name), nil)); err != nil {
			return err
		}
		return t.tell(runKind, runMessage{run.ID, "in_progress"})
	})
}

// pendRun says what a run waits for. A restart starts it again.
func (p *performance) pendRun(ctx context.Context, note string) {
	r := &p.run
	r.Note, r.Status = note, store.Pending
	_ = p.change(ctx, false, func(t *telling) error {
		if err := t.SaveRun(*r); err != nil {
			return err
		}
		return t.event(p.deps.Now(), p.runEvent(r, journal.StatusWaiting, note, nil))
	})
}

// tellAnnotations tells what the linter says about the workflow file.
func (p *performance) tellAnnotations() {
	if len(p.run.Annotations) == 0 || p.run.Attempt > 1 || p.run.Resume {
		return
	}
	fault := ""
	if p.run.Problem != nil {
		fault = p.run.Problem.Message
	}
	_ = p.change(p.ctx, false, func(t *telling) error {
		for _, n := range p.run.Annotations {
			if fault != "" && strings.HasPrefix(n.Message, fault) {
				continue // the end of the run tells it
			}
			e := p.runEvent(&p.run, journal.StatusInfo, n.Message, nil)
			e.File, e.Line = n.File, n.Line
			if err := t.event(p.deps.Now(), e); err != nil {
				return err
			}
		}
		return nil
	})
}

var closing = map[schedule.Result]journal.Status{
	schedule.Success: journal.StatusSucceeded, schedule.Failure: journal.StatusFailed,
	schedule.Cancelled: journal.StatusCancelled, schedule.Skipped: journal.StatusSkipped,
}

// endRun closes a run.
func (a *Actions) endRun(ctx context.Context, r *Run, result schedule.Result, problem *Problem) {
	r.Status, r.Conclusion, r.Problem, r.Note, r.Ended, r.Resume = store.Completed, string(result), problem, "", a.deps.Now().UTC(), false
	_ = a.change(ctx, true, func(t *telling) error {
		if err := t.SaveRun(*r); err != nil {
			return err
		}
		message := fmt.Sprintf("run %d of %s: %s", r.Number, r.Name, result)
		if err := t.event(r.Ended, a.runEvent(r, closing[result], message, problem)); err != nil {
			return err
		}
		return t.tell(runKind, runMessage{r.ID, "completed"})
	})
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

// tellWaiting stores a job that waits, and says for what.
func (p *performance) tellWaiting(ctx context.Context, record *Job) {
	_ = p.change(ctx, false, func(t *telling) error {
		if err := t.SaveJob(record); err != nil {
			return err
		}
		if err := t.event(p.deps.Now(), p.jobEvent(&p.run, record, journal.StatusWaiting, record.Note, nil)); err != nil {
			return err
		}
		return p.tellCheck(t, &p.run, record, record.Note)
	})
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
	message := ""
	if problem == nil && result != schedule.Success {
		if message = j.Note; message == "" {
			message = "job " + string(result)
		}
	}
	title := map[schedule.Result]string{schedule.Success: "Successful", schedule.Skipped: "Skipped", schedule.Cancelled: "Cancelled", schedule.Failure: "Failed"}[result]
	if !j.Started.IsZero() && result == schedule.Success {
		title = fmt.Sprintf("Successful in %s", now.Sub(j.Started).Round(100*time.Millisecond))
	}
	if problem != nil {
		title = describe(problem)
	}
	_ = a.change(ctx, !j.Started.IsZero(), func(t *telling) error {
		if err := t.SaveJob(j); err != nil {
			return err
		}
		if err := t.event(now, a.jobEvent(r, j, closing[result], message, problem)); err != nil {
			return err
		}
		return a.tellCheck(t, r, j, title)
	})
}

// tellCheck sets the check run of a job.
func (a *Actions) tellCheck(t *telling, r *Run, j *Job, title string) error {
	if a.deps.Checks == nil {
		return nil
	}
	c := Check{
		Repo: r.Repo, Commit: r.Head(), Workflow: r.Name, Name: j.Name, ExternalID: fmt.Sprintf("job-%d", j.ID), Run: r.ID, Status: string(j.Status), Conclusion: j.Conclusion,
		Title: title, DetailsURL: fmt.Sprintf("%s/%s/actions/runs/%d/job/%d", a.cfg.ServerURL, r.Repo, r.ID, j.ID), Started: j.Started, Completed: j.Ended,
	}
	if j.Status == store.Completed {
		c.Summary, c.Annotations = j.Summary, j.Annotations
		if p := j.Problem; p != nil && p.File != "" && p.Line > 0 && !slices.ContainsFunc(c.Annotations, func(n command.Annotation) bool { return n.File == p.File && n.Line == p.Line }) {
			c.Annotations = append(slices.Clone(c.Annotations), command.Annotation{Level: "error", Message: p.Message, File: p.File, Line: p.Line, Title: p.Name})
		}
	}
	return t.tell(checkKind, c)
}

// checkFile sets a check for a workflow file of which no job can start.
func (p *performance) checkFile(ctx context.Context, problem *Problem) {
	if p.deps.Checks == nil {
		return
	}
	now := p.deps.Now().UTC()
	_ = p.change(ctx, false, func(t *telling) error {
		return t.tell(checkKind, Check{
			Repo: p.run.Repo, Commit: p.run.Head(), Workflow: p.run.Name, Name: p.run.File, ExternalID: fmt.Sprintf("run-%d-%d", p.run.ID, p.run.Attempt), Run: p.run.ID,
			Status: string(store.Completed), Conclusion: "failure", Title: describe(problem), Started: now, Completed: now, Annotations: p.run.Annotations,
			DetailsURL: fmt.Sprintf("%s/%s/actions/runs/%d", p.cfg.ServerURL, p.run.Repo, p.run.ID),
		})
	})
}

// jobReport stores what a job tells while it runs. It is used by one goroutine
// at a time.
type jobReport struct {
	p      *performance
	record *Job
	ctx    context.Context
	log    *logs.Log
}

var (
	_ execute.Reporter    = (*jobReport)(nil)
	_ execute.UseReporter = (*jobReport)(nil)
)

func (r *jobReport) save() {
	_ = r.p.change(r.ctx, false, func(t *telling) error { return t.SaveJob(r.record) })
}

// StepStarted implements execute.Reporter.
func (r *jobReport) StepStarted(s execute.Step) {
	r.record.Steps = append(r.record.Steps, Step{Number: s.Number, Name: s.Name, Status: store.InProgress, Started: r.p.deps.Now().UTC()})
	log, err := r.p.logs.Create(logs.Key{Run: r.record.RunID, Attempt: r.record.Attempt, Job: r.record.ID, Step: s.Number})
	if err != nil {
		r.p.log.Error("create log", "job", r.record.ID, "err", err)
	}
	r.log = log
	r.save()
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
	r.save()
}

// Log implements execute.Reporter.
func (r *jobReport) Log(line string) {
	if r.log != nil {
		r.log.Line(line)
	}
}

// Used implements execute.UseReporter.
func (r *jobReport) Used(u execute.Use) {
	use := store.Use{Ref: u.Ref, Commit: u.Commit, From: u.From, File: u.File, Line: u.Line}
	if len(r.record.Uses) < maxUses && !slices.Contains(r.record.Uses, use) {
		r.record.Uses = append(r.record.Uses, use)
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
	r.p.tellNow(r.ctx, journal.Event{Repo: r.p.run.Repo, Commit: r.p.run.Head(), Subject: subject(&r.p.run, r.record.Name), Status: journal.StatusInfo,
		Message: a.Message, File: a.File, Line: a.Line, Data: data})
}

// Summary implements execute.Reporter.
func (r *jobReport) Summary(_ int, markdown string) {
	if len(r.record.Summary)+len(markdown) <= maxSummary {
		r.record.Summary += strings.TrimRight(markdown, "\n") + "\n"
	}
}
