// Package process starts and watches the child programs of Lockstep.
//
// Input: a [Spec]. Output: a running [Child] ([Start]), or a child that is kept
// running until a context ends ([Supervise]).
//
// Invariants: a child writes to its log file itself, so it lives on when the
// supervisor is killed; its pid file names it by process id, start time and
// boot, so [EndLeftover] never signals a stranger that was given the same id;
// nobody but the kernel and Stop ends a child; a function that started a child
// returns only after the child is reaped.
//
// Start reading at [Spec], then [Supervise].
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// defaultStopTimeout is how long a child may take to end after its StopSignal.
const defaultStopTimeout = 10 * time.Second

// Spec describes one child process.
type Spec struct {
	// Name is the child's name in logs, errors and events.
	Name string
	// Path is the program. It is never looked up in PATH.
	Path string
	// Args is the whole argument list; Args[0] is argv[0]. Empty: {Path}.
	Args []string
	// Env is the whole environment ("K=V"); nil inherits ours.
	Env []string
	// Dir is the working directory; "" is ours.
	Dir string
	// NetNS is the path of the network namespace to start in; "" is ours.
	NetNS string
	// Log is the file that standard output and error are appended to. It is
	// rotated at 10 MiB, two old ones are kept. "" discards the output.
	Log string
	// PIDFile records the child for EndLeftover; "" records nothing.
	PIDFile string
	// StopSignal asks the child to end; 0 is SIGTERM.
	StopSignal syscall.Signal
	// StopTimeout is how long it may take before SIGKILL; 0 is 10 s.
	StopTimeout time.Duration
}

func (s Spec) validate() error {
	if s.Name == "" {
		return errors.New("start child: Spec.Name is empty")
	}
	if !filepath.IsAbs(s.Path) {
		return fmt.Errorf("start %s: program path %q is not absolute", s.Name, s.Path)
	}
	return nil
}

// Child is a started process.
type Child struct {
	spec Spec
	cmd  *exec.Cmd
	done chan struct{} // closed when the process is reaped
	err  error         // valid once done is closed
	stop sync.Once
}

// Start starts the child and returns at once. When ctx ends the child is
// stopped as by [Child.Stop]. The caller must read Done or call Wait.
func Start(ctx context.Context, spec Spec) (*Child, error) {
	if err := spec.validate(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	out, err := openLog(spec.Log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	if out != nil {
		defer out.Close()
	}
	cmd := &exec.Cmd{Path: spec.Path, Args: spec.Args, Env: spec.Env, Dir: spec.Dir}
	if len(cmd.Args) == 0 {
		cmd.Args = []string{spec.Path}
	}
	if out != nil { // a nil *os.File must not become a non-nil io.Writer
		cmd.Stdout, cmd.Stderr = out, out
	}
	// A group of its own keeps the terminal's Ctrl-C away from the child.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := inNetNS(spec.NetNS, cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	c := &Child{spec: spec, cmd: cmd, done: make(chan struct{})}
	if spec.PIDFile != "" {
		if err := writePIDFile(spec.PIDFile, cmd.Process.Pid); err != nil {
			return nil, errors.Join(fmt.Errorf("start %s: %w", spec.Name, err), cmd.Process.Kill(), ignoreExit(cmd.Wait()))
		}
	}
	go c.reap()
	go c.attend(ctx)
	return c, nil
}

// ignoreExit drops the exit status of a child that we killed ourselves.
func ignoreExit(err error) error {
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil
	}
	return err
}

// reap waits for the process and publishes how it ended.
func (c *Child) reap() {
	c.err = c.cmd.Wait()
	if c.spec.PIDFile != "" {
		// Failing to remove it is harmless: the record no longer matches a process.
		_ = os.Remove(c.spec.PIDFile)
	}
	close(c.done)
}

// attend rotates the log and stops the child when ctx ends.
func (c *Child) attend(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-tick.C:
			rotateOpenLog(c.spec.Log)
		case <-ctx.Done():
			// The error of a stop that nobody asked for by call is in Wait.
			_ = c.Stop(context.WithoutCancel(ctx))
			return
		}
	}
}

// PID returns the process id.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Done is closed when the process has ended and is reaped.
func (c *Child) Done() <-chan struct{} { return c.done }

// Wait blocks until the process has ended. It returns nil for exit code 0 and
// an *exec.ExitError otherwise.
func (c *Child) Wait() error {
	<-c.done
	return c.err
}

// Stop sends the stop signal, and SIGKILL to the child's process group when
// it has not ended after StopTimeout or when ctx ends first. It returns when
// the process is reaped; nil means that it ended by the stop signal or by
// itself, an error that it had to be killed.
func (c *Child) Stop(ctx context.Context) error {
	sig, limit := c.spec.StopSignal, c.spec.StopTimeout
	if sig == 0 {
		sig = syscall.SIGTERM
	}
	if limit == 0 {
		limit = defaultStopTimeout
	}
	c.stop.Do(func() { _ = c.cmd.Process.Signal(sig) }) // ended already: done says so
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c.done:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	_ = syscall.Kill(-c.PID(), syscall.SIGKILL)
	<-c.done
	return fmt.Errorf("stop %s: still running %s after %s, killed", c.spec.Name, limit, sig)
}
