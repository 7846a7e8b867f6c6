package helm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/strvals"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

const maxValueFiles = 1000

// valueReader puts the values of an Application together: value files in
// order, then valuesObject or values, then parameters, those with forceString,
// file parameters. The later wins.
type valueReader struct {
	ctx  context.Context
	tree *source.Tree
	req  *Request
	root string
}

// valueFile is one value file: in a tree, or at a URL.
type valueFile struct {
	tree *source.Tree
	path string // in the tree
	url  string
	name string // for people
}

func (v *valueReader) values() (map[string]any, error) {
	files, err := v.files()
	if err != nil {
		return nil, err
	}
	values := map[string]any{}
	for _, f := range files {
		data, err := v.read(f, "spec.source.helm.valueFiles")
		if err != nil {
			return nil, err
		}
		if values, err = mergeYAML(values, f.name, data); err != nil {
			return nil, err
		}
	}
	h := v.req.Helm
	if len(h.ValuesObject) > 0 && string(h.ValuesObject) != "null" {
		values, err = mergeYAML(values, "spec.source.helm.valuesObject", h.ValuesObject)
	} else if h.Values != "" {
		values, err = mergeYAML(values, "spec.source.helm.values", []byte(h.Values))
	}
	if err != nil {
		return nil, err
	}
	return values, v.parameters(values)
}

// parameters sets what --set, --set-string and --set-file would.
func (v *valueReader) parameters(values map[string]any) error {
	h := v.req.Helm
	for _, forced := range []bool{false, true} {
		parse := strvals.ParseInto
		if forced {
			parse = strvals.ParseIntoString
		}
		for _, p := range h.Parameters {
			if p.ForceString != forced {
				continue
			}
			// The error repeats the value, which may be a secret: leave it out.
			if err := guarded(func() error { return parse(p.Name+"="+escapeCommas(v.req.Environment.Expand(p.Value)), values) }); err != nil {
				return &manifest.Error{Message: fmt.Sprintf("spec.source.helm.parameters: %s cannot be set", p.Name), Hint: "The name is as after --set: a.b, list[0], with \\ before a dot that belongs to a key.", Err: err}
			}
		}
	}
	for _, p := range h.FileParameters {
		f, err := v.resolve(p.Path)
		if err != nil {
			return err
		}
		data, err := v.read(f, "spec.source.helm.fileParameters")
		if err != nil {
			return err
		}
		content := func([]rune) (any, error) { return string(data), nil }
		if err := guarded(func() error { return strvals.ParseIntoFile(p.Name+"=x", values, content) }); err != nil {
			return &manifest.Error{Message: fmt.Sprintf("spec.source.helm.fileParameters: %s cannot be set", p.Name), Err: err}
		}
	}
	return nil
}

func guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("not understood: %v", p)
		}
	}()
	return f()
}

// escapeCommas protects the commas of a value: one parameter is one value. A
// value in braces is a list and keeps them.
func escapeCommas(value string) string {
	if strings.HasPrefix(value, "{") && strings.HasSuffix(value, "}") {
		return value
	}
	var b strings.Builder
	for i := range len(value) {
		if value[i] == ',' && (i == 0 || value[i-1] != '\\') {
			b.WriteByte('\\')
		}
		b.WriteByte(value[i])
	}
	return b.String()
}

// files are the value files in the order in which they count. A file that is
// named itself does not also count where a pattern matches it.
func (v *valueReader) files() ([]valueFile, error) {
	var entries []valueFile
	explicit := map[valueFile]bool{}
	for _, raw := range v.req.Helm.ValueFiles {
		f, err := v.resolve(raw)
		if err != nil {
			return nil, err
		}
		entries = append(entries, f)
		explicit[f] = !isPattern(f)
	}
	var out []valueFile
	seen := map[valueFile]bool{}
	add := func(f valueFile) {
		if !seen[f] {
			seen[f] = true
			out = append(out, f)
		}
	}
	for _, f := range entries {
		switch {
		case isPattern(f):
			matches, err := v.glob(f)
			if err != nil {
				return nil, err
			}
			for _, m := range matches {
				if !explicit[m] {
					add(m)
				}
			}
		case f.url != "" || !v.req.Helm.IgnoreMissingValueFiles:
			add(f)
		default:
			_, kind, err := f.tree.Stat(v.ctx, f.path)
			if err != nil {
				return nil, &manifest.Error{File: f.name, Message: err.Error(), Err: err}
			}
			if kind != source.Absent {
				add(f)
			}
		}
	}
	if len(out) > maxValueFiles {
		return nil, &manifest.Error{Message: fmt.Sprintf("spec.source.helm.valueFiles: more than %d files", maxValueFiles)}
	}
	return out, nil
}

