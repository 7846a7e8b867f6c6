package preview

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

const (
	maxLines    = 8000     // of a document that is compared line by line
	maxText     = 12 << 10 // bytes of one object's differences
	maxLine     = 2000     // bytes of one line
	context     = 3        // lines around a difference
	hidden      = "(hidden)"
	hiddenOther = "(hidden, not the same)"
	lastApplied = "kubectl.kubernetes.io/last-applied-configuration"
)

// difference is the unified diff of two objects as YAML, of which one may be
// nil, and how many lines of it are left out.
func difference(key plan.Key, before, after *unstructured.Unstructured, masked []string) (text string, cut int) {
	a, b := printable(before), printable(after)
	if key.Group == "" && key.Kind == "Secret" {
		mask(a, b, masked)
	}
	from, err := document(a)
	if err == nil {
		var to []string
		if to, err = document(b); err == nil {
			return shortened(compared(from, to))
		}
	}
	return fmt.Sprintf("the object cannot be shown: %v\n", err), 0
}

// compared is the diff of two texts as lines that end with "\n".
func compared(from, to []string) []string {
	switch {
	case slices.Equal(from, to):
		return nil
	case len(from) == 0:
		return marked("+", to)
	case len(to) == 0:
		return marked("-", from)
	case len(from) > maxLines || len(to) > maxLines:
		return []string{fmt.Sprintf("too long to be compared: %d lines before, %d lines after\n", len(from), len(to))}
	}
	text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{A: from, B: to, Context: context})
	if err != nil {
		return []string{fmt.Sprintf("cannot be compared: %v\n", err)}
	}
	return slices.Collect(strings.Lines(text))
}

func marked(mark string, lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = mark + l
	}
	return out
}

// shortened keeps what fits.
func shortened(lines []string) (text string, cut int) {
	var b strings.Builder
	for i, l := range lines {
		if len(l) > maxLine {
			l = strings.ToValidUTF8(l[:maxLine], "") + "…\n"
		}
		if b.Len()+len(l) > maxText {
			return b.String(), len(lines) - i
		}
		b.WriteString(l)
	}
	return b.String(), 0
}

// printable is a copy of what is applied of an object.
func printable(o *unstructured.Unstructured) map[string]any {
	if o == nil || o.Object == nil {
		return nil
	}
	m := o.DeepCopy().Object
	delete(m, "status")
	return m
}

func document(m map[string]any) ([]string, error) {
	if m == nil {
		return nil, nil
	}
	data, err := yaml.Marshal(m)
	if err != nil {
		return nil, err
	}
	return slices.Collect(strings.Lines(string(data))), nil
}

// mask hides the values of the two sides of a Secret, but not whether they are
// the same.
func mask(a, b map[string]any, annotations []string) {
	for _, field := range []string{"data", "stringData"} {
		hideField(a, b, field)
	}
	am, bm := within(a, "metadata", "annotations"), within(b, "metadata", "annotations")
	for _, name := range append([]string{lastApplied}, annotations...) {
		hideKey(am, bm, name)
	}
}

func hideField(a, b map[string]any, field string) {
	am, aok := a[field].(map[string]any)
	bm, bok := b[field].(map[string]any)
	if a[field] != nil && !aok || b[field] != nil && !bok {
		hideKey(a, b, field) // no Secret has this; say nothing of it
		return
	}
	names := map[string]bool{}
	for _, name := range append(slices.Collect(maps.Keys(am)), slices.Collect(maps.Keys(bm))...) {
		names[name] = true
	}
	for name := range names {
		hideKey(am, bm, name)
	}
}

// hideKey hides one value on both sides.
func hideKey(a, b map[string]any, key string) {
	was, inA := a[key]
	is, inB := b[key]
	if inA {
		a[key] = hidden
	}
	if inB {
		b[key] = hidden
		if inA && !reflect.DeepEqual(was, is) {
			b[key] = hiddenOther
		}
	}
}

func within(m map[string]any, path ...string) map[string]any {
	for _, p := range path {
		m, _ = m[p].(map[string]any)
	}
	return m
}
