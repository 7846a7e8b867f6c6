package expr

import (
	"fmt"
	"math"
	"strings"
)

// maxResult bounds the text that one evaluation may build, in bytes.
const maxResult = 10 << 20

// Env is what an expression can see.
type Env struct {
	// Contexts by lower-case name. A context that is absent but known is null.
	Contexts map[string]any
	// Status answers success, failure, always and cancelled; nil where they
	// may not be called.
	Status func(name string) bool
	// HashFiles answers hashFiles; nil where it may not be called.
	HashFiles func(patterns []string) (string, error)
}

// Eval computes the value of a parsed expression.
func (e Env) Eval(n Node) (any, error) {
	v, err := e.eval(n.root)
	if err != nil {
		return nil, err
	}
	return plain(v), nil
}

// EvalText parses and evaluates src.
func (e Env) EvalText(src string) (any, error) {
	n, err := Parse(src)
	if err != nil {
		return nil, err
	}
	return e.Eval(n)
}

func (e Env) eval(n *node) (any, error) {
	switch n.op {
	case literal:
		return n.value, nil
	case context:
		return e.Contexts[n.name], nil
	case call:
		return e.call(n)
	case and, or:
		left, err := e.eval(n.args[0])
		if err != nil || Truthy(plain(left)) == (n.op == or) {
			return left, err
		}
		return e.eval(n.args[1])
	}
	args, err := e.evalAll(n.args)
	if err != nil {
		return nil, err
	}
	switch n.op {
	case group:
		return args[0], nil
	case index:
		return lookUp(args[0], plain(args[1])), nil
	case star:
		return wildcard(args[0]), nil
	case not:
		return !Truthy(plain(args[0])), nil
	case eq:
		return equal(args[0], args[1]), nil
	case ne:
		return !equal(args[0], args[1]), nil
	case gt:
		return greater(args[0], args[1]), nil
	case ge:
		return equal(args[0], args[1]) || greater(args[0], args[1]), nil
	case lt:
		return greater(args[1], args[0]), nil
	case le:
		return equal(args[0], args[1]) || greater(args[1], args[0]), nil
	}
	return nil, errorAt(n.offset, "unknown operator")
}

func (e Env) evalAll(nodes []*node) ([]any, error) {
	values := make([]any, len(nodes))
	for i, n := range nodes {
		v, err := e.eval(n)
		if err != nil {
			return nil, err
		}
		values[i] = v
	}
	return values, nil
}

// lookUp is a.b and a[b]; what is not there is null.
func lookUp(operand, key any) any {
	switch o := operand.(type) {
	case filtered:
		var out filtered
		for _, element := range o {
			if v, ok := member(element, key); ok {
				out = append(out, v)
			}
		}
		return out
	default:
		v, _ := member(o, key)
		return v
	}
}

func member(operand, key any) (any, bool) {
	switch o := operand.(type) {
	case *Object:
		if !primitive(key) {
			return nil, false
		}
		return o.Get(Text(key))
	case Array:
		f := math.Floor(number(key))
		if math.IsNaN(f) || f < 0 || f >= float64(len(o)) {
			return nil, false
		}
		return o[int(f)], true
	}
	return nil, false
}

// wildcard is a.*: the elements of an array, the values of an object.
func wildcard(operand any) filtered {
	out := filtered{}
	spread := func(v any) {
		switch v := v.(type) {
		case Array:
			out = append(out, v...)
		case *Object:
			for _, k := range v.keys {
				value, _ := v.Get(k)
				out = append(out, value)
			}
		}
	}
	if f, ok := operand.(filtered); ok {
		for _, element := range f {
			spread(element)
		}
		return out
	}
	spread(operand)
	return out
}

