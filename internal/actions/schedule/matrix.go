package schedule

import (
	"errors"
	"fmt"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// maxCombinations is GitHub's bound for one matrix.
const maxCombinations = 256

// Expand lists the combinations of a matrix in order. A strategy without a
// matrix has one combination: nil.
func Expand(s *syntax.Strategy, env expr.Env) ([]*expr.Object, error) {
	if s == nil || !s.Matrix.IsSet() && len(s.Rows) == 0 && len(s.Include) == 0 && !s.IncludeExpr.IsSet() {
		return []*expr.Object{nil}, nil
	}
	rows, include, exclude, err := resolve(s, env)
	if err != nil {
		return nil, err
	}
	combinations, err := cross(rows)
	if err != nil {
		return nil, err
	}
	kept := combinations[:0]
	for _, c := range combinations {
		if !excluded(c, exclude) {
			kept = append(kept, c)
		}
	}
	combinations = addIncludes(kept, rows, include)
	if len(combinations) == 0 {
		return nil, errors.New("the matrix has no combination")
	}
	if len(combinations) > maxCombinations {
		return nil, fmt.Errorf("the matrix has %d combinations; at most %d are allowed", len(combinations), maxCombinations)
	}
	return combinations, nil
}

// resolve evaluates the parts of a matrix.
func resolve(s *syntax.Strategy, env expr.Env) (rows *expr.Object, include, exclude []*expr.Object, err error) {
	rows = expr.NewObject()
	if s.Matrix.IsSet() {
		v, err := env.Value(s.Matrix.Value)
		if err != nil {
			return nil, nil, nil, err
		}
		whole, ok := v.(*expr.Object)
		if !ok {
			return nil, nil, nil, errors.New("the matrix expression does not give an object")
		}
		for _, k := range whole.Keys() {
			value, _ := whole.Get(k)
			switch strings.ToLower(k) {
			case "include":
				include, err = objects(value, k)
			case "exclude":
				exclude, err = objects(value, k)
			default:
				rows.Set(k, value)
			}
			if err != nil {
				return nil, nil, nil, err
			}
		}
		return rows, include, exclude, nil
	}
	for _, r := range s.Rows {
		var v any
		if r.Expr.IsSet() {
			v, err = env.Value(r.Expr.Value)
		} else {
			v, err = syntax.Resolve(r.Values, env)
		}
		if err != nil {
			return nil, nil, nil, err
		}
		rows.Set(r.Name, v)
	}
	if include, err = listed(s.Include, s.IncludeExpr, "include", env); err != nil {
		return nil, nil, nil, err
	}
	exclude, err = listed(s.Exclude, s.ExcludeExpr, "exclude", env)
	return rows, include, exclude, err
}

func listed(combinations []syntax.Combination, whole syntax.Text, name string, env expr.Env) ([]*expr.Object, error) {
	if whole.IsSet() {
		v, err := env.Value(whole.Value)
		if err != nil {
			return nil, err
		}
		return objects(v, name)
	}
	var out []*expr.Object
	for _, c := range combinations {
		if c.Expr.IsSet() {
			v, err := env.Value(c.Expr.Value)
			if err != nil {
				return nil, err
			}
			o, err := objects(expr.Array{v}, name)
			if err != nil {
				return nil, err
			}
			out = append(out, o...)
			continue
		}
		o := expr.NewObject()
		for _, k := range c.Keys {
			v, err := syntax.Resolve(c.Values[k], env)
			if err != nil {
				return nil, err
			}
			o.Set(k, v)
		}
		out = append(out, o)
	}
	return out, nil
}

func objects(v any, name string) ([]*expr.Object, error) {
	list, ok := v.(expr.Array)
	if !ok {
		return nil, fmt.Errorf("%s of the matrix is not a list", name)
	}
	var out []*expr.Object
	for _, e := range list {
		o, ok := e.(*expr.Object)
		if !ok {
			return nil, fmt.Errorf("an entry of %s of the matrix is not an object", name)
		}
		out = append(out, o)
	}
	return out, nil
}

// cross multiplies the rows; the last row varies fastest.
func cross(rows *expr.Object) ([]*expr.Object, error) {
	if rows.Len() == 0 {
		return nil, nil
	}
	out := []*expr.Object{expr.NewObject()}
	for _, name := range rows.Keys() {
		v, _ := rows.Get(name)
		values, ok := v.(expr.Array)
		if !ok {
			return nil, fmt.Errorf("%q of the matrix is not a list", name)
		}
		if len(out)*len(values) > 10*maxCombinations {
			return nil, fmt.Errorf("the matrix has more than %d combinations", 10*maxCombinations)
		}
		var next []*expr.Object
		for _, c := range out {
			for _, value := range values {
				next = append(next, with(c, name, value))
			}
		}
		out = next
	}
	return out, nil
}

func with(c *expr.Object, name string, value any) *expr.Object {
	o := expr.NewObject()
	for _, k := range c.Keys() {
		v, _ := c.Get(k)
		o.Set(k, v)
	}
	return o.Set(name, value)
}

func excluded(c *expr.Object, exclude []*expr.Object) bool {
	for _, e := range exclude {
		if e.Len() > 0 && covers(c, e, e.Keys()) {
			return true
		}
	}
	return false
}

// covers reports whether c has the values of e for the given keys.
func covers(c, e *expr.Object, keys []string) bool {
	for _, k := range keys {
		want, _ := e.Get(k)
		have, ok := c.Get(k)
		if !ok || expr.ToJSON(have) != expr.ToJSON(want) {
			return false
		}
	}
	return true
}

// addIncludes extends the combinations that an include fits without changing
// an original value; an include that fits none is a combination of its own.
func addIncludes(combinations []*expr.Object, rows *expr.Object, include []*expr.Object) []*expr.Object {
	original := len(combinations)
	for _, inc := range include {
		var shared []string
		for _, k := range inc.Keys() {
			if _, ok := rows.Get(k); ok {
				shared = append(shared, k)
			}
		}
		fits := false
		for i := range original {
			if !covers(combinations[i], inc, shared) {
				continue
			}
			fits = true
			for _, k := range inc.Keys() {
				v, _ := inc.Get(k)
				combinations[i] = with(combinations[i], k, v)
			}
		}
		if !fits {
			combinations = append(combinations, inc)
		}
	}
	return combinations
}

// Label is a combination as people see it behind the job's name: "(1, linux)".
func Label(c *expr.Object) string {
	if c == nil {
		return ""
	}
	var values []string
	for _, k := range c.Keys() {
		v, _ := c.Get(k)
		switch v.(type) {
		case *expr.Object, expr.Array:
			values = append(values, strings.Join(strings.Fields(expr.ToJSON(v)), " "))
		default:
			values = append(values, expr.Text(v))
		}
	}
	return "(" + strings.Join(values, ", ") + ")"
}
