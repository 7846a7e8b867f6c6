package syntax

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// The readers take a checked file over. What has not the right shape was
// reported before, and is left out here.

// pair is one key of a mapping with its value.
type pair struct{ key, value *yaml.Node }

// pairs are the entries of a mapping, in order. Keys that are expressions are
// reported: they are the one part of GitHub's syntax that is not read.
func (d *document) pairs(n *yaml.Node) []pair {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	out := make([]pair, 0, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode {
			continue
		}
		if strings.Contains(key.Value, "${{") {
			d.refuse(key, "write the keys out, or give the whole mapping as one expression", "keys that are expressions are not supported")
			continue
		}
		out = append(out, pair{key, n.Content[i+1]})
	}
	return out
}

// get is the value of a key, or nil.
func get(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Kind == yaml.ScalarNode && n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func textAt(n *yaml.Node, key string) Text { return textOf(get(n, key)) }

// textsOf reads a list, or a single scalar. Nil means absent.
func textsOf(n *yaml.Node) []Text {
	switch {
	case n == nil:
		return nil
	case n.Kind == yaml.ScalarNode:
		return []Text{textOf(n)}
	}
	out := make([]Text, 0, len(n.Content))
	for _, item := range n.Content {
		out = append(out, textOf(item))
	}
	return out
}

// valuesOf reads texts. Nil means absent, or without a value.
func valuesOf(n *yaml.Node) []string {
	if n == nil || n.Kind == yaml.ScalarNode && scalarOf(n) == nil {
		return nil
	}
	out := []string{}
	for _, t := range textsOf(n) {
		out = append(out, t.Value)
	}
	return out
}

// filterOf reads a filter of refs. One without a value names them all: `tags:`
// beside `branches: [main]` lets tags in.
func filterOf(n *yaml.Node, key string) []string {
	value := get(n, key)
	if value != nil && value.Kind == yaml.ScalarNode && scalarOf(value) == nil {
		return []string{"**"}
	}
	return valuesOf(value)
}

func isTrue(n *yaml.Node) bool { return textOf(n).Value == "true" }

func (d *document) vars(n *yaml.Node) []Var {
	var out []Var
	for _, p := range d.pairs(n) {
		out = append(out, Var{Name: p.key.Value, Value: textOf(p.value)})
	}
	return out
}

func (d *document) env(n *yaml.Node) Env {
	if n != nil && n.Kind == yaml.ScalarNode {
		return Env{Expr: textOf(n)}
	}
	return Env{Vars: d.vars(n)}
}

func (d *document) workflow(top *yaml.Node) *Workflow {
	w := &Workflow{
		File: d.file, Name: d.file, RunName: textAt(top, "run-name"), Description: textAt(top, "description").Value,
		Permissions: d.permissions(get(top, "permissions")), Env: d.env(get(top, "env")),
		Defaults: defaults(get(top, "defaults")), Concurrency: concurrency(get(top, "concurrency")),
	}
	if name := textAt(top, "name").Value; name != "" {
		w.Name = name
	}
	w.Events = d.events(get(top, "on"))
	for _, p := range d.pairs(get(top, "jobs")) {
		w.Jobs = append(w.Jobs, d.job(p.key, p.value))
	}
	return w
}

func defaults(n *yaml.Node) Defaults {
	run := get(n, "run")
	return Defaults{Shell: textAt(run, "shell"), Dir: textAt(run, "working-directory")}
}

func concurrency(n *yaml.Node) *Concurrency {
	switch {
	case n == nil:
		return nil
	case n.Kind == yaml.ScalarNode:
		return &Concurrency{Group: textOf(n)}
	}
	return &Concurrency{Group: textAt(n, "group"), CancelInProgress: textAt(n, "cancel-in-progress"), Queue: textAt(n, "queue")}
}

func (d *document) permissions(n *yaml.Node) *Permissions {
	if n == nil {
		return nil
	}
	out := &Permissions{All: textOf(n).Value, Scopes: map[string]string{}, Line: n.Line}
	for _, p := range d.pairs(n) {
		out.Scopes[p.key.Value] = textOf(p.value).Value
	}
	return out
}

// events reads `on` in its three forms.
func (d *document) events(n *yaml.Node) []Event {
	var out []Event
	if n != nil && n.Kind == yaml.MappingNode {
		for _, p := range d.pairs(n) {
			out = append(out, d.event(p.key, p.value))
		}
		return out
	}
	for _, t := range textsOf(n) {
		out = append(out, Event{Name: t.Value, Line: t.Line})
	}
	return out
}

func (d *document) event(key, n *yaml.Node) Event {
	e := Event{
		Name: key.Value, Line: key.Line, Lines: map[string]int{}, Types: valuesOf(get(n, "types")), Workflows: valuesOf(get(n, "workflows")),
		Branches: filterOf(n, "branches"), BranchesIgnore: valuesOf(get(n, "branches-ignore")), Tags: filterOf(n, "tags"),
		TagsIgnore: valuesOf(get(n, "tags-ignore")), Paths: valuesOf(get(n, "paths")), PathsIgnore: valuesOf(get(n, "paths-ignore")),
		Inputs: d.inputs(get(n, "inputs")),
	}
	for _, p := range d.pairs(n) {
		e.Lines[p.key.Value] = p.key.Line
	}
	if e.Name == "schedule" && n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			e.Crons = append(e.Crons, Cron{Expr: textAt(item, "cron").Value, Zone: textAt(item, "timezone").Value, Line: item.Line})
		}
	}
	for _, p := range d.pairs(get(n, "outputs")) {
		e.Outputs = append(e.Outputs, CallOutput{Name: p.key.Value, Value: textAt(p.value, "value")})
	}
	for _, p := range d.pairs(get(n, "secrets")) {
		e.Secrets = append(e.Secrets, CallSecret{Name: p.key.Value, Required: isTrue(get(p.value, "required")), Line: p.key.Line})
	}
	return e
}

