//go:build !linux

package sandbox

import (
	"context"
	"fmt"
)

// Session is one running sandbox.
type Session struct{}

// Start always fails: namespaces are a Linux feature.
func Start(context.Context, string, Spec) (*Session, error) {
	return nil, fmt.Errorf("%w: jobs need Linux", ErrUnavailable)
}

// Warnings says what this machine could not isolate.
func (s *Session) Warnings() []string { return nil }

// PID is the init process.
func (s *Session) PID() int { return 0 }

func (s *Session) untrusted() bool { return false }

// Sweep removes what is left of an instance.
func Sweep(string) error { return nil }

// Exec runs one command.
func (s *Session) Exec(context.Context, Command) (Exit, error) { return Exit{}, ErrUnavailable }

// Close ends the sandbox.
func (s *Session) Close() {}

// Main is the other side of [Start].
func Main() int { return 1 }
