package trigger

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// ErrNoDispatch says that a workflow cannot be started by hand.
var ErrNoDispatch = errors.New("workflow does not have 'workflow_dispatch' trigger")

// ErrNoCall says that a workflow cannot be called by others.
var ErrNoCall = errors.New("workflow is not reusable as it is missing a `on.workflow_call` trigger")

// maxInputs bounds what a dispatch gives, in bytes, as on GitHub.
const maxInputs = 65_535

// Inputs checks what was given to a dispatch against what the workflow
// declares, and fills in defaults. Names match without regard to case.
func Inputs(w *syntax.Workflow, given map[string]string) (map[string]string, error) {
	e := w.Event("workflow_dispatch")
	if e == nil {
		return nil, ErrNoDispatch
	}
	left, size := map[string]string{}, 0
	for k, v := range given {
		if size += len(k) + len(v); size > maxInputs {
			return nil, fmt.Errorf("inputs are too large: more than %d characters", maxInputs)
		}
		left[strings.ToLower(k)] = v
	}
	out := map[string]string{}
	for _, in := range e.Inputs {
		value, ok := left[strings.ToLower(in.Name)]
		delete(left, strings.ToLower(in.Name))
		if !ok {
			value = in.Default
			if in.Type == "boolean" && value == "" {
				value = "false"
			}
			if in.Type == "choice" && value == "" && len(in.Options) > 0 && !in.Required {
				value = in.Options[0]
			}
		}
		if err := check(in, value); err != nil {
			return nil, err
		}
		out[in.Name] = value
	}
	if len(left) > 0 {
		names := make([]string, 0, len(left))
		for k := range left {
			names = append(names, strconv.Quote(k))
		}
		slices.Sort(names)
		return nil, fmt.Errorf("unexpected inputs provided: %s", strings.Join(names, ", "))
	}
	return out, nil
}

func check(in syntax.Input, value string) error {
	if value == "" {
		if in.Required {
			return fmt.Errorf("required input '%s' not provided", in.Name)
		}
		return nil
	}
	if _, err := Value(in, value); err != nil {
		return err
	}
	if in.Type == "choice" && !slices.Contains(in.Options, value) {
		return fmt.Errorf("provided value %q for input '%s' not in the list of allowed values: %s", value, in.Name, strings.Join(in.Options, ", "))
	}
	return nil
}

// Typed makes the `inputs` context of a dispatch: booleans and numbers have
// their type there.
func Typed(w *syntax.Workflow, values map[string]string) *expr.Object {
	o := expr.NewObject()
	e := w.Event("workflow_dispatch")
	if e == nil {
		return o
	}
	for _, in := range e.Inputs {
		v, err := Value(in, values[in.Name])
		if err != nil {
			v = nil
		}
		o.Set(in.Name, v)
	}
	return o
}

// Value gives an input of a dispatch or a call its declared type: bool, float64
// or string. An empty text is false, nil or "". The error says what is wrong
// with it.
func Value(in syntax.Input, v any) (any, error) {
	text := expr.Text(v)
	switch in.Type {
	case "boolean":
		switch {
		case text == "true", text == "false":
			return text == "true", nil
		case text == "":
			return false, nil
		}
		return nil, fmt.Errorf("input '%s' must be true or false, not %q", in.Name, text)
	case "number":
		if f, ok := v.(float64); ok {
			return f, nil
		}
		if text == "" {
			return nil, nil
		}
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("input '%s' must be a number, not %q", in.Name, text)
		}
		return f, nil
	}
	switch v.(type) {
	case *expr.Object, expr.Array:
		return nil, fmt.Errorf("input '%s' must be a text, not an %s", in.Name, text)
	}
	return text, nil
}

// Call checks what a job passes to a reusable workflow against what that one
// declares, and fills in defaults. given is by lower-case name; fallback
// evaluates a default. The error names the input.
func Call(w *syntax.Workflow, given map[string]any, fallback func(syntax.Text) (any, error)) (*expr.Object, error) {
	e := w.Event("workflow_call")
	if e == nil {
		return nil, ErrNoCall
	}
	o := expr.NewObject()
	known := map[string]bool{}
	for _, in := range e.Inputs {
		known[strings.ToLower(in.Name)] = true
		v, ok := given[strings.ToLower(in.Name)]
		var err error
		switch {
		case ok:
		case in.Required:
			return nil, fmt.Errorf("input '%s' is required, but not provided while calling", in.Name)
		case in.DefaultText.IsSet():
			if v, err = fallback(in.DefaultText); err != nil {
				return nil, fmt.Errorf("default of input '%s': %w", in.Name, err)
			}
		case in.Type == "number":
			v = float64(0)
		}
		if v, err = Value(in, v); err != nil {
			return nil, err
		}
		o.Set(in.Name, v)
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !known[name] {
			return nil, fmt.Errorf("invalid input, '%s' is not defined in the referenced workflow", name)
		}
	}
	return o, nil
}
