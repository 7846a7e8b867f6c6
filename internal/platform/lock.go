package platform

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// RunningError says that a supervisor of the same platform is alive.
type RunningError struct {
	Name string
	PID  int
}

// Error implements error.
func (e *RunningError) Error() string {
	return fmt.Sprintf("platform %s is running already (process %d); `lockstep status` shows it, `lockstep down` ends it", e.Name, e.PID)
}

// lock makes this process the only supervisor of the platform. The kernel
// releases it however the process ends.
func lock(cfg Config) (release func(), err error) {
	path := cfg.path("lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the platform's folder: %w", err)
	}
	if err := hold(f, cfg); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the platform's folder: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// hold takes the file's lock. Whoever only asks with [Supervisor] holds it for
// a moment, too, which is no reason to give up.
func hold(f *os.File, cfg Config) error {
	const tries = 200
	for try := 1; ; try++ {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if pid := Supervisor(cfg); pid != 0 || try == tries {
			return &RunningError{Name: cfg.Name, PID: pid}
		}
		time.Sleep(time.Millisecond)
	}
}

// Supervisor returns the process id of the platform's live supervisor, 0 when
// there is none.
func Supervisor(cfg Config) int {
	f, err := os.Open(cfg.path("lock"))
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	if syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
		return 0 // nobody holds it
	}
	var buf [32]byte
	n, _ := f.Read(buf[:])
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		return 0
	}
	return pid
}