// resolve says which file a path means: "$ref/path" is in the tree of that
// source, "/path" starts at the root, others at the chart.
func (v *valueReader) resolve(raw string) (valueFile, error) {
	if ref, rest, ok := strings.Cut(raw, "/"); ok && strings.HasPrefix(ref, "$") {
		if tree, known := v.req.Refs[ref[1:]]; known {
			p := strings.TrimLeft(v.req.Environment.Expand(rest), "/")
			return valueFile{tree: tree, path: path.Clean(p), name: raw}.named(ref + "/")
		}
		if _, known := v.req.Environment[strings.Trim(ref[1:], "{}")]; !known {
			return valueFile{}, &manifest.Error{Message: fmt.Sprintf("%s: no source of this Application has ref: %s", raw, ref[1:]), Hint: "Give one of spec.sources that ref."}
		}
	}
	p := v.req.Environment.Expand(raw)
	if u, err := url.Parse(p); err == nil && u.Scheme != "" && u.Host != "" {
		if u.Scheme != "https" && u.Scheme != "http" {
			return valueFile{}, &manifest.Error{Message: fmt.Sprintf("%s: value files are not read by %s", u.Redacted(), u.Scheme), Hint: "Use https://, or commit the file."}
		}
		return valueFile{url: p, name: u.Redacted()}, nil
	}
	if p == "" {
		return valueFile{}, &manifest.Error{Message: fmt.Sprintf("spec.source.helm: %q names no file", raw)}
	}
	if path.IsAbs(p) {
		p = strings.TrimPrefix(path.Join(v.root, path.Clean(p)), "/")
	} else {
		p = path.Join(v.req.Dir, p)
	}
	return valueFile{tree: v.tree, path: p}.named("")
}

func (f valueFile) named(prefix string) (valueFile, error) {
	if f.path == ".." || strings.HasPrefix(f.path, "../") {
		return f, &manifest.Error{File: f.path, Message: "value file " + source.ErrEscapes.Error(), Hint: "Paths are relative to the chart; /path starts at the root of the repository.", Err: source.ErrEscapes}
	}
	f.name = prefix + f.path
	return f, nil
}

func isPattern(f valueFile) bool { return f.url == "" && strings.ContainsAny(f.path, "*?[") }

func (v *valueReader) glob(f valueFile) ([]valueFile, error) {
	fsys := &globFS{v.ctx, f.tree}
	names, err := doublestar.Glob(fsys, f.path, doublestar.WithFilesOnly(), doublestar.WithFailOnIOErrors())
	if err != nil {
		return nil, &manifest.Error{File: f.name, Message: err.Error(), Hint: "Check the pattern.", Err: err}
	}
	if len(names) == 0 && !v.req.Helm.IgnoreMissingValueFiles {
		return nil, &manifest.Error{File: f.name, Message: "no value file matches this pattern", Hint: "Check the pattern, or set ignoreMissingValueFiles."}
	}
	prefix := strings.TrimSuffix(f.name, f.path)
	var out []valueFile
	for _, n := range names {
		out = append(out, valueFile{tree: f.tree, path: n, name: prefix + n})
	}
	return out, nil
}

