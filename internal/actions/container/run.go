package container

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
)

// defaultStop is how long a container may take to stop after its signal.
const defaultStop = 10 * time.Second

// Container is one that was started. It is safe for concurrent use.
type Container struct {
	id      string
	spec    Spec
	image   Image
	pod     *pod
	number  int // in its pod
	dir     string
	program program
	box     *sandbox.Session
	release func() // of the image's layers
	ports   map[string]string
	started time.Time
	log     *logFile
	health  *healthState

	stop    context.CancelCauseFunc // ends the main program
	done    chan struct{}           // closed when it has ended
	exit    sandbox.Exit
	exitErr error
	ended   time.Time
	closing sync.Once
}

// Start starts a container beside the job box. It goes on until it ends by
// itself, Stop, or the end of the job. out, which may be nil, gets what it
// writes, beside its log.
func (e *Engine) Start(ctx context.Context, box *sandbox.Session, spec Spec, out io.Writer) (*Container, error) {
	return e.start(ctx, box, spec, out, nil)
}

// Run runs a container to its end and removes it. stdout and stderr get what
// it writes; when stderr is nil or the same as stdout, that gets both in their
// order. When ctx ends the container
// is stopped, and the error is ctx's cause.
func (e *Engine) Run(ctx context.Context, box *sandbox.Session, spec Spec, stdout, stderr io.Writer) (sandbox.Exit, error) {
	c, err := e.start(ctx, box, spec, stdout, stderr)
	if err != nil {
		return sandbox.Exit{Code: 125}, err
	}
	exit, err := c.Wait(ctx)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	// The job may have been cancelled, but what is left must go.
	return exit, errors.Join(err, c.Stop(context.WithoutCancel(ctx), 0))
}

func (e *Engine) start(ctx context.Context, box *sandbox.Session, spec Spec, stdout, stderr io.Writer) (*Container, error) {
	if same(stdout, stderr) {
		stderr = nil
	}
	image, err := e.ensure(ctx, spec.Image, stdout)
	if err != nil {
		return nil, err
	}
	program, err := spec.program(image.Config)
	if err != nil {
		return nil, err
	}
	p, err := e.podOf(box)
	if err != nil {
		return nil, err
	}
	c := &Container{id: newID(), spec: spec, image: image, pod: p, program: program, done: make(chan struct{}), ports: map[string]string{}, started: e.deps.Now()}
	p.starting.RLock()
	defer p.starting.RUnlock()
	if err := p.admit(c); err != nil {
		return nil, err
	}
	if err := c.create(ctx, e); err != nil {
		c.remove()
		return nil, fmt.Errorf("start container %s of image %s: %w", c.spec.Name, spec.Image, err)
	}
	c.launch(ctx, stdout, stderr)
	return c, nil
}

// same reports whether two writers are one. Types that cannot be compared are not.
func same(a, b io.Writer) bool {
	defer func() { _ = recover() }()
	return a == b
}

func newID() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// create makes the sandbox with its network.
func (c *Container) create(ctx context.Context, e *Engine) error {
	layers, release, err := e.unpack(ctx, c.image.Digest)
	if err != nil {
		return err
	}
	c.release = release
	if err := e.store.touch(c.image.Digest); err != nil {
		return err
	}
	c.dir = filepath.Join(c.pod.dir, c.id[:12])
	if err := os.MkdirAll(c.dir+"/root", 0o755); err != nil {
		return err
	}
	if c.log, err = openLog(c.dir + "/log"); err != nil {
		return err
	}
	s, err := c.sandboxSpec(layers)
	if err != nil {
		return err
	}
	box, err := sandbox.Start(ctx, e.cfg.Self, s)
	if err != nil {
		return err
	}
	c.pod.mu.Lock()
	c.box = box
	if s.Join != nil || s.Network == sandbox.HostNetwork {
		c.number = -1
	}
	c.pod.mu.Unlock()
	if err := c.pod.connect(c); err != nil {
		return err
	}
	return c.publish(ctx)
}

