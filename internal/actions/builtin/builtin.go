// Package builtin holds the actions that are part of the engine: written in Go,
// known by name, whatever version a workflow asks for.
//
// Input: a [Call]: the inputs of a step and the [Job] that it belongs to.
// Output: what the real action gives: outputs, environment, files, log lines.
//
// Invariants: programs run only inside of the job's sandbox; files of the job
// are opened only through an os.Root, so that a link in a repository never
// leads out; an input that has no effect is named in the log.
//
// Start reading at [Find].
package builtin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/command"
)

// Job is what an action may use of its job.
type Job struct {
	Repo      string // "owner/name"
	Commit    string
	Ref       string // full ref name
	Run       int64  // of the workflow
	Workflow  string // its file
	ServerURL string // of the forge, without trailing slash
	Token     string // the job's own

	Workspace     string   // as the job sees it
	WorkspaceDir  string   // the same on this machine
	Files         *os.Root // the same, for reading and writing
	HomePath      string   // as the job sees it
	Home          *os.Root
	TempPath      string
	Temp          *os.Root
	ScratchDir    string // on this machine, not visible to the job
	GoCandidates  []string
	Builder       Builder           // nil: images cannot be built
	RegistryProbe http.RoundTripper // nil: logins are not checked
	// HTTP reaches what the job's own programs reach: the forge, the runner's
	// services, Azure. Nil means RegistryProbe.
	HTTP  http.RoundTripper
	Store Store // nil: there are no artifacts and caches
	Scans Scans // nil: findings are only shown
	// Succeeded says whether all steps so far did; nil means yes. Post parts
	// ask it.
	Succeeded func() bool

	// Archive writes the tree of a commit as a tar stream.
	Archive func(ctx context.Context, commit string, w io.Writer) error
	// Exec runs a program in the sandbox and returns its exit code.
	Exec func(ctx context.Context, dir string, env, args []string, out io.Writer) (int, error)
	// Mask makes values secret from now on.
	Mask func(values ...string)
}

// Call is one step that uses an action.
type Call struct {
	Job  *Job
	Uses string            // as written, "actions/checkout@v4"
	File string            // the workflow file
	Line int               // of the step
	With map[string]string // inputs, names in lower case
	Env  []string          // the environment of the step
	Out  io.Writer         // the step's log; workflow commands are understood
	// State is kept between the main and the post part.
	State map[string]string

	SetOutput func(name, value string)
	SetEnv    func(name, value string)
	AddPath   func(dir string)
	Annotate  func(command.Annotation)
	// Summary adds Markdown to the page of the run; nil drops it.
	Summary func(markdown string)
}

// Action is one built-in.
type Action struct {
	Name   string            // "actions/checkout"
	Inputs map[string]string // known inputs, in lower case, to their defaults
	// NoEffect are inputs that are accepted, with the reason why they change
	// nothing here.
	NoEffect map[string]string
	Run      func(ctx context.Context, c *Call) error
	Post     func(ctx context.Context, c *Call) error // may be nil
}

// Error is a failure with a place in the repository and what to try.
type Error struct {
	File string
	Line int
	Msg  string
	Hint string
	Err  error
}

