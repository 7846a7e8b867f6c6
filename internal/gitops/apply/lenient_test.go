package apply

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

func TestLenient(t *testing.T) {
	container := func(more ...any) map[string]any {
		m := map[string]any{"name": "a"}
		for i := 0; i < len(more); i += 2 {
			m[more[i].(string)] = more[i+1]
		}
		return m
	}
	env := func(values ...string) []any {
		var out []any
		for _, v := range values {
			name, value, _ := strings.Cut(v, "=")
			out = append(out, map[string]any{"name": name, "value": value})
		}
		return out
	}
	pod := func(c map[string]any) map[string]any {
		return map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"name": "other"}, c}}}
	}
	const prefix = "failed to create typed patch object (ns/o; v1, Kind=Pod): "
	for _, c := range []struct {
		name    string
		options plan.ObjectOptions
		err     string
		in      map[string]any
		want    map[string]any // nil for no help
	}{
		{"a field", plan.ObjectOptions{SkipValidation: true}, prefix + `.spec.containers[name="a"].imge: field not declared in schema`, pod(container("imge", "x", "image", "y")), pod(container("image", "y"))},
		{"two fields", plan.ObjectOptions{SkipValidation: true}, prefix + "errors:\n  .spec.a: field not declared in schema\n  .spec.b: field not declared in schema", map[string]any{"spec": map[string]any{"a": "1", "b": "2", "c": "3"}}, map[string]any{"spec": map[string]any{"c": "3"}}},
		{"a field, validated", plan.ObjectOptions{}, prefix + `.spec.containers[name="a"].imge: field not declared in schema`, pod(container("imge", "x")), nil},
		{"entries", plan.ObjectOptions{}, prefix + `.spec.containers[name="a"].env: duplicate entries for key [name="X"]`, pod(container("env", env("X=1", "Y=2", "X=3"))), pod(container("env", env("Y=2", "X=3")))},
		{"entries, server-side", plan.ObjectOptions{ServerSideApply: true}, prefix + `.spec.containers[name="a"].env: duplicate entries for key [name="X"]`, pod(container("env", env("X=1", "X=3"))), nil},
		{"ports", plan.ObjectOptions{}, prefix + `.spec.ports: duplicate entries for key [port=80,protocol="TCP"]`,
			map[string]any{"spec": map[string]any{"ports": []any{map[string]any{"port": int64(80)}, map[string]any{"port": int64(80), "protocol": "UDP"}, map[string]any{"port": int64(80), "name": "b"}}}},
			map[string]any{"spec": map[string]any{"ports": []any{map[string]any{"port": int64(80), "protocol": "UDP"}, map[string]any{"port": int64(80), "name": "b"}}}}},
		{"no such path", plan.ObjectOptions{SkipValidation: true}, prefix + `.status[0].x: field not declared in schema`, pod(container()), nil},
		{"another refusal", plan.ObjectOptions{SkipValidation: true}, "spec.a: Invalid value", pod(container()), nil},
	} {
		in := &unstructured.Unstructured{Object: c.in}
		before := in.DeepCopy()
		got, note := lenient(in, c.options, errors.New(c.err))
		switch {
		case got == nil && c.want != nil:
			t.Errorf("%s: no help", c.name)
		case got != nil && (!reflect.DeepEqual(got.Object, c.want) || note == ""):
			t.Errorf("%s: %v %q", c.name, got.Object, note)
		}
		if !reflect.DeepEqual(before, in) {
			t.Errorf("%s: the object was changed", c.name)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{`.a.b`, `.spec.containers[name="a"].env`, `[port=80,protocol="TCP"]`, `.a[0][1].b`, `.a[`, `..`, `.a[x=]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		path, ok := parsePath(s)
		if ok && s != "" && len(path) == 0 {
			t.Fatalf("%q has no elements", s)
		}
		walk(map[string]any{"a": []any{map[string]any{"name": "a"}}}, path)
	})
}
