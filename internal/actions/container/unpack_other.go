//go:build !linux

package container

import (
	"archive/tar"

	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
)

func whiteout(string) func(*tar.Header, string) (bool, error) {
	return func(*tar.Header, string) (bool, error) { return false, sandbox.ErrUnavailable }
}

func syncAll(string) error { return sandbox.ErrUnavailable }
