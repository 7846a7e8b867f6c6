package health

import (
	"path"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/internal/gitops/settings"
)

type ruleCase struct {
	Object  map[string]any `json:"object"`
	Health  string         `json:"health"`
	Message *string        `json:"message,omitempty"`
}

// TestRules runs the cases of every file below rules/.
func TestRules(t *testing.T) {
	assessor, warnings := New(nil)
	if len(warnings) > 0 {
		t.Fatal(warnings)
	}
	entries, err := files.ReadDir("rules")
	if err != nil {
		t.Fatal(err)
	}
	kinds := 0
	for _, e := range entries {
		data, err := files.ReadFile(path.Join("rules", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		rules, tests, ok := strings.Cut(string(data), "\n---\n")
		if !ok {
			t.Errorf("%s has no cases", e.Name())
			continue
		}
		var f fileSpec
		if err := yaml.UnmarshalStrict([]byte(rules), &f); err != nil {
			t.Fatal(err)
		}
		if f.Project == "" || f.Docs == "" {
			t.Errorf("%s does not say project and docs", e.Name())
		}
		var cases struct {
			Cases []ruleCase `json:"cases"`
		}
		if err := yaml.UnmarshalStrict([]byte(tests), &cases); err != nil {
			t.Fatalf("%s: %v", e.Name(), err)
		}
		tested := make([]int, len(f.Rules))
		for _, c := range cases.Cases {
			o := normal(t, c.Object)
			group, kind := groupOf(o.GetAPIVersion()), o.GetKind()
			for i, r := range f.Rules {
				for _, m := range r.Match {
					if p, err := settings.ParsePattern(m); err == nil && p.Matches(group, kind) {
						tested[i]++
					}
				}
			}
			got, ok := assessor.Of(o)
			if !ok {
				got.Code = "none"
			}
			if string(got.Code) != c.Health || (c.Message != nil && got.Message != *c.Message) {
				t.Errorf("%s: %v\ngot  %s %q\nwant %s", e.Name(), c.Object, got.Code, got.Message, c.Health)
				if c.Message != nil {
					t.Errorf("with %q", *c.Message)
				}
			}
		}
		for i, n := range tested {
			if n == 0 {
				t.Errorf("%s: the rule for %v has no case", e.Name(), f.Rules[i].Match)
			}
			for _, m := range f.Rules[i].Match {
				kinds += 1 + strings.Count(m, ",")
			}
		}
	}
	t.Logf("%d files for %d kinds", len(entries), kinds)
	if kinds < 60 {
		t.Errorf("only %d kinds", kinds)
	}
}

func normal(t testing.TB, o map[string]any) *unstructured.Unstructured {
	t.Helper()
	data, err := yaml.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(data))
}

func parse(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return o
}
