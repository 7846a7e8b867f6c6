package jsonnet

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	gojsonnet "github.com/google/go-jsonnet"
	"github.com/google/go-jsonnet/ast"

	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

// formatter keeps the error that Jsonnet would turn into text: it has places.
type formatter struct{ last error }

func (f *formatter) Format(err error) string {
	f.last = err
	return err.Error()
}

func (f *formatter) SetMaxStackTraceSize(int) {}

func (f *formatter) SetColorFormatter(gojsonnet.ColorFormatter) {}

// placed matches "/file:3:5-9 message" and "/file:(3:5)-(4:1) message".
var placed = regexp.MustCompile(`^/([^\s:]+):\(?(\d+):\S* (.*)`)

// explain makes an error of Jsonnet one of the file that it is about.
func explain(p string, err, last error) error {
	e := located(last)
	if e.File == "" {
		e.File = p
	}
	msg, crash := strings.CutPrefix(err.Error(), "(CRASH) ")
	if crash { // a bug of the library; the stack is of no use to people
		msg, _, _ = strings.Cut(msg, "\n")
		msg = "Jsonnet gave up: " + msg
	}
	e.Message = strings.TrimPrefix(msg, "RUNTIME ERROR: ")
	if m := placed.FindStringSubmatch(e.Message); m != nil { // a file that does not parse: the text has its place
		e.File, e.Message = m[1], m[3]
		e.Line, _ = strconv.Atoi(m[2]) // digits
	}
	e.Message = strings.TrimSpace(e.Message)
	e.Err = err
	switch {
	case strings.Contains(e.Message, "ndefined external variable"):
		e.Hint = "Give it in spec.source.directory.jsonnet.extVars."
	case strings.Contains(e.Message, "issing argument") || strings.Contains(e.Message, "has no parameter"):
		e.Hint = "The arguments of a file that is a function come from spec.source.directory.jsonnet.tlas."
	case strings.Contains(e.Message, "max stack frames exceeded"):
		e.Hint = "Look for a recursion without an end."
	}
	return &e
}

// located returns an error with the innermost place that is in the repository.
func located(err error) manifest.Error {
	var runtime gojsonnet.RuntimeError
	if errors.As(err, &runtime) {
		for _, frame := range slices.Backward(runtime.StackTrace) {
			if e, ok := place(frame.Loc); ok {
				return e
			}
		}
	}
	var static interface{ Loc() ast.LocationRange }
	if errors.As(err, &static) {
		if e, ok := place(static.Loc()); ok {
			return e
		}
	}
	return manifest.Error{}
}

func place(loc ast.LocationRange) (manifest.Error, bool) {
	name, ok := strings.CutPrefix(loc.FileName, "/")
	if !ok || loc.Begin.Line == 0 {
		return manifest.Error{}, false
	}
	return manifest.Error{File: name, Line: loc.Begin.Line}, true
}
