package actions

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/lockstep-gitops/lockstep/internal/actions/execute"
	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// level is one workflow file of a run while its jobs go on: the run's own, or
// one that a job calls.
type level struct {
	*performance
	callee *callee
	graph  *schedule.Graph
	// prefix is in front of the names of its jobs ("deploy / "), keys in front
	// of their keys ("deploy/").
	prefix, keys string
	inputs       *expr.Object
	secrets      map[string]string
	ceiling      map[string]string // permissions of the caller; nil on top
	freshCaller  bool              // what the caller needs was run again

	// Guarded by performance.mu.
	outputs map[string]*expr.Object // of jobs that are done, by key
	fresh   map[string]bool         // jobs that were run, not taken over, by key
}

func lower(id string) string { return strings.ToLower(id) }

// env is what expressions outside of jobs see.
func (l *level) env() expr.Env {
	github := expr.NewObject()
	values := l.githubValues()
	for _, k := range slices.Sorted(maps.Keys(values)) {
		github.Set(k, values[k])
	}
	github.Set("event", l.payload)
	return expr.Env{Contexts: map[string]any{"github": github, "vars": expr.Strings(l.vars), "inputs": l.inputs}}
}

// jobEnv is what expressions of a job see before it runs.
func (l *level) jobEnv(needs, matrix, strategy *expr.Object) expr.Env {
	env := l.env()
	env.Contexts["needs"] = needs
	if strategy != nil {
		env.Contexts["strategy"] = strategy
	}
	if matrix != nil {
		env.Contexts["matrix"] = matrix
	}
	return env
}

// loop decides and runs jobs until all are done. ctx ends with a cancellation.
func (l *level) loop(ctx context.Context) {
	type done struct {
		job    *syntax.Job
		result schedule.Result
	}
	ended := make(chan done)
	running := 0
	for {
		for _, j := range l.graph.Next() {
			// The graph belongs to this goroutine: take its answers along.
			answer, status := l.graph.Status(j, ctx.Err() != nil), map[string]bool{}
			for _, name := range []string{"success", "failure", "always", "cancelled"} {
				status[name] = answer(name)
			}
			needs, fresh := l.needs(j)
			running++
			go func() {
				ended <- done{j, l.job(ctx, j, func(name string) bool { return status[name] }, needs, fresh)}
			}()
		}
		if running == 0 {
			return
		}
		d := <-ended
		running--
		l.graph.Done(d.job.ID, d.result)
	}
}

// needs is the `needs` context of a job, and whether one of them was run in this
// attempt instead of taken over.
func (l *level) needs(j *syntax.Job) (o *expr.Object, fresh bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o, fresh = expr.NewObject(), l.freshCaller
	for _, n := range j.Needs {
		outputs := l.outputs[lower(n)]
		if outputs == nil {
			outputs = expr.NewObject()
		}
		fresh = fresh || l.fresh[lower(n)]
		o.Set(l.callee.workflow.Job(n).ID, expr.NewObject().Set("result", string(l.graph.Result(n))).Set("outputs", outputs))
	}
	return o, fresh
}