// Interpolate replaces every ${{ }} in the text. Error offsets are in text.
func (e Env) Interpolate(text string) (string, error) {
	parts, err := Split(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, part := range parts {
		if !part.IsExpr {
			b.WriteString(part.Text)
			continue
		}
		v, err := e.EvalText(part.Text)
		if err != nil {
			return "", shift(err, part.Offset)
		}
		b.WriteString(Text(v))
		if b.Len() > maxResult {
			return "", errorAt(part.Offset, "the result is longer than %d bytes", maxResult)
		}
	}
	return b.String(), nil
}

// Value is Interpolate, except that a text which is one single ${{ }} keeps
// its type.
func (e Env) Value(text string) (any, error) {
	parts, err := Split(text)
	if err != nil {
		return nil, err
	}
	if len(parts) == 1 && parts[0].IsExpr {
		v, err := e.EvalText(parts[0].Text)
		return v, shift(err, parts[0].Offset)
	}
	return e.Interpolate(text)
}

// Condition evaluates an `if:`, with or without ${{ }}. A condition that calls
// no status function means success() && (condition).
func (e Env) Condition(text string) (bool, error) {
	n, offset, err := ParseCondition(text)
	if err != nil {
		return false, err
	}
	if !n.UsesStatus() && e.Status != nil && !e.Status("success") {
		return false, nil
	}
	v, err := e.Eval(n)
	return Truthy(v), shift(err, offset)
}

// ParseCondition parses an `if:`. The offset is where the expression starts in
// text. Text beside ${{ }} makes a string, as on GitHub: true unless empty.
func ParseCondition(text string) (Node, int, error) {
	trimmed := strings.TrimSpace(text)
	if trimmed == "" {
		return Node{root: &node{op: call, name: "success", raw: "success"}}, 0, nil
	}
	lead := strings.Index(text, trimmed)
	parts, err := Split(trimmed)
	if err != nil {
		return Node{}, 0, shift(err, lead)
	}
	if len(parts) == 1 {
		n, err := parse(parts[0].Text)
		return n, lead + parts[0].Offset, shift(err, lead+parts[0].Offset)
	}
	pattern, all := "", &node{op: call, name: "format", raw: "format", args: []*node{nil}}
	for _, part := range parts {
		if !part.IsExpr {
			pattern += strings.NewReplacer("{", "{{", "}", "}}").Replace(part.Text)
			continue
		}
		n, err := parse(part.Text)
		if err != nil {
			return Node{}, 0, shift(err, lead+part.Offset)
		}
		pattern += fmt.Sprintf("{%d}", len(all.args)-1)
		n.root.move(lead + part.Offset)
		all.args = append(all.args, n.root)
	}
	all.args[0] = &node{op: literal, value: pattern}
	return Node{root: all, source: trimmed}, 0, nil
}

// move adds to the offsets of a tree.
func (n *node) move(by int) {
	n.offset += by
	for _, a := range n.args {
		a.move(by)
	}
}

// Part is a piece of a text: literal, or the inside of a ${{ }}.
type Part struct {
	Text   string
	IsExpr bool
	Offset int // of Text in the whole
}

// Split cuts a text at its ${{ }}. A }} inside of a quoted string does not close.
func Split(text string) ([]Part, error) {
	var parts []Part
	for at := 0; at < len(text); {
		open := strings.Index(text[at:], "${{")
		if open < 0 {
			return append(parts, Part{Text: text[at:], Offset: at}), nil
		}
		if open > 0 {
			parts = append(parts, Part{Text: text[at : at+open], Offset: at})
		}
		start := at + open + len("${{")
		closing := findClose(text[start:])
		if closing < 0 {
			return nil, errorAt(at+open, "The expression is not closed. An unescaped ${{ sequence was found, but the closing }} sequence was not found.")
		}
		parts = append(parts, Part{Text: text[start : start+closing], IsExpr: true, Offset: start})
		at = start + closing + len("}}")
	}
	return parts, nil
}

func findClose(s string) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\'':
			quoted = !quoted
		case !quoted && strings.HasPrefix(s[i:], "}}"):
			return i
		}
	}
	return -1
}

func shift(err error, by int) error {
	if e, ok := err.(*Error); ok && by != 0 {
		return &Error{Offset: e.Offset + by, Msg: e.Msg, Hint: e.Hint}
	}
	return err
}
