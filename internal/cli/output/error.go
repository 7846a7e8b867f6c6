package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Exit codes of every command.
const (
	ExitOK        = 0
	ExitError     = 1
	ExitCancelled = 2
	ExitAuth      = 4  // not signed in, or not allowed
	ExitPending   = 8  // not done within the time
	ExitDiff      = 20 // there is a difference
)

// Error is an error for people: what happened, why, and what to try.
type Error struct {
	What string
	Why  string
	Try  string
	// Code is the exit code; 0 means ExitError.
	Code int
	Err  error // the cause, where there is one
}

func (e *Error) Error() string {
	if e.Why == "" {
		return e.What
	}
	return e.What + ": " + e.Why
}

func (e *Error) Unwrap() error { return e.Err }

// Exit ends a command with a code after it has said all there is to say.
type Exit int

func (e Exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// Report writes the error and returns the exit code.
func Report(w io.Writer, paint Paint, err error) int {
	var exit Exit
	var e *Error
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &exit):
		return int(exit)
	case errors.Is(err, context.Canceled):
		_, _ = fmt.Fprintln(w, "cancelled")
		return ExitCancelled
	case !errors.As(err, &e):
		e = &Error{What: err.Error()}
		if errors.Is(err, context.DeadlineExceeded) {
			e.Code, e.Try = ExitPending, "a longer --timeout"
		}
	}
	line := func(label, text string) {
		if text != "" {
			_, _ = fmt.Fprintf(w, "%s %s\n", label, indent(text))
		}
	}
	line(paint.Bad("error:"), e.What)
	line(paint.Dim("  why:"), e.Why)
	line(paint.Busy("  try:"), e.Try)
	if e.Code == 0 {
		return ExitError
	}
	return e.Code
}

// indent keeps the lines of a long text below each other.
func indent(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i := range lines {
		lines[i] = Clean(lines[i])
	}
	return strings.Join(lines, "\n       ")
}
