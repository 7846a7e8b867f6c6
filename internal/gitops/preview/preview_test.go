package preview

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"pgregory.net/rapid"

	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// parse reads the objects of a section.
func parse(t *testing.T, file string, data []byte) []manifest.Object {
	t.Helper()
	objects, _, err := manifest.Parse(file, data)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// TestGolden compares the Markdown of each file in testdata: sections
// before/<application>.yaml and after/<application>.yaml are its objects, the
// section want is the result.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := reportOf(t, archive).Markdown(Limit)
			last := len(archive.Files) - 1
			if *update {
				archive.Files[last].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := string(archive.Files[last].Data); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func reportOf(t *testing.T, archive *txtar.Archive) Report {
	t.Helper()
	r := Report{Base: strings.Repeat("b", 40), Head: strings.Repeat("a", 40), Branch: "main", Followers: 5}
	apps := map[string]*Application{}
	var order []string
	for _, f := range archive.Files {
		side, name, ok := strings.Cut(strings.TrimSuffix(f.Name, ".yaml"), "/")
		if !ok {
			continue
		}
		a := apps[name]
		if a == nil {
			a = &Application{Namespace: "argocd", Name: name, Cluster: "in-cluster", Target: name, Path: "overlays/" + name, Masked: []string{"contoso.com/key"}}
			apps[name] = a
			order = append(order, name)
		}
		switch side {
		case "before":
			a.Before = parse(t, "overlays/"+name+"/all.yaml", f.Data)
		case "after":
			a.After = parse(t, "overlays/"+name+"/all.yaml", f.Data)
		case "problem":
			place, message, _ := strings.Cut(strings.TrimSpace(string(f.Data)), " ")
			p := Problem{Message: message}
			if _, err := fmt.Sscanf(strings.Replace(place, ":", " ", 1), "%s %d", &p.File, &p.Line); err != nil {
				t.Fatal(err)
			}
			a.Problems = append(a.Problems, p)
		}
	}
	for _, name := range order {
		r.Outcomes = append(r.Outcomes, Compare(*apps[name]))
	}
	return r
}

const deployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: %s, namespace: shop}
spec: {replicas: %d, text: %q}
`

func TestSecretsAreNotShown(t *testing.T) {
	const secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, annotations: {contoso.com/key: %[1]s, kubectl.kubernetes.io/last-applied-configuration: %[1]s}}\ndata: {k: %[1]s, same: c2FtZQ==}\nstringData: {t: %[1]s}\n"
	for name, sides := range map[string][2]string{
		"changed": {fmt.Sprintf(secret, "aHVudGVyMQ=="), fmt.Sprintf(secret, "aHVudGVyMg==")},
		"added":   {"", fmt.Sprintf(secret, "aHVudGVyMg==")},
		"removed": {fmt.Sprintf(secret, "aHVudGVyMQ=="), ""},
		"wrong":   {fmt.Sprintf(secret, "aHVudGVyMQ=="), "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: aHVudGVyMg==\nstringData: [aHVudGVyMg==]\n"},
	} {
		a := Application{Name: "a", Before: parse(t, "f", []byte(sides[0])), After: parse(t, "f", []byte(sides[1])), Masked: []string{"contoso.com/key"}}
		out := Compare(a)
		if len(out.Objects) != 1 {
			t.Fatalf("%s: %d objects", name, len(out.Objects))
		}
		text := Report{Outcomes: []Outcome{out}}.Markdown(Limit)
		if strings.Contains(text, "aHVudGVy") {
			t.Errorf("%s: a value is shown:\n%s", name, text)
		}
		if name == "changed" && !strings.Contains(text, "not the same") {
			t.Errorf("that a value changed is not shown:\n%s", text)
		}
		if strings.Contains(text, "c2FtZQ") {
			t.Errorf("a value that is the same is shown:\n%s", text)
		}
	}
}

// TestMarkdownIsBounded holds whatever the input is.
func TestMarkdownIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(4096, 20_000).Draw(t, "limit")
		r := Report{Base: "b", Head: "a", Branch: "main", Followers: 100}
		objects := 0
		for i := range rapid.IntRange(0, 80).Draw(t, "apps") {
			a := Application{Name: fmt.Sprintf("app-%d", i), Cluster: "c", Target: rapid.StringN(0, 300, 900).Draw(t, "namespace")}
			for j := range rapid.IntRange(0, 4).Draw(t, "objects") {
				text := fmt.Sprintf(deployment, fmt.Sprintf("d%d", j), i, strings.Repeat(rapid.SampledFrom([]string{"x", "`", "é", "x\n", "```\n</details>@all"}).Draw(t, "text"), rapid.IntRange(0, 3000).Draw(t, "length")))
				got, _, err := manifest.Parse("f.yaml", []byte(text))
				if err != nil {
					t.Fatal(err)
				}
				a.After = append(a.After, got...)
				objects++
			}
			if rapid.Bool().Draw(t, "problem") {
				a.Problems = []Problem{{File: "f", Line: 3, Message: rapid.StringN(0, 2000, 5000).Draw(t, "message"), Old: true}}
			}
			r.Outcomes = append(r.Outcomes, Compare(a))
		}
		text := r.Markdown(limit)
		if len(text) > limit {
			t.Fatalf("%d bytes of at most %d", len(text), limit)
		}
		shown, more := strings.Count(text, "\n</details>\n"), 0
		if _, tail, ok := strings.Cut(text, "\n_"); ok && strings.Contains(text, "no room here") {
			at := strings.LastIndex(text, "\n_")
			tail = text[at+2:]
			if _, err := fmt.Sscanf(tail, "%d more", &more); err != nil {
				t.Fatalf("%q: %v", tail, err)
			}
		}
		if shown+more != objects {
			t.Fatalf("%d shown and %d counted of %d objects", shown, more, objects)
		}
	})
}

func TestNothingEndsABlock(t *testing.T) {
	after := parse(t, "a`b.yaml", []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  k: |\n    ```\n    @everyone </details>\n    ````\n"))
	r := Report{Branch: "main", Outcomes: []Outcome{Compare(Application{Name: "a|b", Cluster: "<b>", After: after}), {Name: "x", Problems: []Problem{{File: "f", Message: "`@everyone`\nnext"}}}}}
	text := r.Markdown(Limit)
	if !strings.Contains(text, "\n`````diff\n") || strings.Count(text, "\n`````") != 2 {
		t.Errorf("the fence can be closed from inside:\n%s", text)
	}
	if !strings.Contains(text, "`` `@everyone` next ``") {
		t.Errorf("the message is no code span:\n%s", text)
	}
	if !strings.Contains(text, `a\|b`) {
		t.Errorf("the cell can be closed from inside:\n%s", text)
	}
}