func (d *document) inputs(n *yaml.Node) []Input {
	var out []Input
	for _, p := range d.pairs(n) {
		in := Input{
			Name: p.key.Value, Description: textAt(p.value, "description").Value, Type: textAt(p.value, "type").Value,
			Required: isTrue(get(p.value, "required")), DefaultText: textAt(p.value, "default"),
			Options: valuesOf(get(p.value, "options")), Line: p.key.Line,
		}
		in.Default = in.DefaultText.Value
		if in.Type == "" {
			in.Type = "string"
		}
		out = append(out, in)
	}
	return out
}

func (d *document) job(key, n *yaml.Node) *Job {
	j := &Job{
		ID: key.Value, Line: key.Line, Name: textAt(n, "name"), If: textAt(n, "if"),
		Permissions: d.permissions(get(n, "permissions")), Concurrency: concurrency(get(n, "concurrency")),
		Outputs: d.vars(get(n, "outputs")), Env: d.env(get(n, "env")), Defaults: defaults(get(n, "defaults")),
		TimeoutMinutes: textAt(n, "timeout-minutes"), CancelTimeout: textAt(n, "cancel-timeout-minutes"), ContinueOnError: textAt(n, "continue-on-error"),
		Strategy: d.strategy(get(n, "strategy")), Environment: environment(get(n, "environment")), Snapshot: snapshot(get(n, "snapshot")),
		Uses: textAt(n, "uses"), With: d.vars(get(n, "with")), Secrets: d.secrets(get(n, "secrets")),
	}
	for _, t := range textsOf(get(n, "needs")) {
		if id := strings.ToLower(t.Value); !slices.Contains(j.Needs, id) {
			j.Needs = append(j.Needs, id)
		}
	}
	d.checkJob(j, key, n)
	j.RunsOn = textsOf(get(n, "runs-on"))
	if on := get(n, "runs-on"); on != nil && on.Kind == yaml.MappingNode {
		j.RunsOn, j.RunsOnGroup = textsOf(get(on, "labels")), textAt(on, "group")
	}
	if c := get(n, "container"); c != nil && textOf(c) != (Text{Line: c.Line, Col: c.Column}) { // an empty text means none
		j.Container = d.container(c)
	}
	if s := get(n, "services"); s != nil && s.Kind == yaml.ScalarNode {
		j.ServicesExpr = textOf(s)
	}
	for _, p := range d.pairs(get(n, "services")) {
		c := d.container(p.value)
		c.Line = p.key.Line
		j.Services = append(j.Services, Service{Name: p.key.Value, Container: *c})
	}
	j.Steps = d.steps(get(n, "steps"))
	d.unsupported(j, n)
	return j
}

