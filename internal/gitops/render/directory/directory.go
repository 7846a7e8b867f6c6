// Package directory renders a directory of plain manifests.
//
// Input: a tree, a path and the include/exclude patterns. Output: the objects
// of every YAML and JSON file, in the order of the file names.
package directory

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

const (
	maxFiles = 20000
	skipMark = "+argocd:skip-file-rendering"
)

// Render reads the manifests below dir. Options may be nil.
func Render(ctx context.Context, tree *source.Tree, dir string, options *v1alpha1.SourceDirectory) ([]manifest.Object, []manifest.Warning, error) {
	if options == nil {
		options = &v1alpha1.SourceDirectory{}
	}
	r := reader{tree: tree, root: dir, options: *options}
	var err error
	if r.include, err = Glob(options.Include); err != nil {
		return nil, nil, fmt.Errorf("spec.source.directory.include: %w", err)
	}
	if r.exclude, err = Glob(options.Exclude); err != nil {
		return nil, nil, fmt.Errorf("spec.source.directory.exclude: %w", err)
	}
	if err := r.walk(ctx, dir, 0); err != nil {
		return nil, nil, err
	}
	return r.objects, r.warnings, nil
}

type reader struct {
	tree             *source.Tree
	root             string
	options          v1alpha1.SourceDirectory
	include, exclude *regexp.Regexp
	files            int
	objects          []manifest.Object
	warnings         []manifest.Warning
}

func (r *reader) walk(ctx context.Context, dir string, depth int) error {
	if depth > 64 {
		return &manifest.Error{File: dir, Message: "directories are nested too deep", Hint: "Look for a symbolic link to a parent directory."}
	}
	entries, err := r.tree.ReadDir(ctx, dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		p := path.Join(dir, e.Name)
		if e.Dir {
			if r.options.Recurse {
				if err := r.walk(ctx, p, depth+1); err != nil {
					return err
				}
			}
			continue
		}
		if err := r.file(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) file(ctx context.Context, p string) error {
	ext := path.Ext(p)
	if ext != ".yaml" && ext != ".yml" && ext != ".json" && ext != ".jsonnet" && !r.options.DisableExtensionFilter {
		return nil
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(p, r.root), "/")
	if r.include != nil && !r.include.MatchString(rel) || r.exclude != nil && r.exclude.MatchString(rel) {
		return nil
	}
	if ext == ".jsonnet" {
		return &manifest.Error{File: p, Message: "Jsonnet is not rendered yet", Hint: "Exclude the file (spec.source.directory.exclude) or commit the rendered YAML."}
	}
	if r.files++; r.files > maxFiles {
		return &manifest.Error{File: r.root, Message: fmt.Sprintf("has more than %d manifest files", maxFiles)}
	}
	data, err := r.tree.ReadFile(ctx, p)
	if err != nil {
		return err
	}
	if bytes.Contains(data, []byte(skipMark)) {
		return nil
	}
	objects, warnings, err := manifest.Parse(p, data)
	if err != nil {
		return err
	}
	r.objects = append(r.objects, objects...)
	r.warnings = append(r.warnings, warnings...)
	return nil
}

// Glob compiles a pattern of Argo CD: "*" crosses directories, "{a,b}" is a
// choice, "[a-z]" a class. It returns nil for "".
func Glob(pattern string) (*regexp.Regexp, error) {
	if pattern == "" {
		return nil, nil
	}
	var b strings.Builder
	b.WriteString("^(?s:")
	depth := 0
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '*':
			b.WriteString(".*")
		case c == '?':
			b.WriteString(".")
		case c == '{':
			depth++
			b.WriteString("(?:")
		case c == '}' && depth > 0:
			depth--
			b.WriteString(")")
		case c == ',' && depth > 0:
			b.WriteString("|")
		case c == '[':
			end := strings.IndexByte(pattern[i:], ']')
			if end < 0 {
				return nil, fmt.Errorf("pattern %q: [ is not closed", pattern)
			}
			class := pattern[i+1 : i+end]
			b.WriteString("[")
			if strings.HasPrefix(class, "!") {
				b.WriteString("^")
				class = class[1:]
			}
			b.WriteString(strings.ReplaceAll(class, `\`, `\\`) + "]")
			i += end
		case c == '\\' && i+1 < len(pattern):
			i++
			b.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		default:
			b.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		}
	}
	if depth != 0 {
		return nil, fmt.Errorf("pattern %q: { is not closed", pattern)
	}
	b.WriteString(")$")
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	return re, nil
}