func TestWhatDoesNotRenderIsNotRemoved(t *testing.T) {
	out := Compare(Application{Name: "a", Before: parse(t, "f", fmt.Appendf(nil, deployment, "d", 1, "")), Problems: []Problem{{Message: "bad"}}})
	if len(out.Objects) != 0 {
		t.Errorf("objects %+v", out.Objects)
	}
}

func TestSummary(t *testing.T) {
	one := []Object{{Action: Added}}
	for want, r := range map[string]Report{
		"no object of 3 applications changes":                                        {Followers: 3},
		"no object of 1 application changes":                                         {Followers: 1, Outcomes: []Outcome{{}}},
		"1 of 3 applications change: 1 object added":                                 {Followers: 3, Outcomes: []Outcome{{Objects: one}}},
		"1 application cannot be synced":                                             {Followers: 1, Outcomes: []Outcome{{Problems: []Problem{{Message: "x"}}}}},
		"1 application cannot be synced; 1 of 2 applications change: 1 object added": {Followers: 2, Outcomes: []Outcome{{Problems: []Problem{{}}}, {Objects: one}}},
	} {
		if got := r.Summary(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestRefusalsNameThePlace(t *testing.T) {
	r := Report{Outcomes: []Outcome{{Name: "shop", Problems: []Problem{{File: "a.yaml", Line: 7, Message: "bad\nindent", Hint: "Use spaces."}, {Message: "old", Old: true}}}}}
	got := r.Refusals()
	if len(got) != 1 || got[0] != "application shop: a.yaml:7: bad indent. Use spaces." {
		t.Errorf("%q", got)
	}
}
