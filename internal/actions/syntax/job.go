package syntax

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/rhysd/actionlint"
)

func (c *converter) job(j *actionlint.Job) *Job {
	out := &Job{
		ID: j.ID.Value, Line: j.ID.Pos.Line, Name: c.text(j.Name), If: c.condition(j.If),
		Permissions: c.permissions(j.Permissions), Concurrency: c.concurrency(j.Concurrency),
		Env: c.env(j.Env), Defaults: c.defaults(j.Defaults),
		TimeoutMinutes: c.float(j.TimeoutMinutes), ContinueOnError: c.boolean(j.ContinueOnError),
	}
	for _, n := range j.Needs {
		out.Needs = append(out.Needs, strings.ToLower(n.Value))
	}
	if j.RunsOn != nil {
		for _, l := range j.RunsOn.Labels {
			out.RunsOn = append(out.RunsOn, c.text(l))
		}
		if j.RunsOn.LabelsExpr != nil {
			out.RunsOn = append(out.RunsOn, c.text(j.RunsOn.LabelsExpr))
		}
	}
	for _, o := range j.Outputs {
		out.Outputs = append(out.Outputs, Var{Name: o.Name.Value, Value: c.text(o.Value)})
	}
	sortVars(out.Outputs)
	if e := j.Environment; e != nil {
		out.Environment = &Environment{Name: c.text(e.Name), URL: c.text(e.URL), Deployment: c.boolean(e.Deployment), Line: e.Pos.Line}
	}
	if j.Container != nil {
		out.Container = c.container(j.Container)
	}
	if j.Services != nil {
		out.ServicesExpr = c.text(j.Services.Expression)
		for _, s := range j.Services.Value {
			out.Services = append(out.Services, Service{Name: s.Name.Value, Container: *c.container(s.Container)})
		}
		slices.SortFunc(out.Services, func(a, b Service) int { return cmp.Compare(a.Line, b.Line) })
	}
	if call := j.WorkflowCall; call != nil {
		out.Uses = c.raw(call.Uses)
		for _, in := range call.Inputs {
			out.With = append(out.With, Var{Name: in.Name.Value, Value: c.scalar(in.Value)})
		}
		sortVars(out.With)
		if call.InheritSecrets || call.Secrets != nil {
			out.Secrets = &CallSecrets{Inherit: call.InheritSecrets}
			for _, s := range call.Secrets {
				out.Secrets.Map = append(out.Secrets.Map, Var{Name: s.Name.Value, Value: c.text(s.Value)})
			}
			sortVars(out.Secrets.Map)
		}
	}
	if j.Strategy != nil {
		out.Strategy = c.strategy(j.Strategy)
	}
	for _, s := range j.Steps {
		if s != nil {
			out.Steps = append(out.Steps, c.step(s))
		}
	}
	out.Unsupported = c.unsupported(j)
	return out
}

func (c *converter) container(k *actionlint.Container) *Container {
	out := &Container{Image: c.text(k.Image), Env: c.env(k.Env), Options: c.text(k.Options), Line: k.Pos.Line}
	if k.Credentials != nil {
		out.Username, out.Password, out.Credentials = c.text(k.Credentials.Username), c.text(k.Credentials.Password), c.text(k.Credentials.Expression)
	}
	for _, p := range k.Ports {
		out.Ports = append(out.Ports, c.text(p))
	}
	for _, v := range k.Volumes {
		out.Volumes = append(out.Volumes, c.text(v))
	}
	return out
}

// checkNeeds looks every needed job up.
func (c *converter) checkNeeds(j *actionlint.Job, jobs map[string]*actionlint.Job) {
	for _, n := range j.Needs {
		if jobs[strings.ToLower(n.Value)] != nil {
			continue
		}
		names := make([]string, 0, len(jobs))
		for _, other := range jobs {
			if other != j {
				names = append(names, other.ID.Value)
			}
		}
		slices.Sort(names)
		hint := "this file has no other job"
		if len(names) > 0 {
			hint = "the other jobs of this file are " + strings.Join(names, ", ")
		}
		c.report(n.Pos.Line, n.Pos.Col, true, fmt.Sprintf("job %q needs job %q, which does not exist", j.ID.Value, n.Value), hint)
	}
}

// unsupported lists the parts of a job that need what is not built yet.
func (c *converter) unsupported(j *actionlint.Job) []Diagnostic {
	var out []Diagnostic
	add := func(pos *actionlint.Pos, message, hint string) {
		out = append(out, Diagnostic{File: c.file, Line: pos.Line, Col: pos.Col, Message: message, Hint: hint, Fatal: true})
	}
	if j.Container != nil {
		add(j.Container.Pos, "jobs in a container are not supported yet", "remove `container`: steps see this machine's programs")
	}
	if j.Services != nil {
		add(j.Services.Pos, "service containers are not supported yet", "start the service in a step, or run this job on GitHub")
	}
	if j.WorkflowCall != nil {
		add(j.WorkflowCall.Uses.Pos, "reusable workflows are not supported yet", "copy the called workflow's jobs into this file")
	}
	if j.Snapshot != nil {
		add(j.ID.Pos, "image snapshots are not supported", "remove `snapshot`")
	}
	return out
}

