package forge

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A document of GraphQL (spec.graphql.org), as far as clients send it:
// operations with variables, aliases, arguments, directives and fragments.
// Subscriptions and type definitions are refused.

type gqlDocument struct {
	operations []gqlOperation
	fragments  map[string]gqlFragment
}

type gqlOperation struct {
	kind, name string // kind is "query" or "mutation"
	defaults   map[string]any
	selection  []gqlSelection
}

type gqlFragment struct {
	on        string
	selection []gqlSelection
}

// gqlSelection is a field, a named fragment or an inline fragment.
type gqlSelection struct {
	name, alias string
	args        map[string]any
	conditions  []gqlCondition
	spread      string       // name of a fragment
	inline      *gqlFragment // "" as its type means any
	selection   []gqlSelection
}

// gqlCondition is @skip(if: value) or @include(if: value).
type gqlCondition struct {
	skip  bool
	value any
}

// gqlVariable stands for a variable among arguments.
type gqlVariable string

const (
	maxGraphQL      = 64 << 10 // bytes of a document
	maxGraphQLDepth = 32
)

var gqlToken = regexp.MustCompile(`^(?:[\s,\x{feff}]+|#[^\n]*)|^(\.\.\.|[!$&()\[\]{}:=@|]|[_A-Za-z][_0-9A-Za-z]*|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|"""(?:[^"\\]|\\.|"{1,2}[^"])*"""|"(?:[^"\\\n]|\\.)*")`)

type gqlParser struct {
	tokens []string
	depth  int
}

func parseGraphQL(text string) (gqlDocument, error) {
	if len(text) > maxGraphQL {
		return gqlDocument{}, fmt.Errorf("the query has more than %d bytes", maxGraphQL)
	}
	p := &gqlParser{}
	for rest := text; rest != ""; {
		m := gqlToken.FindStringSubmatch(rest)
		if m == nil {
			return gqlDocument{}, fmt.Errorf("unexpected %.20q", rest)
		}
		if m[1] != "" {
			p.tokens = append(p.tokens, m[1])
		}
		rest = rest[len(m[0]):]
	}
	doc := gqlDocument{fragments: map[string]gqlFragment{}}
	for p.peek() != "" {
		if err := p.definition(&doc); err != nil {
			return gqlDocument{}, err
		}
	}
	if len(doc.operations) == 0 {
		return gqlDocument{}, errors.New("the document has no operation")
	}
	return doc, nil
}

func (p *gqlParser) peek() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

func (p *gqlParser) next() string {
	t := p.peek()
	if t != "" {
		p.tokens = p.tokens[1:]
	}
	return t
}

// take goes past t if it is next.
func (p *gqlParser) take(t string) bool {
	if p.peek() != t {
		return false
	}
	p.next()
	return true
}

func (p *gqlParser) expect(t string) error {
	if got := p.next(); got != t {
		return fmt.Errorf("expected %q, found %q", t, got)
	}
	return nil
}

func (p *gqlParser) ident() (string, error) {
	t := p.next()
	if t == "" || !(t[0] == '_' || t[0] >= 'A' && t[0] <= 'Z' || t[0] >= 'a' && t[0] <= 'z') {
		return "", fmt.Errorf("expected a name, found %q", t)
	}
	return t, nil
}

func (p *gqlParser) definition(doc *gqlDocument) (err error) {
	op := gqlOperation{kind: "query", defaults: map[string]any{}}
	switch t := p.peek(); t {
	case "{":
	case "query", "mutation":
		op.kind = p.next()
		if next := p.peek(); next != "(" && next != "{" && next != "@" {
			if op.name, err = p.ident(); err != nil {
				return err
			}
		}
		if op.defaults, err = p.variables(); err != nil {
			return err
		}
	case "fragment":
		return p.fragment(doc)
	default:
		return fmt.Errorf("expected a query, a mutation or a fragment, found %q", t)
	}
	if _, err := p.directives(); err != nil {
		return err
	}
	if op.selection, err = p.selections(); err != nil {
		return err
	}
	doc.operations = append(doc.operations, op)
	return nil
}

func (p *gqlParser) fragment(doc *gqlDocument) error {
	p.next()
	name, err := p.ident()
	if err != nil {
		return err
	}
	if err := p.expect("on"); err != nil {
		return err
	}
	var f gqlFragment
	if f.on, err = p.ident(); err != nil {
		return err
	}
	if _, err := p.directives(); err != nil {
		return err
	}
	if f.selection, err = p.selections(); err != nil {
		return err
	}
	doc.fragments[name] = f
	return nil
}

