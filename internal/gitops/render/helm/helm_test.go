package helm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
	"pgregory.net/rapid"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

const chartYAML = "{apiVersion: v2, name: c, version: 1.0.0}"

func ofChart(files map[string]string) *world {
	w := &world{commit: memory{"c/Chart.yaml": chartYAML}, remote: &shelf{}, req: golden{Dir: "c"}.request()}
	for name, content := range files {
		w.commit["c/"+name] = content
	}
	return w
}

// TestBounded: charts that do too much end, with an error.
func TestBounded(t *testing.T) {
	for name, template := range map[string]string{
		"output":        `{{ range until 100000 }}{{ repeat 1000 "x" }}{{ end }}`,
		"work":          `{{ define "f" }}{{ repeat 1000000 "x" }}{{ end }}{{ range until 1000000 }}{{ $x := include "f" . }}{{ end }}`,
		"recursion":     `{{ define "f" }}{{ include "f" . }}{{ end }}{{ include "f" . }}`,
		"template":      `{{ define "f" }}{{ template "f" . }}{{ end }}{{ template "f" . }}`,
		"repeat":        `{{ repeat 2000000000 "xxxxxxxx" }}`,
		"until":         `{{ until 2000000000 }}`,
		"seq":           `{{ seq 1 2000000000 }}`,
		"doubled":       `{{ $s := "xxxxxxxx" }}{{ range until 60 }}{{ $s = print $s $s }}{{ end }}`,
		"doubled list":  `{{ $s := list 1 }}{{ range until 60 }}{{ $s = list $s $s }}{{ end }}{{ toYaml $s }}`,
		"indent":        `{{ indent 2000000000 "x" }}`,
		"tpl recursion": `{{ define "f" }}{{ tpl "{{ include \"f\" . }}" . }}{{ end }}{{ include "f" . }}`,
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			got := ofChart(map[string]string{"templates/a.yaml": template}).outcome(t, &Renderer{})
			if !strings.HasPrefix(got, "error: ") {
				t.Errorf("rendered %d bytes", len(got))
			}
			if d := time.Since(start); d > 10*time.Second {
				t.Errorf("took %s", d)
			}
			if len(got) > 400 {
				t.Errorf("the error is long: %s", got[:400])
			}
		})
	}
}

// TestDeadline: a loop that writes nothing ends with its context.
func TestDeadline(t *testing.T) {
	for name, template := range map[string]string{
		"empty loop":  `{{ range 1000000000 }}{{ range 1000000000 }}{{ end }}{{ end }}`,
		"exponential": `{{ define "f" }}{{ if lt . 900 }}{{ $x := include "f" (add1 .) }}{{ $y := include "f" (add1 .) }}{{ end }}{{ end }}{{ include "f" 0 }}`,
	} {
		t.Run(name, func(t *testing.T) {
			w := ofChart(map[string]string{"templates/a.yaml": template})
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			start := time.Now()
			_, _, err := (&Renderer{}).Render(ctx, w.commit.tree(), w.req)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("took %s", d)
			}
		})
	}
}

// TestInputsAreComplete changes each file that is not recorded: the output
// must stay the same.
func TestInputsAreComplete(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	r := &Renderer{}
	unread := 0
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		w := worldOf(t, archive)
		w.commit["elsewhere/new.yaml"] = "x"
		if w.commit["c/Chart.yaml"] != "" {
			w.commit["c/README.md"] = "x"
		}
		want, trees := w.render(t, r)
		for name, files := range map[string]memory{"": w.commit} {
			inputs := trees[name].Inputs()
			for p, content := range files {
				if _, read := inputs[p]; read {
					continue
				}
				unread++
				files[p] = "changed"
				if got := w.outcome(t, r); got != want {
					t.Errorf("%s: %s is no input, but changing it gives\n%s", file, p, got)
				}
				delete(files, p)
				if _, listed := inputs.Affected([]string{p}); !listed {
					if got := w.outcome(t, r); got != want {
						t.Errorf("%s: %s is not covered by the inputs, but removing it gives\n%s", file, p, got)
					}
				}
				files[p] = content
			}
		}
	}
	if unread < len(files) {
		t.Errorf("only %d files were not read: the test tests nothing", unread)
	}
}

