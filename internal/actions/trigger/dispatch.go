package trigger

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// ErrNoDispatch says that a workflow cannot be started by hand.
var ErrNoDispatch = errors.New("workflow does not have 'workflow_dispatch' trigger")

// Inputs checks what was given to a dispatch against what the workflow
// declares, and fills in defaults. Names match without regard to case.
func Inputs(w *syntax.Workflow, given map[string]string) (map[string]string, error) {
	e := w.Event("workflow_dispatch")
	if e == nil {
		return nil, ErrNoDispatch
	}
	left := map[string]string{}
	for k, v := range given {
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
	switch in.Type {
	case "boolean":
		if value != "true" && value != "false" {
			return fmt.Errorf("input '%s' must be true or false, not %q", in.Name, value)
		}
	case "number":
		if _, err := strconv.ParseFloat(value, 64); err != nil {
			return fmt.Errorf("input '%s' must be a number, not %q", in.Name, value)
		}
	case "choice":
		if !slices.Contains(in.Options, value) {
			return fmt.Errorf("provided value %q for input '%s' not in the list of allowed values: %s", value, in.Name, strings.Join(in.Options, ", "))
		}
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
		value := values[in.Name]
		switch in.Type {
		case "boolean":
			o.Set(in.Name, value == "true")
		case "number":
			f, err := strconv.ParseFloat(value, 64)
			if err != nil {
				o.Set(in.Name, nil)
				continue
			}
			o.Set(in.Name, f)
		default:
			o.Set(in.Name, value)
		}
	}
	return o
}