// launch runs the main program and the health check.
func (c *Container) launch(ctx context.Context, stdout, stderr io.Writer) {
	// The container outlives the call that started it.
	running, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	c.stop = stop
	c.health = newHealth(c.program.health)
	c.pod.work.Go(func() {
		defer close(c.done)
		if c.spec.Idle {
			select {
			case <-running.Done():
			case <-c.box.Done():
			}
		} else {
			grace := c.spec.StopGrace
			if grace <= 0 {
				grace = defaultStop
			}
			cmd := sandbox.Command{
				Args: c.program.args, Env: c.environment(nil), Dir: c.program.dir, User: c.program.user, Input: c.spec.Input,
				Output: tee(c.log, stdout), Grace: grace, Signals: []syscall.Signal{c.program.signal},
			}
			if stderr != nil {
				cmd.Errors = tee(c.log, stderr)
			}
			c.exit, c.exitErr = c.box.Exec(running, cmd)
			if errors.Is(c.exitErr, errStopped) {
				c.exitErr = nil
			}
		}
		c.ended = time.Now()
		stop(errStopped)
		c.log.finish()
		c.box.Close()
	})
	if c.program.health != nil {
		c.pod.work.Go(func() { c.watch(running) })
	}
}

var errStopped = errors.New("the container was stopped")

func tee(log *logFile, out io.Writer) io.Writer {
	if out == nil {
		return log
	}
	return io.MultiWriter(log, out)
}

// Exited reports how it ended; ok is false while it runs.
func (c *Container) Exited() (exit sandbox.Exit, at time.Time, ok bool) {
	select {
	case <-c.done:
		return c.exit, c.ended, true
	default:
		return sandbox.Exit{}, time.Time{}, false
	}
}

// Wait waits for its end. When ctx ends before, it is stopped and still awaited.
func (c *Container) Wait(ctx context.Context) (sandbox.Exit, error) {
	select {
	case <-c.done:
	case <-ctx.Done():
		c.stop(errStopped)
		<-c.done // the signals end it
	}
	return c.exit, c.exitErr
}

// Exec runs a program in the container. Env goes over the container's; Dir and
// User are the container's when empty.
func (c *Container) Exec(ctx context.Context, cmd sandbox.Command) (sandbox.Exit, error) {
	cmd.Env = c.environment(cmd.Env)
	if cmd.Dir == "" {
		cmd.Dir = c.program.dir
	}
	if cmd.User == "" {
		cmd.User = c.program.user
	}
	exit, err := c.box.Exec(ctx, cmd)
	if _, _, ended := c.Exited(); ended && err != nil && ctx.Err() == nil {
		err = fmt.Errorf("container %s is not running (%s)", c.spec.Name, c.exit)
	}
	return exit, err
}

// environment is that of a program of the container. Where a proxy is set, the
// other containers of the job are reached without it.
func (c *Container) environment(more []string) []string {
	env := mergeEnv(c.program.env, more)
	var direct []string
	for i, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if c.number >= 0 && strings.HasSuffix(strings.ToLower(name), "_proxy") { // the job's own loopback is not the container's
			env[i] = name + "=" + strings.Replace(value, "//127.0.0.1:", "//"+gatewayAddress+":", 1)
		}
		if !strings.EqualFold(name, "no_proxy") || value == "" || value == "*" {
			continue
		}
		if direct == nil {
			direct = c.pod.names()
		}
		env[i] = name + "=" + strings.Join(append([]string{value}, direct...), ",")
	}
	return env
}

// Logs writes what the container wrote so far; with follow, until it ends.
func (c *Container) Logs(ctx context.Context, w io.Writer, follow bool) error {
	return c.log.copy(ctx, w, follow)
}

// Stop ends the container with its signal, after grace (0: its own) by force,
// and removes what is left of it.
func (c *Container) Stop(ctx context.Context, grace time.Duration) error {
	if grace <= 0 {
		if grace = c.spec.StopGrace; grace <= 0 {
			grace = defaultStop
		}
	}
	if c.stop != nil {
		c.stop(errStopped)
		select {
		case <-c.done:
		case <-time.After(grace + time.Second):
		case <-ctx.Done():
		}
	}
	c.remove()
	return nil
}

// Kill ends it at once.
func (c *Container) Kill() {
	c.box.Close()
	<-c.done
}

// remove ends the sandbox and forgets the container.
func (c *Container) remove() {
	c.closing.Do(func() {
		if c.box != nil {
			c.box.Close()
		}
		if c.stop != nil {
			c.stop(errStopped)
			<-c.done
		}
		if c.release != nil {
			c.release()
		}
		c.pod.forget(c)
		if c.log != nil {
			c.log.close()
		}
		if c.dir != "" {
			_ = os.RemoveAll(c.dir)
		}
	})
}

// tail are the last lines of a text.
func tail(text []byte, lines int) string {
	all := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}
