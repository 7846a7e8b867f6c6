package action

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
	"go.yaml.in/yaml/v4"
)

// loader walks the YAML of one action.yml.
type loader struct {
	file        string
	diagnostics []syntax.Diagnostic
	visited     int // nodes, aliases counted each time they are used
}

// maxNodes bounds what aliases may blow a file up to.
const maxNodes = 50_000

// What GitHub lets the parts of an action see. hashFiles and status functions
// are checked where they are evaluated.
var (
	inputContexts     = []string{"github", "strategy", "matrix", "job", "runner"}
	outputContexts    = []string{"github", "strategy", "matrix", "steps", "inputs", "job", "runner", "env"}
	stepContexts      = outputContexts
	ifContexts        = outputContexts
	containerContexts = []string{"inputs"}
	allContexts       = []string{"github", "env", "vars", "secrets", "needs", "steps", "job", "jobs", "runner", "inputs", "matrix", "strategy"}
)

func (l *loader) failed() bool {
	return slices.ContainsFunc(l.diagnostics, func(d syntax.Diagnostic) bool { return d.Fatal })
}

// follow resolves an alias and counts the node.
func (l *loader) follow(n *yaml.Node) *yaml.Node {
	if l.visited++; l.visited == maxNodes {
		l.fatal(n, "", "the file is too large: its aliases make more than %d values", maxNodes)
	}
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

// mapping calls f for each key, in lower case. f says whether it knows it.
func (l *loader) mapping(n *yaml.Node, where string, f func(key string, k, v *yaml.Node) bool) {
	n = l.follow(n)
	if n.Kind != yaml.MappingNode {
		l.fatal(n, "", "%s must be a mapping", where)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content) && l.visited < maxNodes; i += 2 {
		k := l.follow(n.Content[i])
		key := strings.ToLower(k.Value)
		if k.Kind != yaml.ScalarNode || key == "" {
			l.fatal(k, "", "a key of %s is no text", where)
			continue
		}
		if seen[key] {
			l.fatal(k, "remove one of them", "%q is there twice in %s", k.Value, where)
			continue
		}
		seen[key] = true
		if !f(key, k, l.follow(n.Content[i+1])) {
			l.report(k.Line, k.Column, false, "", "key %q in %s is not known and has no effect", k.Value, where)
		}
	}
}

func (l *loader) sequence(n *yaml.Node, where string, f func(v *yaml.Node)) {
	n = l.follow(n)
	if n.Kind != yaml.SequenceNode {
		l.fatal(n, "", "%s must be a list", where)
		return
	}
	for _, v := range n.Content {
		if l.visited >= maxNodes {
			return
		}
		f(l.follow(v))
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// plain is a scalar without expressions.
func (l *loader) plain(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode {
		l.fatal(n, "", "a text is expected here")
		return ""
	}
	if isNull(n) {
		return ""
	}
	return n.Value
}

// text is a scalar whose expressions see the given contexts; nil leaves them
// unchecked. An unquoted number or boolean is written as GitHub writes it.
func (l *loader) text(n *yaml.Node, contexts []string) syntax.Text {
	t := syntax.Text{Value: l.plain(n), Line: n.Line, Col: n.Column, Block: n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0}
	switch n.Tag {
	case "!!bool":
		t.Value = strings.ToLower(t.Value)
	case "!!int", "!!float":
		var f float64
		if err := n.Decode(&f); err == nil {
			t.Value = expr.Text(f)
		}
	}
	if contexts != nil {
		l.check(t, contexts)
	}
	return t
}

func (l *loader) check(t syntax.Text, contexts []string) {
	parts, err := expr.Split(t.Value)
	l.fault(t, 0, err)
	for _, p := range parts {
		if !p.IsExpr {
			continue
		}
		n, err := expr.Parse(p.Text)
		if err != nil {
			l.fault(t, p.Offset, err)
			continue
		}
		l.available(t, n, p.Offset, contexts)
	}
}

// available refuses contexts that GitHub does not give to this part.
func (l *loader) available(t syntax.Text, n expr.Node, offset int, contexts []string) {
	for _, c := range allContexts {
		if n.Uses(c) && !slices.Contains(contexts, c) {
			hint := "an action sees only " + strings.Join(contexts, ", ") + " here"
			if c == "secrets" || c == "vars" {
				hint = "pass it to the action as an input"
			}
			l.report(t.LineAt(offset), t.Col, true, hint, "context %q is not available here", c)
		}
	}
}

func (l *loader) condition(n *yaml.Node, contexts []string) syntax.Text {
	t := l.text(n, nil)
	node, _, err := expr.ParseCondition(t.Value)
	if err != nil {
		l.fault(t, 0, err)
		return t
	}
	l.available(t, node, 0, contexts)
	return t
}

func (l *loader) fault(t syntax.Text, offset int, err error) {
	var e *expr.Error
	if errors.As(err, &e) {
		l.report(t.LineAt(offset+e.Offset), t.Col, true, "", "bad expression: %s", e.Msg)
	} else if err != nil {
		l.report(t.Line, t.Col, true, "", "bad expression: %v", err)
	}
}

func (l *loader) vars(n *yaml.Node, where string, contexts []string) []syntax.Var {
	if isNull(n) {
		return nil
	}
	var out []syntax.Var
	l.mapping(n, where, func(_ string, k, v *yaml.Node) bool {
		out = append(out, syntax.Var{Name: k.Value, Value: l.text(v, contexts)})
		return true
	})
	return out
}

// env is listed variables, or one expression that makes an object.
func (l *loader) env(n *yaml.Node) syntax.Env {
	if n.Kind == yaml.ScalarNode && !isNull(n) {
		t := l.text(n, stepContexts)
		if !strings.Contains(t.Value, "${{") {
			l.fatal(n, "", "env must be a mapping or an expression")
		}
		return syntax.Env{Expr: t}
	}
	return syntax.Env{Vars: l.vars(n, "env", stepContexts)}
}

// Error is a failure with a place and what to try.
type Error struct {
	File string // "" when it is the workflow's
	Line int
	Msg  string
	Hint string
	Err  error
}

func (e *Error) Error() string {
	if e.File != "" && e.Line > 0 {
		return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg)
	}
	return e.Msg
}

func (e *Error) Unwrap() error { return e.Err }

// FirstFatal is the first fatal diagnostic as an error, or nil.
func FirstFatal(list []syntax.Diagnostic) error {
	for _, d := range list {
		if d.Fatal {
			return &Error{File: d.File, Line: d.Line, Msg: d.Message, Hint: d.Hint}
		}
	}
	return nil
}
