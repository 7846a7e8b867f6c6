package expr

import (
	"fmt"
	"math"
	"strings"
)

// Bounds of one expression, as GitHub's.
const (
	maxSource = 21_000
	maxDepth  = 50
)

// Node is a parsed expression.
type Node struct {
	root   *node
	source string
}

type op int

const (
	literal op = iota
	context
	call
	index // args: operand, key
	star  // args: operand
	not
	and
	or
	eq
	ne
	lt
	le
	gt
	ge
)

type node struct {
	op     op
	name   string // of a context or function
	value  any    // of a literal
	args   []*node
	offset int
}

// function says how many arguments a built-in takes.
type function struct{ min, max int }

var functions = map[string]function{
	"contains": {2, 2}, "startswith": {2, 2}, "endswith": {2, 2}, "format": {1, 255},
	"join": {1, 2}, "tojson": {1, 1}, "fromjson": {1, 1}, "hashfiles": {1, 255},
	"success": {0, 255}, "failure": {0, 255}, "always": {0, 0}, "cancelled": {0, 0},
	"case": {3, 255},
}

var contexts = map[string]bool{
	"github": true, "env": true, "vars": true, "secrets": true, "needs": true, "steps": true, "job": true,
	"jobs": true, "runner": true, "inputs": true, "matrix": true, "strategy": true,
}

// Parse reads one expression, without ${{ and }}. Unknown contexts and
// functions, and wrong numbers of arguments, are errors.
func Parse(src string) (Node, error) {
	if len(src) > maxSource {
		return Node{}, errorAt(0, "the expression is longer than %d characters", maxSource)
	}
	tokens, lexErr := lex(src)
	if lexErr != nil {
		return Node{}, lexErr
	}
	if len(tokens) == 1 {
		return Node{}, errorAt(0, "the expression is empty")
	}
	p := &parser{tokens: tokens}
	root := p.or()
	if p.err == nil && p.peek().kind != end {
		p.fail("unexpected %s after the end of the expression", p.describe())
	}
	if p.err != nil {
		return Node{}, p.err
	}
	return Node{root: root, source: src}, nil
}

// UsesStatus reports whether success(), failure(), always() or cancelled() is called.
func (n Node) UsesStatus() bool {
	return n.root.any(func(m *node) bool {
		return m.op == call && (m.name == "success" || m.name == "failure" || m.name == "always" || m.name == "cancelled")
	})
}

// Uses reports whether the context (or, with "()", the function) is named.
func (n Node) Uses(what string) bool {
	fn, isCall := strings.CutSuffix(strings.ToLower(what), "()")
	return n.root.any(func(m *node) bool {
		return isCall && m.op == call && m.name == fn || !isCall && m.op == context && m.name == fn
	})
}

func (n *node) any(f func(*node) bool) bool {
	if n == nil {
		return false
	}
	if f(n) {
		return true
	}
	for _, a := range n.args {
		if a.any(f) {
			return true
		}
	}
	return false
}

type parser struct {
	tokens []token
	pos    int
	depth  int
	err    *Error
}

func (p *parser) peek() token { return p.tokens[p.pos] }

func (p *parser) next() token {
	t := p.tokens[p.pos]
	if t.kind != end {
		p.pos++
	}
	return t
}

func (p *parser) fail(format string, args ...any) *node {
	if p.err == nil {
		p.err = errorAt(p.peek().offset, format, args...)
	}
	return nil
}

func (p *parser) describe() string {
	switch t := p.peek(); t.kind {
	case end:
		return "end of the expression"
	case stringToken:
		return fmt.Sprintf("string '%s'", t.text)
	default:
		return fmt.Sprintf("%q", t.text)
	}
}

func (p *parser) accept(text string) bool {
	if t := p.peek(); t.kind == operator && t.text == text {
		p.pos++
		return true
	}
	return false
}

func (p *parser) expect(text, why string) {
	if !p.accept(text) {
		p.fail("expected %q %s, found %s", text, why, p.describe())
	}
}

// binary reads a left-associative chain of the given operators.
func (p *parser) binary(operand func() *node, ops map[string]op) *node {
	left := operand()
	for p.err == nil {
		t := p.peek()
		o, ok := ops[t.text]
		if t.kind != operator || !ok {
			return left
		}
		p.next()
		left = &node{op: o, args: []*node{left, operand()}, offset: t.offset}
	}
	return nil
}

var (
	orOps      = map[string]op{"||": or}
	andOps     = map[string]op{"&&": and}
	equalOps   = map[string]op{"==": eq, "!=": ne}
	compareOps = map[string]op{"<": lt, "<=": le, ">": gt, ">=": ge}
)

