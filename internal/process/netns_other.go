//go:build !linux

package process

import (
	"errors"
	"syscall"
	"time"
)

var errNotLinux = errors.New("network namespaces and leftovers need Linux")

func inNetNS(path string, f func() error) error {
	if path != "" {
		return errNotLinux
	}
	return f()
}

type handle struct{}

func openProcess(int) (*handle, error)             { return nil, errNotLinux }
func (h *handle) close()                           {}
func (h *handle) signal(syscall.Signal) error      { return errNotLinux }
func (h *handle) wait(time.Duration) (bool, error) { return false, errNotLinux }