// unsupported names what the engine cannot do for a job.
func (d *document) unsupported(j *Job, n *yaml.Node) {
	add := func(at *yaml.Node, message, hint string) {
		j.Unsupported = append(j.Unsupported, Diagnostic{File: d.file, Line: at.Line, Col: at.Column, Message: message, Hint: hint, Fatal: true})
	}
	if s := get(n, "snapshot"); s != nil {
		add(s, "images of the runner are not supported", "remove `snapshot`")
	}
	if run := get(get(n, "defaults"), "run"); run != nil && run.Kind == yaml.ScalarNode {
		add(run, "`defaults.run` as one expression is not supported", "write `shell` and `working-directory` out")
	}
	steps := get(n, "steps")
	if steps == nil {
		return
	}
	for _, s := range steps.Content {
		if with := get(s, "with"); with != nil && with.Kind == yaml.ScalarNode {
			add(with, "`with` as one expression is not supported", "write the inputs out")
		}
		for _, key := range []string{"background", "wait", "wait-all", "cancel", "parallel"} {
			if value := get(s, key); value != nil && textOf(value).Value != "false" {
				add(value, fmt.Sprintf("steps beside each other (`%s`) are not supported yet", key), "let the step run in its turn, or start the program with & in its script")
			}
		}
	}
}

func environment(n *yaml.Node) *Environment {
	switch {
	case n == nil:
		return nil
	case n.Kind == yaml.ScalarNode:
		if t := textOf(n); t.Value != "" {
			return &Environment{Name: t, Line: n.Line}
		}
		return nil
	}
	return &Environment{Name: textAt(n, "name"), URL: textAt(n, "url"), Deployment: textAt(n, "deployment"), Line: n.Line}
}

func snapshot(n *yaml.Node) *Snapshot {
	switch {
	case n == nil:
		return nil
	case n.Kind == yaml.ScalarNode:
		return &Snapshot{Image: textOf(n), Line: n.Line}
	}
	return &Snapshot{Image: textAt(n, "image-name"), Version: textAt(n, "version"), If: textAt(n, "if"), Line: n.Line}
}

func (d *document) container(n *yaml.Node) *Container {
	if n.Kind == yaml.ScalarNode {
		return &Container{Image: textOf(n), Line: n.Line}
	}
	login := get(n, "credentials")
	return &Container{
		Image: textAt(n, "image"), Username: textAt(login, "username"), Password: textAt(login, "password"), Credentials: textOf(login),
		Env: d.env(get(n, "env")), Ports: textsOf(get(n, "ports")), Volumes: textsOf(get(n, "volumes")), Options: textAt(n, "options"),
		Entrypoint: textAt(n, "entrypoint"), Command: textAt(n, "command"), Line: n.Line,
	}
}

func (d *document) secrets(n *yaml.Node) *CallSecrets {
	if n == nil {
		return nil
	}
	return &CallSecrets{Inherit: textOf(n).Value == "inherit", Map: d.vars(n)}
}

func (d *document) steps(n *yaml.Node) []*Step {
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	var out []*Step
	for _, item := range n.Content {
		if item.Kind == yaml.MappingNode {
			out = append(out, d.step(item))
		}
	}
	return out
}

func (d *document) step(n *yaml.Node) *Step {
	s := &Step{
		ID: textAt(n, "id"), Name: textAt(n, "name"), If: textAt(n, "if"), Line: n.Line, Env: d.env(get(n, "env")),
		ContinueOnError: textAt(n, "continue-on-error"), TimeoutMinutes: textAt(n, "timeout-minutes"), CancelTimeout: textAt(n, "cancel-timeout-minutes"),
		Run: textAt(n, "run"), Shell: textAt(n, "shell"), Dir: textAt(n, "working-directory"), Uses: textAt(n, "uses"), With: d.vars(get(n, "with")),
		Background: isTrue(get(n, "background")), Wait: textsOf(get(n, "wait")), WaitAll: get(n, "wait-all") != nil, Cancel: textAt(n, "cancel"),
		Parallel: d.steps(get(n, "parallel")),
	}
	return s
}