func (p *parser) or() *node {
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > maxDepth {
		return p.fail("the expression is nested deeper than %d levels", maxDepth)
	}
	return p.binary(p.and, orOps)
}

func (p *parser) and() *node      { return p.binary(p.equality, andOps) }
func (p *parser) equality() *node { return p.binary(p.compare, equalOps) }
func (p *parser) compare() *node  { return p.binary(p.unary, compareOps) }

func (p *parser) unary() *node {
	t := p.peek()
	if !p.accept("!") {
		return p.postfix()
	}
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > maxDepth {
		return p.fail("the expression is nested deeper than %d levels", maxDepth)
	}
	return &node{op: not, args: []*node{p.unary()}, offset: t.offset}
}

func (p *parser) postfix() *node {
	left := p.primary()
	for depth := 0; p.err == nil; depth++ {
		if depth > maxDepth {
			return p.fail("the expression is nested deeper than %d levels", maxDepth)
		}
		at := p.peek().offset
		switch {
		case p.accept("."):
			if p.accept("*") {
				left = &node{op: star, args: []*node{left}, offset: at}
				continue
			}
			if p.peek().kind != name {
				return p.fail("expected a property name after \".\", found %s", p.describe())
			}
			key := &node{op: literal, value: p.next().text, offset: at}
			left = &node{op: index, args: []*node{left, key}, offset: at}
		case p.accept("["):
			if p.accept("*") {
				left = &node{op: star, args: []*node{left}, offset: at}
			} else {
				left = &node{op: index, args: []*node{left, p.or()}, offset: at}
			}
			p.expect("]", "to close the index")
		default:
			return left
		}
	}
	return nil
}

func (p *parser) primary() *node {
	t := p.peek()
	switch {
	case p.accept("("):
		inner := p.or()
		p.expect(")", "to close the group")
		return inner
	case t.kind == numberToken:
		p.next()
		return &node{op: literal, value: t.number, offset: t.offset}
	case t.kind == stringToken:
		p.next()
		return &node{op: literal, value: t.text, offset: t.offset}
	case t.kind == name:
		return p.named()
	}
	return p.fail("expected a value, found %s", p.describe())
}

func (p *parser) named() *node {
	t := p.next()
	if p.accept("(") {
		return p.call(t)
	}
	switch t.text {
	case "true":
		return &node{op: literal, value: true, offset: t.offset}
	case "false":
		return &node{op: literal, value: false, offset: t.offset}
	case "null":
		return &node{op: literal, offset: t.offset}
	case "NaN":
		return &node{op: literal, value: math.NaN(), offset: t.offset}
	case "Infinity":
		return &node{op: literal, value: math.Inf(1), offset: t.offset}
	}
	lower := strings.ToLower(t.text)
	if !contexts[lower] {
		p.pos--
		return p.fail("unknown context %q; known are github, env, vars, secrets, needs, steps, job, runner, inputs, matrix, strategy (text needs single quotes)", t.text)
	}
	return &node{op: context, name: lower, offset: t.offset}
}

func (p *parser) call(t token) *node {
	n := &node{op: call, name: strings.ToLower(t.text), offset: t.offset}
	fn, known := functions[n.name]
	if !known && p.err == nil {
		p.err = errorAt(t.offset, "unknown function %q", t.text)
	}
	if !p.accept(")") {
		for {
			n.args = append(n.args, p.or())
			if p.err != nil {
				return nil
			}
			if !p.accept(",") {
				break
			}
		}
		p.expect(")", "to close the arguments of "+t.text)
	}
	if p.err == nil && (len(n.args) < fn.min || len(n.args) > fn.max) {
		p.err = errorAt(t.offset, "%s takes %s, not %d", t.text, fn.describe(), len(n.args))
	}
	if p.err == nil && n.name == "case" && len(n.args)%2 == 0 {
		p.err = errorAt(t.offset, "case takes pairs of condition and value, then a default: an odd number of arguments, not %d", len(n.args))
	}
	return n
}

func (f function) describe() string {
	switch {
	case f.max == 0:
		return "no argument"
	case f.min == f.max && f.min == 1:
		return "1 argument"
	case f.min == f.max:
		return fmt.Sprintf("%d arguments", f.min)
	case f.max >= 255:
		return fmt.Sprintf("at least %d arguments", f.min)
	}
	return fmt.Sprintf("%d to %d arguments", f.min, f.max)
}
