package execute

import (
	"context"
	"errors"
	"fmt"

	"github.com/lockstep-gitops/lockstep/internal/actions/action"
	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// Preflight says why a job cannot run here: parts that are not supported, and
// actions that do not exist or cannot be had. Nothing was started then.
func (r *Runner) Preflight(ctx context.Context, w *syntax.Workflow, j *syntax.Job) *Failure {
	if f := Preflight(w, j); f != nil {
		return f
	}
	if r.Containers == nil {
		switch {
		case j.Container != nil:
			return failureAt(w.File, j.Container.Line, noContainers("the job's `container`"))
		case len(j.Services) > 0:
			return failureAt(w.File, j.Services[0].Line, noContainers(fmt.Sprintf("service %q", j.Services[0].Name)))
		}
	}
	for _, s := range j.Steps {
		if err := r.preflight(ctx, s); err != nil {
			return failureAt(w.File, s.Uses.Line, err)
		}
	}
	return nil
}

// Preflight says why a job cannot run anywhere, without looking for actions.
func Preflight(w *syntax.Workflow, j *syntax.Job) *Failure {
	if len(j.Unsupported) > 0 {
		d := j.Unsupported[0]
		return &Failure{Message: d.Message, Hint: d.Hint, File: d.File, Line: d.Line}
	}
	for _, s := range j.Steps {
		if !s.Uses.IsSet() {
			continue
		}
		if _, ok := builtin.Find(s.Uses.Value); ok {
			if err := builtin.Check(s.Uses.Value); err != nil {
				return failureAt(w.File, s.Uses.Line, err)
			}
			continue
		}
		if _, err := action.Parse(s.Uses.Value); err != nil {
			return failureAt(w.File, s.Uses.Line, err)
		}
	}
	return nil
}

func failureAt(file string, line int, err error) *Failure {
	f := &Failure{Message: err.Error(), Hint: hintOf(err), File: file, Line: line}
	var b *builtin.Error
	if errors.As(err, &b) {
		f.Message = b.Msg
	}
	return f
}

func (r *Runner) preflight(ctx context.Context, s *syntax.Step) error {
	if !s.Uses.IsSet() {
		return nil
	}
	if _, ok := builtin.Find(s.Uses.Value); ok {
		return nil
	}
	ref, err := action.Parse(s.Uses.Value)
	switch {
	case err != nil:
		return err
	case ref.Kind == action.Image && r.Containers == nil:
		return noContainers(fmt.Sprintf("step %q", ref.Text))
	case ref.Kind != action.Repository: // a file of the workflow's repository is looked for when the job starts
		return nil
	case r.Actions == nil:
		return builtin.Check(s.Uses.Value)
	}
	_, err = r.Actions.Resolve(ctx, ref)
	return err
}
