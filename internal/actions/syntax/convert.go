package syntax

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/rhysd/actionlint"
)

// converter turns actionlint's tree into ours and checks every expression.
type converter struct {
	file        string
	lines       []string
	diagnostics []Diagnostic
	// unknownEvents are the lines of events that do not exist.
	unknownEvents map[int]bool
}

func (c *converter) report(line, col int, fatal bool, message, hint string) {
	c.diagnostics = append(c.diagnostics, Diagnostic{File: c.file, Line: max(line, 1), Col: max(col, 1), Message: message, Hint: hint, Fatal: fatal})
}

// at is the character of the source at a position.
func (c *converter) at(pos *actionlint.Pos) rune {
	if pos == nil || pos.Line < 1 || pos.Line > len(c.lines) {
		return 0
	}
	line := []rune(c.lines[pos.Line-1])
	if pos.Col < 1 || pos.Col > len(line) {
		return 0
	}
	return line[pos.Col-1]
}

// raw takes a scalar over without looking for expressions.
func (c *converter) raw(s *actionlint.String) Text {
	if s == nil || s.Pos == nil {
		return Text{}
	}
	ch := c.at(s.Pos)
	return Text{Value: s.Value, Line: s.Pos.Line, Col: s.Pos.Col, Block: !s.Quoted && (ch == '|' || ch == '>')}
}

// text takes a scalar over and checks the expressions in it.
func (c *converter) text(s *actionlint.String) Text {
	t := c.raw(s)
	parts, err := expr.Split(t.Value)
	c.fault(t, 0, err)
	for _, p := range parts {
		if p.IsExpr {
			_, err := expr.Parse(p.Text)
			c.fault(t, p.Offset, err)
		}
	}
	return t
}

// scalar is text whose unquoted numbers, booleans and nulls are written as
// GitHub writes them: 1.20 is 1.2.
func (c *converter) scalar(s *actionlint.String) Text {
	t := c.text(s)
	if s != nil && !s.Quoted && !t.Block {
		if v := yamlScalar(t.Value); !isText(v) {
			t.Value = expr.Text(v)
		}
	}
	return t
}

// condition takes an `if` over.
func (c *converter) condition(s *actionlint.String) Text {
	t := c.raw(s)
	if t.IsSet() {
		_, _, err := expr.ParseCondition(t.Value)
		c.fault(t, 0, err)
	}
	return t
}

func (c *converter) fault(t Text, offset int, err error) {
	var e *expr.Error
	if !errors.As(err, &e) {
		return
	}
	line, col := t.LineAt(offset+e.Offset), t.Col
	if line == t.Line {
		col += offset + e.Offset
	}
	c.report(line, col, true, "bad expression: "+e.Msg, "")
}

func (c *converter) boolean(b *actionlint.Bool) Text {
	if b == nil {
		return Text{}
	}
	if b.Expression != nil {
		return c.text(b.Expression)
	}
	return Text{Value: strconv.FormatBool(b.Value), Line: b.Pos.Line, Col: b.Pos.Col}
}

func (c *converter) float(f *actionlint.Float) Text {
	if f == nil {
		return Text{}
	}
	if f.Expression != nil {
		return c.text(f.Expression)
	}
	return Text{Value: strconv.FormatFloat(f.Value, 'f', -1, 64), Line: f.Pos.Line, Col: f.Pos.Col}
}

func (c *converter) integer(i *actionlint.Int) Text {
	if i == nil {
		return Text{}
	}
	if i.Expression != nil {
		return c.text(i.Expression)
	}
	return Text{Value: strconv.Itoa(i.Value), Line: i.Pos.Line, Col: i.Pos.Col}
}

func byPosition(a, b Text) int {
	return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
}

func sortVars(vars []Var) []Var {
	slices.SortFunc(vars, func(a, b Var) int {
		return cmp.Or(byPosition(a.Value, b.Value), cmp.Compare(a.Name, b.Name))
	})
	return vars
}

