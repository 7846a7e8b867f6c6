// Package syntax reads workflow files.
//
// Input: the bytes of a file under .github/workflows. Output: a [Workflow]
// with the position of everything, and [Diagnostic]s: what GitHub would refuse
// is fatal, what this engine does not act on is a warning. Nothing is skipped
// without one.
//
// A file is checked against GitHub's shape of workflows (schema.go, events.go,
// rules.go), read (read.go), and linted by actionlint, whose findings are
// warnings.
//
// Invariants: pure; jobs, steps and variables keep the order of the file; a
// Workflow is returned only when no diagnostic is fatal, and then every
// expression in it parses, names only contexts that its place knows, and every
// job in `needs` exists. Size, depth and the number of nodes are bounded.
//
// Start reading at [Load].
package syntax

import (
	"fmt"
	"strings"
)

// Diagnostic is something to tell about a file.
type Diagnostic struct {
	File      string
	Line, Col int // from 1; 0 when unknown
	Message   string
	Hint      string
	Fatal     bool
}

func (d Diagnostic) String() string {
	s := fmt.Sprintf("%s:%d:%d: %s", d.File, d.Line, d.Col, d.Message)
	if d.Hint != "" {
		s += " (" + d.Hint + ")"
	}
	return s
}

// Text is a scalar of the file, perhaps with ${{ }}. The zero Text is absent.
type Text struct {
	Value     string
	Line, Col int
	Block     bool // written with | or >: the content starts on the next line
}

// IsSet reports whether the file has the key.
func (t Text) IsSet() bool { return t.Line > 0 }

// LineAt is the line of the file where the given byte of Value stands.
func (t Text) LineAt(offset int) int {
	line := t.Line + strings.Count(t.Value[:min(max(offset, 0), len(t.Value))], "\n")
	if t.Block {
		line++
	}
	return line
}

// Var is a name with a value: of env, with, outputs.
type Var struct {
	Name  string
	Value Text
}

// Env is a block of variables: listed, or one expression that makes an object.
type Env struct {
	Vars []Var
	Expr Text
}

// Workflow is one file.
type Workflow struct {
	File        string // path in the repository
	Name        string // `name`, or the path
	Description string
	RunName     Text
	Events      []Event
	Permissions *Permissions
	Env         Env
	Defaults    Defaults
	Concurrency *Concurrency
	Jobs        []*Job
}

// Event returns the trigger with the given name, or nil.
func (w *Workflow) Event(name string) *Event {
	for i := range w.Events {
		if w.Events[i].Name == name {
			return &w.Events[i]
		}
	}
	return nil
}

// Job returns the job with the given id (in lower case), or nil.
func (w *Workflow) Job(id string) *Job {
	for _, j := range w.Jobs {
		if strings.EqualFold(j.ID, id) {
			return j
		}
	}
	return nil
}

// Event is one entry of `on`. A nil filter is absent.
type Event struct {
	Name                     string
	Line                     int
	Types                    []string // nil: the event's default types
	Branches, BranchesIgnore []string
	Tags, TagsIgnore         []string
	Paths, PathsIgnore       []string
	Workflows                []string     // of workflow_run
	Crons                    []Cron       // of schedule
	Inputs                   []Input      // of workflow_dispatch and workflow_call
	Outputs                  []CallOutput // of workflow_call
	Secrets                  []CallSecret // of workflow_call
	// Lines are the lines of the filters above by their key ("branches").
	Lines map[string]int
}

// LineOf is the line of one of the event's keys, or of the event.
func (e *Event) LineOf(key string) int {
	if line := e.Lines[key]; line > 0 {
		return line
	}
	return e.Line
}

// Cron is one entry of `schedule`.
type Cron struct {
	Expr string // five fields
	Zone string // IANA name; "" is UTC
	Line int
}

// Input is one declared input of workflow_dispatch or workflow_call.
type Input struct {
	Name        string
	Description string
	Type        string // string, number, boolean, choice, environment
	Required    bool
	Default     string
	DefaultText Text // Default with its place; of workflow_call perhaps with ${{ }}
	Options     []string
	Line        int
}

// CallOutput is an output of a reusable workflow.
type CallOutput struct {
	Name  string
	Value Text // sees the context `jobs`
}

