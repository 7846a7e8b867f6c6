// Package ignore finds the fields that ignoreDifferences name.
//
// Input: rules as Applications and the settings have them, and an object.
// Output: the paths in the object that a rule names, each with the rule in
// words; errors for expressions that do not parse.
//
// JSON pointers are those of RFC 6901, with negative indices from the end of a
// list; "*" is a key like any other, as in Argo CD. jq expressions are
// evaluated as path(...), so they name what del(...) would remove. An
// expression that fails on an object names nothing in it. managedFieldsManagers
// are not about paths of an object alone, and are left to the caller.
//
// Invariants: an expression is compiled once for all applications
// ([Expressions]); one evaluation takes at most [Timeout] and gives at most
// maxPaths paths; no expression reads the environment or files.
//
// Start reading at [Expressions.Paths].
package ignore

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/settings"
)

// Rule is one entry of ignoreDifferences.
type Rule struct {
	v1alpha1.IgnoreDifferences
	Origin string // for people: where the rule stands
}

// About reports whether the rule is about an object. Group, kind, name and
// namespace are globs; a name or namespace that is empty stands for all.
func (r Rule) About(group, kind, namespace, name string) bool {
	return settings.Glob(r.Group, group) && settings.Glob(r.Kind, kind) &&
		(r.Name == "" || settings.Glob(r.Name, name)) && (r.Namespace == "" || settings.Glob(r.Namespace, namespace))
}

// Path is one named place of an object: string steps are fields, int steps are
// items of lists.
type Path struct {
	Steps []any
	Rule  string // for people
}

// Paths returns the places of the object that the rules name. What is wrong
// with a rule does not hide the others.
func (e *Expressions) Paths(rules []Rule, object map[string]any) ([]Path, []error) {
	var out []Path
	var errs []error
	var input any // made for jq once
	for _, r := range rules {
		for _, p := range r.JSONPointers {
			if steps, ok := resolve(p, object); ok {
				out = append(out, Path{steps, fmt.Sprintf("%s, jsonPointers %s", r.Origin, p)})
			}
		}
		for _, expression := range r.JQPathExpressions {
			if input == nil {
				input = jqValue(object)
			}
			found, err := e.paths(expression, input)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s, jqPathExpressions %q: %w", r.Origin, expression, err))
				continue
			}
			for _, steps := range found {
				out = append(out, Path{steps, fmt.Sprintf("%s, jqPathExpressions %s", r.Origin, expression)})
			}
		}
	}
	return out, errs
}

// resolve follows a JSON pointer; ok is false where the object has no such
// place.
func resolve(pointer string, object map[string]any) (steps []any, ok bool) {
	if !strings.HasPrefix(pointer, "/") {
		return nil, false
	}
	var at any = object
	for token := range strings.SplitSeq(pointer[1:], "/") {
		switch v := at.(type) {
		case map[string]any:
			field := strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
			if at, ok = v[field]; !ok {
				return nil, false
			}
			steps = append(steps, field)
		case []any:
			i, err := strconv.Atoi(token)
			if i < 0 {
				i += len(v)
			}
			if err != nil || i < 0 || i >= len(v) {
				return nil, false
			}
			at = v[i]
			steps = append(steps, i)
		default:
			return nil, false
		}
	}
	return steps, true
}

// Check names what is wrong with rules: expressions that do not parse, and
// pointers that can match nothing.
func Check(rules []v1alpha1.IgnoreDifferences) []string {
	var out []string
	for i, r := range rules {
		for j, p := range r.JSONPointers {
			at := fmt.Sprintf("ignoreDifferences[%d].jsonPointers[%d] %q", i, j, p)
			switch {
			case !strings.HasPrefix(p, "/"):
				out = append(out, at+" matches nothing: a pointer starts with /, such as /spec/replicas")
			case slices.Contains(strings.Split(p, "/"), "*"):
				out = append(out, at+" takes * as the name of a field: JSON pointers have no wildcards; use jqPathExpressions, such as .spec.containers[].image")
			}
		}
		for j, expression := range r.JQPathExpressions {
			if _, err := compile(expression); err != nil {
				out = append(out, fmt.Sprintf("ignoreDifferences[%d].jqPathExpressions[%d] %q is not carried out: %v", i, j, expression, err))
			}
		}
		if len(r.JSONPointers)+len(r.JQPathExpressions)+len(r.ManagedFieldsManagers) == 0 {
			out = append(out, fmt.Sprintf("ignoreDifferences[%d] names no fields: add jsonPointers, jqPathExpressions or managedFieldsManagers", i))
		}
	}
	return out
}
