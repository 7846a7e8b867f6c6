package helm

import (
	"os"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	valuesutil "helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/engine"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// TestSameAsHelm runs templates here and in Helm's engine.
func TestSameAsHelm(t *testing.T) {
	text, err := os.ReadFile("testdata/functions.txt")
	if err != nil {
		t.Fatal(err)
	}
	helpers := "{{ define \"h\" }}[{{ .x }}{{ template \"g\" .y }}]{{ end }}{{ define \"g\" }}{{ . }}{{ end }}"
	for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		w := ofChart(map[string]string{
			"templates/_h.tpl": helpers, "templates/a.yaml": line, "charts/sub/Chart.yaml": "{apiVersion: v2, name: sub, version: 1.0.0}",
			"charts/sub/templates/_s.tpl": "{{ define \"s\" }}{{ .Chart.Name }} {{ .Values.global | toJson }}{{ end }}", "charts/sub/f/x": "sub",
			"conf/a.ini": "a=1\nb=2\n", "conf/b.bin": "\x00\x01", "values.yaml": "a: 1\nm: {z: 1.5, y: [1, {q: null}], x: \"t\"}\nglobal: {g: 1}\nempty:\n",
		})
		tree := w.commit.tree()
		l := &chartLoader{ctx: t.Context(), tree: tree, dir: "c", places: map[*byte]string{}, lazy: map[*byte]string{}}
		c, err := l.chart("c")
		if err != nil {
			t.Fatal(err)
		}
		req := w.req
		req.Helm = &v1alpha1.SourceHelm{ReleaseName: "r", Namespace: "ns"}
		scope, err := l.scope(c, map[string]any{"tpl": "{{ .Values.a }}-{{ include \"g\" \"in\" }}"}, req)
		if err != nil {
			t.Fatal(err)
		}
		out, ours := (&Renderer{}).execute(l, c, scope)
		for _, f := range append(c.Files, c.Dependencies()[0].Files...) {
			if f.Data, err = l.content(f.Data); err != nil {
				t.Fatal(err)
			}
		}
		caps, err := capabilities(req)
		if err != nil {
			t.Fatal(err)
		}
		again, err := valuesutil.ToRenderValues(c, map[string]any{"tpl": "{{ .Values.a }}-{{ include \"g\" \"in\" }}"}, common.ReleaseOptions{Name: "r", Namespace: "ns", Revision: 1, IsInstall: true}, caps)
		if err != nil {
			t.Fatal(err)
		}
		want, theirs := engine.Render(c, again)
		if (ours == nil) != (theirs == nil) {
			t.Errorf("%d: %s\nhere: %v\nHelm: %v", i+1, line, ours, theirs)
			continue
		}
		if ours != nil {
			continue
		}
		if got := string(out.rendered[0].text); got != want["c/templates/a.yaml"] {
			t.Errorf("%d: %s\nhere: %s\nHelm: %s", i+1, line, got, want["c/templates/a.yaml"])
		}
	}
}

// TestEveryFunctionOfHelm: Helm's engine must parse a call of each function
// that is known here, and this one a call of each that Helm knows.
func TestEveryFunctionOfHelm(t *testing.T) {
	l := &chartLoader{ctx: t.Context(), tree: memory{"c/Chart.yaml": chartYAML}.tree(), places: map[*byte]string{}, lazy: map[*byte]string{}}
	c, err := l.chart("c")
	if err != nil {
		t.Fatal(err)
	}
	for name := range functions() {
		c.Templates = []*common.File{{Name: "templates/a.yaml", Data: []byte("{{ if false }}{{ " + name + " }}{{ end }}")}}
		if _, err := engine.Render(c, common.Values{"Values": map[string]any{}}); err != nil && strings.Contains(err.Error(), "not defined") {
			switch name {
			case "print", "printf", "println":
			default:
				t.Errorf("Helm has no function %s", name)
			}
		}
	}
	for _, name := range []string{"include", "tpl", "required", "fail", "lookup", "toYaml", "fromToml", "mustToDuration", "durationSeconds", "durationMilliseconds",
		"durationMicroseconds", "durationNanoseconds", "durationMinutes", "durationHours", "durationDays", "durationWeeks", "durationRoundTo", "durationTruncateTo"} {
		if _, err := compile([]unit{{name: "a", data: []byte("{{ if false }}{{ " + name + " }}{{ end }}")}}, functions()); err != nil {
			t.Error(err)
		}
	}
}
