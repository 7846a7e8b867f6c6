package schedule

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// maxCombinations is GitHub's bound for one matrix.
const maxCombinations = 256

// Combination is one cell of a matrix.
type Combination struct {
	// Values are the `matrix` context; nil where the job has no matrix.
	Values *expr.Object
	// Label is what people see behind the job's name: "(1, linux)". What an
	// include adds to a cell is not in it.
	Label string
}

// maxName bounds the name of a job, in characters, as on GitHub.
const maxName = 100

// Name is what people see of a job's combination: "test (1, linux)".
func (c Combination) Name(job string) string {
	if c.Label != "" {
		job += " " + c.Label
	}
	if runes := []rune(job); len(runes) > maxName {
		return string(runes[:maxName-3]) + "..."
	}
	return job
}

// Combine lists the combinations of a matrix in order. A strategy without a
// matrix, or of which everything is excluded, has one without values.
func Combine(s *syntax.Strategy, env expr.Env) ([]Combination, error) {
	rows, include, exclude, found, err := resolve(s, env)
	if err != nil {
		return nil, err
	}
	if !found {
		return []Combination{{}}, nil
	}
	if rows.Len() == 0 && len(include) == 0 {
		return nil, errors.New("matrix must define at least one vector")
	}
	if err := checkFilters(rows, include, exclude); err != nil {
		return nil, err
	}
	cells, err := cross(rows)
	if err != nil {
		return nil, err
	}
	cells = slices.DeleteFunc(cells, func(c *expr.Object) bool {
		return slices.ContainsFunc(exclude, func(e *expr.Object) bool { return fits(c, e, e.Keys()) })
	})
	combinations := addIncludes(cells, rows, include)
	switch {
	case len(combinations) == 0:
		return []Combination{{}}, nil
	case len(combinations) > maxCombinations:
		return nil, fmt.Errorf("the matrix has %d combinations; at most %d are allowed", len(combinations), maxCombinations)
	}
	return combinations, nil
}

func checkFilters(rows *expr.Object, include, exclude []*expr.Object) error {
	for _, e := range exclude {
		if e.Len() == 0 {
			return errors.New("matrix exclude filter must not be empty")
		}
		for _, k := range e.Keys() {
			if _, ok := rows.Get(k); !ok {
				return fmt.Errorf("matrix exclude key '%s' does not match any key within the matrix", k)
			}
		}
	}
	for _, e := range include {
		if e.Len() == 0 {
			return errors.New("matrix include mapping does not contain any values")
		}
	}
	return nil
}

// resolve evaluates the parts of a matrix. found is whether there is one.
func resolve(s *syntax.Strategy, env expr.Env) (rows *expr.Object, include, exclude []*expr.Object, found bool, err error) {
	switch {
	case s == nil:
		return nil, nil, nil, false, nil
	case s.Expr.IsSet():
		whole, err := object(s.Expr, env, "the strategy expression")
		if err != nil {
			return nil, nil, nil, false, err
		}
		v, ok := whole.Get("matrix")
		if !ok {
			return nil, nil, nil, false, nil
		}
		matrix, ok := v.(*expr.Object)
		if !ok {
			return nil, nil, nil, false, errors.New("the matrix of the strategy expression is not an object")
		}
		rows, include, exclude, err = fromObject(matrix)
		return rows, include, exclude, true, err
	case s.Matrix.IsSet():
		matrix, err := object(s.Matrix, env, "the matrix expression")
		if err != nil {
			return nil, nil, nil, false, err
		}
		rows, include, exclude, err = fromObject(matrix)
		return rows, include, exclude, true, err
	}
	found = len(s.Rows) > 0 || len(s.Include) > 0 || s.IncludeExpr.IsSet() || len(s.Exclude) > 0 || s.ExcludeExpr.IsSet()
	rows = expr.NewObject()
	for _, r := range s.Rows {
		var v any
		if r.Expr.IsSet() {
			v, err = env.Value(r.Expr.Value)
		} else {
			v, err = syntax.Resolve(r.Values, env)
		}
		if err != nil {
			return nil, nil, nil, false, err
		}
		rows.Set(r.Name, v)
	}
	if include, err = listed(s.Include, s.IncludeExpr, "include", env); err != nil {
		return nil, nil, nil, false, err
	}
	exclude, err = listed(s.Exclude, s.ExcludeExpr, "exclude", env)
	return rows, include, exclude, found, err
}

