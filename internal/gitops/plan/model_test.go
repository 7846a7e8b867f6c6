package plan

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/merge"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

// modelSchema has one field for each way in which the server merges values.
const modelSchema = `types:
- name: thing
  map:
    fields:
    - {name: apiVersion, type: {scalar: string}}
    - {name: kind, type: {scalar: string}}
    - {name: metadata, type: {namedType: meta}}
    - {name: spec, type: {namedType: spec}}
- name: meta
  map:
    fields:
    - {name: name, type: {scalar: string}}
    - {name: namespace, type: {scalar: string}}
    - {name: annotations, type: {namedType: strings}}
- name: strings
  map: {elementType: {scalar: string}}
- name: spec
  map:
    fields:
    - {name: size, type: {scalar: numeric}}
    - {name: mode, type: {scalar: string}}
    - {name: labels, type: {namedType: strings}}
    - {name: selector, type: {map: {elementType: {scalar: string}, elementRelationship: atomic}}}
    - {name: args, type: {list: {elementType: {scalar: string}, elementRelationship: atomic}}}
    - {name: hosts, type: {list: {elementType: {scalar: string}, elementRelationship: associative}}}
    - {name: parts, type: {list: {elementType: {namedType: part}, elementRelationship: associative, keys: [name]}}}
- name: part
  map:
    fields:
    - {name: name, type: {scalar: string}}
    - {name: image, type: {scalar: string}}
    - {name: env, type: {list: {elementType: {namedType: env}, elementRelationship: associative, keys: [name]}}}
- name: env
  map:
    fields:
    - {name: name, type: {scalar: string}}
    - {name: value, type: {scalar: string}}
`

// model is server-side apply as the API server does it, without defaulting.
type model struct {
	t        *rapid.T
	kind     typed.ParseableType
	live     *typed.TypedValue
	managers fieldpath.ManagedFields
}

type oneVersion struct{}

func (oneVersion) Convert(o *typed.TypedValue, _ fieldpath.APIVersion) (*typed.TypedValue, error) {
	return o, nil
}
func (oneVersion) IsMissingVersionError(error) bool { return false }

func newModel(t *rapid.T) *model {
	p, err := typed.NewParser(modelSchema)
	if err != nil {
		t.Fatal(err)
	}
	m := &model{t: t, kind: p.Type("thing"), managers: fieldpath.ManagedFields{}}
	if m.live, err = m.kind.FromUnstructured(map[string]any{}); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *model) typed(o map[string]any) *typed.TypedValue {
	v, err := m.kind.FromUnstructured(o)
	if err != nil {
		m.t.Fatal(err)
	}
	return v
}

// apply reports whether the values changed.
func (m *model) apply(manager string, o map[string]any) bool {
	before := m.values()
	u := merge.Updater{Converter: oneVersion{}}
	next, managers, err := u.Apply(m.live, m.typed(o), "example.com/v1", m.managers, manager, true)
	if err != nil {
		m.t.Fatal(err)
	}
	if next != nil {
		m.live = next
	}
	m.managers = managers
	return !equal(sorted(before), sorted(m.values()))
}

// sorted gives the set one order: the order of a set is no difference.
func sorted(o map[string]any) map[string]any {
	spec, _ := o["spec"].(map[string]any)
	if len(spec) == 0 {
		delete(o, "spec") // null, when everything in it went
	}
	if hosts, ok := spec["hosts"].([]any); ok {
		slices.SortFunc(hosts, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
	}
	return o
}

func (m *model) update(manager string, o map[string]any) {
	u := merge.Updater{Converter: oneVersion{}}
	next, managers, err := u.Update(m.live, m.typed(o), "example.com/v1", m.managers, manager)
	if err != nil {
		m.t.Fatal(err)
	}
	m.live, m.managers = next, managers
}

func (m *model) values() map[string]any {
	data, err := json.Marshal(m.live.AsValue().Unstructured())
	if err != nil {
		m.t.Fatal(err)
	}
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(data); err != nil {
		return map[string]any{}
	}
	return o.Object
}

// object is the live object as the API server shows it.
func (m *model) object() *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: m.values()}
	var list []any
	for manager, set := range m.managers {
		data, err := set.Set().ToJSON()
		if err != nil {
			m.t.Fatal(err)
		}
		var f map[string]any
		if err := json.Unmarshal(data, &f); err != nil {
			m.t.Fatal(err)
		}
		operation := "Update"
		if set.Applied() {
			operation = "Apply"
		}
		list = append(list, map[string]any{"manager": manager, "operation": operation, "apiVersion": "example.com/v1", "fieldsV1": f})
	}
	md := o.Object["metadata"].(map[string]any)
	md["managedFields"] = list
	return o
}

