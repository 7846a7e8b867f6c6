// Package platform is the composition root: it makes one platform out of the
// boxes, starts them in order, and is the only package that knows them all.
//
// Input: a [Config]. Output: a running platform ([Run]) that answers on its
// control socket and its front door until its context ends, and nothing of it
// on the machine afterwards but its state folder ([Down] does the same when
// the supervisor was killed).
//
// Invariants: one supervisor per platform (a file lock); what a box needs of
// another goes through an adapter here, so that boxes never import each other;
// a box that ends with an error ends the platform with that error.
//
// Start reading at [Run], then assemble.
package platform

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// Deps is what a platform takes from its program.
type Deps struct {
	Log *slog.Logger
	// Ready, when set, is called once everything is up.
	Ready func()
}

// Run runs the platform until ctx ends, or until `down` asks it to. It returns
// nil when everything was stopped in order.
func Run(ctx context.Context, cfg Config, deps Deps) (err error) {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.path("logs"), 0o700); err != nil {
		return fmt.Errorf("make the platform's folder: %w", err)
	}
	release, err := lock(cfg)
	if err != nil {
		return err
	}
	defer release()
	if cfg, err = cfg.Remembered(); err != nil {
		return err
	}
	if err := cfg.check(); err != nil {
		return err
	}
	cfg, door, err := cfg.choosePort()
	if err != nil {
		return err
	}
	defer func() { _ = door.Close() }()
	if err := cfg.remember(); err != nil {
		return err
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	book, err := journal.Open(ctx, cfg.path("journal.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, book.Close()) }()

	s := &system{cfg: cfg, log: deps.Log, journal: book, stop: stop, started: time.Now(),
		steps: &steps{now: time.Now}, onReady: deps.Ready}
	if err := s.assemble(ctx); err != nil {
		return err
	}
	return s.run(ctx, door)
}

// run starts everything and waits for the first end.
func (s *system) run(ctx context.Context, door net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	start := func(what string, run func(context.Context) error) {
		g.Go(func() error {
			if err := run(ctx); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		})
	}
	start("control socket", s.server.Run)
	start("front door", func(ctx context.Context) error {
		return s.gateway.Serve(ctx, door, frontDoorOptions())
	})
	start("door of workflow jobs", func(ctx context.Context) error {
		return s.gateway.Serve(ctx, s.jobDoor, jobDoorOptions(s.cfg.JobEnv))
	})
	start("forge", s.forge.Run)
	start("runner services", s.services.Run)
	start("actions", s.actions.Run)
	g.Go(func() error { return s.bringUp(ctx, start) })
	err := g.Wait()
	if closeErr := errors.Join(s.actions.Close(), s.services.Close(), s.registry.Close(), s.azure.Close()); closeErr != nil {
		s.log.Warn("not every store was closed in order", "error", closeErr)
	}
	if removeErr := s.removeContext(); removeErr != nil {
		s.log.Warn("the kubeconfig context was not removed", "error", removeErr)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// step runs one part of the start and records it for whoever watches.
func (s *system) step(ctx context.Context, name string, work func(context.Context) (note string, err error)) error {
	done := s.steps.begin(name)
	note, err := work(ctx)
	done(note, err)
	if err != nil {
		s.log.Error("start failed", "step", name, "error", err)
		return fmt.Errorf("%s: %w", name, err)
	}
	s.log.Info("started", "step", name, "note", note)
	return nil
}

// await is a step that waits for a box to be ready.
func (s *system) await(ctx context.Context, name string, ready <-chan struct{}, note string) error {
	return s.step(ctx, name, func(ctx context.Context) (string, error) {
		select {
		case <-ready:
			return note, nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	})
}

// nodeListener opens a port of the node-facing address.
func nodeListener(addr netip.Addr, port uint16) (net.Listener, error) {
	l, err := net.Listen("tcp4", netip.AddrPortFrom(addr, port).String())
	if err != nil {
		return nil, fmt.Errorf("listen towards the node: %w", err)
	}
	return l, nil
}

// purge removes the platform's folder.
func purge(cfg Config) error {
	if err := os.RemoveAll(cfg.Dir()); err != nil {
		return fmt.Errorf("remove the platform's state: %w", err)
	}
	// The parent goes too when this was the last platform.
	_ = os.Remove(filepath.Dir(cfg.Dir()))
	return nil
}
