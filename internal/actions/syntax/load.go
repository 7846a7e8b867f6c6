package syntax

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// MaxSize bounds a workflow file, in bytes.
const MaxSize = 1 << 20

// Load reads one workflow file. The workflow is nil when a diagnostic is fatal.
func Load(file string, content []byte) (*Workflow, []Diagnostic) {
	if len(content) > MaxSize {
		return nil, []Diagnostic{{File: file, Line: 1, Col: 1, Fatal: true, Message: fmt.Sprintf("the file has %d bytes; at most %d are read", len(content), MaxSize)}}
	}
	d := &document{file: file, lines: strings.Split(string(content), "\n")}
	var w *Workflow
	if top := d.parse(content); top != nil {
		d.check(top, root(), place{})
		w = d.workflow(top)
		d.checkRules(w, top)
	}
	if !d.fatal() {
		d.lint(content)
	}
	slices.SortStableFunc(d.diagnostics, func(a, b Diagnostic) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	d.diagnostics = slices.CompactFunc(d.diagnostics, func(a, b Diagnostic) bool { return a.Line == b.Line && a.Message == b.Message })
	if d.fatal() {
		return nil, d.diagnostics
	}
	return w, d.diagnostics
}

func (d *document) fatal() bool {
	return slices.ContainsFunc(d.diagnostics, func(d Diagnostic) bool { return d.Fatal })
}
