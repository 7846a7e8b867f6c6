package actions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"

	"github.com/lockstep-gitops/lockstep/internal/actions/execute"
	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
	"github.com/lockstep-gitops/lockstep/internal/actions/trigger"
	"github.com/lockstep-gitops/lockstep/internal/git"
)

// performance is one attempt of a run while it goes on.
type performance struct {
	*Actions
	ctx      context.Context // ends with a cancellation
	hard     context.Context // ends when Lockstep stops
	run      Run
	workflow *syntax.Workflow
	repo     *git.Repository
	payload  *expr.Object
	secrets  map[string]string
	vars     map[string]string
	graph    *schedule.Graph
	previous map[string][]Job // of the attempt before, for a re-run of the failed ones

	mu      sync.Mutex
	outputs map[string]*expr.Object // of jobs that are done, by key
	problem *Problem                // of the first job that failed
}

// perform runs one attempt to its end. Everything it does is durable before
// the next step.
func (a *Actions) perform(ctx, hard context.Context, r Run) {
	p := &performance{Actions: a, ctx: ctx, hard: hard, run: r, outputs: map[string]*expr.Object{}}
	durable := context.WithoutCancel(ctx)
	leave, err := p.prepare()
	if leave != nil {
		defer leave()
	}
	if err != nil {
		p.startRun(durable)
		switch {
		case hard.Err() != nil:
			if p.run.Problem == nil { // it did not begin: it stays queued
				return
			}
			a.endRun(durable, &p.run, schedule.Failure, p.run.Problem)
		case errors.Is(err, execute.ErrCancelled):
			a.endRun(durable, &p.run, schedule.Cancelled, &Problem{Message: err.Error()})
		default:
			problem := problemOf(err)
			a.setStatus(durable, &p.run, "", "failure", describe(problem))
			a.endRun(durable, &p.run, schedule.Failure, problem)
		}
		return
	}
	p.startRun(durable)
	p.loop()
	conclusion, problem := p.graph.Conclusion(p.ctx.Err() != nil), p.problem
	switch {
	case hard.Err() != nil:
		conclusion, problem = schedule.Failure, interrupted()
	case conclusion == schedule.Cancelled && p.ctx.Err() != nil:
		problem = &Problem{Message: context.Cause(p.ctx).Error()}
	}
	a.endRun(durable, &p.run, conclusion, problem)
}

// prepare loads what the run needs and waits for its concurrency group.
func (p *performance) prepare() (leave func(), err error) {
	r := &p.run
	if p.repo, err = p.deps.Repositories.Repository(p.ctx, r.Repo); err != nil {
		return nil, err
	}
	content, err := p.repo.ReadFile(p.ctx, r.Commit, r.File)
	if err != nil {
		return nil, fmt.Errorf("read %s at %s: %w", r.File, r.Commit, err)
	}
	w, diagnostics := syntax.Load(r.File, content)
	if w == nil {
		d := firstFatal(diagnostics)
		for _, other := range diagnostics { // a file may have several faults
			if other.Message != d.Message {
				p.warn([]syntax.Diagnostic{other})
			}
		}
		return nil, &LocatedError{File: d.File, Line: d.Line, Msg: d.Message, Hint: d.Hint}
	}
	if r.Problem != nil { // a filter of its trigger is not valid
		return nil, &LocatedError{File: r.Problem.File, Line: r.Problem.Line, Msg: r.Problem.Message, Hint: r.Problem.Hint}
	}
	p.workflow, p.graph = w, schedule.NewGraph(w.Jobs)
	p.warn(diagnostics)
	if p.payload, err = p.Actions.payload(p.ctx, p.repo, *r); err != nil {
		return nil, err
	}
	if p.secrets, err = p.store.Secrets(p.ctx, r.Repo); err != nil {
		return nil, err
	}
	if p.vars, err = p.store.Variables(p.ctx, r.Repo); err != nil {
		return nil, err
	}
	if r.OnlyFailed && r.Attempt > 1 {
		if err := p.loadPrevious(); err != nil {
			return nil, err
		}
	}
	env := p.runEnv()
	if w.RunName.IsSet() {
		if title, err := env.Interpolate(w.RunName.Value); err == nil && title != "" {
			r.Title = p.masked(title)
		}
	}
	return p.enterGroup(w.Concurrency, env, fmt.Sprintf("run %d", r.ID), p.cancelRun, func(behind string) {
		p.waitRun(context.WithoutCancel(p.ctx), "waits in its concurrency group until "+behind+" has ended")
	})
}