// fromObject takes a matrix apart that an expression made.
func fromObject(matrix *expr.Object) (rows *expr.Object, include, exclude []*expr.Object, err error) {
	rows = expr.NewObject()
	for _, k := range matrix.Keys() {
		v, _ := matrix.Get(k)
		switch strings.ToLower(k) {
		case "include":
			include, err = objects(v, k)
		case "exclude":
			exclude, err = objects(v, k)
		default:
			rows.Set(k, v)
		}
		if err != nil {
			return nil, nil, nil, err
		}
	}
	return rows, include, exclude, nil
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
		if len(values) == 0 {
			return nil, fmt.Errorf("matrix vector '%s' does not contain any values", name)
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

// fits reports whether a cell has the values of a filter for the given keys.
// Values are compared as expressions do it: 'A' fits a, and '1' fits 1. Of lists
// and objects only what the filter names counts.
func fits(c, filter *expr.Object, keys []string) bool {
	for _, k := range keys {
		have, _ := c.Get(k)
		want, _ := filter.Get(k)
		if !agrees(have, want) {
			return false
		}
	}
	return true
}

func agrees(have, want any) bool {
	switch want := want.(type) {
	case *expr.Object:
		for _, k := range want.Keys() {
			v, _ := want.Get(k)
			if !agrees(expr.Index(have, k), v) {
				return false
			}
		}
		return true
	case expr.Array:
		for i, v := range want {
			if !agrees(expr.Index(have, float64(i)), v) {
				return false
			}
		}
		return true
	}
	return expr.Equal(have, want)
}

// addIncludes adds the other values of an include to the cells that it fits; an
// include that fits none is a combination of its own.
func addIncludes(cells []*expr.Object, rows *expr.Object, include []*expr.Object) []Combination {
	out := make([]Combination, len(cells))
	for i, c := range cells {
		out[i] = Combination{Values: c, Label: label(c)}
	}
	var own []Combination
	for _, inc := range include {
		filter, extra := splitKeys(inc, rows)
		found := false
		for i, c := range cells {
			if !fits(c, inc, filter) {
				continue
			}
			found = true
			for _, k := range extra {
				v, _ := inc.Get(k)
				out[i].Values = with(out[i].Values, k, v)
			}
		}
		if found {
			continue
		}
		alone := expr.NewObject()
		for _, k := range append(filter, extra...) {
			v, _ := inc.Get(k)
			alone.Set(k, v)
		}
		own = append(own, Combination{Values: alone, Label: label(alone)})
	}
	return append(out, own...)
}

// splitKeys tells the keys of an include that the matrix has from its others.
func splitKeys(inc, rows *expr.Object) (filter, extra []string) {
	for _, k := range inc.Keys() {
		if _, ok := rows.Get(k); ok {
			filter = append(filter, k)
		} else {
			extra = append(extra, k)
		}
	}
	return filter, extra
}

// label names all values: "(1, linux)"; of lists and objects what is inside.
func label(c *expr.Object) string {
	if found := leaves(nil, c); len(found) > 0 {
		return "(" + strings.Join(found, ", ") + ")"
	}
	return ""
}

// leaves are the texts inside of a value; nulls and empty texts do not count.
func leaves(out []string, v any) []string {
	switch v := v.(type) {
	case expr.Array:
		for _, e := range v {
			out = leaves(out, e)
		}
		return out
	case *expr.Object:
		for _, k := range v.Keys() {
			e, _ := v.Get(k)
			out = leaves(out, e)
		}
		return out
	}
	if text := expr.Text(v); text != "" {
		out = append(out, text)
	}
	return out
}
