package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Session is one running sandbox. It is safe for concurrent use.
type Session struct {
	cmd      *exec.Cmd
	control  *channel
	warnings []string
	gone     chan struct{} // closed when init has ended and was reaped
	closing  sync.Once

	mu     sync.Mutex
	next   int
	exits  map[int]chan result
	drains sync.WaitGroup
}

// setupTimeout bounds how long mounts may take.
const setupTimeout = 30 * time.Second

// outputGrace is how long the output of an ended command is still awaited
// while something else holds it open.
const outputGrace = 300 * time.Millisecond

// Start makes a sandbox. self is the path of a binary that calls [Main] when
// its argv[0] is [Name]. The caller must Close the session.
func Start(ctx context.Context, self string, spec Spec) (*Session, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: jobs need root for their namespaces and mounts; run lockstep as root", ErrUnavailable)
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start sandbox: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control")
	defer func() { _ = theirs.Close() }()
	control, err := openChannel(ours)
	_ = ours.Close() // openChannel made a copy
	if err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	cmd := &exec.Cmd{
		Path: self, Args: []string{Name}, Env: []string{}, Dir: "/",
		Stderr: &limited{w: &stderr, left: 16 << 10}, ExtraFiles: []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
			Setsid:     true,
		},
		WaitDelay: time.Second,
	}
	if err := cmd.Start(); err != nil {
		_ = control.conn.Close()
		if errors.Is(err, syscall.EPERM) {
			return nil, fmt.Errorf("%w: this machine does not let root make namespaces (CAP_SYS_ADMIN missing): %v", ErrUnavailable, err)
		}
		return nil, fmt.Errorf("start sandbox: %w", err)
	}
	s := &Session{cmd: cmd, control: control, gone: make(chan struct{}), exits: map[int]chan result{}}
	go func() {
		_ = cmd.Wait()
		close(s.gone)
	}()
	if err := s.setUp(ctx, spec); err != nil {
		s.Close()
		if stderr.Len() > 0 {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
		}
		return nil, err
	}
	go s.receive()
	return s, nil
}

func (s *Session) setUp(ctx context.Context, spec Spec) error {
	stop := context.AfterFunc(ctx, func() { _ = s.control.conn.Close() })
	defer stop()
	_ = s.control.conn.SetDeadline(time.Now().Add(setupTimeout))
	if err := s.control.send(message{Spec: &spec}, nil); err != nil {
		return fmt.Errorf("set up sandbox: %w", err)
	}
	m, err := s.control.receive()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("set up sandbox: %w", ctx.Err())
	case err != nil:
		return fmt.Errorf("set up sandbox: %w", err)
	case m.Error != "":
		return fmt.Errorf("set up sandbox: %s", m.Error)
	case m.Ready == nil:
		return errors.New("set up sandbox: unexpected answer")
	}
	s.warnings = m.Ready.Warnings
	return s.control.conn.SetDeadline(time.Time{})
}

// Warnings says what this machine could not isolate.
func (s *Session) Warnings() []string { return s.warnings }

// PID is the init process, as the host sees it.
func (s *Session) PID() int { return s.cmd.Process.Pid }

// receive hands each exit to the Exec that waits for it.
func (s *Session) receive() {
	for {
		m, err := s.control.receive()
		if err != nil {
			return // Exec sees gone
		}
		if m.Exit == nil {
			continue
		}
		s.mu.Lock()
		ch := s.exits[m.Exit.ID]
		delete(s.exits, m.Exit.ID)
		s.mu.Unlock()
		if ch != nil {
			ch <- *m.Exit // has room for one
		}
	}
}

// Exec runs one command to its end. The error is about starting or losing
// the command; a command that fails by itself is an Exit. When ctx ends the
// command is ended and its Exit is returned with ctx's cause as the error.
func (s *Session) Exec(ctx context.Context, c Command) (Exit, error) {
	if len(c.Args) == 0 {
		return Exit{}, errors.New("run in sandbox: no program named")
	}
	if ctx.Err() != nil {
		return Exit{Code: 130, Signal: "interrupt"}, context.Cause(ctx)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return Exit{}, fmt.Errorf("run in sandbox: %w", err)
	}
	done := make(chan result, 1)
	s.mu.Lock()
	s.next++
	id := s.next
	s.exits[id] = done
	s.mu.Unlock()
	err = s.control.send(message{Exec: &request{ID: id, Args: c.Args, Env: c.Env, Dir: c.Dir}}, w)
	_ = w.Close()
	if err != nil {
		_ = r.Close()
		return Exit{}, s.lost(err)
	}
	out := &gate{w: c.Output}
	drained := s.drain(r, out)
	res, err := s.await(ctx, id, c.Grace, done)
	select {
	case <-drained:
	case <-time.After(outputGrace): // a background process keeps the pipe
	}
	out.shut()
	if err == nil && res.Error != "" {
		return Exit{Code: 127}, fmt.Errorf("%s", res.Error)
	}
	return Exit{Code: res.Code, Signal: res.Signal}, err
}

// drain copies until the last holder of the pipe ends, at the latest when the
// session does, so that a background process never blocks on it.
func (s *Session) drain(r *os.File, w io.Writer) <-chan struct{} {
	done := make(chan struct{})
	s.drains.Go(func() {
		defer close(done)
		defer func() { _ = r.Close() }()
		_, _ = io.Copy(w, r)
	})
	return done
}

func (s *Session) await(ctx context.Context, id int, grace time.Duration, done <-chan result) (result, error) {
	select {
	case res := <-done:
		return res, nil
	case <-s.gone:
		return result{Code: 137, Signal: "killed"}, s.lost(nil)
	case <-ctx.Done():
	}
	if grace <= 0 {
		grace = 2500 * time.Millisecond
	}
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		_ = s.control.send(message{Kill: &signal{ID: id, Signal: int(sig)}}, nil)
		select {
		case res := <-done:
			return res, context.Cause(ctx)
		case <-s.gone:
			return result{Code: 137, Signal: "killed"}, context.Cause(ctx)
		case <-time.After(grace):
		}
	}
	return result{Code: 137, Signal: "killed"}, context.Cause(ctx)
}

func (s *Session) lost(err error) error {
	select {
	case <-s.gone:
		return fmt.Errorf("run in sandbox: its init process has ended")
	default:
		return err
	}
}

// Close kills every process of the sandbox and waits until they are gone.
func (s *Session) Close() {
	s.closing.Do(func() {
		_ = s.cmd.Process.Kill()
		<-s.gone
		_ = s.control.conn.Close()
		s.drains.Wait()
	})
}

// gate passes writes on until it is shut, then swallows them.
type gate struct {
	mu     sync.Mutex
	w      io.Writer
	closed bool
}

func (g *gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed && g.w != nil {
		if _, err := g.w.Write(p); err != nil {
			g.closed = true
		}
	}
	return len(p), nil
}

func (g *gate) shut() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
}

// limited keeps the first bytes and drops the rest.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	if _, err := l.w.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}