func (p *performance) loadPrevious() error {
	jobs, err := p.store.Jobs(p.ctx, p.run.ID, p.run.Attempt-1)
	p.previous = map[string][]Job{}
	for _, j := range jobs {
		p.previous[strings.ToLower(j.Key)] = append(p.previous[strings.ToLower(j.Key)], j)
	}
	return err
}

func (p *performance) cancelRun(cause error) {
	p.Actions.mu.Lock()
	defer p.Actions.mu.Unlock()
	if active := p.active[p.run.ID]; active != nil {
		active.cancel(cause)
	}
}

// enterGroup waits for a concurrency group; without one it does nothing.
func (p *performance) enterGroup(c *syntax.Concurrency, env expr.Env, name string, cancel context.CancelCauseFunc, waiting func(string)) (leave func(), err error) {
	if c == nil {
		return func() {}, nil
	}
	key, err := env.Interpolate(c.Group.Value)
	if err != nil {
		return nil, &LocatedError{File: p.workflow.File, Line: c.Group.Line, Msg: "concurrency group: " + err.Error()}
	}
	stop, err := env.Interpolate(c.CancelInProgress.Value)
	if err != nil {
		return nil, &LocatedError{File: p.workflow.File, Line: c.CancelInProgress.Line, Msg: "cancel-in-progress: " + err.Error()}
	}
	if key == "" {
		return func() {}, nil
	}
	return p.groups.enter(p.ctx, cancel, p.run.Repo+"\x00"+key, name, stop == "true", waiting)
}

// runEnv is what expressions outside of jobs see.
func (p *performance) runEnv() expr.Env {
	r := p.run
	kind, short := "branch", strings.TrimPrefix(r.Ref, "refs/heads/")
	if tag, ok := strings.CutPrefix(r.Ref, "refs/tags/"); ok {
		kind, short = "tag", tag
	}
	owner, _, _ := strings.Cut(r.Repo, "/")
	github := expr.NewObject()
	for _, kv := range [][2]string{{"ref", r.Ref}, {"ref_name", short}, {"ref_type", kind}, {"sha", r.Commit}, {"repository", r.Repo},
		{"repository_owner", owner}, {"actor", r.Actor}, {"triggering_actor", r.Actor}, {"event_name", r.Event}, {"workflow", r.Name}, {"head_ref", ""}, {"base_ref", ""},
		{"run_id", fmt.Sprint(r.ID)}, {"run_number", fmt.Sprint(r.Number)}, {"run_attempt", fmt.Sprint(r.Attempt)},
		{"server_url", p.cfg.ServerURL}, {"api_url", p.cfg.APIURL}} {
		github.Set(kv[0], kv[1])
	}
	github.Set("event", p.payload)
	return expr.Env{Contexts: map[string]any{"github": github, "vars": expr.Strings(p.vars), "inputs": trigger.Typed(p.workflow, r.Inputs)}}
}

// loop decides and runs jobs until all are done.
func (p *performance) loop() {
	type done struct {
		job    *syntax.Job
		result schedule.Result
	}
	ended := make(chan done)
	running := 0
	for {
		for _, j := range p.graph.Next() {
			// The graph belongs to this goroutine: take its answers along.
			answer, status := p.graph.Status(j, p.ctx.Err() != nil), map[string]bool{}
			for _, name := range []string{"success", "failure", "always", "cancelled"} {
				status[name] = answer(name)
			}
			needs := p.needs(j)
			running++
			go func() { ended <- done{j, p.job(j, func(name string) bool { return status[name] }, needs)} }()
		}
		if running == 0 {
			return
		}
		d := <-ended
		running--
		p.graph.Done(d.job.ID, d.result)
	}
}

// needs is the `needs` context of a job.
func (p *performance) needs(j *syntax.Job) *expr.Object {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := expr.NewObject()
	for _, n := range j.Needs {
		outputs := p.outputs[strings.ToLower(n)]
		if outputs == nil {
			outputs = expr.NewObject()
		}
		o.Set(p.workflow.Job(n).ID, expr.NewObject().Set("result", string(p.graph.Result(n))).Set("outputs", outputs))
	}
	return o
}

