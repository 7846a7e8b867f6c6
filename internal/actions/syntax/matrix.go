package syntax

import (
	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"go.yaml.in/yaml/v4"
)

func (d *document) strategy(n *yaml.Node) *Strategy {
	if n == nil {
		return nil
	}
	out := &Strategy{Line: n.Line, FailFast: textAt(n, "fail-fast"), MaxParallel: textAt(n, "max-parallel")}
	if n.Kind == yaml.ScalarNode {
		out.Expr = textOf(n)
		return out
	}
	m := get(n, "matrix")
	if m == nil {
		return out
	}
	if m.Kind == yaml.ScalarNode {
		out.Matrix = textOf(m)
		return out
	}
	for _, p := range d.pairs(m) {
		switch p.key.Value {
		case "include":
			out.Include, out.IncludeExpr = d.combinations(p.value)
		case "exclude":
			out.Exclude, out.ExcludeExpr = d.combinations(p.value)
		default:
			out.Rows = append(out.Rows, d.row(p))
		}
	}
	return out
}

func (d *document) row(p pair) Row {
	r := Row{Name: p.key.Value}
	if p.value.Kind == yaml.ScalarNode {
		r.Expr = textOf(p.value)
		return r
	}
	r.Values = []Value{}
	if p.value.Kind == yaml.SequenceNode {
		for _, v := range p.value.Content {
			r.Values = append(r.Values, d.value(v))
		}
	}
	return r
}

func (d *document) combinations(n *yaml.Node) ([]Combination, Text) {
	if n.Kind == yaml.ScalarNode {
		return nil, textOf(n)
	}
	var out []Combination
	for _, item := range n.Content {
		if item.Kind == yaml.ScalarNode {
			out = append(out, Combination{Expr: textOf(item)})
			continue
		}
		c := Combination{Values: map[string]Value{}}
		for _, p := range d.pairs(item) {
			c.Keys = append(c.Keys, p.key.Value)
			c.Values[p.key.Value] = d.value(p.value)
		}
		out = append(out, c)
	}
	return out, Text{}
}

// value takes YAML of any form over.
func (d *document) value(n *yaml.Node) Value {
	switch n.Kind {
	case yaml.ScalarNode:
		if v := scalarOf(n); !isString(v) {
			return v
		}
		return textOf(n)
	case yaml.SequenceNode:
		list := make([]Value, len(n.Content))
		for i, e := range n.Content {
			list[i] = d.value(e)
		}
		return list
	case yaml.MappingNode:
		m := Mapping{Values: map[string]Value{}}
		for _, p := range d.pairs(n) {
			m.Keys = append(m.Keys, p.key.Value)
			m.Values[p.key.Value] = d.value(p.value)
		}
		return m
	}
	return nil
}

func isString(v any) bool {
	_, ok := v.(string)
	return ok
}

// Resolve evaluates the expressions inside of a matrix value.
func Resolve(v Value, env expr.Env) (any, error) {
	switch v := v.(type) {
	case Text:
		return env.Value(v.Value)
	case []Value:
		list := make(expr.Array, len(v))
		for i, e := range v {
			r, err := Resolve(e, env)
			if err != nil {
				return nil, err
			}
			list[i] = r
		}
		return list, nil
	case Mapping:
		o := expr.NewObject()
		for _, k := range v.Keys {
			r, err := Resolve(v.Values[k], env)
			if err != nil {
				return nil, err
			}
			o.Set(k, r)
		}
		return o, nil
	}
	return v, nil
}
