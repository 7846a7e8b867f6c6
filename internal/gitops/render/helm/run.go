package helm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
	"time"

	chartapi "helm.sh/helm/v4/pkg/chart"
	"helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

const maxIncludes = 1000 // of one name inside itself, as in Helm

// output is what the templates of a chart gave.
type output struct {
	rendered []rendered // by name of the template
	warnings []manifest.Warning
}

// rendered is the text of one template.
type rendered struct {
	unit  unit
	text  []byte
	marks []mark
}

// run is one execution of a program.
type run struct {
	ctx      context.Context
	stop     time.Time
	program  *program
	loader   *chartLoader
	files    bool // .Files must hold everything
	written  int
	steps    int
	depth    map[string]int
	unstable map[string]bool
}

const notesFile = "NOTES.txt"

var errAllFiles = errors.New("a text given to tpl uses .Files as a whole")

// execute runs the templates of a chart.
func (r *Renderer) execute(l *chartLoader, c *chart.Chart, scope common.Values) (output, error) {
	all := units(c)
	p, err := r.programs.get(all)
	if err != nil {
		return output{}, l.explain(all, err)
	}
	x := &run{ctx: l.ctx, stop: time.Now().Add(maxTime), program: p, loader: l, files: p.allFiles}
	out, err := x.all(c, all, scope)
	if errors.Is(err, errAllFiles) {
		x.files = true
		out, err = x.all(c, all, scope)
	}
	if err != nil {
		return output{}, l.explain(all, err)
	}
	out.warnings = x.warnings(l, all)
	return out, nil
}

func (x *run) all(c *chart.Chart, all []unit, scope common.Values) (output, error) {
	x.depth, x.unstable, x.written, x.steps = map[string]int{}, map[string]bool{}, 0, 0
	scopes := map[*chart.Chart]map[string]any{}
	if _, err := x.scopes(c, scope, scopes); err != nil {
		return output{}, err
	}
	set, err := x.program.set.Clone()
	if err != nil {
		return output{}, err
	}
	x.bind(set, x.program.unstable)
	var out output
	total := 0
	for _, u := range all {
		if strings.HasPrefix(path.Base(u.name), "_") {
			continue
		}
		vals := scopes[u.chart]
		vals["Template"] = common.Values{"Name": u.name, "BasePath": u.basePath}
		w := &writer{run: x, unit: u.name}
		if err := set.ExecuteTemplate(w, u.name, vals); err != nil {
			return output{}, err
		}
		if strings.HasSuffix(u.name, notesFile) { // a chart may fail there, but it is for people
			continue
		}
		if total += len(w.text); total > maxOutput {
			return output{}, &limitError{fmt.Sprintf("the manifests are larger than %d MiB", maxOutput>>20)}
		}
		out.rendered = append(out.rendered, rendered{u, w.text, w.marks})
	}
	slices.SortFunc(out.rendered, func(a, b rendered) int { return strings.Compare(a.unit.name, b.unit.name) })
	return out, nil
}

// scopes makes what the templates of each chart see as ".".
func (x *run) scopes(c *chart.Chart, values common.Values, out map[*chart.Chart]map[string]any) (map[string]any, error) {
	access, err := chartapi.NewAccessor(c)
	if err != nil {
		return nil, err
	}
	metadata := access.MetadataAsMap()
	metadata["IsRoot"] = c.IsRoot()
	subcharts := map[string]any{}
	files, err := x.chartFiles(c.Files)
	if err != nil {
		return nil, err
	}
	next := map[string]any{
		"Chart": metadata, "Files": files, "Release": values["Release"], "Capabilities": values["Capabilities"],
		"Values": make(common.Values), "Subcharts": subcharts,
	}
	if c.IsRoot() {
		next["Values"] = values["Values"]
	} else if table, err := values.Table("Values." + c.Name()); err == nil {
		next["Values"] = table
	}
	for _, sub := range c.Dependencies() {
		if subcharts[sub.Name()], err = x.scopes(sub, next, out); err != nil {
			return nil, err
		}
	}
	out[c] = next
	return next, nil
}

// bind gives a set of templates the functions that know the run, and watches
// the unstable functions that it calls.
func (x *run) bind(set *template.Template, calls map[string][]position) {
	set.Option("missingkey=zero")
	funcs := template.FuncMap{
		"include": func(name string, data any) (string, error) { return x.include(set, name, data) },
		"tpl":     func(text string, data any) (string, error) { return x.tpl(set, text, data) },
	}
	for name := range calls {
		funcs[name] = watched(x.program.funcs[name], func() { x.unstable[name] = true })
	}
	set.Funcs(funcs)
}

func (x *run) include(set *template.Template, name string, data any) (string, error) {
	if x.depth[name] > maxIncludes {
		return "", &limitError{fmt.Sprintf("template %q includes itself without end", name)}
	}
	x.depth[name]++
	defer func() { x.depth[name]-- }()
	w := &writer{run: x}
	err := set.ExecuteTemplate(w, name, data)
	return string(w.text), err
}

