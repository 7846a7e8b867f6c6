package execute

import (
	"fmt"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// frame is a list of steps with contexts of its own: the job's steps, or those
// of a composite action.
type frame struct {
	parent *frame // nil for the job's own steps
	depth  int    // 0 for the job's own steps
	// file is where the steps are written. shown is false when it is not a
	// file of the job's repository.
	file   string
	shown  bool
	github *expr.Object
	inputs any
	steps  *expr.Object
	over   *expr.Object // env of the steps that use the action, over the job's
	uses   map[*syntax.Step]*use
	names  map[string]int // of steps without id
	failed error          // the first failure that counts, of a composite action
	posts  []*post
}

// newTop is the frame of the job's own steps.
func (j *job) newTop() *frame {
	return &frame{
		file: j.plan.Workflow.File, shown: true, github: j.githubContext(), inputs: j.plan.Inputs, steps: expr.NewObject(),
		over: expr.NewObject(), uses: map[*syntax.Step]*use{}, names: map[string]int{},
	}
}

// baseEnv is the env context before a step's own variables.
func (j *job) baseEnv(f *frame) *expr.Object { return merged(j.env, f.over) }

// exprEnv is what expressions of a frame see. env may be nil.
func (j *job) exprEnv(f *frame, env *expr.Object) expr.Env {
	if env == nil {
		env = j.baseEnv(f)
	}
	contexts := j.plan.Contexts()
	if f.parent != nil {
		contexts = map[string]any{"matrix": contexts["matrix"], "strategy": contexts["strategy"]}
	}
	contexts["inputs"], contexts["github"], contexts["env"], contexts["steps"] = f.inputs, f.github, env, f.steps
	contexts["job"], contexts["runner"] = j.jobContext(), j.runnerContext()
	return expr.Env{Contexts: contexts, Status: func(name string) bool { return j.statusFunction(f, name) }, HashFiles: j.hashFiles}
}

// addEnv evaluates a block of variables; all see the same env context.
func (j *job) addEnv(f *frame, into *expr.Object, block syntax.Env, seen *expr.Object) error {
	env := j.exprEnv(f, seen)
	if block.Expr.IsSet() {
		v, err := env.Value(block.Expr.Value)
		if err != nil {
			return fmt.Errorf("env at line %d: %w", block.Expr.Line, err)
		}
		if o, ok := v.(*expr.Object); ok {
			for _, k := range o.Keys() {
				value, _ := o.Get(k)
				into.Set(k, expr.Text(value))
			}
		}
	}
	values := make([]string, len(block.Vars))
	for i, v := range block.Vars {
		value, err := env.Interpolate(v.Value.Value)
		if err != nil {
			return fmt.Errorf("env %s at line %d: %w", v.Name, v.Value.Line, err)
		}
		values[i] = value
	}
	for i, v := range block.Vars {
		into.Set(v.Name, values[i])
	}
	return nil
}

// contextName is what GitHub calls a step: its id, or a name that starts with
// two underscores and never shows up in the steps context.
func (f *frame) contextName(s *syntax.Step) string {
	if s.ID.Value != "" {
		return s.ID.Value
	}
	name := "__run"
	if s.Uses.IsSet() {
		base, _, _ := strings.Cut(strings.TrimPrefix(s.Uses.Value, "docker://"), "@")
		name = "__" + strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
				return r
			}
			return '_'
		}, strings.TrimLeft(base, "./"))
		if strings.HasPrefix(s.Uses.Value, "./") {
			name = "__self"
		}
	}
	f.names[name]++
	if n := f.names[name]; n > 1 {
		return fmt.Sprintf("%s_%d", name, n)
	}
	return name
}

// merged is a with b laid over it.
func merged(a, b *expr.Object) *expr.Object {
	out := copyObject(a)
	if b != nil {
		for _, k := range b.Keys() {
			v, _ := b.Get(k)
			out.Set(k, v)
		}
	}
	return out
}

func copyObject(o *expr.Object) *expr.Object {
	out := expr.NewObject()
	for _, k := range o.Keys() {
		v, _ := o.Get(k)
		out.Set(k, v)
	}
	return out
}
