package execute

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
	"github.com/lockstep-gitops/lockstep/internal/actions/command"
	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// running is one step of the workflow while it runs.
type running struct {
	*syntax.Step
	index   int
	id      string
	name    string
	env     *expr.Object
	outputs *expr.Object
	state   map[string]string
}

// step runs one step of the workflow, or skips it.
func (j *job) step(index int, s *syntax.Step) {
	st := &running{Step: s, index: index, id: s.ID.Value, env: copyObject(j.env), outputs: expr.NewObject(), state: map[string]string{}}
	if st.id == "" {
		st.id = fmt.Sprintf("__step_%d", index+1)
	}
	j.github.Set("action", st.id)
	if j.plan.Hard.Err() != nil {
		return // the job ends at once
	}
	envErr := j.addEnv(st.env, s.Env, nil)
	st.name = j.stepName(s, st.env)
	ok, condErr := j.exprEnv(st.env).Condition(s.If.Value)
	if condErr == nil && !ok {
		j.begin(st.name)
		j.conclude(st, schedule.Skipped, schedule.Skipped)
		return
	}
	ctx := j.late()
	j.begin(st.name)
	var err error
	line := s.Line
	switch {
	case condErr != nil:
		err, line = fmt.Errorf("if: %w", condErr), s.If.Line
	case envErr != nil:
		err = envErr
	default:
		err = j.runStep(ctx, st)
	}
	j.settle(st, err, line)
}

// settle turns the end of a step into its outcome and conclusion.
func (j *job) settle(st *running, err error, line int) {
	if err == nil {
		j.conclude(st, schedule.Success, schedule.Success)
		return
	}
	if errors.Is(err, ErrCancelled) && j.cancelled() {
		j.log("##[error]The operation was canceled.")
		j.conclude(st, schedule.Cancelled, schedule.Cancelled)
		return
	}
	j.log("##[error]" + err.Error())
	var located *builtin.Error
	if errors.As(err, &located) && located.Hint != "" {
		j.log("Try: " + located.Hint)
	}
	goOn, cerr := j.continues(st)
	if cerr != nil {
		err = errors.Join(err, cerr)
	}
	if goOn {
		j.conclude(st, schedule.Failure, schedule.Success)
		return
	}
	if j.place.File == "" { // a step that reported errors itself has said enough
		a := command.Annotation{Level: "error", Message: fmt.Sprintf("%s: %v", st.name, err), File: j.plan.Workflow.File, Line: line}
		if located != nil && located.File != "" {
			a.File, a.Line = located.File, located.Line
		}
		j.annotate(a)
	}
	j.fail(j.number, j.masker.Text(st.name), err, line)
	j.conclude(st, schedule.Failure, schedule.Failure)
}

func (j *job) continues(st *running) (bool, error) {
	if !st.ContinueOnError.IsSet() {
		return false, nil
	}
	v, err := j.exprEnv(st.env).Interpolate(st.ContinueOnError.Value)
	return v == "true", err
}

func (j *job) conclude(st *running, outcome, conclusion schedule.Result) {
	j.steps.Set(st.id, expr.NewObject().Set("outputs", st.outputs).Set("outcome", string(outcome)).Set("conclusion", string(conclusion)))
	j.finish(Step{Number: j.number, Name: st.name, Outcome: outcome, Conclusion: conclusion})
}

// stepName is `name`, or what GitHub shows without one.
func (j *job) stepName(s *syntax.Step, env *expr.Object) string {
	if s.Name.IsSet() {
		if v, err := j.exprEnv(env).Interpolate(s.Name.Value); err == nil && v != "" {
			return v
		}
		return s.Name.Value
	}
	if s.Uses.IsSet() {
		return "Run " + s.Uses.Value
	}
	first, _, _ := strings.Cut(strings.TrimLeft(s.Run.Value, "\n "), "\n")
	return "Run " + strings.TrimSpace(first)
}

func (j *job) runStep(ctx context.Context, st *running) error {
	if st.TimeoutMinutes.IsSet() {
		d, err := j.minutes(st.TimeoutMinutes, st.env)
		if err != nil {
			return err
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d, fmt.Errorf("the step ran longer than its timeout-minutes (%s)", d))
		defer cancel()
	}
	if st.Uses.IsSet() {
		return j.runAction(ctx, st)
	}
	return j.runScript(ctx, st)
}

