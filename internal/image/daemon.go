package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/moby/buildkit/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/lockstep-gitops/lockstep/internal/journal"
	"github.com/lockstep-gitops/lockstep/internal/process"
)

const (
	socketName = "buildkitd.sock"
	pidName    = "buildkitd.pid"
	logName    = "buildkitd.log"
	tomlName   = "buildkitd.toml"
	rootName   = "root"
	overlayfs  = "overlayfs"
	native     = "native"
)

var (
	errNotRunning = errors.New("the image builder is not running")
	errDied       = errors.New("buildkitd ended unexpectedly")
)

// daemon is the life of the buildkitd child: none → started by the first
// acquire → stopped after an idle time without users, or with run's context.
type daemon struct {
	cfg   Config
	deps  Deps
	ready chan struct{}

	mu    sync.Mutex
	ctx   context.Context // run's; nil before
	users int
	idle  *time.Timer
	child *buildkitd
	work  sync.WaitGroup // acquired and not released
}

// buildkitd is one running child and the connection to it.
type buildkitd struct {
	*process.Child
	client *client.Client
}

func newDaemon(cfg Config, deps Deps) *daemon {
	return &daemon{cfg: cfg, deps: deps, ready: make(chan struct{})}
}

func (d *daemon) pid() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.child == nil {
		return 0
	}
	return d.child.PID()
}

// run opens the door for acquire and, when ctx ends, ends everything.
func (d *daemon) run(ctx context.Context) error {
	d.mu.Lock()
	if d.ctx != nil {
		d.mu.Unlock()
		return errors.New("run image builder: it runs already")
	}
	if err := Sweep(d.cfg.Dir); err != nil {
		d.mu.Unlock()
		return err
	}
	d.ctx = ctx
	d.mu.Unlock()
	close(d.ready)
	<-ctx.Done()
	d.work.Wait() // users' contexts ended with ctx
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.idle != nil {
		d.idle.Stop()
	}
	return d.stop(context.WithoutCancel(ctx))
}

// acquire returns a running buildkitd and a context that ends with ctx, with
// the builder or with the child (cause errDied). release must be called.
func (d *daemon) acquire(ctx context.Context) (*buildkitd, context.Context, func(), error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx == nil || d.ctx.Err() != nil {
		return nil, nil, nil, errNotRunning
	}
	if d.idle != nil {
		d.idle.Stop()
		d.idle = nil
	}
	if d.child != nil && ended(d.child) {
		d.report(d.child)
		if err := d.stop(ctx); err != nil {
			return nil, nil, nil, err
		}
	}
	if d.child == nil {
		if err := d.start(ctx); err != nil {
			return nil, nil, nil, err
		}
	}
	d.users++
	d.work.Add(1)
	child := d.child
	use, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(d.ctx, func() { cancel(errNotRunning) })
	go func() {
		select {
		case <-child.Done():
			cancel(errDied)
		case <-use.Done():
		}
	}()
	var once sync.Once
	return child, use, func() {
		once.Do(func() {
			stop()
			cancel(context.Canceled)
			d.release()
			d.work.Done()
		})
	}, nil
}

func ended(c *buildkitd) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

// release counts a user off; after the last one the idle time begins.
func (d *daemon) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users--
	if d.users > 0 || d.ctx.Err() != nil {
		return
	}
	d.idle = time.AfterFunc(d.cfg.IdleTimeout, d.stopIdle)
}

func (d *daemon) stopIdle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users > 0 || d.child == nil || d.ctx.Err() != nil {
		return
	}
	d.deps.Log.Info("stop buildkitd: no build for a while", "idle", d.cfg.IdleTimeout)
	if err := d.stop(context.WithoutCancel(d.ctx)); err != nil {
		d.deps.Log.Error("stop buildkitd", "err", err)
	}
}