// job decides one job and runs its combinations.
func (l *level) job(ctx context.Context, j *syntax.Job, status func(string) bool, needs *expr.Object, fresh bool) schedule.Result {
	durable := context.WithoutCancel(ctx)
	env := l.jobEnv(needs, nil, nil)
	withStatus := env
	withStatus.Status = status
	ok, err := withStatus.Condition(j.If.Value)
	file := l.callee.workflow.File
	switch {
	case l.stopped():
		return l.park()
	case l.hard.Err() != nil:
		l.skip(durable, j, schedule.Cancelled, "the run was ended before it started")
		return schedule.Cancelled
	case err != nil:
		return l.refuse(durable, j, &Problem{Message: "if: " + err.Error(), File: file, Line: j.If.Line})
	case !ok && ctx.Err() != nil:
		l.skip(durable, j, schedule.Cancelled, "the run was cancelled before it started")
		return schedule.Cancelled
	case !ok:
		l.skip(durable, j, schedule.Skipped, whySkipped(j, needs))
		return schedule.Skipped
	}
	if !j.Uses.IsSet() {
		if f := l.runner.Preflight(ctx, l.callee.workflow, j); f != nil {
			return l.refuse(durable, j, &Problem{Message: f.Message, Hint: f.Hint, File: f.File, Line: f.Line})
		}
	}
	combinations, err := schedule.Combine(j.Strategy, env)
	if err != nil {
		return l.refuse(durable, j, &Problem{Message: "matrix: " + err.Error(), File: file, Line: j.Strategy.Line})
	}
	settings, err := schedule.ReadSettings(j.Strategy, env)
	if err != nil {
		return l.refuse(durable, j, &Problem{Message: "strategy: " + err.Error(), File: file, Line: j.Strategy.Line})
	}
	return l.matrix(ctx, j, settings, needs, combinations, fresh)
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

// matrix runs the combinations of a job side by side.
func (l *level) matrix(ctx context.Context, j *syntax.Job, settings schedule.Settings, needs *expr.Object, combinations []schedule.Combination, fresh bool) schedule.Result {
	failFast, limit := settings.FailFast, len(combinations)
	if settings.MaxParallel > 0 {
		limit = min(settings.MaxParallel, limit)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make([]schedule.Result, len(combinations))
	slots := make(chan struct{}, limit)
	var work sync.WaitGroup
	for i, c := range combinations {
		strategy := expr.NewObject().Set("fail-fast", failFast).Set("job-index", float64(i)).Set("job-total", float64(len(combinations))).Set("max-parallel", float64(limit))
		slots <- struct{}{} // in their order
		work.Go(func() {
			defer func() { <-slots }()
			o := occurrence{job: j, needs: needs, matrix: c.Values, label: c.Label, strategy: strategy, index: i, total: len(combinations), fresh: fresh}
			if j.Uses.IsSet() {
				results[i] = l.call(ctx, o)
			} else {
				results[i] = l.one(ctx, o)
			}
			if results[i] == schedule.Failure && failFast && len(combinations) > 1 {
				cancel(fmt.Errorf("%w: another combination of the matrix failed", execute.ErrCancelled))
			}
		})
	}
	work.Wait()
	return schedule.Merge(results)
}

// occurrence is one combination of a job.
type occurrence struct {
	job                     *syntax.Job
	needs, matrix, strategy *expr.Object
	label                   string // of the combination: "(1, linux)"
	index, total            int
	fresh                   bool // something it needs was run in this attempt
}

// joinGroup takes a place in a concurrency group; nil without one.
func (p *performance) joinGroup(c *syntax.Concurrency, env expr.Env, file, name string, cancel context.CancelCauseFunc) (*ticket, error) {
	if c == nil {
		return nil, nil
	}
	bad := func(t syntax.Text, what string, err error) (*ticket, error) {
		return nil, &LocatedError{File: file, Line: t.Line, Msg: what + ": " + err.Error()}
	}
	key, err := env.Interpolate(c.Group.Value)
	if err != nil {
		return bad(c.Group, "concurrency group", err)
	}
	stop, err := env.Interpolate(c.CancelInProgress.Value)
	if err != nil {
		return bad(c.CancelInProgress, "cancel-in-progress", err)
	}
	queue, err := env.Interpolate(c.Queue.Value)
	if err != nil {
		return bad(c.Queue, "queue", err)
	}
	if key == "" {
		return nil, nil
	}
	return p.groups.join(entry{key: p.run.Repo + "\x00" + key, shown: p.masked(key), name: name, cancelInProgress: stop == "true", queue: queue == "max", cancel: cancel}), nil
}

// done keeps what later jobs see of one that ended.
func (l *level) done(j *syntax.Job, outputs *expr.Object, fresh bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := lower(j.ID)
	l.fresh[id] = l.fresh[id] || fresh
	if l.outputs[id] == nil {
		l.outputs[id] = expr.NewObject()
	}
	for _, k := range outputs.Keys() {
		// Of a matrix the last one wins, but an empty value takes no place.
		if v, _ := outputs.Get(k); v != "" {
			l.outputs[id].Set(k, v)
		} else if _, ok := l.outputs[id].Get(k); !ok {
			l.outputs[id].Set(k, v)
		}
	}
}

// blame remembers the first job that failed.
func (l *level) blame(record *Job, problem *Problem) {
	if problem == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.problem == nil {
		named := *problem
		named.Message = record.Name + ": " + named.Message
		l.problem = &named
	}
}
