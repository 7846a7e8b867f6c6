package sandbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"
)

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
	done := make(chan result, 1)
	s.mu.Lock()
	s.next++
	id := s.next
	s.exits[id] = done
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.exits, id)
		s.mu.Unlock()
	}()
	p := pipes{session: s, left: s.spec.Limits.Output}
	before := s.group.trouble()
	if err := p.start(id, c); err != nil {
		p.abandon()
		return Exit{}, s.lost(err)
	}
	res, err := s.await(ctx, id, c.Grace, c.Signals, done)
	p.finish()
	if err == nil && res.Error != "" {
		return Exit{Code: 127}, fmt.Errorf("%s", res.Error)
	}
	exit := Exit{Code: res.Code, Signal: res.Signal}
	if !exit.OK() {
		exit.Why = s.why(before)
	}
	if errors.Is(err, errLost) && exit.Why != "" {
		err = fmt.Errorf("%w: %s", err, exit.Why)
	}
	return exit, err
}

func (s *Session) await(ctx context.Context, id int, grace time.Duration, signals []syscall.Signal, done <-chan result) (result, error) {
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
	if len(signals) == 0 {
		signals = []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}
	}
	for _, sig := range append(slices.Clone(signals), syscall.SIGKILL) {
		_ = s.control.send(message{Kill: &signal{ID: id, Signal: int(sig)}})
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

// why explains the end of a command by the limits that were hit.
func (s *Session) why(before trouble) string {
	if s.group != nil {
		if why := s.group.why(before); why != "" {
			return why
		}
	}
	var st syscall.Statfs_t
	const nearlyFull = 64 << 10
	if d := s.spec.Limits.Disk; d > 0 && syscall.Statfs(fmt.Sprintf("/proc/%d/root", s.PID()), &st) == nil &&
		int64(st.Bavail)*st.Bsize < nearlyFull {
		return fmt.Sprintf("the job's disk of %s is full: outside of the workspace, home and /tmp files are kept in memory", size(d))
	}
	return ""
}

// errLost says that a sandbox is no more.
var errLost = errors.New("run in sandbox: its init process has ended")

func (s *Session) lost(err error) error {
	select {
	case <-s.gone:
		return errLost
	default:
		return err
	}
}
