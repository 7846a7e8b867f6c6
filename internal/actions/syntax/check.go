package syntax

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"go.yaml.in/yaml/v4"
)

// place is where the check of a file stands.
type place struct {
	name  string // of the section, for people
	scope expr.Scope
	// tolerant: GitHub ignores here what it does not know.
	tolerant bool
}

// into is the place inside of something with the given shape.
func (p place) into(s *shape) place {
	if s.key != "" {
		p.scope.Key = s.key
	}
	p.scope.Contexts = union(p.scope.Contexts, s.contexts)
	p.scope.Functions = union(p.scope.Functions, s.functions)
	p.tolerant = p.tolerant || s.tolerant
	return p
}

// refuse reports what has not the right shape: a warning where GitHub is
// tolerant.
func (p place) refuse(d *document, n *yaml.Node, hint, format string, args ...any) {
	d.report(n.Line, n.Column, !p.tolerant, fmt.Sprintf(format, args...), hint)
}

func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, v := range b {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// check reports where a part of the file has not the given shape.
func (d *document) check(n *yaml.Node, s *shape, p place) {
	p = p.into(s)
	switch n.Kind {
	case yaml.ScalarNode:
		d.checkScalar(n, s, p)
	case yaml.SequenceNode:
		if s.item == nil {
			p.refuse(d, n, "", "a list was not expected in %q", p.name)
			return
		}
		for _, item := range n.Content {
			inner := p
			if p.name == "steps" || p.name == "parallel" {
				inner.name = "step"
			}
			d.check(item, s.item, inner)
		}
	case yaml.MappingNode:
		if !s.isMapping() {
			p.refuse(d, n, "", "a mapping was not expected in %q", p.name)
			return
		}
		d.checkMapping(n, s, p)
	}
}

func (d *document) checkScalar(n *yaml.Node, s *shape, p place) {
	v := scalarOf(n)
	source, isText := v.(string)
	if s.condition {
		if len(p.scope.Contexts) > 0 {
			d.expression(n, p.scope.CheckCondition(expr.Text(v)))
		}
		return
	}
	if isText && strings.Contains(source, "${{") {
		if len(p.scope.Contexts) == 0 {
			p.refuse(d, n, "", "an expression is not allowed in %q", p.name)
			return
		}
		d.expression(n, p.scope.Check(source))
		return
	}
	d.checkLiteral(n, v, s, p)
}

// checkLiteral checks a scalar without expressions.
func (d *document) checkLiteral(n *yaml.Node, v any, s *shape, p place) {
	switch v.(type) {
	case nil:
		if s.scalar&null != 0 {
			return
		}
	case bool:
		if s.scalar&boolean != 0 {
			return
		}
	case float64:
		if s.scalar&number != 0 {
			return
		}
	}
	asText := expr.Text(v)
	switch {
	case s.scalar&text == 0:
		p.refuse(d, n, "", "unexpected value %q in %q: %s is needed", short(asText), p.name, s.wanted())
	case s.nonEmpty && asText == "":
		p.refuse(d, n, "", "%q is empty", p.name)
	case s.values != nil && !slices.Contains(s.values, asText):
		hint := "one of " + strings.Join(s.values, ", ")
		if meant := nearest(asText, s.values); meant != "" {
			hint = fmt.Sprintf("did you mean %q?", meant)
		}
		p.refuse(d, n, hint, "unexpected value %q in %q", short(asText), p.name)
	}
}

func short(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}

// wanted names what a shape takes.
func (s *shape) wanted() string {
	var out []string
	if s.scalar&boolean != 0 {
		out = append(out, "true or false")
	}
	if s.scalar&number != 0 {
		out = append(out, "a number")
	}
	if s.item != nil {
		out = append(out, "a list")
	}
	if s.isMapping() {
		out = append(out, "a mapping")
	}
	return strings.Join(out, " or ")
}

func (d *document) checkMapping(n *yaml.Node, s *shape, p place) {
	seen := map[string]int{}
	dynamic := false
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch folded := strings.ToUpper(key.Value); {
		case key.Kind != yaml.ScalarNode:
			d.refuse(key, "", "a key in %q is not a text", p.name)
			continue
		case key.Value == "<<" && key.Style&quotedStyle == 0:
			d.refuse(key, "repeat the keys, or alias the whole mapping", "GitHub does not support the YAML merge key \"<<\"")
			continue
		case strings.Contains(key.Value, "${{") && len(p.scope.Contexts) > 0:
			dynamic = true
			d.expression(key, p.scope.Check(key.Value))
			continue
		case seen[folded] > 0:
			d.refuse(key, fmt.Sprintf("it stands in line %d too; upper and lower case make no difference", seen[folded]), "key %q is already defined in %q", key.Value, p.name)
			continue
		default:
			seen[folded] = key.Line
		}
		d.checkEntry(key, value, s, p)
	}
	for _, name := range s.required {
		if seen[strings.ToUpper(name)] == 0 && !dynamic {
			p.refuse(d, n, "", "key %q is missing in %s", name, section(p.name))
		}
	}
}

func (d *document) checkEntry(key, value *yaml.Node, s *shape, p place) {
	inner := p
	inner.name = key.Value
	known := s.find(key.Value)
	switch {
	case known != nil:
		d.check(value, known, inner)
	case s.loose != nil:
		if key.Value == "" {
			d.refuse(key, "", "a key in %q is empty", p.name)
		}
		if p.name == "jobs" {
			inner.name = "job"
		}
		d.check(value, s.loose, inner)
	default:
		d.unknownKey(key, s, p)
	}
}

func section(name string) string {
	if name == "" {
		return "the workflow"
	}
	return fmt.Sprintf("%q section", name)
}

// unknownKey tells a slip of the pen, which fails as on GitHub, from a key that
// may be newer than this engine.
func (d *document) unknownKey(key *yaml.Node, s *shape, p place) {
	names := make([]string, len(s.keys))
	for i, e := range s.keys {
		names[i] = e.name
	}
	hint := ""
	if meant := nearest(key.Value, names); meant != "" {
		hint = fmt.Sprintf("did you mean %q?", meant)
		if !p.tolerant {
			d.refuse(key, hint, "unknown key %q in %s", short(key.Value), section(p.name))
			return
		}
	}
	if p.name == "on" {
		d.refuse(key, "see GitHub's list of events that trigger workflows", "unknown event %q", short(key.Value))
		return
	}
	if !p.tolerant {
		hint = "GitHub refuses keys that it does not know"
	}
	d.warn(key, hint, "unknown key %q in %s has no effect", short(key.Value), section(p.name))
}

// expression reports a fault in the expressions of a scalar, at its place.
func (d *document) expression(n *yaml.Node, err error) {
	var e *expr.Error
	if !errors.As(err, &e) {
		return
	}
	line, col := d.place(n, e.Offset)
	d.report(line, col, true, e.Msg, e.Hint)
}
