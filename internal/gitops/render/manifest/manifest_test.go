package manifest

import (
	"errors"
	"strings"
	"testing"
)

func TestParseKeepsPlaces(t *testing.T) {
	in := "# a comment\n\n---\n\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n--- # next\nkind: List\napiVersion: v1\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: b}}\n---\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {n: \"1\"}\n"
	objects, warnings, err := Parse("d/x.yaml", []byte(in))
	if err != nil || len(warnings) != 0 {
		t.Fatal(err, warnings)
	}
	var got []string
	for _, o := range objects {
		got = append(got, o.GetKind()+"/"+o.GetName()+" "+o.Place())
	}
	want := "ConfigMap/a d/x.yaml:5, Secret/b d/x.yaml:9, ConfigMap/c d/x.yaml:15"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

func TestParseErrorsNameTheLine(t *testing.T) {
	for _, c := range []struct {
		name, file, in string
		line           int
		want           string
	}{
		{"indentation", "x.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n   labels: {}\n", 5, "mapping values"},
		{"tab", "x.yaml", "a: 1\n---\nkind: X\n\tb: 1\n", 4, "tab character"},
		{"second document", "x.yaml", "apiVersion: v1\nkind: A\nmetadata: {name: a}\n---\napiVersion: v1\nmetadata: {name: b}\n", 5, "apiVersion or kind is missing"},
		{"no name", "x.yaml", "\napiVersion: v1\nkind: ConfigMap\n", 2, "no metadata.name"},
		{"scalar", "x.yaml", "hello\n", 1, "not a Kubernetes object"},
		{"number as annotation", "x.yaml", "apiVersion: v1\nkind: A\nmetadata: {name: a, annotations: {c: 1}}\n", 1, "metadata.annotations.c is not a string"},
		{"json", "x.json", "{\n \"apiVersion\": \"v1\",\n}\n", 3, "not JSON"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := Parse(c.file, []byte(c.in))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			if e.Line != c.line || !strings.Contains(e.Message, c.want) {
				t.Errorf("got %v; want line %d with %q", e, c.line, c.want)
			}
		})
	}
}

func TestParseWarns(t *testing.T) {
	objects, warnings, err := Parse("x.yaml", []byte("apiVersion: v1\nkind: A\nmetadata: {name: a}\ndata:\n  k: 1\n  k: 2\n---\nvalues: 1\n"))
	if err != nil || len(objects) != 1 || len(warnings) != 2 {
		t.Fatalf("%v %v %v", objects, warnings, err)
	}
	if warnings[0].Line != 6 || warnings[1].Line != 8 {
		t.Errorf("lines: %v", warnings)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("x.yaml", []byte("apiVersion: v1\nkind: A\nmetadata: {name: a}\n---\n- 1\n"))
	f.Add("x.json", []byte(`{"apiVersion":"v1","kind":"List","items":[{}]}`))
	f.Fuzz(func(t *testing.T, file string, data []byte) {
		objects, _, err := Parse(file, data)
		if err != nil {
			return
		}
		for _, o := range objects {
			if o.GetKind() == "" || o.GetAPIVersion() == "" || o.Line < 1 {
				t.Fatalf("object without kind, version or line: %v", o)
			}
		}
	})
}
