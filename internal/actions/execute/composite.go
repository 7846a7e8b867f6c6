package execute

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/lockstep-gitops/lockstep/internal/actions/action"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// runComposite runs the steps of a composite action in the log of its step.
func (j *job) runComposite(ctx context.Context, st *running, f *frame, u *use) error {
	if f.depth > action.MaxDepth {
		return fmt.Errorf("composite actions are nested deeper than %d", action.MaxDepth)
	}
	for _, s := range u.act.Runs.Steps {
		if j.plan.Hard.Err() != nil {
			break
		}
		if ctx.Err() != nil && !j.cancelled() {
			break // the step's own time is over
		}
		j.nested(ctx, f, s)
	}
	err := j.compositeOutputs(st, f, u)
	if len(f.posts) > 0 {
		st.addPost(syntax.Text{}, func(ctx context.Context) error { return j.nestedPosts(ctx, f) })
	}
	switch {
	case f.failed != nil:
		return f.failed
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return err
}

// nested runs one step of a composite action.
func (j *job) nested(ctx context.Context, f *frame, s *syntax.Step) {
	st, envErr := j.newRunning(f, s)
	f.github.Set("action_status", string(frameStatus(f)))
	ok, condErr := j.exprEnv(f, st.env).Condition(s.If.Value)
	if condErr == nil && !ok {
		j.conclude(st, schedule.Skipped, schedule.Skipped)
		return
	}
	if j.cancelled() {
		ctx = j.late()
	}
	err := errors.Join(condErr, envErr)
	if err == nil {
		err = j.runStep(ctx, st)
	}
	line := s.Line
	if condErr != nil {
		err, line = fmt.Errorf("if: %w", condErr), s.If.Line
	}
	j.settle(st, err, line)
}

func frameStatus(f *frame) schedule.Result {
	if f.failed != nil {
		return schedule.Failure
	}
	return schedule.Success
}

// compositeOutputs evaluates the outputs of the action, whatever its steps did.
func (j *job) compositeOutputs(st *running, f *frame, u *use) error {
	env := j.exprEnv(f, nil)
	var errs []error
	for _, o := range u.act.Outputs {
		v, err := env.Interpolate(o.Value.Value)
		if err != nil {
			errs = append(errs, &action.Error{File: u.act.File, Line: o.Value.Line, Msg: fmt.Sprintf("output %s: %v", o.Name, err), Err: err})
			continue
		}
		st.outputs.Set(o.Name, v)
	}
	return errors.Join(errs...)
}

// nestedPosts runs the post parts of a composite action's steps.
func (j *job) nestedPosts(ctx context.Context, f *frame) error {
	var first error
	for _, p := range slices.Backward(f.posts) {
		if j.plan.Hard.Err() != nil {
			break
		}
		j.log("##[group]Post " + p.st.name + "\n##[endgroup]")
		if _, err := j.runPost(ctx, p); err != nil {
			err = j.located(p.st, err, p.st.Line)
			j.tell(err)
			first = cmpError(first, shownError{err})
		}
	}
	return first
}

// preSteps runs the pre parts of the actions that come from repositories,
// before the first step.
func (j *job) preSteps() {
	for _, s := range j.plan.Job.Steps {
		u := j.top.uses[s]
		if u == nil || !hasPre(u) || j.plan.Hard.Err() != nil {
			continue
		}
		st, err := j.newRunning(j.top, s)
		name := "Pre " + st.name
		j.begin(name)
		if err == nil {
			err = j.pre(j.late(), st, u)
		}
		result := schedule.Success
		if err != nil {
			result = schedule.Failure
			j.tell(err)
			j.fail(j.number, name, err, s.Line)
		}
		j.finish(Step{Number: j.number, Name: name, Outcome: result, Conclusion: result})
	}
	j.top.names = map[string]int{} // the steps are counted anew
}

func hasPre(u *use) bool {
	if u.act.Runs.Pre != "" || u.act.Runs.PreEntrypoint != "" {
		return true
	}
	for _, s := range u.act.Runs.Steps {
		if c := u.children[s]; c != nil && hasPre(c) {
			return true
		}
	}
	return false
}

// pre runs the pre part of an action, or of those that a composite one uses.
func (j *job) pre(ctx context.Context, st *running, u *use) error {
	inputs, err := j.inputs(st, u)
	if err != nil {
		return err
	}
	f := j.newFrame(st, u, inputs)
	r := u.act.Runs
	if r.Using == action.Composite {
		return j.preNested(ctx, f, u)
	}
	if r.PreIf.IsSet() {
		if ok, err := j.exprEnv(st.frame, st.env).Condition(r.PreIf.Value); err != nil || !ok {
			return err
		}
	}
	if r.Using == action.Docker {
		return j.dockerPart(ctx, st, f, u, r.PreEntrypoint)
	}
	return j.nodePart(ctx, st, f, u, r.Pre)
}

func (j *job) preNested(ctx context.Context, f *frame, u *use) error {
	for _, s := range u.act.Runs.Steps {
		c := u.children[s]
		if c == nil || !hasPre(c) {
			continue
		}
		st, err := j.newRunning(f, s)
		if err == nil {
			err = j.pre(ctx, st, c)
		}
		if err != nil {
			return j.located(st, err, s.Line)
		}
	}
	return nil
}
