package render

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/rendertest"
)

const examples = "../../../examples/gitops"

// TestExamples renders every Application of examples/gitops, those in its
// app of apps too, and compares the names of the objects.
func TestExamples(t *testing.T) {
	files := rendertest.Files{}
	err := fs.WalkDir(os.DirFS(examples), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(os.DirFS(examples), p)
		files[p] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	r := New()
	readme := files["README.md"]
	used := map[string]bool{"README.md": true}
	var out strings.Builder
	render := func(parent string, app v1alpha1.Application) []v1alpha1.Application {
		res, err := r.Render(context.Background(), files.TreeAt("0123456789abcdef"), Request{
			App: app.Name, Namespace: app.Spec.Destination.Namespace, Project: app.Spec.Project, Source: *app.Spec.Source, KubeVersion: "1.37.2",
		})
		if err != nil {
			t.Errorf("%s: %v", app.Name, err)
			return nil
		}
		for p, id := range res.Inputs {
			used[p] = used[p] || len(id) == 40
		}
		if folder, _, _ := strings.Cut(app.Spec.Source.Path, "/"); !strings.Contains(readme, "`"+folder+"/`") {
			t.Errorf("README.md does not mention %s/", folder)
		}
		fmt.Fprintf(&out, "%s%s: %s\n", parent, app.Name, res.Tool)
		for _, w := range res.Warnings {
			t.Errorf("%s: warning: %s", app.Name, w)
		}
		var children []v1alpha1.Application
		for _, o := range res.Objects {
			fmt.Fprintf(&out, "  %s %s %s\n", o.GetKind(), o.GetName(), o.Place())
			if o.GetKind() == "Application" {
				raw, err := yaml.Marshal(o.Object)
				var child v1alpha1.Application
				if err == nil {
					err = yaml.UnmarshalStrict(raw, &child)
				}
				if err != nil {
					t.Errorf("%s: %v", o.GetName(), err)
				}
				children = append(children, child)
			}
		}
		return children
	}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		if path.Dir(p) != "applications" {
			continue
		}
		used[p] = true
		var app v1alpha1.Application
		if err := yaml.UnmarshalStrict([]byte(files[p]), &app); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		if app.Name != strings.TrimSuffix(path.Base(p), ".yaml") {
			t.Errorf("%s has the Application %s", p, app.Name)
		}
		for _, child := range render("", app) {
			render(app.Name+"/", child)
		}
	}
	for p := range files {
		if !used[p] && path.Base(p) != "NOTES.txt" {
			t.Errorf("no example uses %s", p)
		}
	}
	const want = "testdata/examples.txt"
	if *update {
		if err := os.WriteFile(want, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if data, err := os.ReadFile(want); err != nil || string(data) != out.String() {
		t.Errorf("%v\ngot:\n%s\nwant:\n%s", err, out.String(), data)
	}
}