// job decides one job and runs its combinations.
func (p *performance) job(j *syntax.Job, status func(string) bool, needs *expr.Object) schedule.Result {
	durable := context.WithoutCancel(p.ctx)
	env := p.runEnv()
	env.Contexts["needs"] = needs
	withStatus := env
	withStatus.Status = status
	ok, err := withStatus.Condition(j.If.Value)
	switch {
	case err != nil:
		return p.refuse(durable, j, &Problem{Message: "if: " + err.Error(), File: p.workflow.File, Line: j.If.Line})
	case !ok && p.ctx.Err() != nil:
		p.skip(durable, j, schedule.Cancelled, "the run was cancelled before it started")
		return schedule.Cancelled
	case !ok:
		p.skip(durable, j, schedule.Skipped, whySkipped(j, needs))
		return schedule.Skipped
	}
	if previous := p.previous[strings.ToLower(j.ID)]; len(previous) > 0 && allSucceeded(previous) {
		return p.takeOver(durable, j, previous)
	}
	if f := execute.Preflight(p.workflow, j); f != nil {
		return p.refuse(durable, j, &Problem{Message: f.Message, Hint: f.Hint, File: f.File, Line: f.Line})
	}
	combinations, err := schedule.Expand(j.Strategy, env)
	if err != nil {
		return p.refuse(durable, j, &Problem{Message: "matrix: " + err.Error(), File: p.workflow.File, Line: j.Strategy.Line})
	}
	return p.matrix(j, env, needs, combinations)
}

// whySkipped says what kept a job from starting.
func whySkipped(j *syntax.Job, needs *expr.Object) string {
	for _, n := range j.Needs {
		v, _ := needs.Get(n)
		if o, ok := v.(*expr.Object); ok {
			if result, _ := o.Get("result"); result != string(schedule.Success) {
				return fmt.Sprintf("it needs %s, which ended as %s", n, result)
			}
		}
	}
	return "its if is false"
}

func allSucceeded(jobs []Job) bool {
	for _, j := range jobs {
		if j.Conclusion != string(schedule.Success) && j.Conclusion != string(schedule.Skipped) {
			return false
		}
	}
	return true
}

// matrix runs the combinations of a job side by side.
func (p *performance) matrix(j *syntax.Job, env expr.Env, needs *expr.Object, combinations []*expr.Object) schedule.Result {
	failFast, limit := true, len(combinations)
	if j.Strategy != nil {
		if v, err := env.Interpolate(j.Strategy.FailFast.Value); err == nil && v == "false" {
			failFast = false
		}
		if v, err := env.Value(j.Strategy.MaxParallel.Value); err == nil {
			var n int
			if _, err := fmt.Sscan(expr.Text(v), &n); err == nil && n > 0 {
				limit = min(n, limit)
			}
		}
	}
	ctx, cancel := context.WithCancelCause(p.ctx)
	defer cancel(nil)
	results := make([]schedule.Result, len(combinations))
	slots := make(chan struct{}, limit)
	var work sync.WaitGroup
	for i, c := range combinations {
		strategy := expr.NewObject().Set("fail-fast", failFast).Set("job-index", float64(i)).Set("job-total", float64(len(combinations))).Set("max-parallel", float64(limit))
		work.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			results[i] = p.one(ctx, j, needs, c, strategy)
			if results[i] == schedule.Failure && failFast && len(combinations) > 1 {
				cancel(fmt.Errorf("%w: another combination of the matrix failed", execute.ErrCancelled))
			}
		})
	}
	work.Wait()
	return schedule.Merge(results)
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

// contentsWrite is what the job's token may do with the repository: read,
// unless `permissions` says write.
func contentsWrite(w *syntax.Workflow, j *syntax.Job) bool {
	p := j.Permissions
	if p == nil {
		p = w.Permissions
	}
	return p != nil && p.Write("contents")
}

// stateOf is the status of a job in the words of commit statuses.
func stateOf(r schedule.Result) string {
	switch r {
	case schedule.Success, schedule.Skipped:
		return "success"
	case schedule.Cancelled:
		return "error"
	}
	return "failure"
}
