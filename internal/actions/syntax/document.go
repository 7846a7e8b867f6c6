package syntax

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"go.yaml.in/yaml/v4"
)

// Bounds of one file, with its aliases put in.
const (
	maxNodes = 200_000
	maxDepth = 100
)

// document is the YAML of one file, and what there is to tell about it.
type document struct {
	file        string
	lines       []string
	diagnostics []Diagnostic
}

func (d *document) report(line, col int, fatal bool, message, hint string) {
	d.diagnostics = append(d.diagnostics, Diagnostic{File: d.file, Line: max(line, 1), Col: max(col, 1), Message: message, Hint: hint, Fatal: fatal})
}

// refuse reports what GitHub does not accept.
func (d *document) refuse(n *yaml.Node, hint, format string, args ...any) {
	d.report(n.Line, n.Column, true, fmt.Sprintf(format, args...), hint)
}

func (d *document) warn(n *yaml.Node, hint, format string, args ...any) {
	d.report(n.Line, n.Column, false, fmt.Sprintf(format, args...), hint)
}

// parse reads YAML and puts the aliases in. It returns nil, with a fatal
// diagnostic, when that cannot be done within bounds.
func (d *document) parse(content []byte) *yaml.Node {
	var top yaml.Node
	if err := yaml.Unmarshal(content, &top); err != nil {
		d.yamlFault(err)
		return nil
	}
	if len(top.Content) == 0 {
		d.report(1, 1, true, "workflow is empty", "")
		return nil
	}
	count := 0
	if bad := expand(&top, 0, &count); bad != nil {
		d.refuse(bad, "aliases that contain aliases multiply", "the file has more than %d YAML nodes or is nested deeper than %d levels, counted with its aliases", maxNodes, maxDepth)
		return nil
	}
	return top.Content[0]
}

// expand replaces aliases by what they stand for. It returns the place where a
// bound is passed, or nil.
func expand(n *yaml.Node, depth int, count *int) *yaml.Node {
	*count++
	if depth > maxDepth || *count > maxNodes {
		return n
	}
	for i, child := range n.Content {
		target := child
		if child.Kind == yaml.AliasNode {
			target = child.Alias
		}
		if bad := expand(target, depth+1, count); bad != nil {
			return child
		}
		n.Content[i] = target
	}
	return nil
}

// yamlFault reports what makes a file no YAML, at the line where it breaks.
func (d *document) yamlFault(err error) {
	line, message := 0, err.Error()
	if rest, ok := strings.CutPrefix(message, "yaml: "); ok {
		message = rest
	}
	if rest, ok := strings.CutPrefix(message, "line "); ok {
		if number, after, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				line, message = n, after
			}
		}
	}
	if broken := brokenLine(d.lines); broken > 0 {
		line = broken
	}
	d.report(line, 1, true, message, "check the indentation and quotes around this line")
}

// brokenLine finds the line that makes a file no YAML: the one after the
// longest beginning of the file that is YAML. The parser itself names the start
// of the block around it. 0 means not found.
func brokenLine(lines []string) int {
	const maxLines, maxBytes = 1000, 64 << 10
	if len(lines) > maxLines || len(strings.Join(lines, "\n")) > maxBytes {
		return 0
	}
	for n := len(lines) - 1; n >= 0; n-- {
		var node yaml.Node
		if yaml.Unmarshal([]byte(strings.Join(lines[:n], "\n")), &node) == nil {
			return n + 1
		}
	}
	return 0
}

const quotedStyle = yaml.DoubleQuotedStyle | yaml.SingleQuotedStyle

func isBlock(n *yaml.Node) bool { return n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 }

// scalarOf is the typed value of a scalar: nil, bool, float64 or string.
func scalarOf(n *yaml.Node) any {
	if n.Style&(quotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 || n.Style&yaml.TaggedStyle != 0 && n.Tag == "!!str" {
		return n.Value
	}
	return plainScalar(n.Value)
}

// plainScalar resolves an unquoted scalar by YAML 1.2's core schema.
func plainScalar(s string) any {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return nil
	case "true", "True", "TRUE":
		return true
	case "false", "False", "FALSE":
		return false
	}
	if strings.Trim(s, "+-.0123456789eExoabcdfABCDF") != "" || strings.Trim(s, "+-.eExoabcdfABCDF") == "" {
		return s
	}
	if strings.HasPrefix(s, "0x") || strings.HasPrefix(s, "0o") {
		if n, err := strconv.ParseInt(s, 0, 64); err == nil {
			return float64(n)
		}
		return s
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && !strings.ContainsAny(s, "xX") {
		return f
	}
	return s
}

// textOf takes a scalar over: 1.20 is 1.2, as on GitHub. Anything else is absent.
func textOf(n *yaml.Node) Text {
	if n == nil || n.Kind != yaml.ScalarNode {
		return Text{}
	}
	return Text{Value: expr.Text(scalarOf(n)), Line: n.Line, Col: n.Column, Block: isBlock(n)}
}

// place is the line and column of a byte of a scalar.
func (d *document) place(n *yaml.Node, offset int) (line, col int) {
	t := textOf(n)
	line = t.LineAt(offset)
	before := t.Value[:min(max(offset, 0), len(t.Value))]
	column := len([]rune(before[strings.LastIndexByte(before, '\n')+1:]))
	switch {
	case t.Block:
		return line, column + d.indent(n.Line) + 1
	case line != n.Line:
		return line, 1
	case n.Style&quotedStyle != 0:
		column++
	}
	return line, n.Column + column
}

// indent is how far the block scalar whose header stands in a line is indented.
func (d *document) indent(line int) int {
	for _, content := range d.lines[min(line, len(d.lines)):] {
		if trimmed := strings.TrimLeft(content, " "); trimmed != "" && trimmed != "\r" {
			return len(content) - len(trimmed)
		}
	}
	return 0
}
