package apply

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// Server-side apply is stricter than the client-side apply of Argo CD's
// default: it refuses fields that the schema does not have whatever the
// validation, and two entries of one name in a list. What client-side apply
// would have let pass is taken out here, when the server complains.

var (
	undeclared = regexp.MustCompile(`(\.[^\s].*?): field not declared in schema`)
	duplicated = regexp.MustCompile(`(\.[^\s].*?): duplicate entries for key (\[[^\]]*\])`)
)

// typedRefusal reports whether the server could not read the object by its
// schema; it says so as an internal error.
func typedRefusal(err error) bool {
	return strings.Contains(serverText(err), "failed to create typed patch object")
}

// serverText is what the server said, without our explanation.
func serverText(err error) string {
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return ""
	case errors.As(err, &status):
		return status.Status().Message
	}
	return err.Error()
}

// lenient returns the object without what the server complained about, and
// what that was; nil when there is nothing that may go.
func lenient(o *unstructured.Unstructured, options plan.ObjectOptions, err error) (*unstructured.Unstructured, string) {
	if !typedRefusal(err) {
		return nil, ""
	}
	text := serverText(err)
	if i := strings.Index(text, "): "); i >= 0 { // "failed to create typed patch object (name; kind): "
		text = text[i+3:]
	}
	var notes []string
	out := o.DeepCopy()
	if options.SkipValidation {
		for _, m := range undeclared.FindAllStringSubmatch(text, -1) {
			if path, ok := parsePath(m[1]); ok && len(path) > 0 && drop(out.Object, path) {
				notes = append(notes, m[1]+" is left out: the schema does not have it")
			}
		}
	}
	if !options.ServerSideApply {
		for _, m := range duplicated.FindAllStringSubmatch(text, -1) {
			path, ok := parsePath(m[1])
			key, kok := parsePath(m[2])
			if ok && kok && len(key) == 1 && len(path) > 0 && keepLast(out.Object, path, key[0]) {
				notes = append(notes, fmt.Sprintf("%s has several entries %s: the last one is used", m[1], m[2]))
			}
		}
	}
	if notes == nil {
		return nil, ""
	}
	return out, strings.Join(notes, "; ")
}

// element is one part of a path: a field, an index, or the keys of an entry.
type element struct {
	field string
	index int // -1 for none
	keys  map[string]any
}

// parsePath reads paths such as .spec.containers[name="a"].ports[0].
func parsePath(s string) (path []element, ok bool) {
	for s != "" {
		switch s[0] {
		case '.':
			n := strings.IndexAny(s[1:], ".[")
			if n < 0 {
				n = len(s) - 1
			}
			path = append(path, element{field: s[1 : n+1], index: -1})
			s = s[n+1:]
		case '[':
			e, rest, ok := parseKeys(s)
			if !ok {
				return nil, false
			}
			path = append(path, e)
			s = rest
		default:
			return nil, false
		}
	}
	return path, true
}

func parseKeys(s string) (e element, rest string, ok bool) {
	end := strings.IndexByte(s, ']')
	if end < 0 {
		return e, "", false
	}
	inner, rest := s[1:end], s[end+1:]
	if n, err := strconv.Atoi(inner); err == nil {
		return element{index: n}, rest, n >= 0
	}
	e = element{index: -1, keys: map[string]any{}}
	for pair := range strings.SplitSeq(inner, ",") {
		name, value, found := strings.Cut(pair, "=")
		var v any
		if !found || json.Unmarshal([]byte(value), &v) != nil {
			return e, "", false
		}
		e.keys[name] = v
	}
	return e, rest, true
}

func (e element) matches(item any) bool {
	m, ok := item.(map[string]any)
	if !ok || len(e.keys) == 0 {
		return false
	}
	for k, v := range e.keys {
		has, there := m[k]
		if n, number := has.(int64); number {
			has = float64(n)
		}
		if has != v && !(k == "protocol" && !there && v == "TCP") {
			return false
		}
	}
	return true
}

// walk follows a path to the value before its last element.
func walk(v any, path []element) any {
	for _, e := range path {
		switch at := v.(type) {
		case map[string]any:
			v = at[e.field]
		case []any:
			v = nil
			for i, item := range at {
				if i == e.index || e.matches(item) {
					v = item
				}
			}
		default:
			return nil
		}
	}
	return v
}

// drop removes the field at the end of a path.
func drop(o map[string]any, path []element) bool {
	last := path[len(path)-1]
	m, ok := walk(o, path[:len(path)-1]).(map[string]any)
	if !ok {
		return false
	}
	_, has := m[last.field]
	delete(m, last.field)
	return has
}

// keepLast removes all but the last entry with the keys from the list at the
// end of a path.
func keepLast(o map[string]any, path []element, key element) bool {
	last := path[len(path)-1]
	m, ok := walk(o, path[:len(path)-1]).(map[string]any)
	list, isList := m[last.field].([]any)
	if !ok || !isList {
		return false
	}
	var out []any
	for i, item := range list {
		later := false
		for _, other := range list[i+1:] {
			later = later || key.matches(other)
		}
		if !key.matches(item) || !later {
			out = append(out, item)
		}
	}
	m[last.field] = out
	return len(out) < len(list)
}