// variables reads "($owner: String! = "x", …)" and returns the defaults.
func (p *gqlParser) variables() (map[string]any, error) {
	defaults := map[string]any{}
	if !p.take("(") {
		return defaults, nil
	}
	for !p.take(")") {
		if err := p.expect("$"); err != nil {
			return nil, err
		}
		name, err := p.ident()
		if err != nil {
			return nil, err
		}
		if err := p.expect(":"); err != nil {
			return nil, err
		}
		if err := p.typeName(); err != nil {
			return nil, err
		}
		if p.take("=") {
			if defaults[name], err = p.value(); err != nil {
				return nil, err
			}
		}
		if _, err := p.directives(); err != nil {
			return nil, err
		}
	}
	return defaults, nil
}

// typeName goes past a type, which is checked where the value is used.
func (p *gqlParser) typeName() error {
	open := 0
	for p.take("[") {
		open++
	}
	if _, err := p.ident(); err != nil {
		return err
	}
	p.take("!")
	for range open {
		if err := p.expect("]"); err != nil {
			return err
		}
		p.take("!")
	}
	return nil
}

// directives reads "@name(…)". Those but for skip and include are taken as if
// they were not there.
func (p *gqlParser) directives() ([]gqlCondition, error) {
	var conditions []gqlCondition
	for p.take("@") {
		name, err := p.ident()
		if err != nil {
			return nil, err
		}
		args, err := p.arguments()
		if err != nil {
			return nil, err
		}
		if name == "skip" || name == "include" {
			conditions = append(conditions, gqlCondition{skip: name == "skip", value: args["if"]})
		}
	}
	return conditions, nil
}

func (p *gqlParser) selections() ([]gqlSelection, error) {
	if p.depth++; p.depth > maxGraphQLDepth {
		return nil, errors.New("the query is nested too deeply")
	}
	defer func() { p.depth-- }()
	if err := p.expect("{"); err != nil {
		return nil, err
	}
	var all []gqlSelection
	for !p.take("}") {
		s, err := p.selectionOne()
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		return nil, errors.New("a selection is empty")
	}
	return all, nil
}

func (p *gqlParser) selectionOne() (s gqlSelection, err error) {
	if p.take("...") {
		if next := p.peek(); next != "on" && next != "{" && next != "@" {
			if s.spread, err = p.ident(); err != nil {
				return s, err
			}
			s.conditions, err = p.directives()
			return s, err
		}
		s.inline = &gqlFragment{}
		if p.take("on") {
			if s.inline.on, err = p.ident(); err != nil {
				return s, err
			}
		}
		if s.conditions, err = p.directives(); err != nil {
			return s, err
		}
		s.inline.selection, err = p.selections()
		return s, err
	}
	if s.name, err = p.ident(); err != nil {
		return s, err
	}
	s.alias = s.name
	if p.take(":") {
		if s.name, err = p.ident(); err != nil {
			return s, err
		}
	}
	if s.args, err = p.arguments(); err != nil {
		return s, err
	}
	if s.conditions, err = p.directives(); err != nil {
		return s, err
	}
	if p.peek() == "{" {
		s.selection, err = p.selections()
	}
	return s, err
}

func (p *gqlParser) arguments() (map[string]any, error) {
	if !p.take("(") {
		return nil, nil
	}
	return p.fields(")")
}

// fields reads "name: value" up to the closing token.
func (p *gqlParser) fields(closing string) (map[string]any, error) {
	m := map[string]any{}
	for !p.take(closing) {
		name, err := p.ident()
		if err != nil {
			return nil, err
		}
		if err := p.expect(":"); err != nil {
			return nil, err
		}
		if m[name], err = p.value(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// value reads a value: nil, bool, float64, string (enums too), []any,
// map[string]any or gqlVariable.
func (p *gqlParser) value() (any, error) {
	if p.depth++; p.depth > maxGraphQLDepth {
		return nil, errors.New("the query is nested too deeply")
	}
	defer func() { p.depth-- }()
	switch t := p.next(); {
	case t == "$":
		name, err := p.ident()
		return gqlVariable(name), err
	case t == "[":
		list := []any{}
		for !p.take("]") {
			v, err := p.value()
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	case t == "{":
		return p.fields("}")
	case t == "null":
		return nil, nil
	case t == "true" || t == "false":
		return t == "true", nil
	case strings.HasPrefix(t, `"""`):
		return strings.TrimSpace(strings.ReplaceAll(t[3:len(t)-3], `\"""`, `"""`)), nil
	case strings.HasPrefix(t, `"`):
		var s string
		if err := json.Unmarshal([]byte(t), &s); err != nil {
			return nil, fmt.Errorf("%s is no string", t)
		}
		return s, nil
	case t != "" && (t[0] == '-' || t[0] >= '0' && t[0] <= '9'):
		return strconv.ParseFloat(t, 64)
	case t != "" && (t[0] == '_' || t[0] >= 'A' && t[0] <= 'Z' || t[0] >= 'a' && t[0] <= 'z'):
		return t, nil
	default:
		return nil, fmt.Errorf("expected a value, found %q", t)
	}
}
