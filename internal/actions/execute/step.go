package execute

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/action"
	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
	"github.com/lockstep-gitops/lockstep/internal/actions/command"
	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// running is one step while it runs.
type running struct {
	*syntax.Step
	frame   *frame
	id      string
	name    string
	own     *expr.Object // its own variables
	env     *expr.Object // the whole env context
	outputs *expr.Object
	state   map[string]string
	problem error // of a workflow command that could not be carried out
}

// post is what runs after all steps, the last step's first.
type post struct {
	st   *running
	cond syntax.Text // "" means always()
	run  func(ctx context.Context) error
}

// newRunning evaluates what a step needs before its condition.
func (j *job) newRunning(f *frame, s *syntax.Step) (*running, error) {
	st := &running{Step: s, frame: f, id: f.contextName(s), own: expr.NewObject(), outputs: expr.NewObject(), state: map[string]string{}}
	f.github.Set("action", st.id)
	base := j.baseEnv(f)
	err := j.addEnv(f, st.own, s.Env, base)
	st.env = merged(base, st.own)
	st.name = j.stepName(st)
	if u := f.uses[s]; u != nil {
		st.state = u.state
	}
	return st, err
}

// step runs one step of a frame, or skips it.
func (j *job) step(f *frame, s *syntax.Step) {
	if j.plan.Hard.Err() != nil {
		return // the job ends at once
	}
	st, envErr := j.newRunning(f, s)
	ok, condErr := j.exprEnv(f, st.env).Condition(s.If.Value)
	if condErr == nil && !ok {
		j.open(st)
		j.conclude(st, schedule.Skipped, schedule.Skipped)
		return
	}
	ctx := j.late()
	j.open(st)
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

// open shows a step of the job; those of an action appear in its log.
func (j *job) open(st *running) {
	if st.frame.parent == nil {
		j.begin(st.name)
	}
}

// shownError was logged by the step of an action that it comes from.
type shownError struct{ error }

func (e shownError) Unwrap() error { return e.error }

// settle turns the end of a step into its outcome and conclusion.
func (j *job) settle(st *running, err error, line int) {
	if err == nil {
		j.conclude(st, schedule.Success, schedule.Success)
		return
	}
	if errors.Is(err, ErrCancelled) && j.cancelled() {
		if st.frame.parent == nil {
			j.log("##[error]The operation was canceled.")
		}
		st.frame.failed = cmpError(st.frame.failed, err)
		j.conclude(st, schedule.Cancelled, schedule.Cancelled)
		return
	}
	err = j.located(st, err, line)
	j.tell(err)
	goOn, cerr := j.continues(st)
	if cerr != nil {
		err = errors.Join(err, cerr)
	}
	if goOn {
		j.conclude(st, schedule.Failure, schedule.Success)
		return
	}
	st.frame.failed = cmpError(st.frame.failed, shownError{err})
	if st.frame.parent == nil {
		j.failStep(st, err, line)
	}
	j.conclude(st, schedule.Failure, schedule.Failure)
}

func cmpError(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// tell logs why a step failed, once.
func (j *job) tell(err error) {
	var shown shownError
	if errors.As(err, &shown) {
		return
	}
	j.log("##[error]" + err.Error())
	if hint := hintOf(err); hint != "" {
		j.log("Try: " + hint)
	}
}

// located gives an error of an action's step the place in the action.
func (j *job) located(st *running, err error, line int) error {
	f := st.frame
	if f.parent == nil {
		return err
	}
	if file, _ := placeOf(err); file != "" {
		return err
	}
	var shown shownError
	if errors.As(err, &shown) {
		return err
	}
	return &action.Error{File: f.file, Line: line, Msg: err.Error(), Hint: hintOf(err), Err: err}
}

// placeOf is where an error says that it happened.
func placeOf(err error) (file string, line int) {
	var b *builtin.Error
	if errors.As(err, &b) && b.File != "" {
		return b.File, b.Line
	}
	var a *action.Error
	if errors.As(err, &a) && a.File != "" {
		return a.File, a.Line
	}
	return "", 0
}

func hintOf(err error) string {
	var b *builtin.Error
	if errors.As(err, &b) && b.Hint != "" {
		return b.Hint
	}
	var a *action.Error
	if errors.As(err, &a) {
		return a.Hint
	}
	return ""
}

// failStep makes a step's failure the job's.
func (j *job) failStep(st *running, err error, line int) {
	if j.place.File == "" { // a step that reported errors itself has said enough
		a := command.Annotation{Level: "error", Message: fmt.Sprintf("%s: %v", st.name, err), File: j.plan.Workflow.File, Line: line}
		if file, at := placeOf(err); file != "" && j.inRepo(file) {
			a.File, a.Line = file, at
		}
		j.annotate(a)
	}
	j.fail(j.number, j.masker.Text(st.name), err, line)
}

// inRepo reports whether a file of an error is one of the job's repository,
// not of an action from elsewhere.
func (j *job) inRepo(file string) bool {
	return !j.foreign[file]
}

func (j *job) continues(st *running) (bool, error) {
	if !st.ContinueOnError.IsSet() {
		return false, nil
	}
	v, err := j.exprEnv(st.frame, st.env).Interpolate(st.ContinueOnError.Value)
	return v == "true", err
}

func (j *job) conclude(st *running, outcome, conclusion schedule.Result) {
	if !strings.HasPrefix(st.id, "__") { // as on GitHub, a step without id is not in the context
		st.frame.steps.Set(st.id, expr.NewObject().Set("outputs", st.outputs).Set("outcome", string(outcome)).Set("conclusion", string(conclusion)))
	}
	if st.frame.parent == nil {
		j.finish(Step{Number: j.number, Name: st.name, Outcome: outcome, Conclusion: conclusion})
	}
}

// stepName is `name`, or what GitHub shows without one.
func (j *job) stepName(st *running) string {
	if st.Name.IsSet() {
		if v, err := j.exprEnv(st.frame, st.env).Interpolate(st.Name.Value); err == nil && v != "" {
			return v
		}
		return st.Name.Value
	}
	if st.Uses.IsSet() {
		return "Run " + st.Uses.Value
	}
	first, _, _ := strings.Cut(strings.TrimLeft(st.Run.Value, "\n "), "\n")
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

// addPost remembers what is to run after the steps.
func (st *running) addPost(cond syntax.Text, run func(context.Context) error) {
	st.frame.posts = append(st.frame.posts, &post{st: st, cond: cond, run: run})
}

// postSteps runs what the job's steps left to do, the last one's first.
func (j *job) postSteps() {
	for _, p := range slices.Backward(j.top.posts) {
		if j.plan.Hard.Err() != nil {
			return
		}
		name := "Post " + p.st.name
		j.begin(name)
		result := schedule.Success
		switch ran, err := j.runPost(j.late(), p); {
		case err != nil:
			result = schedule.Failure
			j.tell(err)
			j.fail(j.number, name, err, p.st.Line)
		case !ran:
			result = schedule.Skipped
		}
		j.finish(Step{Number: j.number, Name: name, Outcome: result, Conclusion: result})
	}
}

// runPost runs one post part when its condition holds.
func (j *job) runPost(ctx context.Context, p *post) (ran bool, err error) {
	st := p.st
	st.frame.github.Set("action", st.id)
	st.env = merged(j.baseEnv(st.frame), st.own)
	if p.cond.IsSet() {
		env := j.exprEnv(j.top, st.env)
		if ok, err := env.Condition(p.cond.Value); err != nil || !ok {
			return false, err
		}
	}
	return true, p.run(ctx)
}
