// Package action reads actions: the action.yml of a step's `uses`, and the
// repository that it comes from.
//
// Input: the text of a `uses`, the bytes of an action.yml. Output: a
// [Reference], an [Action] with the position of everything, and by a
// [Resolver] the [Source] with the commit behind the name.
//
// Invariants: [Load] is pure; an Action is returned only when no diagnostic is
// fatal, and then every expression in it parses and uses only what GitHub gives
// to actions; nothing of an action's archive is written outside of its folder.
//
// Start reading at [Parse], [Load] and [Resolver.Resolve].
package action

import (
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// Kinds of `runs.using`.
const (
	Composite = "composite"
	Node      = "node"
	Docker    = "docker"
)

// MaxDepth is how deep composite actions may nest, as on GitHub.
const MaxDepth = 10

// Action is one action.yml.
type Action struct {
	File        string // as it is shown, "actions/hello/action.yml"
	Name        string
	Description string
	Inputs      []Input
	Outputs     []Output
	Runs        Runs
}

// Input is one declared input.
type Input struct {
	Name       string // as written
	Required   bool
	Default    syntax.Text
	Deprecated string // the message; "" when it is not deprecated
	Line       int
}

// Output is one declared output. Value is set in composite actions.
type Output struct {
	Name  string
	Value syntax.Text
	Line  int
}

// Runs is how an action runs.
type Runs struct {
	Using string // Composite, Node or Docker
	Line  int
	// Of JavaScript actions; files are relative to the action's folder.
	NodeVersion     string // "20" of node20
	Main, Pre, Post string
	// Of JavaScript and Docker actions; "" means always().
	PreIf, PostIf syntax.Text
	// Of Docker actions. Image is "docker://name" or a Dockerfile's path
	// relative to the action's folder.
	Image                                     string
	Entrypoint, PreEntrypoint, PostEntrypoint string
	Args                                      []syntax.Text
	Env                                       []syntax.Var
	// Of composite actions.
	Steps []*syntax.Step
}

// Input returns the declared input of that name, without regard to case.
func (a *Action) Input(name string) *Input {
	for i := range a.Inputs {
		if equalFold(a.Inputs[i].Name, name) {
			return &a.Inputs[i]
		}
	}
	return nil
}