// CallSecret is a secret that a reusable workflow takes.
type CallSecret struct {
	Name     string
	Required bool
	Line     int
}

// Permissions shape the job's token.
type Permissions struct {
	All    string            // "read-all", "write-all", "" when Scopes says
	Scopes map[string]string // scope to read, write, none
	Line   int
}

// Write reports whether the scope ("contents") may be written.
func (p *Permissions) Write(scope string) bool { return p.Level(scope) == "write" }

// Level is what a scope ("pull-requests") allows: read, write or none. A scope
// that is not named is none as soon as one is.
func (p *Permissions) Level(scope string) string {
	switch p.All {
	case "write-all":
		return "write"
	case "read-all":
		return "read"
	}
	if level := p.Scopes[scope]; level != "" {
		return level
	}
	return "none"
}

// Defaults are `defaults.run`.
type Defaults struct{ Shell, Dir Text }

// Concurrency is a group of which one runs at a time.
type Concurrency struct {
	Group, CancelInProgress Text
	Queue                   Text // "max": up to 100 wait; absent or "single": one waits
}

// Environment is what a job deploys to.
type Environment struct {
	Name, URL  Text
	Deployment Text // "false": no deployment is made
	Line       int
}

// Container is where the steps of a job, or a service, run.
type Container struct {
	Image              Text // may be one expression that gives the whole mapping
	Username, Password Text
	Credentials        Text // one expression for both of them
	Env                Env
	Ports, Volumes     []Text
	Options            Text
	Entrypoint         Text // of a service
	Command            Text // of a service
	Line               int
}

// Service is one entry of `services`.
type Service struct {
	Name string
	Container
}

// CallSecrets are the secrets that a job hands to a reusable workflow.
type CallSecrets struct {
	Inherit bool
	Map     []Var
}

// Snapshot is `snapshot`: an image to make of the runner.
type Snapshot struct {
	Image, Version, If Text
	Line               int
}

// Job is one entry of `jobs`: Steps or Uses is set.
type Job struct {
	ID              string
	Line            int
	Name            Text
	Needs           []string
	If              Text
	RunsOn          []Text
	RunsOnGroup     Text
	Permissions     *Permissions
	Concurrency     *Concurrency
	Outputs         []Var
	Env             Env
	Defaults        Defaults
	Steps           []*Step
	TimeoutMinutes  Text
	CancelTimeout   Text // cancel-timeout-minutes
	ContinueOnError Text
	Strategy        *Strategy
	Environment     *Environment
	Container       *Container
	Services        []Service
	ServicesExpr    Text // instead of Services: one expression that gives an object
	Snapshot        *Snapshot
	// Of a job that calls a reusable workflow.
	Uses    Text
	With    []Var
	Secrets *CallSecrets
	// Unsupported names what GitHub would do and this engine cannot: the
	// job fails with it before it starts.
	Unsupported []Diagnostic
}

// Step is one entry of `steps`: exactly one of Run, Uses, Wait, WaitAll,
// Cancel and Parallel is set.
type Step struct {
	ID, Name, If    Text
	Line            int
	Env             Env
	ContinueOnError Text
	TimeoutMinutes  Text
	CancelTimeout   Text // cancel-timeout-minutes
	Run, Shell, Dir Text
	Uses            Text
	With            []Var
	Background      bool    // later steps do not wait for it
	Wait            []Text  // waits for the background steps with these ids
	WaitAll         bool    // waits for all background steps
	Cancel          Text    // ends the background step with this id
	Parallel        []*Step // these run side by side; the next step waits for all
}

// Strategy is `strategy`.
type Strategy struct {
	Line                  int
	Expr                  Text // set when all of it is one expression
	Matrix                Text // set when the whole matrix is one expression
	Rows                  []Row
	Include, Exclude      []Combination
	IncludeExpr           Text
	ExcludeExpr           Text
	FailFast, MaxParallel Text
}

// Row is one axis of a matrix.
type Row struct {
	Name   string
	Values []Value
	Expr   Text // instead of Values
}

// Combination is one entry of include or exclude.
type Combination struct {
	Keys   []string
	Values map[string]Value
	Expr   Text
}

// Value is YAML in a matrix: a nil, bool, float64, Text, []Value or Mapping.
type Value any

// Mapping is an object in a matrix.
type Mapping struct {
	Keys   []string
	Values map[string]Value
}
