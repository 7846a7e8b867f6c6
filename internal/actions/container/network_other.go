//go:build !linux

package container

import "github.com/lockstep-gitops/lockstep/internal/actions/sandbox"

func addressOf(int) string { return "" }

func makeBridge(*sandbox.Session) error { return sandbox.ErrUnavailable }

func plug(_, _ *sandbox.Session, _ int) error { return sandbox.ErrUnavailable }
