package directory

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/rendertest"
)

func configMap(name, data string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %q}\ndata: {a: %q}\n", name, data)
}

func names(objects []manifest.Object) string {
	var out []string
	for _, o := range objects {
		out = append(out, o.GetName())
	}
	return strings.Join(out, " ")
}

func TestRender(t *testing.T) {
	utf16LE := func(s string) string {
		b := []byte{0xff, 0xfe}
		for _, u := range utf16.Encode([]rune(s)) {
			b = binary.LittleEndian.AppendUint16(b, u)
		}
		return string(b)
	}
	big := strings.Repeat("x", 5_000_000)
	for name, c := range map[string]struct {
		files   rendertest.Files
		options v1alpha1.SourceDirectory
		want    string // names, or a part of the error
	}{
		"order":         {rendertest.Files{"d/b.yaml": configMap("b", ""), "d/a.yml": configMap("a", ""), "d/a/z.yaml": configMap("z", "")}, v1alpha1.SourceDirectory{Recurse: true}, "z a b"},
		"not recursive": {rendertest.Files{"d/b.yaml": configMap("b", ""), "d/a/z.yaml": configMap("z", "")}, v1alpha1.SourceDirectory{}, "b"},
		"root":          {rendertest.Files{"a.yaml": configMap("a", ""), "d/b.yaml": configMap("b", "")}, v1alpha1.SourceDirectory{}, "b"},
		"5 MB":          {rendertest.Files{"d/a.yaml": configMap("a", big)}, v1alpha1.SourceDirectory{}, "a"},
		"10 MB": {rendertest.Files{"d/a.yaml": configMap("a", big), "d/b.yaml": configMap("b", big)}, v1alpha1.SourceDirectory{},
			"d/b.yaml: the manifests of this source have more than 10 MB together"},
		"excluded 10 MB":    {rendertest.Files{"d/a.yaml": configMap("a", big), "d/b.yaml": configMap("b", big)}, v1alpha1.SourceDirectory{Exclude: "b*"}, "a"},
		"UTF-8 mark":        {rendertest.Files{"d/a.yaml": "\xef\xbb\xbf" + configMap("a", "")}, v1alpha1.SourceDirectory{}, "a"},
		"UTF-16":            {rendertest.Files{"d/a.yaml": utf16LE(configMap("ä", ""))}, v1alpha1.SourceDirectory{}, "ä"},
		"half UTF-16":       {rendertest.Files{"d/a.yaml": "\xff\xfea"}, v1alpha1.SourceDirectory{}, "odd number of bytes"},
		"any extension":     {rendertest.Files{"d/a.txt": configMap("a", ""), "d/notes": "hello"}, v1alpha1.SourceDirectory{DisableExtensionFilter: true}, "a"},
		"link loop":         {rendertest.Files{"d/a.yaml": "-> b.yaml", "d/b.yaml": "-> a.yaml"}, v1alpha1.SourceDirectory{}, "too many symbolic links"},
		"link to parent":    {rendertest.Files{"d/a.yaml": configMap("a", ""), "d/loop": "-> ../d"}, v1alpha1.SourceDirectory{Recurse: true}, "a"},
		"link to folder":    {rendertest.Files{"d/sub.yaml": "-> ../e", "e/a.yaml": configMap("a", "")}, v1alpha1.SourceDirectory{}, ""},
		"through links":     {rendertest.Files{"d/a.yaml": "-> ../l/a.yaml", "l": "-> e", "e/a.yaml": configMap("a", "")}, v1alpha1.SourceDirectory{}, "a"},
		"absolute link":     {rendertest.Files{"d/a.yaml": "-> /etc/passwd"}, v1alpha1.SourceDirectory{}, "leads out of the repository"},
		"mark in a comment": {rendertest.Files{"d/a.yaml": "# +argocd:skip-file-rendering\n" + configMap("a", "")}, v1alpha1.SourceDirectory{}, ""},
		"mark in Jsonnet":   {rendertest.Files{"d/a.jsonnet": "// +argocd:skip-file-rendering\nerror 'x'"}, v1alpha1.SourceDirectory{}, ""},
		"library":           {rendertest.Files{"d/a.libsonnet": "error 'x'"}, v1alpha1.SourceDirectory{}, ""},
		"broken manifest":   {rendertest.Files{"d/a.yaml": "apiVersion: v1\nkind: A\nmetadata:\n\t- x"}, v1alpha1.SourceDirectory{}, "d/a.yaml:4"},
		"broken other":      {rendertest.Files{"d/a.yaml": "values:\n\t- x"}, v1alpha1.SourceDirectory{}, ""},
		"broken JSON":       {rendertest.Files{"d/a.json": "{"}, v1alpha1.SourceDirectory{}, "not JSON"},
		"broken second":     {rendertest.Files{"d/a.yaml": configMap("a", "") + "---\nx: [\n"}, v1alpha1.SourceDirectory{}, "d/a.yaml:6"},
		"spec.items":        {rendertest.Files{"d/a.yaml": "apiVersion: v1\nkind: A\nmetadata: {name: a}\nspec: {items: [1]}\n"}, v1alpha1.SourceDirectory{}, "a"},
		"deep folders":      {rendertest.Files{"d/" + strings.Repeat("x/", 80) + "a.yaml": configMap("a", "")}, v1alpha1.SourceDirectory{Recurse: true}, "nested too deep"},
	} {
		t.Run(name, func(t *testing.T) {
			objects, _, err := Render(context.Background(), c.files.Tree(), "d", &c.options, nil)
			if err == nil {
				if got := names(objects); got != c.want {
					t.Errorf("got %s; want %s", got, c.want)
				}
				return
			}
			var e *manifest.Error
			if !errors.As(err, &e) || c.want == "" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v; want %s", err, c.want)
			}
		})
	}
}
