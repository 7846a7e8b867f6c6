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
	group // args: a literal in parentheses
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
	name   string // of a context or function, in lower case
	raw    string // of a function, as written
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
func Parse(src string) (Node, error) { return Scope{}.Parse(src) }

func parse(src string) (Node, error) {
	if len(src) > maxSource {
		return Node{}, errorAt(0, "Exceeded max expression length %d", maxSource)
	}
	tokens, lexErr := lex(src)
	if lexErr != nil {
		return Node{}, lexErr
	}
	if len(tokens) == 1 {
		return Node{}, errorAt(0, "An expression was expected")
	}
	p := &parser{tokens: tokens, src: src}
	root := p.or()
	if p.err == nil && p.peek().kind != end {
		p.unexpected()
	}
	if p.err == nil && root.depth() > maxDepth {
		p.err = errorAt(0, "Exceeded max expression depth %d", maxDepth)
	}
	if p.err != nil {
		return Node{}, p.err
	}
	return Node{root: root, source: src}, nil
}

// depth is the number of levels; a chain of && or of || is one level, and access
// to properties costs none.
func (n *node) depth() int {
	deepest := 0
	for _, a := range n.args {
		d := a.depth()
		if (n.op == and || n.op == or) && a.op == n.op {
			d--
		}
		deepest = max(deepest, d)
	}
	if n.op == index || n.op == star {
		return deepest
	}
	return deepest + 1
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
	src    string
	pos    int
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

func (p *parser) failAt(t token, what, hint string) *node {
	if p.err == nil {
		p.err = located(what, t.raw, p.src, t.offset, hint)
	}
	return nil
}

// unexpected is the fault of a token that cannot stand here.
func (p *parser) unexpected() *node {
	if t := p.peek(); t.kind != end {
		return p.failAt(t, "Unexpected symbol", "")
	}
	last := token{}
	if p.pos > 0 {
		last = p.tokens[p.pos-1]
	}
	return p.failAt(last, "Unexpected end of expression", "")
}

func (p *parser) accept(text string) bool {
	if t := p.peek(); t.kind == operator && t.text == text {
		p.pos++
		return true
	}
	return false
}

func (p *parser) expect(text string) {
	if !p.accept(text) {
		p.unexpected()
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

func (p *parser) or() *node       { return p.binary(p.and, orOps) }
func (p *parser) and() *node      { return p.binary(p.equality, andOps) }
func (p *parser) equality() *node { return p.binary(p.compare, equalOps) }
func (p *parser) compare() *node  { return p.binary(p.unary, compareOps) }

func (p *parser) unary() *node {
	t := p.peek()
	if !p.accept("!") {
		return p.postfix()
	}
	return &node{op: not, args: []*node{p.unary()}, offset: t.offset}
}

func (p *parser) postfix() *node {
	left := p.primary()
	for p.err == nil {
		at := p.peek().offset
		switch {
		case left.op == literal: // a literal has no properties
			return left
		case p.accept("."):
			if p.accept("*") {
				left = &node{op: star, args: []*node{left}, offset: at}
				continue
			}
			if p.peek().kind != name {
				return p.unexpected()
			}
			key := &node{op: literal, value: p.next().text, offset: at}
			left = &node{op: index, args: []*node{left, key}, offset: at}
		case p.accept("["):
			if p.accept("*") {
				left = &node{op: star, args: []*node{left}, offset: at}
			} else {
				left = &node{op: index, args: []*node{left, p.or()}, offset: at}
			}
			p.expect("]")
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
		p.expect(")")
		if p.err == nil && inner.op == literal { // (1).x is as far as the grammar goes
			inner = &node{op: group, args: []*node{inner}, offset: t.offset}
		}
		return inner
	case t.kind == numberToken:
		p.next()
		return &node{op: literal, value: t.number, offset: t.offset}
	case t.kind == stringToken:
		p.next()
		return &node{op: literal, value: t.text, offset: t.offset}
	case t.kind == constant:
		p.next()
		return &node{op: literal, value: constants[t.text], offset: t.offset}
	case t.kind == name:
		return p.named()
	}
	return p.unexpected()
}

var constants = map[string]any{"true": true, "false": false, "null": nil, "NaN": math.NaN(), "Infinity": math.Inf(1)}

func (p *parser) named() *node {
	t := p.next()
	if p.accept("(") {
		return p.call(t)
	}
	lower := strings.ToLower(t.text)
	if !contexts[lower] {
		return p.failAt(t, "Unrecognized named-value", "known are github, env, vars, secrets, needs, steps, job, runner, inputs, matrix, strategy; text needs single quotes")
	}
	return &node{op: context, name: lower, offset: t.offset}
}

func (p *parser) call(t token) *node {
	n := &node{op: call, name: strings.ToLower(t.text), raw: t.text, offset: t.offset}
	fn, known := functions[n.name]
	if !known {
		return p.failAt(t, "Unrecognized function", "")
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
		p.expect(")")
	}
	switch {
	case p.err != nil:
	case len(n.args) < fn.min:
		p.failAt(t, "Too few parameters supplied", fn.hint(t.text))
	case len(n.args) > fn.max:
		p.failAt(t, "Too many parameters supplied", fn.hint(t.text))
	case n.name == "case" && len(n.args)%2 == 0:
		p.failAt(t, "Even number of parameters supplied, requires an odd number of parameters", "case takes pairs of condition and value, then a default")
	case n.name == "format" && n.args[0].op == literal:
		_, err := format(n, Text(n.args[0].value), make([]any, len(n.args)-1))
		p.err, _ = err.(*Error)
	}
	return n
}

func (f function) hint(name string) string {
	switch {
	case f.max == 0:
		return name + " takes no parameter"
	case f.min == f.max:
		return fmt.Sprintf("%s takes %d", name, f.min)
	case f.max >= 255:
		return fmt.Sprintf("%s takes at least %d", name, f.min)
	}
	return fmt.Sprintf("%s takes %d to %d", name, f.min, f.max)
}
