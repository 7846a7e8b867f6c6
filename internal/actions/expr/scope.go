package expr

import (
	"slices"
	"strings"
)

// Scope is what expressions may name at one place of a workflow. The zero Scope
// allows everything.
type Scope struct {
	Key       string   // of the workflow, for people: "jobs.<job_id>.if"
	Contexts  []string // nil: all
	Functions []string // of the special ones: success, failure, always, cancelled, hashFiles
}

// special are the functions that only some places know.
var special = []string{"success", "failure", "always", "cancelled", "hashFiles"}

// Parse reads one expression, without ${{ and }}. Contexts and functions that
// are unknown or not allowed here, and wrong numbers of arguments, are errors.
func (s Scope) Parse(src string) (Node, error) {
	n, err := parse(src)
	if err != nil {
		return Node{}, err
	}
	if err := s.check(n.root, src); err != nil {
		return Node{}, err
	}
	return n, nil
}

func (s Scope) check(n *node, src string) error {
	switch {
	case n == nil || s.Contexts == nil:
		return nil
	case n.op == context && !slices.Contains(s.Contexts, n.name):
		return located("Unrecognized named-value", n.name, src, n.offset, s.hint())
	case n.op == call && !s.allows(n.name):
		return located("Unrecognized function", n.raw, src, n.offset, s.hint())
	}
	for _, a := range n.args {
		if err := s.check(a, src); err != nil {
			return err
		}
	}
	return nil
}

func (s Scope) allows(function string) bool {
	same := func(f string) bool { return strings.EqualFold(f, function) }
	return !slices.ContainsFunc(special, same) || slices.ContainsFunc(s.Functions, same)
}

// hint lists what this place allows.
func (s Scope) hint() string {
	key := s.Key
	if key == "" {
		key = "this key"
	}
	if len(s.Contexts) == 0 {
		return key + " allows no contexts"
	}
	hint := key + " allows the contexts " + strings.Join(s.Contexts, ", ")
	if len(s.Functions) > 0 {
		hint += " and the functions " + strings.Join(s.Functions, ", ")
	}
	return hint
}

// Check parses every ${{ }} of a text. Error offsets are in text.
func (s Scope) Check(text string) error {
	parts, err := Split(text)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if !p.IsExpr {
			continue
		}
		if _, err := s.Parse(p.Text); err != nil {
			return shift(err, p.Offset)
		}
	}
	if len(parts) > 1 && len(text) > maxSource {
		return errorAt(0, "Exceeded max expression length %d", maxSource)
	}
	return nil
}

// CheckCondition parses an `if:`.
func (s Scope) CheckCondition(text string) error {
	n, offset, err := ParseCondition(text)
	if err != nil {
		return err
	}
	return shift(s.check(n.root, n.source), offset)
}