func (c *converter) env(e *actionlint.Env) Env {
	if e == nil {
		return Env{}
	}
	out := Env{Expr: c.text(e.Expression)}
	for _, v := range e.Vars {
		out.Vars = append(out.Vars, Var{Name: v.Name.Value, Value: c.scalar(v.Value)})
	}
	sortVars(out.Vars)
	return out
}

func (c *converter) defaults(d *actionlint.Defaults) Defaults {
	if d == nil || d.Run == nil {
		return Defaults{}
	}
	return Defaults{Shell: c.text(d.Run.Shell), Dir: c.text(d.Run.WorkingDirectory)}
}

func (c *converter) concurrency(g *actionlint.Concurrency) *Concurrency {
	if g == nil {
		return nil
	}
	return &Concurrency{Group: c.text(g.Group), CancelInProgress: c.boolean(g.CancelInProgress)}
}

func (c *converter) permissions(p *actionlint.Permissions) *Permissions {
	if p == nil {
		return nil
	}
	out := &Permissions{Scopes: map[string]string{}, Line: p.Pos.Line}
	if p.All != nil {
		out.All = p.All.Value
	}
	for name, s := range p.Scopes {
		out.Scopes[name] = s.Value.Value
	}
	return out
}

func (c *converter) workflow(w *actionlint.Workflow) *Workflow {
	out := &Workflow{
		File: c.file, Name: c.file, RunName: c.text(w.RunName), Permissions: c.permissions(w.Permissions),
		Env: c.env(w.Env), Defaults: c.defaults(w.Defaults), Concurrency: c.concurrency(w.Concurrency),
	}
	if w.Name != nil && w.Name.Value != "" {
		out.Name = w.Name.Value
	}
	for _, e := range w.On {
		if e != nil {
			out.Events = append(out.Events, c.event(e))
		}
	}
	for _, j := range w.Jobs {
		if j != nil {
			c.checkNeeds(j, w.Jobs)
			out.Jobs = append(out.Jobs, c.job(j))
		}
	}
	slices.SortFunc(out.Jobs, func(a, b *Job) int { return cmp.Compare(a.Line, b.Line) })
	return out
}

func (c *converter) event(e actionlint.Event) Event {
	out := Event{Name: e.EventName(), Lines: map[string]int{}}
	switch e := e.(type) {
	case *actionlint.WebhookEvent:
		out.Line = e.Pos.Line
		out.Branches, out.BranchesIgnore = out.filter(e.Branches), out.filter(e.BranchesIgnore)
		out.Tags, out.TagsIgnore = out.filter(e.Tags), out.filter(e.TagsIgnore)
		out.Paths, out.PathsIgnore = out.filter(e.Paths), out.filter(e.PathsIgnore)
		out.Types, out.Workflows = values(e.Types), values(e.Workflows)
		c.checkFilters(e)
	case *actionlint.WorkflowDispatchEvent:
		out.Line = e.Pos.Line
		for _, in := range e.Inputs {
			out.Inputs = append(out.Inputs, input(in))
		}
	case *actionlint.ScheduledEvent:
		out.Line = e.Pos.Line
		for _, s := range e.Schedules {
			cron := Cron{Expr: s.Cron.Value, Line: s.Cron.Pos.Line}
			if s.Timezone != nil {
				cron.Zone = s.Timezone.Value
			}
			out.Crons = append(out.Crons, cron)
		}
	case *actionlint.RepositoryDispatchEvent:
		out.Line, out.Types = e.Pos.Line, values(e.Types)
	case *actionlint.WorkflowCallEvent:
		out.Line = e.Pos.Line
		c.callEvent(e, &out)
	}
	slices.SortFunc(out.Inputs, func(a, b Input) int { return cmp.Compare(a.Line, b.Line) })
	return out
}

