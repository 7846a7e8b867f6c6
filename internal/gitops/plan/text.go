package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// Text is the change as a unified diff from live to wanted, "" when there is
// none. Of an update it shows the live object with and without the differences
// that count. Values of Secrets are hidden.
func (c Change) Text() (string, error) {
	if c.Action == None {
		return "", nil
	}
	before, after := printable(c.Live), printable(c.Desired)
	if c.Action == Prune {
		after = nil
	}
	if isSecret(c.Key) {
		hide(before, c.masked)
		hide(after, c.masked)
	}
	if c.Action == Update {
		after = clone(before).(map[string]any)
		for _, d := range c.Differences {
			after = edit(after, d.fields, d.Want).(map[string]any)
		}
		after = swept(after).(map[string]any)
	}
	from, err := document(before)
	if err != nil {
		return "", fmt.Errorf("print %s: %w", c.Key, err)
	}
	to, err := document(after)
	if err != nil {
		return "", fmt.Errorf("print %s: %w", c.Key, err)
	}
	text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: lines(from), B: lines(to), Context: 3,
		FromFile: "live/" + c.path(), ToFile: "source/" + c.path(),
	})
	if err != nil {
		return "", fmt.Errorf("diff of %s: %w", c.Key, err)
	}
	return text, nil
}

// removed is in the place of a list item that goes.
type removed struct{}

// edit returns v with the value at a path of the live object replaced. v is
// changed where it is a map.
func edit(v any, path []segment, want any) any {
	if len(path) == 0 {
		return v
	}
	s, last := path[0], len(path) == 1
	if !s.list {
		m, ok := v.(map[string]any)
		if !ok {
			if v != nil || want == nil {
				return v
			}
			m = map[string]any{}
		}
		switch {
		case !last:
			m[s.field] = edit(m[s.field], path[1:], want)
		case want == nil:
			delete(m, s.field)
		default:
			m[s.field] = clone(want)
		}
		return m
	}
	l, _ := v.([]any)
	switch {
	case s.live >= len(l) && s.live >= 0:
	case last && s.live < 0 && want != nil:
		l = append(l, clone(want))
	case last && want == nil && s.live >= 0:
		l[s.live] = removed{}
	case last && s.live >= 0:
		l[s.live] = clone(want)
	case s.live >= 0:
		l[s.live] = edit(l[s.live], path[1:], want)
	}
	return l
}

// swept drops the items that go.
func swept(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k, sub := range x {
			x[k] = swept(sub)
		}
	case []any:
		x = slices.DeleteFunc(x, func(item any) bool { _, gone := item.(removed); return gone })
		for i := range x {
			x[i] = swept(x[i])
		}
		return x
	}
	return v
}

func lines(s string) []string {
	return slices.Collect(strings.Lines(s))
}

func (c Change) path() string {
	parts := slices.DeleteFunc([]string{c.Group, c.Kind, c.Namespace, c.Name}, func(s string) bool { return s == "" })
	return strings.Join(parts, "/")
}

func printable(o *unstructured.Unstructured) map[string]any {
	if o == nil {
		return nil
	}
	return (&unstructured.Unstructured{Object: comparable(o, false)}).DeepCopy().Object
}

func document(m map[string]any) (string, error) {
	if m == nil {
		return "", nil
	}
	data, err := yaml.Marshal(m)
	return string(data), err
}