// thing draws an object of the model's kind.
func thing(t *rapid.T, label string) map[string]any {
	spec := map[string]any{}
	maybe := func(field string, draw func() any) {
		if rapid.Bool().Draw(t, label+" "+field) {
			spec[field] = draw()
		}
	}
	word := rapid.SampledFrom([]string{"a", "b", "c"})
	words := func() any {
		m := map[string]any{}
		for range rapid.IntRange(1, 3).Draw(t, "n") {
			m[word.Draw(t, "k")] = word.Draw(t, "v")
		}
		return m
	}
	distinct := func() []string { return rapid.SliceOfNDistinct(word, 1, 3, rapid.ID).Draw(t, "names") }
	maybe("size", func() any { return int64(rapid.IntRange(1, 3).Draw(t, "size")) })
	maybe("mode", func() any { return word.Draw(t, "mode") })
	maybe("labels", words)
	maybe("selector", words)
	maybe("args", func() any {
		var out []any
		for range rapid.IntRange(1, 3).Draw(t, "n") {
			out = append(out, word.Draw(t, "arg"))
		}
		return out
	})
	maybe("hosts", func() any {
		var out []any
		for _, h := range distinct() {
			out = append(out, h)
		}
		return out
	})
	maybe("parts", func() any {
		var out []any
		for _, n := range distinct() {
			p := map[string]any{"name": n}
			if rapid.Bool().Draw(t, "image") {
				p["image"] = word.Draw(t, "image")
			}
			if rapid.Bool().Draw(t, "env") {
				var env []any
				for _, e := range distinct() {
					env = append(env, map[string]any{"name": e, "value": word.Draw(t, "value")})
				}
				p["env"] = env
			}
			out = append(out, p)
		}
		return out
	})
	return map[string]any{
		"apiVersion": "example.com/v1", "kind": "Thing", "metadata": map[string]any{"name": "x", "namespace": "ns"}, "spec": spec,
	}
}

// TestPlanAgreesWithServerSideApply plays sequences of writes by us and by
// others: the plan is empty exactly when an apply would change no value, and
// after an apply it is empty.
func TestPlanAgreesWithServerSideApply(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		m.apply("us", thing(t, "first"))
		for i := range rapid.IntRange(0, 3).Draw(t, "writes") {
			label := fmt.Sprint("write ", i)
			o := thing(t, label)
			switch rapid.IntRange(0, 2).Draw(t, label+" by") {
			case 0:
				m.apply("us", o)
			case 1:
				m.apply("them", o)
			case 2:
				m.update("editor", o)
			}
		}
		desired := &unstructured.Unstructured{Object: thing(t, "desired")}
		key := KeyOf(desired)
		in := Input{Instance: "app", Manager: "us", Desired: []manifest.Object{{Unstructured: desired}}, Live: map[Key]*unstructured.Unstructured{key: m.object()}}
		before := m.object()
		p := Make(in)
		if changed := m.apply("us", desired.Object); changed == p.InSync() {
			old, _ := json.Marshal(before)
			want, _ := json.Marshal(desired)
			t.Fatalf("the apply changed values: %v, the plan: %+v\nlive %s\ndesired %s\nafter %v", changed, p.Changes[0].Differences, old, want, m.values())
		}
		in.Live[key] = m.object()
		if p := Make(in); !p.InSync() {
			t.Fatalf("after the apply: %+v", p.Changes[0].Differences)
		}
	})
}
