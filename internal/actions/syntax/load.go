package syntax

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/rhysd/actionlint"
	"go.yaml.in/yaml/v4"
)

// MaxSize bounds a workflow file, in bytes.
const MaxSize = 1 << 20

// Load reads one workflow file. The workflow is nil when a diagnostic is fatal.
func Load(file string, content []byte) (*Workflow, []Diagnostic) {
	if len(content) > MaxSize {
		return nil, []Diagnostic{{File: file, Line: 1, Col: 1, Fatal: true, Message: fmt.Sprintf("the file has %d bytes; at most %d are read", len(content), MaxSize)}}
	}
	c := &converter{file: file, lines: strings.Split(string(content), "\n"), unknownEvents: map[int]bool{}}
	tree, parseErrors := actionlint.Parse(content)
	if tree == nil {
		for _, e := range parseErrors {
			if line := brokenLine(c.lines); line > 0 {
				e.Line, e.Column = line, 1
			}
			c.report(e.Line, e.Column, true, strings.TrimPrefix(e.Message, "could not parse as YAML: "), "check the indentation and quotes around this line")
		}
		return nil, c.diagnostics
	}
	c.lint(content)
	w := c.workflow(tree)
	slices.SortStableFunc(c.diagnostics, func(a, b Diagnostic) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	c.diagnostics = slices.CompactFunc(c.diagnostics, func(a, b Diagnostic) bool { return a.Line == b.Line && a.Message == b.Message })
	if slices.ContainsFunc(c.diagnostics, func(d Diagnostic) bool { return d.Fatal }) {
		return nil, c.diagnostics
	}
	return w, c.diagnostics
}

// lint adds what actionlint says about the file.
func (c *converter) lint(content []byte) {
	linter, err := actionlint.NewLinter(io.Discard, &actionlint.LinterOptions{WorkingDir: "/"})
	if err != nil {
		c.report(1, 1, false, "the file could not be linted: "+err.Error(), "")
		return
	}
	// "<stdin>" keeps the linter away from the disk.
	found, err := linter.Lint("<stdin>", content, nil)
	if err != nil {
		c.report(1, 1, false, "the file could not be linted: "+err.Error(), "")
		return
	}
	for _, e := range found {
		c.judge(e)
	}
}

// fatalKinds are the actionlint rules that find what GitHub refuses.
var fatalKinds = map[string]bool{"syntax-check": true, "job-needs": true, "id": true}

// refusedExpression matches the findings of the expression rule that GitHub
// refuses; the rest are guesses about types, which evaluate to null.
var refusedExpression = regexp.MustCompile(`^(context "[^"]*" is not allowed here|calling function "[^"]*" is not allowed here)`)

func (c *converter) judge(e *actionlint.Error) {
	switch {
	case e.Kind == "syntax-check" && unknownKey.MatchString(e.Message):
		c.unknownKey(e, unknownKey.FindStringSubmatch(e.Message))
	case e.Kind == "syntax-check" && onlyKey.MatchString(e.Message):
		m := onlyKey.FindStringSubmatch(e.Message)
		c.unknownKey(e, []string{"", m[3], m[2], m[1]})
	case e.Kind == "syntax-check" && strings.HasPrefix(e.Message, "anchor "):
		c.report(e.Line, e.Column, false, e.Message, "")
	case e.Kind == "job-needs" && strings.HasSuffix(e.Message, "which does not exist in this workflow"):
		// Reported by the converter, at the place of the name.
	case e.Kind == "events" && strings.Contains(e.Message, "filters cannot be used for the same event"):
		// Reported by the converter, with a hint.
	case e.Kind == "events" && strings.HasPrefix(e.Message, "unknown Webhook event"):
		message, _, _ := strings.Cut(e.Message, ". see ")
		c.unknownEvents[e.Line] = true
		c.report(e.Line, e.Column, true, message, "see GitHub's list of events that trigger workflows")
	case e.Kind == "runner-label", e.Kind == "action", e.Kind == "deprecated-commands":
		// Any label runs here; `uses` and its inputs are checked against the
		// actions that this engine has.
	case e.Kind == "expression" && parsedByUs(e.Message):
	case e.Kind == "expression":
		message, _, _ := strings.Cut(e.Message, ". see https://")
		c.report(e.Line, e.Column, refusedExpression.MatchString(e.Message), message, "")
	default:
		c.report(e.Line, e.Column, fatalKinds[e.Kind], e.Message, "")
	}
}

// parsedByUs recognises faults that our own parser reports in clearer words,
// or knows to be right.
func parsedByUs(message string) bool {
	for _, prefix := range []string{"got unexpected ", "unexpected ", "parsing invalid ", "undefined variable", "undefined function", "number of arguments is wrong"} {
		if strings.HasPrefix(message, prefix) {
			return true
		}
	}
	return false
}

var (
	unknownKey = regexp.MustCompile(`^unexpected key "(.*?)" for (.+?)\. expected one of (.*)$`)
	onlyKey    = regexp.MustCompile(`^expected "(.*?)" key for (.+?) but got "(.*)"$`)
	quoted     = regexp.MustCompile(`"([^"]*)"`)
)

// newKeys exist on GitHub but not yet in the parser.
var newKeys = []string{"background", "wait", "wait-all", "cancel", "parallel", "cancel-timeout-minutes", "queue", "snapshot", "image_version", "description"}

// unknownKey tells a slip of the pen, which fails, from a key that is new.
func (c *converter) unknownKey(e *actionlint.Error, m []string) {
	key, where := m[1], m[2]
	if !slices.Contains(newKeys, key) {
		for _, known := range quoted.FindAllStringSubmatch(m[3], -1) {
			if near(key, known[1]) {
				c.report(e.Line, e.Column, true, fmt.Sprintf("unknown key %q in %s", key, where), fmt.Sprintf("did you mean %q?", known[1]))
				return
			}
		}
		if known := strings.Trim(m[3], `"`); near(key, known) {
			c.report(e.Line, e.Column, true, fmt.Sprintf("unknown key %q in %s", key, where), fmt.Sprintf("did you mean %q?", known))
			return
		}
	}
	c.report(e.Line, e.Column, false, fmt.Sprintf("key %q in %s is not supported and has no effect", key, where), "")
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

// near reports whether two words differ by at most one edit (a letter more,
// less, other, or two swapped), or two edits when both are long.
func near(a, b string) bool {
	allowed := 1
	if min(len(a), len(b)) > 6 {
		allowed = 2
	}
	a, b = strings.ToLower(a), strings.ToLower(b)
	before, previous := []int(nil), make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(row[j]+1, previous[j+1]+1, previous[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, previous = previous, row
	}
	return previous[len(b)] <= allowed
}