func (e *Error) Error() string {
	s := e.Msg
	if e.Err != nil && s == "" {
		s = e.Err.Error()
	}
	if e.File != "" && e.Line > 0 {
		s = fmt.Sprintf("%s:%d: %s", e.File, e.Line, s)
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

func actions() []Action {
	return slices.Concat(
		[]Action{checkout(), dockerLogin(), setupBuildx(), setupQEMU(), buildPush(), metadata()},
		[]Action{azureLogin(), azureCLI(), uploadArtifact(), downloadArtifact(), cacheAction(), cacheRestore(), cacheSave()},
		setups(), kubernetesActions(),
		[]Action{pathsFilter(), githubScript(), uploadSARIF(), trivy(), checkov(), createPullRequest(), comment()},
	)
}

// Find returns the action for a `uses`, whatever its version.
func Find(uses string) (Action, bool) {
	name, _, _ := strings.Cut(uses, "@")
	for _, a := range actions() {
		if strings.EqualFold(a.Name, name) {
			return a, true
		}
	}
	return Action{}, false
}

// Check says why a `uses` cannot run here, or nil.
func Check(uses string) error {
	if _, ok := Find(uses); ok {
		if !strings.Contains(uses, "@") {
			return &Error{Msg: fmt.Sprintf("%q names no version", uses), Hint: "write it as on GitHub, for example " + uses + "@v4"}
		}
		return nil
	}
	switch {
	case strings.HasPrefix(uses, "./"):
		return &Error{Msg: fmt.Sprintf("local action %q: actions in the repository are not supported yet", uses), Hint: "move its commands into a run step"}
	case strings.HasPrefix(uses, "docker://"):
		return &Error{Msg: fmt.Sprintf("container action %q is not supported yet", uses), Hint: "run the program in a run step"}
	}
	if err := Refusal(uses); err != nil {
		return err
	}
	return &Error{Msg: fmt.Sprintf("action %q is not part of this engine, and actions are not downloaded", uses),
		Hint: "use a run step instead, or one of " + strings.Join(Names(), ", ")}
}

// Names lists the built-in actions.
func Names() []string {
	var names []string
	for _, a := range actions() {
		names = append(names, a.Name)
	}
	slices.Sort(names)
	return names
}

// Prepare fills in defaults and tells about inputs that are unknown or have no
// effect. lines gives the line of each input in the workflow file.
func (a Action) Prepare(c *Call, lines map[string]int) {
	names := make([]string, 0, len(c.With))
	for name := range c.With {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		_, known := a.Inputs[name]
		reason, noEffect := a.NoEffect[name]
		switch {
		case known:
		case noEffect:
			c.Logf("Input %s has no effect here: %s.", name, reason)
		default:
			c.Annotate(command.Annotation{Level: "warning", File: c.File, Line: lines[name], FromWorkflow: true,
				Message: fmt.Sprintf("unknown input %q for %s: it has no effect", name, a.Name)})
		}
	}
	for name, value := range a.Inputs {
		if _, ok := c.With[name]; !ok {
			c.With[name] = value
		}
	}
}

// Logf writes one line to the step's log.
func (c *Call) Logf(format string, args ...any) {
	_, _ = fmt.Fprintf(c.Out, format+"\n", args...)
}

// errorf is a failure at the step.
func (c *Call) errorf(hint, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{File: c.File, Line: c.Line, Msg: err.Error(), Hint: hint, Err: errors.Unwrap(err)}
}

// run runs a program in the sandbox; its output goes to the log.
func (c *Call) run(ctx context.Context, dir string, args ...string) error {
	code, err := c.Job.Exec(ctx, dir, c.Env, args, c.Out)
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("%s failed with exit code %d", args[0], code)
	}
	return nil
}

// capture is run with the output as the result instead.
func (c *Call) capture(ctx context.Context, dir string, args ...string) (string, error) {
	var out bytes.Buffer
	code, err := c.Job.Exec(ctx, dir, c.Env, args, &out)
	if err != nil {
		return "", err
	}
	if code != 0 {
		return "", fmt.Errorf("%s failed with exit code %d: %s", args[0], code, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

// flag reads a boolean input as actions do.
func (c *Call) flag(name string) (bool, error) {
	switch c.With[name] {
	case "true", "True", "TRUE":
		return true, nil
	case "", "false", "False", "FALSE":
		return false, nil
	}
	return false, c.errorf("", "input %s must be true or false, not %q", name, c.With[name])
}

// list splits an input at line ends, and at commas too when commas is set.
func (c *Call) list(name string, commas bool) []string {
	var out []string
	for line := range strings.Lines(c.With[name]) {
		pieces := []string{line}
		if commas {
			pieces = strings.Split(line, ",")
		}
		for _, p := range pieces {
			if p = strings.TrimSpace(p); p != "" {
				out = append(out, p)
			}
		}
	}
	return out
}