// onCommand handles the commands that belong to a step.
func (st *running) onCommand(c command.Command) bool {
	name := c.Props["name"]
	if name == "" {
		return false
	}
	if c.Name == "set-output" {
		st.outputs.Set(name, c.Data)
	} else {
		st.state[name] = c.Data
	}
	return true
}

// runAction calls a built-in action.
func (j *job) runAction(ctx context.Context, st *running) error {
	action, ok := builtin.Find(st.Uses.Value)
	if !ok {
		return builtin.Check(st.Uses.Value) // Preflight has asked already
	}
	call, err := j.newCall(ctx, st)
	if err != nil {
		return err
	}
	lines := map[string]int{}
	j.log("##[group]Run " + st.Uses.Value)
	if len(st.With) > 0 {
		j.log("with:")
	}
	for _, in := range st.With {
		lines[strings.ToLower(in.Name)] = in.Value.Line
		j.log("  " + in.Name + ": " + call.With[strings.ToLower(in.Name)])
	}
	j.logEnv(st.env)
	j.log("##[endgroup]")
	action.Prepare(call, lines)
	err = action.Run(ctx, call)
	flush(call.Out)
	if action.Post != nil {
		j.posts = append(j.posts, func(ctx context.Context) { j.postAction(ctx, st, action, call) })
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// postAction cleans up after an action; its failure fails the job.
func (j *job) postAction(ctx context.Context, st *running, action builtin.Action, call *builtin.Call) {
	if j.plan.Hard.Err() != nil {
		return
	}
	name := "Post " + st.name
	j.begin(name)
	call.Out = j.output(nil)
	err := action.Post(ctx, call)
	flush(call.Out)
	result := schedule.Success
	if err != nil {
		result = schedule.Failure
		j.log("##[error]" + err.Error())
		j.fail(j.number, name, err, st.Line)
	}
	j.finish(Step{Number: j.number, Name: name, Outcome: result, Conclusion: result})
}

func flush(w io.Writer) {
	if f, ok := w.(interface{ Flush() }); ok {
		f.Flush()
	}
}

func (j *job) newCall(ctx context.Context, st *running) (*builtin.Call, error) {
	env := j.exprEnv(st.env)
	with := map[string]string{}
	for _, in := range st.With {
		v, err := env.Interpolate(in.Value.Value)
		if err != nil {
			return nil, &builtin.Error{File: j.plan.Workflow.File, Line: in.Value.Line, Msg: fmt.Sprintf("input %s: %v", in.Name, err)}
		}
		with[strings.ToLower(in.Name)] = v
	}
	return &builtin.Call{
		Job: j.builtinJob(), Uses: st.Uses.Value, File: j.plan.Workflow.File, Line: st.Line, With: with,
		Env: j.processEnv(st.env, nil), Out: j.output(st.onCommand), State: st.state,
		SetOutput: func(name, value string) { st.outputs.Set(name, value) },
		SetEnv: func(name, value string) {
			if err := j.setEnv(name, value); err != nil {
				j.log("##[warning]" + err.Error())
			}
		},
		AddPath: j.addPath,
		Annotate: func(a command.Annotation) {
			j.annotate(a)
			j.log(fmt.Sprintf("##[%s]%s:%d: %s", a.Level, a.File, a.Line, a.Message))
		},
	}, nil
}

func (j *job) builtinJob() *builtin.Job {
	p := j.plan
	return &builtin.Job{
		Repo: p.Repo, Commit: p.Commit, Ref: p.Ref, ServerURL: j.Config.ServerURL, Token: p.Token,
		Workspace: j.workspace(), WorkspaceDir: j.layout.work, Files: j.files, HomePath: homeDir, Home: j.home,
		TempPath: tempDir, Temp: j.temp, ScratchDir: j.layout.scratch, Builder: j.Builder, RegistryProbe: j.RegistryProbe,
		GoCandidates: []string{"/usr/local/go/bin/go", "/usr/lib/go/bin/go"},
		Archive:      p.Archive, Mask: j.masker.Add,
		Exec: func(ctx context.Context, dir string, env, args []string, out io.Writer) (int, error) {
			exit, err := j.box.Exec(ctx, sandbox.Command{Args: args, Env: env, Dir: dir, Output: out, Grace: j.Config.KillGrace})
			return exit.Code, err
		},
	}
}
