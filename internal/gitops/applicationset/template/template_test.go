package template

import (
	"reflect"
	"strings"
	"testing"
)

func engine(t testing.TB, goTemplate bool, options ...string) *Engine {
	t.Helper()
	e, err := New(goTemplate, options)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestText(t *testing.T) {
	params := map[string]any{"name": "a", "path": map[string]any{"basename": "b", "segments": []any{"x", "y"}}, "path.basename": "b", "n": 3.0, "path[0]": "x"}
	for _, c := range []struct {
		goTemplate     bool
		in, want, fail string
	}{
		{false, "{{name}}-{{ name }}", "a-a", ""},
		{false, "{{path.basename}}/{{path[0]}}", "b/x", ""},
		{false, "{{unknown}} {{ n }} {{}}", "{{unknown}} {{ n }} {{}}", ""},
		{false, "{{name\n}}", "{{name\n}}", ""}, // not on one line
		{false, "{{name}} {{", "", `"{{" without "}}"`},
		{false, "{{name", "{{name", ""},
		{false, "{{{name}}}", "{{{name}}}", ""}, // the tag is "{name"
		{true, "{{.name}}", "a", ""},
		{true, "{{index .path.segments 1}}", "y", ""},
		{true, "{{.nope}}", "<no value>", ""},
		{true, "{{printf \"%.0f\" .n}}", "3", ""},
		{true, "{{normalize \"A_b/C.\"}}", "a-b-c", ""},
		{true, "{{env \"HOME\"}}", "", `function "env" not defined`},
		{true, "{{expandenv \"HOME\"}}", "", `function "expandenv" not defined`},
		{true, "{{getHostByName \"x\"}}", "", `function "getHostByName" not defined`},
		{true, "{{range until 1000000000}}x{{end}}", "", "a list of more than 100000 items"},
		{true, "{{repeat 1000000000 \"xx\"}}", "", "longer than 1 MiB"},
		{true, "{{range until 100000}}0123456789{{$}}{{end}}", "", "longer than 1 MiB"},
		{true, "{{seq 3}}|{{seq 2 2 6}}|{{seq 3 1}}", "1 2 3|2 4 6|3 2 1", ""},
		{true, "{{define \"a\"}}{{template \"a\"}}{{end}}{{template \"a\"}}", "", "exceeded maximum template depth"},
		{true, "{{toYaml .path}}", "basename: b\nsegments:\n- x\n- \"y\"", ""},
		{true, "{{(index (fromYamlArray \"[a, b]\") 1)}}", "b", ""},
		{true, "{{fromYaml \"[\"}}", "", "fromYaml"},
		{true, "{{.name", "", "unclosed action"},
	} {
		got, err := engine(t, c.goTemplate).Text(c.in, params)
		if c.fail != "" {
			if err == nil || !strings.Contains(err.Error(), c.fail) {
				t.Errorf("%q: %q, %v; want an error with %q", c.in, got, err, c.fail)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%q: %q, %v; want %q", c.in, got, err, c.want)
		}
	}
	if _, err := engine(t, true, "missingkey=error").Text("{{.nope}}", params); err == nil || !strings.Contains(err.Error(), `no entry for key "nope"`) {
		t.Errorf("missingkey=error: %v", err)
	}
	if _, err := New(true, []string{"missingkey=maybe"}); err == nil {
		t.Error("an unknown option is taken")
	}
}

func TestSlug(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		whole bool
		want  string
	}{
		{"feature/ADD_Thing--now", 50, true, "feature-add-thing-now"},
		{"a-very-long-branch-name", 10, true, "a-very"},
		{"a-very-long-branch-name", 10, false, "a-very-lon"},
		{"averylongbranchname", 10, true, "averylongb"},
		{"Zoë's & Ståle @ Łódź ß", 50, true, "zoes-and-stale-at-lodz-ss"},
		{"日本", 50, true, ""},
		{"x", 0, true, "x"},
	} {
		if got := Slug(c.in, c.limit, c.whole); got != c.want {
			t.Errorf("Slug(%q, %d, %v) = %q, want %q", c.in, c.limit, c.whole, got, c.want)
		}
	}
	e := engine(t, true)
	for in, want := range map[string]string{
		`{{slugify "A b"}}`: "a-b", `{{slugify 3 "aaa-bbb"}}`: "aaa", `{{slugify 5 false "aaa-bbb"}}`: "aaa-b", `{{cat "x" "y" | slugify}}`: "x-y",
	} {
		if got, err := e.Text(in, nil); err != nil || got != want {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{`{{slugify}}`, `{{slugify "x" "y"}}`, `{{slugify 3 4 "y"}}`, `{{slugify 3}}`} {
		if _, err := e.Text(in, nil); err == nil {
			t.Errorf("%s is taken", in)
		}
	}
}

func TestCompileKeepsWhatIsNoTemplate(t *testing.T) {
	constant := map[string]any{"n": int64(3), "list": []any{"a", true, nil}}
	in := map[string]any{"same": constant, "{{name}}": []any{"{{name}}", map[string]any{"k": "{{name}}"}}}
	p, err := engine(t, false).Compile("spec", in)
	if err != nil || p.Constant() {
		t.Fatal(err)
	}
	got, err := p.Fill(map[string]any{"name": "x"})
	want := map[string]any{"same": constant, "x": []any{"x", map[string]any{"k": "x"}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, ok := in["{{name}}"]; !ok {
		t.Error("the input was changed")
	}
	p, err = engine(t, false).Compile("spec", map[string]any{"a": "1", "{{name}}": "2"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Fill(map[string]any{"name": "a"}); err == nil || err.Error() != `spec: the key "a" is there twice after the templates are filled` {
		t.Errorf("%v", err)
	}
}

func TestPatch(t *testing.T) {
	app := map[string]any{"metadata": map[string]any{"name": "a", "finalizers": []any{"x"}}, "spec": map[string]any{"source": map[string]any{"path": "p", "list": []any{"1"}}}}
	for patch, want := range map[string]map[string]any{
		"":                                 app,
		"spec: {source: {list: [2]}}":      {"metadata": app["metadata"], "spec": map[string]any{"source": map[string]any{"path": "p", "list": []any{int64(2)}}}},
		"spec: {source: {path: null}}":     {"metadata": app["metadata"], "spec": map[string]any{"source": map[string]any{"list": []any{"1"}}}},
		"spec: {source: {$patch: delete}}": {"metadata": app["metadata"], "spec": map[string]any{}},
		"spec: {source: {$patch: replace, chart: c}}": {"metadata": app["metadata"], "spec": map[string]any{"source": map[string]any{"chart": "c"}}},
		"metadata: {finalizers: [z, x]}":              {"metadata": map[string]any{"name": "a", "finalizers": []any{"x", "z"}}, "spec": app["spec"]},
	} {
		got, err := Patch(app, patch)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v; want %v", patch, got, err, want)
		}
	}
	for _, bad := range []string{"[", "- a", "text"} {
		if _, err := Patch(app, bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if app["spec"].(map[string]any)["source"].(map[string]any)["path"] != "p" {
		t.Error("the input was changed")
	}
}

// FuzzText looks for panics, endless work and output without bound.
func FuzzText(f *testing.F) {
	for _, s := range []string{"{{name}}", "{{.name}}", "{{ range until 5 }}{{ . }}{{ end }}", "{{{{}}}}", "{{ .a.b.c | toYaml }}", "a{{`", "{{define \"x\"}}{{end}}"} {
		f.Add(s)
	}
	params := map[string]any{"name": "x", "a": map[string]any{"b": []any{1.0, "y"}}}
	engines := []*Engine{engine(f, false), engine(f, true), engine(f, true, "missingkey=error")}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 500 || strings.Contains(s, "gen") || strings.Contains(s, "bcrypt") || strings.Contains(s, "htpasswd") || strings.Contains(s, "derive") {
			return // keys and hashes are slow by design
		}
		for i, e := range engines {
			got, err := e.Text(s, params)
			if len(got) > maxOutput+len(s) {
				t.Errorf("%d bytes", len(got))
			}
			if i == 0 && err == nil && !strings.Contains(s, "{{") && got != s {
				t.Errorf("%q became %q", s, got)
			}
		}
	})
}

// FuzzPatch looks for panics.
func FuzzPatch(f *testing.F) {
	f.Add("metadata: {finalizers: [a, {b: c}]}\nspec: {$patch: delete}")
	f.Fuzz(func(t *testing.T, s string) {
		app := map[string]any{"metadata": map[string]any{"finalizers": []any{"x", map[string]any{}}}, "spec": map[string]any{"a": "b"}}
		_, _ = Patch(app, s)
	})
}