// TestFilesAreReadOnDemand: other files of the chart are inputs when a
// template asks for them, whichever way.
func TestFilesAreReadOnDemand(t *testing.T) {
	for template, want := range map[string]string{
		`{{ .Files.Get "a.txt" }}`:                         "a.txt",
		`{{ (.Files.Glob "*.txt").AsConfig }}`:             "a.txt b.txt",
		`{{ range $p, $d := .Files }}{{ $p }}{{ end }}`:    "README.md a.txt b.txt",
		`{{ $f := .Files }}{{ $f.Get "b.txt" }}`:           "README.md a.txt b.txt",
		`{{ index .Files "b.txt" }}`:                       "README.md a.txt b.txt",
		`{{ toYaml . }}`:                                   "README.md a.txt b.txt",
		`{{ tpl "{{ range .Files }}x{{ end }}" . }}`:       "README.md a.txt b.txt",
		`{{ range .Files.Lines "a.txt" }}{{ . }}{{ end }}`: "a.txt",
		`{{ get . "Files" | len }}`:                        "README.md a.txt b.txt",
		`{{ .Files.Get "none" }}{{ .Chart.Name }}`:         "",
		`{{ $.Files.GetBytes "a.txt" | toString }}`:        "a.txt",
		`{{ with $ }}{{ .Files.AsSecrets }}{{ end }}`:      "README.md a.txt b.txt",
	} {
		w := ofChart(map[string]string{"a.txt": "A", "b.txt": "B", "README.md": "R", "templates/a.yaml": "#" + template})
		text, trees := w.render(t, &Renderer{})
		if strings.HasPrefix(text, "error") {
			t.Errorf("%s: %s", template, text)
		}
		var got []string
		for _, name := range []string{"README.md", "a.txt", "b.txt"} {
			if _, read := trees[""].Inputs()["c/"+name]; read {
				got = append(got, name)
			}
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s read %q; want %q", template, s, want)
		}
	}
}

// TestParallel renders charts at the same time: they share programs, not
// values.
func TestParallel(t *testing.T) {
	r := &Renderer{}
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			w := ofChart(map[string]string{
				"templates/_h.tpl": `{{ define "n" }}{{ .Values.n }}{{ end }}`, "values.yaml": "m: {a: b}",
				"templates/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: n{{ include \"n\" . }}}\n{{ $_ := set .Values.m \"x\" .Values.n }}data: {x: \"{{ .Values.m.x }}\", t: \"{{ tpl \"{{ .Values.n }}\" . }}\"}",
			})
			w.req.Helm = &v1alpha1.SourceHelm{ValuesObject: fmt.Appendf(nil, `{"n": "%d"}`, i)}
			for range 20 {
				objects, _, err := r.Render(context.Background(), w.commit.tree(), w.req)
				if err != nil || len(objects) != 1 {
					t.Errorf("%v %v", objects, err)
					return
				}
				if want := fmt.Sprintf("map[t:%d x:%d]", i, i); fmt.Sprint(objects[0].Object["data"]) != want || objects[0].GetName() != fmt.Sprintf("n%d", i) {
					t.Errorf("got %v; want %s", objects[0].Object, want)
				}
			}
		})
	}
	group.Wait()
}

