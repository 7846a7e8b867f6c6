package plan

import (
	"cmp"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan/ignore"
)

// ignored sorts differences into those that count and those that a rule
// names. It looks at rules only for objects that differ.
type ignored struct {
	rules      []ignore.Rule
	live, want []ignore.Path
	object     *unstructured.Unstructured
	errs       []error
}

func (in Input) ignoring(want, live *unstructured.Unstructured) *ignored {
	key := KeyOf(want)
	ig := &ignored{object: live}
	for _, r := range in.Ignore {
		rule := ignore.Rule{IgnoreDifferences: r, Origin: "ignored by ignoreDifferences"}
		if rule.About(key.Group, key.Kind, key.Namespace, key.Name) {
			ig.rules = append(ig.rules, rule)
		}
	}
	if in.Policy != nil {
		for _, rule := range in.Policy.rules {
			if rule.About(key.Group, key.Kind, key.Namespace, key.Name) {
				ig.rules = append(ig.rules, rule)
			}
		}
	}
	if len(ig.rules) == 0 {
		return ig
	}
	expressions := in.Policy.expressions()
	ig.live, ig.errs = expressions.Paths(ig.rules, live.Object)
	var errs []error
	ig.want, errs = expressions.Paths(ig.rules, want.Object)
	if len(ig.errs) == 0 {
		ig.errs = errs
	}
	return ig
}

// split separates the differences that count.
func (ig *ignored) split(all []Difference) (counts, ignoredOnes []Difference) {
	for _, d := range all {
		for _, part := range ig.parts(d, 0) {
			if why := ig.why(part); why != "" {
				part.Why = why
				ignoredOnes = append(ignoredOnes, part)
			} else {
				counts = append(counts, part)
			}
		}
	}
	return counts, ignoredOnes
}

// why names the rule, or is "".
func (ig *ignored) why(d Difference) string {
	for _, p := range ig.live {
		if relation(p.Steps, d.fields, false) == above {
			return p.Rule
		}
	}
	for _, p := range ig.want {
		if relation(p.Steps, d.fields, true) == above {
			return p.Rule
		}
	}
	for _, r := range ig.rules {
		if len(r.ManagedFieldsManagers) == 0 {
			continue
		}
		if name := ownedBy(ig.object, d.fields, r.ManagedFieldsManagers); name != "" {
			return r.Origin + ", managedFieldsManagers " + name
		}
	}
	return ""
}

type place uint8

const (
	apart place = iota
	above       // the steps lead to the path, or to something around it
	inside
)

// relation says where steps lead, seen from a path of the live or the wanted
// object.
func relation(steps []any, path []segment, want bool) place {
	for i, s := range path {
		if i == len(steps) {
			return above
		}
		switch key := steps[i].(type) {
		case string:
			if s.list || s.field != key {
				return apart
			}
		case int:
			index := s.live
			if want {
				index = s.want
			}
			if !s.list || index != key {
				return apart
			}
		}
	}
	if len(steps) == len(path) {
		return above
	}
	return inside
}

// parts takes a difference of a whole map apart where a rule names something
// inside it.
func (ig *ignored) parts(d Difference, depth int) []Difference {
	if depth > 32 || !ig.inside(d) {
		return []Difference{d}
	}
	live, _ := d.Live.(map[string]any)
	want, _ := d.Want.(map[string]any)
	if live == nil && want == nil || live == nil && d.Live != nil || want == nil && d.Want != nil {
		return []Difference{d}
	}
	keys := maps.Clone(live)
	if keys == nil {
		keys = map[string]any{}
	}
	maps.Copy(keys, want)
	var out []Difference
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		path := append(slices.Clone(d.fields), segment{field: k})
		part := d
		part.Path, part.Pointer, part.Live, part.Want, part.fields = pretty(path), pointer(path), live[k], want[k], path
		if part.Live == nil && part.Want == nil || equal(part.Live, part.Want) {
			continue
		}
		out = append(out, ig.parts(part, depth+1)...)
	}
	return out
}

func (ig *ignored) inside(d Difference) bool {
	return slices.ContainsFunc(ig.live, func(p ignore.Path) bool { return relation(p.Steps, d.fields, false) == inside }) ||
		slices.ContainsFunc(ig.want, func(p ignore.Path) bool { return relation(p.Steps, d.fields, true) == inside })
}

// UnsupportedIgnores names the parts of ignoreDifferences that are not carried
// out.
func UnsupportedIgnores(rules []v1alpha1.IgnoreDifferences) []Warning {
	var out []Warning
	for _, w := range ignore.Check(rules) {
		out = append(out, Warning{v1alpha1.ConditionUnsupportedFeatures, "spec." + w})
	}
	return out
}

// respect returns desired with the live value in each ignored place. It
// changes neither object.
func respect(desired, live *unstructured.Unstructured, ignoredOnes []Difference) *unstructured.Unstructured {
	if len(ignoredOnes) == 0 {
		return desired
	}
	out := desired.DeepCopy()
	removed := func(d Difference) int { // items that go are last, from the end
		if last := d.fields[len(d.fields)-1]; last.list && last.live < 0 {
			return last.want + 1
		}
		return 0
	}
	ordered := slices.DeleteFunc(slices.Clone(ignoredOnes), func(d Difference) bool { return len(d.fields) == 0 })
	slices.SortStableFunc(ordered, func(a, b Difference) int {
		x, y := removed(a), removed(b)
		if x == 0 || y == 0 {
			return cmp.Compare(x, y)
		}
		return cmp.Compare(y, x)
	})
	for _, d := range ordered {
		put(out.Object, live.Object, d.fields)
	}
	return out
}

// put gives desired the live value at a path. A parent that is left empty
// goes, too.
func put(desired map[string]any, live any, path []segment) {
	if len(path) == 0 {
		return
	}
	head, rest := path[0], path[1:]
	l, _ := live.(map[string]any)
	if head.list || len(path) > 1 && path[1].list {
		putList(desired, l, head.field, rest)
		return
	}
	lv, in := l[head.field]
	if len(rest) == 0 {
		if in {
			desired[head.field] = clone(lv)
		} else {
			delete(desired, head.field)
		}
		return
	}
	sub, ok := desired[head.field].(map[string]any)
	if !ok {
		if desired[head.field] != nil {
			return
		}
		sub = map[string]any{}
		desired[head.field] = sub
	}
	put(sub, lv, rest)
	if len(sub) == 0 {
		delete(desired, head.field)
	}
}

func putList(desired, live map[string]any, field string, path []segment) {
	s, rest := path[0], path[1:]
	dl, _ := desired[field].([]any)
	ll, _ := live[field].([]any)
	var lv any
	if s.live >= 0 && s.live < len(ll) {
		lv = ll[s.live]
	}
	if len(rest) > 0 {
		if s.want < 0 || s.want >= len(dl) {
			return
		}
		if sub, ok := dl[s.want].(map[string]any); ok {
			put(sub, lv, rest)
		}
		return
	}
	switch {
	case s.want >= 0 && s.want < len(dl) && lv != nil:
		dl[s.want] = clone(lv)
	case s.want >= 0 && s.want < len(dl):
		dl = slices.Delete(slices.Clone(dl), s.want, s.want+1)
	case lv != nil:
		dl = append(slices.Clone(dl), clone(lv))
	}
	desired[field] = dl
}

func clone(v any) any {
	return (&unstructured.Unstructured{Object: map[string]any{"v": v}}).DeepCopy().Object["v"]
}
