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

// InNetwork calls f.
func (s *Session) InNetwork(func() error) error { return ErrUnavailable }

// OwnNetwork is false.
func (s *Session) OwnNetwork() bool { return false }

// Publish always fails.
func (s *Session) Publish(context.Context, string, string) (string, error) {
	return "", ErrUnavailable
}

// AddHost always fails.
func (s *Session) AddHost(string) error { return ErrUnavailable }

// Relays are none.
func (s *Session) Relays() []string { return nil }

// ForJobs are no limits.
func ForJobs() Limits { return Limits{} }

// Done is closed when the sandbox has ended.
func (s *Session) Done() <-chan struct{} { return nil }

// Sweep removes what is left of an instance.
func Sweep(string) error { return nil }

// Exec runs one command.
func (s *Session) Exec(context.Context, Command) (Exit, error) { return Exit{}, ErrUnavailable }

// Close ends the sandbox.
func (s *Session) Close() {}

// Main is the other side of [Start].
func Main() int { return 1 }
