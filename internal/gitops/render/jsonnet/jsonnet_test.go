package jsonnet

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/environment"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/rendertest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

const object = `{apiVersion: 'v1', kind: 'ConfigMap', metadata: {name: 'a'}}`

func render(t testing.TB, f rendertest.Files, options v1alpha1.SourceJsonnet) (*source.Tree, []manifest.Object, error) {
	t.Helper()
	tree := f.Tree()
	vm, err := New(tree, "app", options, environment.Of(environment.Facts{App: "shop"}))
	if err != nil {
		t.Fatal(err)
	}
	objects, err := vm.Render(context.Background(), "app/main.jsonnet")
	return tree, objects, err
}

func TestVariablesAndImports(t *testing.T) {
	tree, objects, err := render(t, rendertest.Files{
		"app/main.jsonnet": `
local kube = import 'kube.libsonnet';
local text = importstr './note.txt';
function(name, count) [
  kube.map(name + '-' + std.extVar('team'), {count: std.toString(count), code: std.toString(std.extVar('n') + 1), text: text}),
  null,
]`,
		"app/note.txt":        "hello",
		"lib/kube.libsonnet":  `{map(name, data):: (import 'base.libsonnet') + {metadata: {name: name}, data: data}}`,
		"lib/base.libsonnet":  `{apiVersion: 'v1', kind: 'ConfigMap'}`,
		"lib2/base.libsonnet": `error 'the file beside the importing one comes first'`,
	}, v1alpha1.SourceJsonnet{
		ExtVars: []v1alpha1.JsonnetVar{{Name: "team", Value: "$ARGOCD_APP_NAME"}, {Name: "n", Value: "41", Code: true}},
		TLAs:    []v1alpha1.JsonnetVar{{Name: "name", Value: "web"}, {Name: "count", Value: "1+1", Code: true}},
		Libs:    []string{"lib", "/lib2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(objects) != 1 || objects[0].GetName() != "web-shop" || objects[0].File != "app/main.jsonnet" {
		t.Fatalf("got %v", objects)
	}
	data := objects[0].Object["data"].(map[string]any)
	if data["count"] != "2" || data["code"] != "42" || data["text"] != "hello" {
		t.Errorf("data: %v", data)
	}
	in := tree.Inputs()
	for _, p := range []string{"app/main.jsonnet", "app/kube.libsonnet", "lib2/kube.libsonnet", "lib/kube.libsonnet", "lib/base.libsonnet", "app/note.txt"} {
		if _, ok := in[p]; !ok {
			t.Errorf("%s is not an input: %v", p, in)
		}
	}
	if _, ok := in["lib2/base.libsonnet"]; ok {
		t.Error("a file that was not looked for is an input")
	}
}

func TestLastLibraryWins(t *testing.T) {
	_, objects, err := render(t, rendertest.Files{
		"app/main.jsonnet": `(import 'x.libsonnet')('a')`,
		"one/x.libsonnet":  `function(n) error 'the first'`,
		"two/x.libsonnet":  `function(n) ` + object,
	}, v1alpha1.SourceJsonnet{Libs: []string{"one", "two"}})
	if err != nil || len(objects) != 1 {
		t.Fatal(objects, err)
	}
}

func TestErrorsNameThePlace(t *testing.T) {
	for name, c := range map[string]struct {
		files      rendertest.Files
		file       string
		line       int
		want, hint string
	}{
		"syntax":    {rendertest.Files{"app/main.jsonnet": "{\n  a: 1,\n  b: }\n"}, "app/main.jsonnet", 3, "", ""},
		"runtime":   {rendertest.Files{"app/main.jsonnet": "local x = {};\nlocal f(y) =\n  y.missing;\nf(x)"}, "app/main.jsonnet", 3, "Field does not exist: missing", ""},
		"in lib":    {rendertest.Files{"app/main.jsonnet": "(import 'b.libsonnet').x", "app/b.libsonnet": "{\n  x: error 'no good'}"}, "app/b.libsonnet", 2, "no good", ""},
		"in std":    {rendertest.Files{"app/main.jsonnet": "\n[std.parseInt('x')]"}, "app/main.jsonnet", 2, "", ""},
		"parser":    {rendertest.Files{"app/main.jsonnet": "import 'b.libsonnet'", "app/b.libsonnet": "\n{"}, "app/b.libsonnet", 2, "", ""},
		"ext var":   {rendertest.Files{"app/main.jsonnet": "{\n a: std.extVar('team')}"}, "app/main.jsonnet", 2, "ndefined external variable: team", "extVars"},
		"no arg":    {rendertest.Files{"app/main.jsonnet": "function(x) x"}, "app/main.jsonnet", 0, "x", "tlas"},
		"import":    {rendertest.Files{"app/main.jsonnet": "local a =\n  import 'k.libsonnet';\n{b: a}"}, "app/main.jsonnet", 2, `import "k.libsonnet" is not in this commit`, "app/k.libsonnet"},
		"escape":    {rendertest.Files{"app/main.jsonnet": "import '../../x.libsonnet'"}, "app/main.jsonnet", 1, "leads out of the repository", ""},
		"absolute":  {rendertest.Files{"app/main.jsonnet": "importstr '/etc/passwd'"}, "app/main.jsonnet", 1, "is not a path in the repository", ""},
		"url":       {rendertest.Files{"app/main.jsonnet": "import 'https://x/y.libsonnet'"}, "app/main.jsonnet", 1, "is not a path in the repository", ""},
		"directory": {rendertest.Files{"app/main.jsonnet": "import 'd'", "app/d/x": "1"}, "app/main.jsonnet", 1, "app/d is a directory", ""},
		"nested":    {rendertest.Files{"app/main.jsonnet": "[[" + object + "]]"}, "app/main.jsonnet", 0, "the result is not an object", "std.flattenArrays"},
		"map":       {rendertest.Files{"app/main.jsonnet": "{a: " + object + "}"}, "app/main.jsonnet", 0, "neither apiVersion nor kind", "std.objectValues"},
		"empty":     {rendertest.Files{"app/main.jsonnet": "{}"}, "app/main.jsonnet", 0, "neither apiVersion nor kind", ""},
		"text":      {rendertest.Files{"app/main.jsonnet": "'x'"}, "app/main.jsonnet", 0, "the result is not an object", ""},
		"second":    {rendertest.Files{"app/main.jsonnet": "[" + object + ", 1]"}, "app/main.jsonnet", 0, "element 1 of the result", ""},
		"deep":      {rendertest.Files{"app/main.jsonnet": "local f(x) = 1 + f(x); f(1)"}, "app/main.jsonnet", 1, "max stack frames exceeded", "recursion"},
		"endless":   {rendertest.Files{"app/main.jsonnet": "local f(x) = f(x + 1) tailstrict;\nf(1)"}, "app/main.jsonnet", 1, "recurses too deep", "recursion"},
		"no native": {rendertest.Files{"app/main.jsonnet": "std.native('exec')('ls')"}, "app/main.jsonnet", 1, "", ""},
		"nesting":   {rendertest.Files{"app/main.jsonnet": strings.Repeat("[", 1<<20)}, "app/main.jsonnet", 0, "nested too deep", ""},
		"not":       {rendertest.Files{"app/main.jsonnet": strings.Repeat("!", 1<<20)}, "app/main.jsonnet", 0, "nested too deep", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := render(t, c.files, v1alpha1.SourceJsonnet{})
			var e *manifest.Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			if e.File != c.file || e.Line != c.line || !strings.Contains(e.Message, c.want) || !strings.Contains(e.Hint, c.hint) {
				t.Errorf("got %v (hint %q); want %s:%d %q, hint %q", e, e.Hint, c.file, c.line, c.want, c.hint)
			}
		})
	}
}

// TestEndlessLoopLeavesNothingBehind: the evaluation is over when the error is
// returned, and the next one works.
func TestEndlessLoopLeavesNothingBehind(t *testing.T) {
	f := rendertest.Files{"app/main.jsonnet": "local a = std.range(1, 3000); [x + y + z for x in a for y in a for z in a if x < 0]", "app/good.jsonnet": object}
	vm, err := New(f.Tree(), "app", v1alpha1.SourceJsonnet{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	vm.duration = 50 * time.Millisecond
	if _, err := vm.Render(context.Background(), "app/main.jsonnet"); err == nil || !strings.Contains(err.Error(), "does not end: stopped after 50ms") {
		t.Fatal(err)
	}
	vm.duration = MaxDuration
	ctx, cancel := context.WithCancel(context.Background())
	stop := time.AfterFunc(50*time.Millisecond, cancel)
	defer stop.Stop()
	if _, err := vm.Render(ctx, "app/main.jsonnet"); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	objects, err := vm.Render(context.Background(), "app/good.jsonnet")
	if err != nil || len(objects) != 1 {
		t.Fatal(objects, err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 1 GB")
	}
	f := rendertest.Files{"app/main.jsonnet": "local a = std.range(1, 3000); std.length([[x, y, z, [x]] for x in a for y in a for z in a])"}
	vm, err := New(f.Tree(), "app", v1alpha1.SourceJsonnet{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = vm.Render(context.Background(), "app/main.jsonnet")
	if !errors.Is(err, errMemory) {
		t.Fatalf("got %v", err)
	}
}

func BenchmarkSmallFile(b *testing.B) {
	tree := rendertest.Files{"app/main.jsonnet": "local f(n) = " + object + " + {metadata+: {name: 'x%d' % n}}; [f(n) for n in std.range(1, 5)]"}.Tree()
	for b.Loop() {
		vm, err := New(tree, "app", v1alpha1.SourceJsonnet{}, nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := vm.Render(context.Background(), "app/main.jsonnet"); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzRender: whatever a file holds, an evaluation ends, reads nothing outside
// the tree and does not bring the process down.
func FuzzRender(f *testing.F) {
	f.Add([]byte("import 'b.libsonnet'"), []byte(object))
	f.Add([]byte("local a = importstr '../app/b.libsonnet'; [a]"), []byte("{"))
	f.Add([]byte("import '../../../etc/passwd'"), []byte(""))
	f.Add([]byte("std.parseYaml(importstr 'b.libsonnet')"), []byte("a: 1\n---\nb"))
	f.Fuzz(func(t *testing.T, main, lib []byte) {
		for _, costly := range []string{"repeat", "range", "makeArray", "*", "format", "%", "join"} { // a built-in may take any memory
			if bytes.Contains(main, []byte(costly)) || bytes.Contains(lib, []byte(costly)) {
				t.Skip()
			}
		}
		tree, objects, err := render(t, rendertest.Files{"app/main.jsonnet": string(main), "app/b.libsonnet": string(lib)}, v1alpha1.SourceJsonnet{})
		if err == nil && slices.ContainsFunc(objects, func(o manifest.Object) bool { return o.GetKind() == "" }) {
			t.Fatalf("object without kind from %q", main)
		}
		for p := range tree.Inputs() {
			if strings.HasPrefix(p, "/") || strings.Contains(p, "..") {
				t.Fatalf("input %q is outside the repository", p)
			}
		}
	})
}