// start starts the child and waits until it answers. d.mu is held: builds that
// come meanwhile wait for the same start.
func (d *daemon) start(ctx context.Context) error {
	spec, err := d.prepare()
	if err != nil {
		return fmt.Errorf("start buildkitd: %w", err)
	}
	begin := time.Now()
	// The child outlives the request that started it; run stops it.
	child, err := process.Start(context.WithoutCancel(d.ctx), spec)
	if err != nil {
		return err
	}
	c, err := d.connect(ctx, child)
	if err != nil {
		cause := d.reason(child)
		_ = child.Stop(ctx) // it is to be gone; that it was killed is in its log
		return errors.Join(fmt.Errorf("start buildkitd: %w%s", err, cause), Sweep(d.cfg.Dir))
	}
	d.child = &buildkitd{Child: child, client: c}
	d.deps.Log.Info("buildkitd runs", "pid", child.PID(), "after", time.Since(begin).Round(time.Millisecond))
	return nil
}

// connect waits for the child's socket to answer.
func (d *daemon) connect(ctx context.Context, child *process.Child) (*client.Client, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, d.cfg.StartTimeout, fmt.Errorf("no answer within %s", d.cfg.StartTimeout))
	defer cancel()
	ctx, die := context.WithCancelCause(ctx)
	defer die(nil)
	go func() {
		select {
		case <-child.Done():
			die(errDied)
		case <-ctx.Done():
		}
	}()
	c, err := client.New(ctx, "unix://"+filepath.Join(d.cfg.Dir, socketName),
		client.WithGRPCDialOption(grpc.WithDefaultCallOptions(grpc.WaitForReady(true))),
		client.WithGRPCDialOption(grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.3, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		})))
	if err != nil {
		return nil, err
	}
	if _, err := c.Info(ctx); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// stop ends the child and clears what it left. d.mu is held.
func (d *daemon) stop(ctx context.Context) error {
	if d.child == nil {
		return nil
	}
	child := d.child
	d.child = nil
	errs := []error{child.client.Close()}
	if err := child.Stop(ctx); err != nil {
		d.deps.Log.Warn("buildkitd had to be killed", "err", err)
	}
	return errors.Join(append(errs, Sweep(d.cfg.Dir))...)
}

// Sweep ends the buildkitd that a killed process left behind in the state
// directory dir, with the processes, mounts and cgroups of its build steps.
// [Builder.Run] does so by itself; call it to clean up without a builder.
func Sweep(dir string) error {
	if err := process.EndLeftover(filepath.Join(dir, pidName)); err != nil {
		return fmt.Errorf("clear what buildkitd left: %w", err)
	}
	if err := sweep(dir, cgroupName(dir)); err != nil {
		return fmt.Errorf("clear what buildkitd left: %w", err)
	}
	if err := os.Remove(filepath.Join(dir, socketName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("clear what buildkitd left: %w", err)
	}
	return nil
}

// report tells the journal that the child ended by itself.
func (d *daemon) report(c *buildkitd) {
	message := "buildkitd ended unexpectedly and is started again" + d.reason(c.Child)
	d.deps.Log.Warn(message)
	d.append(d.ctx, journal.Event{Stage: journal.StagePlatform, Subject: "buildkitd", Status: journal.StatusFailed, Message: message})
}

func (d *daemon) append(ctx context.Context, e journal.Event) {
	if d.deps.Journal == nil {
		return
	}
	if _, err := d.deps.Journal.Append(ctx, e); err != nil {
		d.deps.Log.Error("append to journal", "subject", e.Subject, "err", err)
	}
}

// reason is how a child ended and its last words, "" while it runs.
func (d *daemon) reason(c *process.Child) string {
	select {
	case <-c.Done():
	default:
		return ""
	}
	s := ""
	if err := c.Wait(); err != nil {
		s = " (" + err.Error() + ")"
	}
	if tail := lastLines(filepath.Join(d.cfg.Dir, logName), 3); tail != "" {
		s += ": " + tail
	}
	return s
}