func (c *converter) callEvent(e *actionlint.WorkflowCallEvent, out *Event) {
	types := map[actionlint.WorkflowCallEventInputType]string{
		actionlint.WorkflowCallEventInputTypeNumber: "number", actionlint.WorkflowCallEventInputTypeBoolean: "boolean",
	}
	for _, in := range e.Inputs {
		i := Input{Name: in.Name.Value, Type: cmp.Or(types[in.Type], "string"), Required: in.IsRequired(), DefaultText: c.text(in.Default), Line: in.Name.Pos.Line}
		i.Default = i.DefaultText.Value
		out.Inputs = append(out.Inputs, i)
	}
	for _, o := range e.Outputs {
		out.Outputs = append(out.Outputs, CallOutput{Name: o.Name.Value, Value: c.text(o.Value)})
	}
	slices.SortFunc(out.Outputs, func(a, b CallOutput) int { return byPosition(a.Value, b.Value) })
	for _, s := range e.Secrets {
		out.Secrets = append(out.Secrets, CallSecret{Name: s.Name.Value, Required: s.Required != nil && s.Required.Value, Line: s.Name.Pos.Line})
	}
	slices.SortFunc(out.Secrets, func(a, b CallSecret) int { return cmp.Compare(a.Line, b.Line) })
}

func (c *converter) checkFilters(e *actionlint.WebhookEvent) {
	for _, pair := range []struct {
		a, b *actionlint.WebhookEventFilter
	}{{e.Branches, e.BranchesIgnore}, {e.Tags, e.TagsIgnore}, {e.Paths, e.PathsIgnore}} {
		if pair.a != nil && pair.b != nil {
			c.report(pair.b.Name.Pos.Line, pair.b.Name.Pos.Col, true,
				fmt.Sprintf("both %q and %q are given for the event %q", pair.a.Name.Value, pair.b.Name.Value, e.Hook.Value),
				fmt.Sprintf("keep %q and exclude with patterns that start with \"!\"", pair.a.Name.Value))
		}
	}
}

func (e *Event) filter(f *actionlint.WebhookEventFilter) []string {
	if f == nil {
		return nil
	}
	e.Lines[f.Name.Value] = f.Name.Pos.Line
	return append([]string{}, values(f.Values)...)
}

func values(list []*actionlint.String) []string {
	var out []string
	for _, s := range list {
		out = append(out, s.Value)
	}
	return out
}

func input(in *actionlint.DispatchInput) Input {
	types := map[actionlint.WorkflowDispatchEventInputType]string{
		actionlint.WorkflowDispatchEventInputTypeNumber: "number", actionlint.WorkflowDispatchEventInputTypeBoolean: "boolean",
		actionlint.WorkflowDispatchEventInputTypeChoice: "choice", actionlint.WorkflowDispatchEventInputTypeEnvironment: "environment",
	}
	out := Input{Name: in.Name.Value, Type: cmp.Or(types[in.Type], "string"), Line: in.Name.Pos.Line}
	if in.Required != nil {
		out.Required = in.Required.Value
	}
	if in.Default != nil {
		out.Default = in.Default.Value
	}
	for _, o := range in.Options {
		out.Options = append(out.Options, o.Value)
	}
	return out
}

// yamlScalar resolves an unquoted scalar: nil, bool, float64, or Text.
func yamlScalar(s string) Value {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return nil
	case "true", "True", "TRUE":
		return true
	case "false", "False", "FALSE":
		return false
	}
	if strings.Trim(s, "+-.0123456789eExoabcdfABCDF") != "" || strings.Trim(s, "+-.eExoabcdfABCDF") == "" {
		return Text{Value: s}
	}
	if strings.HasPrefix(s, "0x") || strings.HasPrefix(s, "0o") {
		if n, err := strconv.ParseInt(s, 0, 64); err == nil {
			return float64(n)
		}
		return Text{Value: s}
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && !strings.ContainsAny(s, "xX") {
		return f
	}
	return Text{Value: s}
}

func isText(v Value) bool {
	_, ok := v.(Text)
	return ok
}