func (v *valueReader) read(f valueFile, field string) ([]byte, error) {
	if f.url != "" {
		if v.req.Remote == nil {
			return nil, &manifest.Error{Message: fmt.Sprintf("%s: %s cannot be read from here", field, f.name), Hint: "Commit the file."}
		}
		data, err := v.req.Remote.File(v.ctx, f.url)
		if err != nil {
			return nil, v.failure(f, fmt.Sprintf("%s: %v", field, err), "Check the URL, or commit the file.", err)
		}
		return data, nil
	}
	data, err := f.tree.ReadFile(v.ctx, f.path)
	if errors.Is(err, git.ErrNotFound) {
		return nil, v.failure(f, field+" names this file, which does not exist", "Paths are relative to the chart; /path starts at the root of the repository. ignoreMissingValueFiles allows missing ones.", err)
	}
	if err != nil {
		return nil, v.failure(f, err.Error(), "", err)
	}
	return data, nil
}

func (v *valueReader) failure(f valueFile, message, hint string, err error) error {
	if ctxErr := v.ctx.Err(); ctxErr != nil {
		return fmt.Errorf("read %s: %w", f.name, ctxErr)
	}
	return &manifest.Error{File: f.name, Message: message, Hint: hint, Err: err}
}

// mergeYAML lays the values of a YAML text over base.
func mergeYAML(base map[string]any, name string, data []byte) (map[string]any, error) {
	values, err := loader.LoadValues(bytes.NewReader(data))
	if err != nil {
		return nil, valuesError(name, data, err)
	}
	return loader.MergeMaps(base, values), nil
}

var yamlLine = regexp.MustCompile(`line (\d+): ?`)

// valuesError finds the line of a YAML error. The parser counts within its
// document. Without err, it says whether there is one.
func valuesError(name string, data []byte, err error) error {
	first, doc := 1, []byte(nil)
	fail := func() error {
		if len(bytes.TrimSpace(doc)) == 0 {
			return nil
		}
		values := map[string]any{}
		bad := yaml.Unmarshal(doc, &values)
		if bad == nil {
			return nil
		}
		return yamlError(name, first, bad)
	}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		if bytes.HasPrefix(line, []byte("---")) {
			if bad := fail(); bad != nil {
				return bad
			}
			first, doc = n, nil
			line = append([]byte("   "), line[3:]...)
			if len(bytes.TrimSpace(line)) == 0 {
				line = []byte("\n")
			}
		}
		doc = append(doc, line...)
	}
	if bad := fail(); bad != nil || err == nil {
		return bad
	}
	return yamlError(name, 1, err)
}

// yamlError is a YAML error of a text that starts at line first of a file.
func yamlError(name string, first int, err error) error {
	e := &manifest.Error{File: name, Message: err.Error(), Err: err}
	for _, noise := range []string{"cannot unmarshal yaml document: ", "error converting YAML to JSON: ", "error unmarshaling JSON: ", "while decoding JSON: "} {
		e.Message = strings.ReplaceAll(e.Message, noise, "")
	}
	if strings.HasPrefix(e.Message, "json: cannot unmarshal") {
		e.Line, e.Message, e.Hint = first, "is not a mapping of values", "Values are written as `name: value`."
		return e
	}
	e.Line = first // errors of the first line do not say so
	if m := yamlLine.FindStringSubmatchIndex(e.Message); m != nil {
		if n, err := strconv.Atoi(e.Message[m[2]:m[3]]); err == nil {
			e.Line = first + n - 1
			e.Message = e.Message[:m[0]] + e.Message[m[1]:]
		}
	}
	return e
}

// globFS shows a tree to the matcher, which lists folders and nothing else.
type globFS struct {
	ctx  context.Context
	tree *source.Tree
}

func (g *globFS) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
}

func (g *globFS) Stat(name string) (fs.FileInfo, error) {
	_, kind, err := g.tree.Stat(g.ctx, name)
	if err != nil {
		return nil, err
	}
	if kind == source.Absent {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return info{source.Entry{Name: path.Base(name), Dir: kind == source.Dir}}, nil
}

func (g *globFS) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := g.tree.ReadDir(g.ctx, name)
	if errors.Is(err, git.ErrNotFound) {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	var out []fs.DirEntry
	for _, e := range entries {
		out = append(out, fs.FileInfoToDirEntry(info{e}))
	}
	return out, err
}

var _ fs.FileInfo = info{}
