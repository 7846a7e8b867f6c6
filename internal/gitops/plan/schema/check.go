package schema

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// step is one step of a path: a field, or the item of a list.
type step struct {
	field string
	index int // -1 for a field
}

type check struct {
	path     []step
	problems []Problem
}

func (c *check) add(message, suggestion string) {
	if len(c.problems) < maxProblems {
		c.problems = append(c.problems, Problem{Path: c.where(), Message: message, Suggestion: suggestion})
	}
}

func (c *check) where() string {
	var b strings.Builder
	for _, s := range c.path {
		switch {
		case s.index >= 0:
			b.WriteString("[" + strconv.Itoa(s.index) + "]")
		case strings.ContainsAny(s.field, "./"):
			b.WriteString("[" + strconv.Quote(s.field) + "]")
		default:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(s.field)
		}
	}
	return b.String()
}

func (c *check) push(s step) { c.path = append(c.path, s) }

func (c *check) pop() { c.path = c.path[:len(c.path)-1] }

func (c *check) value(n *node, v any) {
	if n == nil || n.kind == anyKind || v == nil {
		return
	}
	switch x := v.(type) {
	case map[string]any:
		if n.kind != objectKind {
			c.add("is an object, but has to be "+article(n.kind), "")
			return
		}
		c.object(n, x, n.embedded)
	case []any:
		if n.kind != listKind {
			c.add("is a list, but has to be "+article(n.kind), "")
			return
		}
		for i, item := range x {
			c.push(step{index: i})
			c.value(n.items, item)
			c.pop()
		}
	case string:
		if n.kind != stringKind && n.kind != scalarKind {
			c.add("is a string, but has to be "+article(n.kind), unquoted(n.kind, x))
		}
	case bool:
		if n.kind != booleanKind {
			c.add("is a boolean, but has to be "+article(n.kind), quoted(n.kind))
		}
	case int64, int:
		if n.kind != integerKind && n.kind != numberKind && n.kind != scalarKind {
			c.add("is a number, but has to be "+article(n.kind), quoted(n.kind))
		}
	case float64:
		whole := x == math.Trunc(x)
		if n.kind != numberKind && n.kind != scalarKind && (n.kind != integerKind || !whole) {
			c.add("is a number, but has to be "+article(n.kind), quoted(n.kind))
		}
	}
}

func article(k kind) string {
	switch k {
	case objectKind, integerKind:
		return "an " + k.String()
	}
	return "a " + k.String()
}

// quoted hints at what YAML takes for a number or a boolean.
func quoted(k kind) string {
	if k == stringKind {
		return "the value in quotes"
	}
	return ""
}

func unquoted(k kind, s string) string {
	if k == integerKind || k == numberKind {
		if _, err := strconv.ParseFloat(s, 64); err == nil {
			return "the value without quotes"
		}
	}
	if k == booleanKind && (s == "true" || s == "false") {
		return "the value without quotes"
	}
	return ""
}

func (c *check) object(n *node, m map[string]any, whole bool) {
	for k, v := range m {
		sub, known := n.field(k)
		switch {
		case known:
		case n.values != nil:
			sub = n.values
		case n.open, whole && (k == "apiVersion" || k == "kind" || k == "metadata"):
			continue
		default:
			c.push(step{k, -1})
			c.add("unknown field "+strconv.Quote(k), nearest(k, n))
			c.pop()
			continue
		}
		c.push(step{k, -1})
		c.value(sub, v)
		c.pop()
	}
	for i := range n.fields {
		f := &n.fields[i]
		if !f.required && !f.implied {
			continue
		}
		if _, has := m[f.name]; !has { // what null means is the server's business
			c.missing(f)
		}
	}
}

func (c *check) missing(f *field) {
	c.push(step{f.name, -1})
	if f.required {
		c.add(fmt.Sprintf("required field %q is missing", f.name), "")
	} else if f.node.kind == objectKind && len(c.path) < maxDepth {
		c.object(f.node, nil, false)
	}
	c.pop()
}

// nearest is the field of n that was probably meant.
func nearest(name string, n *node) string {
	best, at := "", 3
	if len(name) < 4 {
		at = 2
	}
	for _, f := range n.fields {
		d := at
		switch {
		case strings.EqualFold(f.name, name):
			d = 0
		case plural(f.name, name):
			d = 1
		default:
			d = distance(strings.ToLower(name), strings.ToLower(f.name), at)
		}
		if d < at {
			best, at = f.name, d
		}
	}
	return best
}

func plural(a, b string) bool {
	return a == b+"s" || b == a+"s" || a == b+"es" || b == a+"es"
}

// distance is the number of edits from a to b, or limit when it is not less.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	before := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			next := min(cost, row[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next = min(next, before[j-1]+1) // two letters swapped
			}
			diagonal = row[j]
			row[j] = next
			before[j-1] = diagonal
		}
	}
	return min(row[len(b)], limit)
}
