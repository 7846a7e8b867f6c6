package jsonnet

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	gojsonnet "github.com/google/go-jsonnet"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// importer reads imports from a tree: relative to the file that imports, then
// in the library folders, the last one first, as the jsonnet command does. The
// paths that it gives Jsonnet start with "/", the root of the repository.
type importer struct {
	ctx     context.Context // of the evaluation under way; the interface has no place for it
	tree    *source.Tree
	folders []string
	found   map[string]gojsonnet.Contents
	failed  error // the first one, with a hint
}

// Import implements gojsonnet.Importer.
func (m *importer) Import(from, name string) (gojsonnet.Contents, string, error) {
	if from == "" { // the file that is evaluated
		return m.read(strings.TrimPrefix(name, "/"))
	}
	if path.IsAbs(name) || strings.Contains(name, "://") {
		return m.fail(&manifest.Error{
			Message: fmt.Sprintf("import %q is not a path in the repository", name),
			Hint:    "Import a file relative to this one, or to a folder of spec.source.directory.jsonnet.libs.",
		})
	}
	tried := []string{path.Join(path.Dir(strings.TrimPrefix(from, "/")), name)}
	for i := len(m.folders) - 1; i >= 0; i-- {
		tried = append(tried, path.Join(m.folders[i], name))
	}
	for _, p := range tried {
		contents, at, err := m.read(p)
		if errors.Is(err, git.ErrNotFound) {
			continue
		}
		if err != nil {
			return m.fail(&manifest.Error{Message: fmt.Sprintf("import %q: %v", name, err), Err: err})
		}
		return contents, at, nil
	}
	return m.fail(&manifest.Error{
		Message: fmt.Sprintf("import %q is not in this commit", name),
		Hint:    "Looked for " + strings.Join(unique(tried), ", ") + ". Name library folders in spec.source.directory.jsonnet.libs, relative to the root of the repository.",
	})
}

func (m *importer) fail(err *manifest.Error) (gojsonnet.Contents, string, error) {
	if m.failed == nil {
		m.failed = err
	}
	return gojsonnet.Contents{}, "", err
}

func (m *importer) read(p string) (gojsonnet.Contents, string, error) {
	if c, ok := m.found[p]; ok {
		return c, "/" + p, nil
	}
	_, kind, err := m.tree.Stat(m.ctx, p)
	if err != nil {
		return gojsonnet.Contents{}, "", err
	}
	if kind == source.Dir {
		if _, err := m.tree.ReadDir(m.ctx, p); err != nil { // so that it is an input
			return gojsonnet.Contents{}, "", err
		}
		return gojsonnet.Contents{}, "", fmt.Errorf("%s is a directory", p)
	}
	data, err := m.tree.ReadFile(m.ctx, p)
	if err != nil {
		return gojsonnet.Contents{}, "", err
	}
	if len(data) > maxSource {
		return gojsonnet.Contents{}, "", fmt.Errorf("%s has %d bytes; at most %d are read", p, len(data), maxSource)
	}
	if depth := nesting(data); depth > maxNesting {
		return gojsonnet.Contents{}, "", fmt.Errorf("%s is nested too deep", p)
	}
	c := gojsonnet.MakeContentsRaw(data)
	m.found[p] = c
	return c, "/" + p, nil
}

// place returns the import that failed with the place that asked for it.
func (m *importer) place(last error, p string) error {
	at := located(last)
	var e *manifest.Error
	if !errors.As(m.failed, &e) {
		return m.failed
	}
	e.File, e.Line = p, 0
	if at.File != "" {
		e.File, e.Line = at.File, at.Line
	}
	return e
}

const maxNesting = 2000

// nesting is a rough depth of the brackets and unary operators in data. The
// parser recurses as deep, and its stack cannot be bounded.
func nesting(data []byte) int {
	depth, most, run := 0, 0, 0
	for _, c := range data {
		switch c {
		case '(', '[', '{':
			depth++
			most = max(most, depth)
		case ')', ']', '}':
			depth--
		case '!', '~', '+', '-':
			run++
			most = max(most, run)
		case ' ', '\t', '\n', '\r':
		default:
			run = 0
		}
	}
	return most
}

func unique(names []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, n := range names {
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}
