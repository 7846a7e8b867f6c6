package container

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
)

// States of a health check, as Docker names them.
const (
	Starting  = "starting"
	Healthy   = "healthy"
	Unhealthy = "unhealthy"
)

// firstPause is between the first checks. They come faster than the interval,
// so that a job does not wait for a service that is up.
const firstPause = 200 * time.Millisecond

// healthState is what the checks found.
type healthState struct {
	mu      sync.Mutex
	state   string // "" without a check
	output  string // of the last check
	decided chan struct{}
	once    sync.Once
}

func newHealth(h *Health) *healthState {
	s := &healthState{decided: make(chan struct{})}
	if h == nil {
		close(s.decided)
		return s
	}
	s.state = Starting
	return s
}

func (s *healthState) set(state, output string) {
	s.mu.Lock()
	s.state, s.output = state, output
	s.mu.Unlock()
	if state != Starting {
		s.once.Do(func() { close(s.decided) })
	}
}

// Health is the state of the check and the output of the last one; "" without one.
func (c *Container) Health() (state, output string) {
	c.health.mu.Lock()
	defer c.health.mu.Unlock()
	return c.health.state, c.health.output
}

// Healthy waits until the health check passes, or fails for good. Without a
// check it returns at once.
func (c *Container) Healthy(ctx context.Context) error {
	select {
	case <-c.health.decided:
	case <-c.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if exit, _, ended := c.Exited(); ended {
		var log bytes.Buffer
		_ = c.Logs(ctx, &log, false)
		return fmt.Errorf("container %s ended before it was healthy (%s): %s", c.spec.Name, exit, tail(log.Bytes(), 5))
	}
	if state, output := c.Health(); state == Unhealthy {
		return fmt.Errorf("container %s is unhealthy; its check says: %s", c.spec.Name, output)
	}
	return nil
}

// watch checks until ctx ends.
func (c *Container) watch(ctx context.Context) {
	h := *c.program.health
	if h.Interval <= 0 {
		h.Interval = 30 * time.Second
	}
	if h.Timeout <= 0 {
		h.Timeout = 30 * time.Second
	}
	if h.Retries <= 0 {
		h.Retries = 3
	}
	// Docker gives up after that many checks.
	deadline := time.Now().Add(h.StartPeriod + time.Duration(h.Retries)*h.Interval)
	state, failures, pause := Starting, 0, min(firstPause, h.Interval)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		ok, output := c.check(ctx, h)
		if ctx.Err() != nil {
			return
		}
		switch {
		case ok:
			state, failures, pause = Healthy, 0, h.Interval
		case state == Starting:
			if time.Now().After(deadline) {
				state, pause = Unhealthy, h.Interval
			} else {
				pause = min(2*pause, h.Interval)
			}
		default:
			if failures++; failures >= h.Retries {
				state = Unhealthy
			}
		}
		c.health.set(state, output)
		timer.Reset(pause)
	}
}

// check runs the check once.
func (c *Container) check(ctx context.Context, h Health) (ok bool, output string) {
	args := h.Test[1:]
	if h.Test[0] == "CMD-SHELL" {
		args = append([]string{"/bin/sh", "-c"}, args...)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, h.Timeout, fmt.Errorf("the check took longer than %s", h.Timeout))
	defer cancel()
	var out bytes.Buffer
	exit, err := c.Exec(ctx, sandbox.Command{Args: args, Output: &limited{w: &out, left: 4096}, Grace: time.Millisecond})
	text := tail(out.Bytes(), 5)
	if err != nil {
		return false, err.Error()
	}
	if !exit.OK() && text == "" {
		text = exit.String()
	}
	return exit.OK(), text
}

// limited keeps the first bytes and drops the rest.
type limited struct {
	w    *bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	l.w.Write(p[:n])
	return len(p), nil
}