func (c *converter) step(s *actionlint.Step) *Step {
	out := &Step{
		ID: c.raw(s.ID), Name: c.text(s.Name), If: c.condition(s.If), Line: s.Pos.Line, Env: c.env(s.Env),
		ContinueOnError: c.boolean(s.ContinueOnError), TimeoutMinutes: c.float(s.TimeoutMinutes),
	}
	switch e := s.Exec.(type) {
	case *actionlint.ExecRun:
		out.Run, out.Shell, out.Dir = c.text(e.Run), c.text(e.Shell), c.text(e.WorkingDirectory)
	case *actionlint.ExecAction:
		out.Uses = c.raw(e.Uses)
		for _, in := range e.Inputs {
			out.With = append(out.With, Var{Name: in.Name.Value, Value: c.scalar(in.Value)})
		}
		sortVars(out.With)
	}
	return out
}

func (c *converter) strategy(s *actionlint.Strategy) *Strategy {
	out := &Strategy{Line: s.Pos.Line, FailFast: c.boolean(s.FailFast), MaxParallel: c.integer(s.MaxParallel)}
	m := s.Matrix
	if m == nil {
		return out
	}
	out.Matrix = c.text(m.Expression)
	type row struct {
		name string
		at   actionlint.Pos
		*actionlint.MatrixRow
	}
	rows := make([]row, 0, len(m.Rows))
	for name, r := range m.Rows {
		switch { // a row that is an expression has no name of its own
		case r.Name != nil:
			rows = append(rows, row{r.Name.Value, *r.Name.Pos, r})
		case r.Expression != nil:
			rows = append(rows, row{name, *r.Expression.Pos, r})
		}
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.at.Line, b.at.Line), cmp.Compare(a.at.Col, b.at.Col))
	})
	for _, r := range rows {
		axis := Row{Name: r.name, Expr: c.text(r.Expression)}
		for _, v := range r.Values {
			axis.Values = append(axis.Values, c.value(v))
		}
		out.Rows = append(out.Rows, axis)
	}
	out.Include, out.IncludeExpr = c.combinations(m.Include)
	out.Exclude, out.ExcludeExpr = c.combinations(m.Exclude)
	return out
}

func (c *converter) combinations(m *actionlint.MatrixCombinations) ([]Combination, Text) {
	if m == nil {
		return nil, Text{}
	}
	var out []Combination
	for _, one := range m.Combinations {
		combination := Combination{Values: map[string]Value{}, Expr: c.text(one.Expression)}
		assigns := make([]*actionlint.MatrixAssign, 0, len(one.Assigns))
		for _, a := range one.Assigns {
			assigns = append(assigns, a)
		}
		slices.SortFunc(assigns, func(a, b *actionlint.MatrixAssign) int {
			return cmp.Or(cmp.Compare(a.Key.Pos.Line, b.Key.Pos.Line), cmp.Compare(a.Key.Pos.Col, b.Key.Pos.Col))
		})
		for _, a := range assigns {
			combination.Keys = append(combination.Keys, a.Key.Value)
			combination.Values[a.Key.Value] = c.value(a.Value)
		}
		out = append(out, combination)
	}
	return out, c.text(m.Expression)
}

func (c *converter) value(v actionlint.RawYAMLValue) Value {
	switch v := v.(type) {
	case *actionlint.RawYAMLString:
		ch := c.at(v.Pos())
		s := &actionlint.String{Value: v.Value, Quoted: ch == '\'' || ch == '"', Pos: v.Pos()}
		if !s.Quoted && ch != '|' && ch != '>' {
			if typed := yamlScalar(v.Value); !isText(typed) {
				return typed
			}
		}
		return c.text(s)
	case *actionlint.RawYAMLArray:
		list := make([]Value, len(v.Elems))
		for i, e := range v.Elems {
			list[i] = c.value(e)
		}
		return list
	case *actionlint.RawYAMLObject:
		m := Mapping{Values: map[string]Value{}}
		for k, e := range v.Props {
			m.Keys = append(m.Keys, k)
			m.Values[k] = c.value(e)
		}
		slices.Sort(m.Keys)
		return m
	}
	return nil
}

// Resolve evaluates the expressions inside of a matrix value.
func Resolve(v Value, env expr.Env) (any, error) {
	switch v := v.(type) {
	case Text:
		return env.Value(v.Value)
	case []Value:
		list := make(expr.Array, len(v))
		for i, e := range v {
			r, err := Resolve(e, env)
			if err != nil {
				return nil, err
			}
			list[i] = r
		}
		return list, nil
	case Mapping:
		o := expr.NewObject()
		for _, k := range v.Keys {
			r, err := Resolve(v.Values[k], env)
			if err != nil {
				return nil, err
			}
			o.Set(k, r)
		}
		return o, nil
	}
	return v, nil
}
