package syntax

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the expected diagnostics of the bad files")

// TestBadFiles: each testdata/*.bad.yml stands beside the exact diagnostics.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d bad files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			w, diagnostics := Load("ci.yml", content)
			if w != nil {
				t.Error("a bad file gave a workflow")
			}
			var b strings.Builder
			for _, d := range diagnostics {
				level := "warning"
				if d.Fatal {
					level = "error"
				}
				b.WriteString(level + " " + d.String() + "\n")
			}
			golden := strings.TrimSuffix(file, ".yml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if b.String() != string(want) {
				t.Errorf("got\n%swant\n%s", b.String(), want)
			}
		})
	}
}

func TestGoodFile(t *testing.T) {
	content, err := os.ReadFile("testdata/all.good.yml")
	if err != nil {
		t.Fatal(err)
	}
	w, diagnostics := Load("ci.yml", content)
	if w == nil {
		t.Fatalf("refused: %v", diagnostics)
	}
	var warnings []string
	for _, d := range diagnostics {
		warnings = append(warnings, d.String())
	}
	var want []string
	if strings.Join(warnings, "\n") != strings.Join(want, "\n") {
		t.Errorf("warnings\n%s\nwant\n%s", strings.Join(warnings, "\n"), strings.Join(want, "\n"))
	}
	if w.Name != "all" || len(w.Jobs) != 2 || w.Jobs[0].ID != "zeta" || w.Jobs[1].Needs[0] != "zeta" {
		t.Errorf("jobs in file order: %+v", w.Jobs)
	}
	push := w.Event("push")
	if push == nil || strings.Join(push.Branches, ",") != "main,!old" || push.Tags != nil {
		t.Errorf("push %+v", push)
	}
	in := w.Event("workflow_dispatch").Inputs
	if len(in) != 2 || in[0].Name != "level" || in[0].Type != "choice" || len(in[0].Options) != 2 || !in[1].Required {
		t.Errorf("inputs %+v", in)
	}
	if v := w.Env.Vars; len(v) != 3 || v[0].Name != "Z_FIRST" || v[0].Value.Value != "1.2" || v[1].Value.Value != "1.20" || v[2].Value.Value != "true" {
		t.Errorf("env %+v", v)
	}
	steps := w.Jobs[0].Steps
	if s := steps[0]; s.Uses.Value != "actions/checkout@v4" || s.With[0].Name != "fetch-depth" || s.With[0].Value.Value != "0" {
		t.Errorf("uses %+v", s)
	}
	if r := steps[1].Run; !r.Block || r.LineAt(strings.Index(r.Value, "two")) != 44 {
		t.Errorf("block %+v line %d", r, r.LineAt(strings.Index(r.Value, "two")))
	}
	rows := w.Jobs[1].Strategy.Rows
	if len(rows) != 2 || rows[0].Name != "go" || rows[0].Values[0] != 1.2 || rows[0].Values[1].(Text).Value != "1.21" {
		t.Errorf("matrix %+v", rows)
	}
	if !w.Permissions.Write("contents") || w.Permissions.Write("packages") {
		t.Errorf("permissions %+v", w.Permissions)
	}
}

func TestExampleWorkflowLoads(t *testing.T) {
	content, err := os.ReadFile("../../../examples/storefront/.github/workflows/ci.yaml")
	if err != nil {
		t.Skip(err)
	}
	if w, diagnostics := Load("ci.yaml", content); w == nil || len(diagnostics) > 0 {
		t.Errorf("%v", diagnostics)
	}
}

func FuzzLoad(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.yml")
	for _, file := range files {
		if content, err := os.ReadFile(file); err == nil {
			f.Add(content)
		}
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		w, diagnostics := Load("f.yml", content)
		if w != nil {
			return
		}
		for _, d := range diagnostics {
			if d.Fatal && d.Line > 0 {
				return
			}
		}
		t.Fatalf("refused without a fatal diagnostic: %v", diagnostics)
	})
}
