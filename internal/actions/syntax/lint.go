package syntax

import (
	"fmt"
	"io"
	"strings"

	"github.com/rhysd/actionlint"
)

// lint adds what actionlint finds beyond what GitHub refuses: suspicions about
// expression types, shells, patterns, credentials. None of it is fatal.
func (d *document) lint(content []byte) {
	defer func() {
		// The linter is not ours and the file is anybody's: a file that
		// trips it up has to run all the same.
		if r := recover(); r != nil {
			d.report(1, 1, false, fmt.Sprintf("the file could not be linted: %v", r), "")
		}
	}()
	linter, err := actionlint.NewLinter(io.Discard, &actionlint.LinterOptions{WorkingDir: "/"})
	if err != nil {
		d.report(1, 1, false, "the file could not be linted: "+err.Error(), "")
		return
	}
	// "<stdin>" keeps the linter away from the disk.
	found, err := linter.Lint("<stdin>", content, nil)
	if err != nil {
		d.report(1, 1, false, "the file could not be linted: "+err.Error(), "")
		return
	}
	for _, e := range found {
		if d.wanted(e) {
			message, _, _ := strings.Cut(e.Message, ". see https://")
			d.report(e.Line, e.Column, false, message, "")
		}
	}
}

// wanted leaves out what the check of the file has looked at with GitHub's own
// rules, and what is different here.
func (d *document) wanted(e *actionlint.Error) bool {
	switch e.Kind {
	case "syntax-check", "job-needs", "id", "events", "permissions":
		return false
	case "runner-label", "action":
		// Any label runs here; `uses` and its inputs are checked against the
		// actions that this engine has.
		return false
	case "workflow-call":
		return !strings.Contains(e.Message, "is not following the format")
	case "expression":
		for _, ours := range []string{"got unexpected ", "unexpected ", "parsing invalid ", "undefined variable", "undefined function",
			"number of arguments is wrong", "context \"", "calling function "} {
			if strings.HasPrefix(e.Message, ours) {
				return false
			}
		}
	}
	return true
}