// tpl runs a text that came from values. Each text may define templates of its
// own, which only it sees, so it gets its own copy of the set.
func (x *run) tpl(set *template.Template, text string, data any) (string, error) {
	if err := x.step(len(text)); err != nil {
		return "", err
	}
	if !strings.Contains(text, "{{") {
		return strings.ReplaceAll(text, "<no value>", ""), nil
	}
	const self = "tpl"
	if x.depth[self+"\x00"] > maxIncludes {
		return "", &limitError{"tpl calls itself without end"}
	}
	x.depth[self+"\x00"]++
	defer func() { x.depth[self+"\x00"]-- }()
	own, err := set.Clone()
	if err != nil {
		return "", err
	}
	before := map[*parse.Tree]bool{}
	for _, t := range own.Templates() {
		before[t.Tree] = true
	}
	t, err := own.New(set.Name()).Parse(text)
	if err != nil {
		return "", fmt.Errorf("a text given to tpl is no template: %w", err)
	}
	calls := map[string][]position{}
	for _, t := range own.Templates() {
		if t.Tree == nil || before[t.Tree] {
			continue
		}
		whole := false
		visit(t.Root, func(n parse.Node) {
			whole = whole || usesAllFiles(n)
			if id, ok := n.(*parse.IdentifierNode); ok && unstableFunctions[id.Ident] {
				calls[id.Ident] = nil
			}
		})
		if whole && !x.files {
			return "", errAllFiles
		}
		instrument(t.Root)
	}
	x.bind(own, calls)
	w := &writer{run: x}
	if err := t.Execute(w, data); err != nil {
		return "", fmt.Errorf("in a text given to tpl: %w", err)
	}
	return string(w.text), nil
}

// limitError says that a chart does too much.
type limitError struct{ message string }

func (e *limitError) Error() string { return e.message }

// step counts the work of a run and ends it when it is too much.
func (x *run) step(n int) error {
	x.written += n
	if x.written > maxWork {
		return &limitError{fmt.Sprintf("the templates write more than %d MiB", maxWork>>20)}
	}
	if x.steps++; x.steps%256 != 0 {
		return nil
	}
	if err := x.ctx.Err(); err != nil {
		return err
	}
	if time.Now().After(x.stop) {
		return &limitError{fmt.Sprintf("the templates run for more than %s", maxTime)}
	}
	return nil
}

// mark says where the text from an offset on is written; line is 0 for what a
// function or value gave.
type mark struct {
	offset int
	line   int
}

// writer collects what a template writes.
type writer struct {
	run   *run
	unit  string // of the template, when places are wanted
	text  []byte
	marks []mark
}

var noValue = []byte("<no value>")

func (w *writer) Write(b []byte) (int, error) {
	if err := w.run.step(len(b)); err != nil || len(b) == 0 {
		return len(b), err
	}
	if len(w.text)+len(b) > maxOutput {
		return 0, &limitError{fmt.Sprintf("one template writes more than %d MiB", maxOutput>>20)}
	}
	if w.unit != "" {
		at, known := w.run.program.text[&b[0]]
		if !known || at.unit != w.unit {
			at.line = 0
		}
		if n := len(w.marks); at.line != 0 || n == 0 || w.marks[n-1].line != 0 {
			w.marks = append(w.marks, mark{len(w.text), at.line})
		}
	}
	n := len(b)
	if bytes.Contains(b, noValue) { // Go writes this for what does not exist; Helm removes it
		b = bytes.ReplaceAll(b, noValue, nil)
	}
	w.text = append(w.text, b...)
	return n, nil
}

// lineAt is the line of the template that gave the text at an offset.
func (r rendered) lineAt(offset int) int {
	i, found := slices.BinarySearchFunc(r.marks, offset, func(m mark, offset int) int { return m.offset - offset })
	if !found {
		i--
	}
	for ; i >= 0; i-- {
		if m := r.marks[i]; m.line > 0 {
			end := len(r.text)
			if i+1 < len(r.marks) {
				end = r.marks[i+1].offset
			}
			return m.line + bytes.Count(r.text[m.offset:min(offset, end)], []byte("\n"))
		}
	}
	return 1
}

// warnings names the functions whose result is another one each time.
func (x *run) warnings(l *chartLoader, all []unit) []manifest.Warning {
	var out []manifest.Warning
	for _, name := range slices.Sorted(maps.Keys(x.unstable)) {
		w := manifest.Warning{Message: fmt.Sprintf("%s gives another result at every rendering, so this never stays in sync", name)}
		places := x.program.unstable[name]
		if len(places) == 0 {
			w.File, w.Line = path.Join(l.dir, chartFile), 1
			w.Message += "; it is called by a text given to tpl"
			out = append(out, w)
			continue
		}
		w.File, w.Line = l.placeOf(all, places[0].unit), places[0].line
		if n := len(places) - 1; n > 0 {
			w.Message += fmt.Sprintf("; %d more calls are written in this chart", n)
		}
		out = append(out, w)
	}
	return out
}

// placeOf is the path of a template by its name.
func (l *chartLoader) placeOf(all []unit, name string) string {
	for _, u := range all {
		if u.name == name {
			return l.place(u.data, u.name)
		}
	}
	return name
}
