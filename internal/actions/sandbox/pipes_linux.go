package sandbox

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// pipes connect one command with its readers and writers.
type pipes struct {
	session *Session
	left    int64 // bytes that both outputs may still pass together; 0 is all
	gates   []*gate
	drained []<-chan struct{}
	input   *os.File // our end; nil without input
	readers []*os.File
}

// start makes the pipes and sends the request.
func (p *pipes) start(id int, c Command) error {
	var theirs []*os.File
	defer func() { closeAll(theirs) }()
	if c.Input != nil {
		r, w, err := os.Pipe()
		if err != nil {
			return fmt.Errorf("run in sandbox: %w", err)
		}
		p.input = w
		theirs = append(theirs, r)
	}
	quota := &quota{left: p.left, limited: p.left > 0}
	outputs := []io.Writer{c.Output}
	if c.Errors != nil {
		outputs = append(outputs, c.Errors)
	}
	for _, out := range outputs {
		r, w, err := os.Pipe()
		if err != nil {
			return fmt.Errorf("run in sandbox: %w", err)
		}
		theirs, p.readers = append(theirs, w), append(p.readers, r)
		p.gates = append(p.gates, &gate{w: out, quota: quota})
	}
	r := &request{ID: id, Args: c.Args, Env: c.Env, Dir: c.Dir, User: c.User, Input: c.Input != nil, Errors: c.Errors != nil}
	if err := p.session.control.send(message{Exec: r}, theirs...); err != nil {
		return err
	}
	for i, r := range p.readers {
		p.drained = append(p.drained, p.session.drain(r, p.gates[i]))
	}
	if p.input != nil {
		go func() { // ends with the pipe, or with the reader that it waits for
			_, _ = io.Copy(p.input, c.Input)
			_ = p.input.Close()
		}()
	}
	return nil
}

// abandon closes what start opened before it failed.
func (p *pipes) abandon() {
	closeAll(p.readers)
	if p.input != nil {
		_ = p.input.Close()
	}
}

// finish waits for the rest of the output of an ended command.
func (p *pipes) finish() {
	if p.input != nil {
		_ = p.input.Close()
	}
	late := time.NewTimer(outputGrace)
	defer late.Stop()
	expired := false
	for _, d := range p.drained {
		if expired {
			break
		}
		select {
		case <-d:
		case <-late.C: // a background process keeps the pipe
			expired = true
		}
	}
	for _, g := range p.gates {
		g.shut()
	}
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

// quota is how much the outputs of one command may still pass on.
type quota struct {
	mu      sync.Mutex
	limited bool
	left    int64
}

// take returns how many of n bytes may pass, and whether these were the last.
func (q *quota) take(n int) (pass int, last bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.limited || int64(n) <= q.left {
		q.left -= int64(n)
		return n, false
	}
	pass, last = int(max(q.left, 0)), q.left >= 0
	q.left = -1
	return pass, last
}

// gate passes writes on until it is shut or the quota is used up, then
// swallows them.
type gate struct {
	mu     sync.Mutex
	w      io.Writer
	quota  *quota
	closed bool
}

func (g *gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.w == nil {
		return len(p), nil
	}
	n, last := g.quota.take(len(p))
	if _, err := g.w.Write(p[:n]); err != nil {
		g.closed = true
	}
	if last {
		_, _ = io.WriteString(g.w, "\n##[warning]The output of this command is longer than what is kept of one; the rest is dropped.\n")
		g.closed = true
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
	kept []byte
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	l.kept = append(l.kept, p[:n]...)
	return len(p), nil
}