func TestProgramsAreBounded(t *testing.T) {
	var c programCache
	for i := range 3 * maxPrograms {
		if _, err := c.get([]unit{{name: fmt.Sprint(i), data: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.byKey) != maxPrograms || c.order.Len() != maxPrograms || c.size != maxPrograms*(emptyProgram+parsedFactor) {
		t.Errorf("%d programs, %d in order, %d bytes", len(c.byKey), c.order.Len(), c.size)
	}
	if _, err := c.get([]unit{{name: "large", data: bytes.Repeat([]byte("x"), 2<<20)}}); err != nil {
		t.Fatal(err)
	}
	if len(c.byKey) != 1 {
		t.Errorf("%d programs beside one that is too large", len(c.byKey)-1)
	}
}

// TestNoSecretInErrors: values may be secrets, so no error repeats one.
func TestNoSecretInErrors(t *testing.T) {
	for name, h := range map[string]*v1alpha1.SourceHelm{
		"parameter": {Parameters: []v1alpha1.HelmParameter{{Name: "a[x]", Value: "hunter2"}}},
		"tpl":       {Values: "t: '{{ nosuch \"hunter2\" }}'"},
		"schema":    {Values: "p: hunter2"},
		"YAML":      {Values: "p: hunter2\n\tq: hunter2"},
	} {
		w := ofChart(map[string]string{"templates/a.yaml": `{{ tpl (.Values.t | default "") . }}`, "values.schema.json": `{"properties": {"p": {"type": "string", "pattern": "^$", "maxLength": 2, "enum": ["a"], "format": "date"}}}`})
		w.req.Helm = h
		got := w.outcome(t, &Renderer{})
		if !strings.HasPrefix(got, "error: ") || strings.Contains(got, "hunter2") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestBadCharts: what is wrong with a chart is said, with its file.
func TestBadCharts(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"loop of links":  {map[string]string{"templates/x": "link ..", "templates/a.yaml": "x"}, "c/templates/x: symbolic link leads back"},
		"link out":       {map[string]string{"templates/a.yaml": "link ../../../secret"}, "leads out of the repository"},
		"not an archive": {map[string]string{"charts/x.tgz": "hello"}, "c/charts/x.tgz: not a chart archive"},
		"climbing":       {map[string]string{"charts/x.tgz": string(tgz(t, map[string]string{"x/../../../y": "z"}))}, "c/charts/x.tgz: not a chart archive"},
		"no chart below": {map[string]string{"charts/README.md": "x"}, "c/Chart.yaml: error unpacking"},
		"bad subchart":   {map[string]string{"charts/s/Chart.yaml": "a: b: c"}, "c/charts/s/Chart.yaml:1: "},
		"panic":          {map[string]string{"templates/a.yaml": `{{ index (list) 3 }}`}, "c/templates/a.yaml:1: "},
		"not a mapping":  {map[string]string{"values.yaml": "sub: 1", "charts/sub/Chart.yaml": "{apiVersion: v2, name: sub, version: 1.0.0}"}, "sub"},
		"file outside":   {map[string]string{"Chart.yaml": `{apiVersion: v2, name: c, version: 1.0.0, dependencies: [{name: x, version: 1.0.0, repository: "file://../../x"}]}`}, "leads out of the repository"},
		"file nowhere":   {map[string]string{"Chart.yaml": `{apiVersion: v2, name: c, version: 1.0.0, dependencies: [{name: x, version: 1.0.0, repository: "file://../x"}]}`}, "has no Chart.yaml"},
		"alias":          {map[string]string{"Chart.yaml": `{apiVersion: v2, name: c, version: 1.0.0, dependencies: [{name: x, version: 1.0.0, repository: "@bitnami"}]}`}, "alias of somebody"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ofChart(c.files).outcome(t, &Renderer{}); !strings.HasPrefix(got, "error: ") || !strings.Contains(got, c.want) {
				t.Errorf("got %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestLinesAreRight puts objects at random places of a template, between
// actions that write, skip and trim lines.
func TestLinesAreRight(t *testing.T) {
	noise := []string{"\n", "# text\n", "{{ if true }}\n", "{{- /* gone */}}\n", "{{ range until 3 }}\n# {{ . }}\n{{ end }}\n", "{{ include \"three\" . }}\n", "{{- if false }}\nx: y\n{{- end }}\n", "{{ template \"three\" }}\n"}
	rapid.Check(t, func(t *rapid.T) {
		var b strings.Builder
		want := map[string]int{}
		open := 0
		for i := range rapid.IntRange(1, 6).Draw(t, "objects") {
			for _, n := range rapid.SliceOfN(rapid.SampledFrom(noise), 0, 4).Draw(t, "noise") {
				b.WriteString(n)
				open += strings.Count(n, "{{ if true")
			}
			b.WriteString("---\n")
			name := fmt.Sprintf("o%d", i)
			want[name] = 1 + strings.Count(b.String(), "\n")
			fmt.Fprintf(&b, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\n", name)
		}
		b.WriteString(strings.Repeat("{{ end }}", open))
		w := ofChart(map[string]string{"templates/_h.tpl": "{{ define \"three\" }}#\n#\n#{{ end }}", "templates/a.yaml": b.String()})
		objects, _, err := (&Renderer{}).Render(context.Background(), w.commit.tree(), w.req)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int{}
		for _, o := range objects {
			got[o.GetName()] = o.Line
		}
		if !maps.Equal(got, want) {
			t.Fatalf("got %v; want %v in\n%s", got, want, b.String())
		}
	})
}

func TestOrderOfKinds(t *testing.T) {
	var objects []manifest.Object
	for _, kind := range []string{"Zoo", "Deployment", "Alpha", "Namespace"} {
		o, _, err := manifest.Parse("x.yaml", []byte("apiVersion: v1\nkind: "+kind+"\nmetadata: {name: a}"))
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, o...)
	}
	slices.SortStableFunc(objects, installOrder())
	var got []string
	for _, o := range objects {
		got = append(got, o.GetKind())
	}
	if s := strings.Join(got, " "); s != "Namespace Deployment Alpha Zoo" {
		t.Error(s)
	}
}

// FuzzValues: any value file and parameter gives values or an error of this
// package, and merging an empty file changes nothing.
func FuzzValues(f *testing.F) {
	f.Add("a: 1\n---\nb: [1]\n", "a.b[0].c", "{x,y}")
	f.Add("a: {b: null}", "a\\.b", "1,2")
	f.Add("- 1", "[", "\\")
	f.Add("a:\n\tb", "a[2000000000]", "x")
	wanted := regexp.MustCompile(`^(v\.yaml|spec\.source\.helm)`)
	f.Fuzz(func(t *testing.T, file, name, value string) {
		h := &v1alpha1.SourceHelm{Parameters: []v1alpha1.HelmParameter{{Name: name, Value: value}, {Name: name, Value: value, ForceString: true}}, ValueFiles: []string{"/v.yaml"}}
		req := Request{Dir: "c", Helm: h}
		tree := source.NewTreeOf(memory{"v.yaml": file}, "r")
		_, err := (&valueReader{ctx: context.Background(), tree: tree, req: &req}).values()
		var bad *manifest.Error
		if err != nil && (!errors.As(err, &bad) || !wanted.MatchString(bad.Error())) {
			t.Fatalf("%T %v", err, err)
		}
		base, err := mergeYAML(map[string]any{}, "x", []byte(file))
		if err != nil {
			return
		}
		if again, err := mergeYAML(base, "x", nil); err != nil || fmt.Sprint(again) != fmt.Sprint(base) {
			t.Fatalf("%v %v %v", base, again, err)
		}
	})
}
