package ignore

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

func sample() map[string]any {
	return map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{"a.b/c": "1", "t~x": "2"}},
		"spec": map[string]any{
			"replicas": int64(3), "ratio": 0.5, "none": nil,
			"containers": []any{
				map[string]any{"name": "web", "image": "w", "env": []any{map[string]any{"name": "A", "value": "1"}}},
				map[string]any{"name": "side", "image": "s"},
			},
		},
	}
}

func TestPaths(t *testing.T) {
	for _, c := range []struct{ rule, want string }{
		{"/spec/replicas", "[[spec replicas]]"},
		{"/metadata/annotations/a.b~1c", "[[metadata annotations a.b/c]]"},
		{"/metadata/annotations/t~0x", "[[metadata annotations t~x]]"},
		{"/spec/containers/1/image", "[[spec containers 1 image]]"},
		{"/spec/containers/-1", "[[spec containers 1]]"},
		{"/spec/containers/2", "[]"},
		{"/spec/containers/*/image", "[]"},
		{"spec/replicas", "[]"},
		{"/spec/none", "[[spec none]]"},
		{"", "[]"},
		{".spec.replicas", "[[spec replicas]]"},
		{".spec.containers[].image", "[[spec containers 0 image] [spec containers 1 image]]"},
		{`.spec.containers[] | select(.name == "side")`, "[[spec containers 1]]"},
		{`.spec.containers[]?.env[]? | select(.name == "A").value`, "[[spec containers 0 env 0 value]]"},
		{".spec.containers[-1].image", "[[spec containers 1 image]]"},
		{".spec.missing[].x", "[]"},
		{".spec.missing", "[]"},
		{".spec.replicas, .spec.ratio", "[[spec replicas] [spec ratio]]"},
		{`.metadata.annotations["a.b/c"]`, "[[metadata annotations a.b/c]]"},
		{`.metadata.annotations | to_entries[]`, "[]"}, // no path
		{".. | .image?", "[[spec containers 0 image] [spec containers 1 image]]"},
		{".", "[]"},
		{"env.HOME", "[]"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			rule := Rule{Origin: "x"}
			if strings.HasPrefix(c.rule, ".") || strings.HasPrefix(c.rule, "env") {
				rule.JQPathExpressions = []string{c.rule}
			} else {
				rule.JSONPointers = []string{c.rule}
			}
			paths, errs := NewExpressions(0).Paths([]Rule{rule}, sample())
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			var got []any
			for _, p := range paths {
				got = append(got, p.Steps)
			}
			if fmt.Sprint(got) != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	for expression, want := range map[string]string{
		".spec[":                                     "does not parse",
		"nothing_like_this":                          "does not compile",
		"last(range(1e12) as $i | .spec)":            "did not end within 50ms",
		strings.Repeat(" ", maxExpression+1):         "has more than",
		"(range(20000) | . as $i | 1) as $i | .spec": "names more than",
	} {
		e := NewExpressions(time.Minute)
		if strings.Contains(want, "did not end") {
			e = NewExpressions(50 * time.Millisecond)
		}
		_, errs := e.Paths([]Rule{{IgnoreDifferences: v1alpha1.IgnoreDifferences{JQPathExpressions: []string{expression}}, Origin: "rule"}}, sample())
		if len(errs) != 1 || !strings.Contains(errs[0].Error(), want) {
			t.Errorf("%.40s: %v", expression, errs)
		}
	}
	bad := Check([]v1alpha1.IgnoreDifferences{{JSONPointers: []string{"spec", "/a/*/b", "/ok"}, JQPathExpressions: []string{".a[", ".ok"}}, {Kind: "X"}})
	if len(bad) != 4 {
		t.Errorf("%q", bad)
	}
}

func TestAbout(t *testing.T) {
	for _, c := range []struct {
		rule v1alpha1.IgnoreDifferences
		want bool
	}{
		{v1alpha1.IgnoreDifferences{Group: "apps", Kind: "Deployment"}, true},
		{v1alpha1.IgnoreDifferences{Group: "*", Kind: "*"}, true},
		{v1alpha1.IgnoreDifferences{Kind: "Deployment"}, false},
		{v1alpha1.IgnoreDifferences{Group: "apps", Kind: "{Deployment,StatefulSet}", Name: "w*", Namespace: "n?"}, true},
		{v1alpha1.IgnoreDifferences{Group: "apps", Kind: "Deployment", Name: "other"}, false},
	} {
		if got := (Rule{IgnoreDifferences: c.rule}).About("apps", "Deployment", "ns", "web"); got != c.want {
			t.Errorf("%+v: %v", c.rule, got)
		}
	}
}

func FuzzPaths(f *testing.F) {
	for _, s := range []string{"/spec/replicas", "/a/~01/-1", ".spec[]?", `.a | select(.b == "c")`, "..", "path(.)", "def f: f; f", ")|(", "input", "$__loc__", "getpath([\"a\",0])", ".[1:2]"} {
		f.Add(s)
	}
	e := NewExpressions(20 * time.Millisecond)
	f.Fuzz(func(t *testing.T, text string) {
		object := sample()
		rules := []Rule{{IgnoreDifferences: v1alpha1.IgnoreDifferences{JSONPointers: []string{text}, JQPathExpressions: []string{text}}}}
		paths, _ := e.Paths(rules, object)
		for _, p := range paths {
			if len(p.Steps) == 0 || !exists(object, p.Steps) {
				t.Fatalf("%q names %v, which is not there", text, p.Steps)
			}
		}
		if fmt.Sprint(object) != fmt.Sprint(sample()) {
			t.Fatalf("%q changed the object", text)
		}
	})
}
