package process

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inNetNS calls f with the calling thread inside the network namespace at
// path, so that a process started by f begins there. "" calls f as it is.
func inNetNS(path string, f func() error) error {
	if path == "" {
		return f()
	}
	target, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer target.Close()
	result := make(chan error, 1)
	go func() {
		// Not unlocked on failure to return: the thread ends with the goroutine
		// rather than going back to the pool in a foreign namespace.
		runtime.LockOSThread()
		result <- func() error {
			home, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				return fmt.Errorf("enter network namespace: %w", err)
			}
			defer home.Close()
			if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter network namespace %s: %w", path, err)
			}
			err = f()
			if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			return err
		}()
	}()
	return <-result
}

// handle holds one process by pidfd, so that its id cannot be reused under us.
type handle struct{ fd int }

// openProcess returns nil, nil when there is no such process.
func openProcess(pid int) (*handle, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &handle{fd: fd}, nil
}

func (h *handle) close() { _ = unix.Close(h.fd) }

func (h *handle) signal(sig syscall.Signal) error {
	err := unix.PidfdSendSignal(h.fd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// wait reports whether the process ended within limit.
func (h *handle) wait(limit time.Duration) (bool, error) {
	deadline := time.Now().Add(limit)
	for {
		left := max(0, time.Until(deadline).Milliseconds())
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}}, int(left))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("wait for process: %w", err)
		}
		return n > 0, nil
	}
}
