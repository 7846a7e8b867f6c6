package actions

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
	"github.com/lockstep-gitops/lockstep/internal/actions/trigger"
	"github.com/lockstep-gitops/lockstep/internal/git"
)

// Bounds of reusable workflows: GitHub's for levels and files, and one for the
// jobs that all files together list.
const (
	maxLevels     = 10
	maxCallees    = 50
	maxListedJobs = 1024
)

// callee is a workflow file of a run: the run's own or a reusable one.
type callee struct {
	workflow *syntax.Workflow
	repo     string // "owner/name" that the file is in
	store    *git.Repository
	commit   string
	ref      string             // as it was asked for, full
	calls    map[string]*callee // by the id of the calling job
}

// name is the file in the words of job_workflow_ref.
func (c *callee) name() string { return describeFile(c.repo, c.workflow.File, c.ref) }

// resolver walks through the calls of a run's workflow.
type resolver struct {
	p     *performance
	files map[string]bool
	jobs  int
}

// resolveCalls finds every workflow that the run's calls, before any job starts:
// cycles, too many and missing ones end the run here.
func (p *performance) resolveCalls() error {
	r := &resolver{p: p, files: map[string]bool{}}
	if err := r.resolve(p.called, []string{p.called.key()}, nil); err != nil {
		return err
	}
	p.run.Referenced = nil
	seen := map[string]bool{}
	var walk func(c *callee)
	walk = func(c *callee) {
		for _, id := range slices.Sorted(maps.Keys(c.calls)) {
			called := c.calls[id]
			if !seen[called.name()] {
				seen[called.name()] = true
				p.run.Referenced = append(p.run.Referenced, store.Use{Ref: called.name(), Commit: called.commit})
			}
			walk(called)
		}
	}
	walk(p.called)
	return nil
}

func (c *callee) key() string { return c.repo + "\x00" + c.workflow.File + "\x00" + c.commit }

func (r *resolver) resolve(c *callee, chain []string, ceiling map[string]string) error {
	c.calls = map[string]*callee{}
	for _, j := range c.workflow.Jobs {
		if r.jobs++; r.jobs > maxListedJobs {
			return &LocatedError{File: c.workflow.File, Line: j.Line, Msg: fmt.Sprintf("the run has more than %d jobs with those of the workflows it calls", maxListedJobs),
				Hint: "call fewer workflows from one run"}
		}
		if ceiling != nil {
			for _, p := range []*syntax.Permissions{c.workflow.Permissions, j.Permissions} {
				if fault := exceeds(j.ID, p, ceiling); fault != "" {
					return &LocatedError{File: c.workflow.File, Line: p.Line, Msg: fault, Hint: "give the calling job the permission, or ask for less here"}
				}
			}
		}
		if !j.Uses.IsSet() {
			continue
		}
		bad := func(hint, format string, args ...any) error {
			return &LocatedError{File: c.workflow.File, Line: j.Uses.Line, Msg: fmt.Sprintf(format, args...), Hint: hint}
		}
		if len(chain) >= maxLevels {
			return bad("call the jobs directly", "job %q calls a workflow at level %d; at most %d levels are allowed", j.ID, len(chain)+1, maxLevels)
		}
		called, err := r.p.find(c, j.Uses.Value)
		if err != nil {
			var located *LocatedError
			if errors.As(err, &located) {
				return located
			}
			return bad("the file must be in .github/workflows of a repository of this forge, at that ref", "job %q: %v", j.ID, err)
		}
		if called.workflow.Event("workflow_call") == nil {
			return bad("add `on: workflow_call` to it", "job %q: workflow %s is not reusable as it is missing a `on.workflow_call` trigger", j.ID, called.name())
		}
		if slices.Contains(chain, called.key()) {
			return bad("a workflow cannot call itself, also not through others", "job %q: the call of %s is a cycle", j.ID, called.name())
		}
		if r.files[called.key()] = true; len(r.files) > maxCallees {
			return bad("call fewer of them", "the run calls more than %d different workflows", maxCallees)
		}
		c.calls[lower(j.ID)] = called
		if err := r.resolve(called, append(slices.Clone(chain), called.key()), permissionsOf(c.workflow, j, ceiling, false)); err != nil {
			return err
		}
	}
	return nil
}

// find reads the workflow that `uses` of a job names, as seen from a file.
func (p *performance) find(from *callee, uses string) (*callee, error) {
	called := &callee{repo: from.repo, store: from.store, commit: from.commit, ref: from.ref}
	file, ref, remote := strings.Cut(uses, "@")
	local, ok := strings.CutPrefix(uses, "./")
	if !ok { // the same, as a workflow is always read from the repository
		local, ok = strings.CutPrefix(uses, "$/")
	}
	if ok {
		file = local
	} else {
		parts := strings.SplitN(file, "/", 3)
		if len(parts) != 3 || !remote || ref == "" {
			return nil, fmt.Errorf("%q is neither ./%s/<file> nor <owner>/<repository>/%s/<file>@<ref>", uses, workflowsDir, workflowsDir)
		}
		called.repo, file = parts[0]+"/"+parts[1], parts[2]
		var err error
		if called.store, err = p.deps.Repositories.Repository(p.ctx, called.repo); err != nil {
			return nil, fmt.Errorf("repository %s: %w", called.repo, err)
		}
		if called.ref, called.commit, err = resolveRef(p.ctx, called.store, ref); err != nil {
			c, commitErr := called.store.Commit(p.ctx, ref)
			if commitErr != nil || !strings.HasPrefix(c.ID, lower(ref)) {
				return nil, err
			}
			called.ref, called.commit = ref, c.ID
		}
	}
	if path.Dir(file) != workflowsDir || path.Clean(file) != file {
		return nil, fmt.Errorf("%q is not directly in %s", file, workflowsDir)
	}
	content, err := called.store.ReadFile(p.ctx, called.commit, file)
	if err != nil {
		return nil, fmt.Errorf("workflow %s: %w", describeFile(called.repo, file, called.ref), err)
	}
	w, diagnostics := p.files.load(file, content)
	if w == nil {
		d := firstFatal(diagnostics)
		return nil, &LocatedError{File: d.File, Line: d.Line, Msg: fmt.Sprintf("in %s: %s", describeFile(called.repo, file, called.ref), d.Message), Hint: d.Hint}
	}
	called.workflow = w
	return called, nil
}

