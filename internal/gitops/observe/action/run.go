package action

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// fields is the content of an object. Reading copies nothing.
type fields map[string]any

func (f fields) at(path ...string) any {
	var v any = map[string]any(f)
	for _, p := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[p]
	}
	return v
}

func (f fields) text(path ...string) string { s, _ := f.at(path...).(string); return s }
func (f fields) flag(path ...string) bool   { b, _ := f.at(path...).(bool); return b }

func (f fields) number(missing int64, path ...string) int64 {
	switch n := f.at(path...).(type) {
	case int64:
		return n
	case float64:
		return int64(n)
	}
	return missing
}

func (f fields) annotation(key string) string { return f.text("metadata", "annotations", key) }

// run is one run of a built-in action: it changes object.
type run struct {
	object  map[string]any
	created []map[string]any
	params  map[string]string
	now     time.Time
}

// set makes the maps on the way. A value of another type on the way is an error
// of the object.
func (r *run) set(value any, path ...string) error {
	m := r.object
	for i, p := range path[:len(path)-1] {
		next, ok := m[p].(map[string]any)
		if !ok {
			if m[p] != nil {
				return fmt.Errorf("%s is not a map", strings.Join(path[:i+1], "."))
			}
			next = map[string]any{}
			m[p] = next
		}
		m = next
	}
	m[path[len(path)-1]] = value
	return nil
}

func (r *run) unset(path ...string) {
	if m, ok := fields(r.object).at(path[:len(path)-1]...).(map[string]any); ok {
		delete(m, path[len(path)-1])
	}
}

func (r *run) annotate(key, value string) error { return r.set(value, "metadata", "annotations", key) }
func (r *run) stamp() string                    { return r.now.Format(time.RFC3339) }

// count reads a parameter that is a number.
func (r *run) count(name string, most int64) (int64, error) {
	text, ok := r.params[name]
	if !ok || strings.TrimSpace(text) == "" {
		return 0, fmt.Errorf("it needs the parameter %s, a number", name)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("the parameter %s is %q; it must be a number from 0 to %d", name, text, most)
	}
	return n, nil
}

// name makes the name of an object that a run creates: that of its maker, cut,
// with the time.
func (r *run) name(most int) string {
	suffix := "-" + strconv.FormatInt(r.now.Unix(), 36)
	base := fields(r.object).text("metadata", "name")
	return strings.TrimRight(base[:min(len(base), most-len(suffix))], "-.") + suffix
}

// owned gives an object its maker as owner, and the maker's namespace.
func (r *run) owned(o map[string]any) map[string]any {
	f := fields(r.object)
	meta, _ := o["metadata"].(map[string]any)
	meta["namespace"] = f.text("metadata", "namespace")
	meta["ownerReferences"] = []any{map[string]any{
		"apiVersion": f.text("apiVersion"), "kind": f.text("kind"), "name": f.text("metadata", "name"), "uid": f.text("metadata", "uid"),
		"controller": true, "blockOwnerDeletion": true,
	}}
	return o
}
