// Package syntax reads workflow files.
//
// Input: the bytes of a file under .github/workflows. Output: a [Workflow]
// with the position of everything, and [Diagnostic]s: what GitHub would refuse
// is fatal, what this engine does not act on is a warning. Nothing is skipped
// without one.
//
// Invariants: pure; jobs, steps and variables keep the order of the file; a
// Workflow is returned only when no diagnostic is fatal, and then every
// expression in it parses and every job in `needs` exists.
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
	Branches, BranchesIgnore []string
	Tags, TagsIgnore         []string
	Paths, PathsIgnore       []string
	Inputs                   []Input // of workflow_dispatch
}

// Input is one declared input of workflow_dispatch.
type Input struct {
	Name     string
	Type     string // string, number, boolean, choice, environment
	Required bool
	Default  string
	Options  []string
	Line     int
}

// Permissions shape the job's token.
type Permissions struct {
	All    string            // "read-all", "write-all", "" when Scopes says
	Scopes map[string]string // scope to read, write, none
	Line   int
}

// Write reports whether the scope ("contents") may be written.
func (p *Permissions) Write(scope string) bool {
	return p.All == "write-all" || p.All == "" && p.Scopes[scope] == "write"
}

// Defaults are `defaults.run`.
type Defaults struct{ Shell, Dir Text }

// Concurrency is a group of which one runs at a time.
type Concurrency struct{ Group, CancelInProgress Text }

// Job is one entry of `jobs`.
type Job struct {
	ID              string
	Line            int
	Name            Text
	Needs           []string
	If              Text
	RunsOn          []Text
	Permissions     *Permissions
	Concurrency     *Concurrency
	Outputs         []Var
	Env             Env
	Defaults        Defaults
	Steps           []*Step
	TimeoutMinutes  Text
	ContinueOnError Text
	Strategy        *Strategy
	Environment     Text
	// Unsupported names what GitHub would do and this engine cannot: the
	// job fails with it before it starts.
	Unsupported []Diagnostic
}

// Step is one entry of `steps`: Run or Uses is set.
type Step struct {
	ID, Name, If    Text
	Line            int
	Env             Env
	ContinueOnError Text
	TimeoutMinutes  Text
	Run, Shell, Dir Text
	Uses            Text
	With            []Var
}

// Strategy is `strategy`.
type Strategy struct {
	Line                  int
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