// call runs the workflow that a job calls.
func (l *level) call(ctx context.Context, o occurrence) schedule.Result {
	durable := context.WithoutCancel(ctx)
	j := o.job
	called := l.callee.calls[lower(j.ID)]
	env := l.jobEnv(o.needs, o.matrix, o.strategy)
	record := l.newJob(o)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ticket, err := l.joinGroup(j.Concurrency, env, l.callee.workflow.File, "job "+record.Name, cancel)
	if err != nil {
		return l.refuse(durable, j, problemOf(err))
	}
	if ticket != nil {
		defer ticket.leave()
		if err := ticket.wait(ctx); err != nil {
			l.skip(durable, j, schedule.Cancelled, err.Error())
			return schedule.Cancelled
		}
	}
	below := &level{
		performance: l.performance, callee: called, graph: schedule.NewGraph(called.workflow.Jobs), prefix: record.Name + " / ", keys: record.Key + "/",
		ceiling: permissionsOf(l.callee.workflow, j, l.ceiling, l.run.Fork), outputs: map[string]*expr.Object{}, fresh: map[string]bool{},
		freshCaller: o.fresh,
	}
	if o.total > 1 {
		below.keys = record.Key + "#" + strconv.Itoa(o.index+1) + "/"
	}
	if below.inputs, err = l.passInputs(called.workflow, j, env); err == nil {
		below.secrets, err = l.passSecrets(called.workflow, j, env)
	}
	if err != nil {
		return l.refuse(durable, j, problemOf(err))
	}
	below.loop(ctx)
	result := below.graph.Conclusion(ctx.Err() != nil)
	outputs, err := below.callOutputs()
	if err != nil {
		return l.refuse(durable, j, problemOf(err))
	}
	fresh := false
	l.mu.Lock()
	for _, f := range below.fresh {
		fresh = fresh || f
	}
	l.mu.Unlock()
	l.done(j, outputs, fresh)
	return result
}

// callOutputs are the outputs that a called workflow declares.
func (l *level) callOutputs() (*expr.Object, error) {
	out, jobs := expr.NewObject(), expr.NewObject()
	l.mu.Lock()
	for _, j := range l.callee.workflow.Jobs {
		outputs := l.outputs[lower(j.ID)]
		if outputs == nil {
			outputs = expr.NewObject()
		}
		jobs.Set(j.ID, expr.NewObject().Set("result", string(l.graph.Result(j.ID))).Set("outputs", outputs))
	}
	l.mu.Unlock()
	env := l.env()
	env.Contexts["jobs"] = jobs
	for _, o := range l.callee.workflow.Event("workflow_call").Outputs {
		v, err := env.Interpolate(o.Value.Value)
		if err != nil {
			return nil, &LocatedError{File: l.callee.workflow.File, Line: o.Value.Line, Msg: fmt.Sprintf("output %s: %v", o.Name, err)}
		}
		if l.masked(v) != v {
			v = "" // it may contain a secret
		}
		out.Set(o.Name, v)
	}
	return out, nil
}

// passInputs evaluates `with` of a calling job and checks it against what the
// called workflow declares.
func (l *level) passInputs(w *syntax.Workflow, j *syntax.Job, env expr.Env) (*expr.Object, error) {
	given := map[string]any{}
	for _, v := range j.With {
		value, err := env.Value(v.Value.Value)
		if err != nil {
			return nil, &LocatedError{File: l.callee.workflow.File, Line: v.Value.Line, Msg: fmt.Sprintf("job %q: input %s: %v", j.ID, v.Name, err)}
		}
		given[lower(v.Name)] = value
	}
	out, err := trigger.Call(w, given, func(t syntax.Text) (any, error) { return l.env().Value(t.Value) })
	if err != nil {
		return nil, &LocatedError{File: l.callee.workflow.File, Line: j.Uses.Line, Msg: fmt.Sprintf("job %q: %v", j.ID, err)}
	}
	return out, nil
}

// passSecrets are the secrets that a called workflow gets.
func (l *level) passSecrets(w *syntax.Workflow, j *syntax.Job, env expr.Env) (map[string]string, error) {
	out := map[string]string{}
	s := j.Secrets
	if s != nil && s.Inherit {
		return maps.Clone(l.secrets), nil
	}
	if s != nil {
		secrets := expr.Strings(l.secrets)
		env.Contexts["secrets"] = secrets
		for _, v := range s.Map {
			value, err := env.Interpolate(v.Value.Value)
			if err != nil {
				return nil, &LocatedError{File: l.callee.workflow.File, Line: v.Value.Line, Msg: fmt.Sprintf("job %q: secret %s: %v", j.ID, v.Name, err)}
			}
			out[strings.ToUpper(v.Name)] = value
		}
	}
	for _, declared := range w.Event("workflow_call").Secrets {
		if _, ok := out[strings.ToUpper(declared.Name)]; declared.Required && !ok {
			return nil, &LocatedError{File: l.callee.workflow.File, Line: j.Uses.Line, Msg: fmt.Sprintf("job %q: secret %s is required, but not provided while calling", j.ID, declared.Name)}
		}
	}
	return out, nil
}
