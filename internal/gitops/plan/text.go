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
// none. Values of Secrets are hidden.
func (c Change) Text() (string, error) {
	if c.Action == None {
		return "", nil
	}
	want := c.Predicted
	if want == nil {
		want = c.Desired
	}
	if c.Action == Prune {
		want = nil
	}
	before, after := printable(c.Live), printable(want)
	if isSecret(c.Key) {
		before, after = hide(before, after)
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
	return (&unstructured.Unstructured{Object: comparable(o)}).DeepCopy().Object
}

// hide replaces the values of a Secret on both sides, and keeps those that
// differ apart.
func hide(before, after map[string]any) (map[string]any, map[string]any) {
	for _, field := range []string{"data", "stringData"} {
		b, _ := before[field].(map[string]any)
		a, _ := after[field].(map[string]any)
		for k, v := range a {
			old, had := b[k]
			a[k] = hidden
			if had && old != v {
				a[k] = hiddenOther
			}
		}
		for k := range b {
			b[k] = hidden
		}
	}
	for _, m := range []map[string]any{before, after} {
		md, _ := m["metadata"].(map[string]any)
		annotations, _ := md["annotations"].(map[string]any)
		if _, has := annotations[lastApplied]; has {
			annotations[lastApplied] = hidden
		}
	}
	return before, after
}

const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

func document(m map[string]any) (string, error) {
	if m == nil {
		return "", nil
	}
	data, err := yaml.Marshal(m)
	return string(data), err
}
