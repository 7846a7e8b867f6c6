package engine

import (
	"context"
	"errors"
	"fmt"
)

var errNoContainers = errors.New("containers cannot be run here: this job has no container engine")

func (e *Engine) run(ctx context.Context, x *exchange) error {
	if e.deps.Containers == nil {
		return errNoContainers
	}
	if x.Run == nil {
		return errors.New("the request names no container")
	}
	img, ok, err := e.images.get(x.Run.Image)
	if err != nil {
		return err
	}
	if !ok || x.Run.Pull == "always" {
		if x.Run.Pull == "never" {
			return fmt.Errorf("No such image: %s", x.Run.Image) //nolint:staticcheck // the text of docker
		}
		_, _ = fmt.Fprintf(x.stderr, "Unable to find image '%s' locally\n", x.Run.Image)
		quiet := *x
		quiet.stdout = x.stderr // docker run's own output stays clean
		if img, err = e.fetch(ctx, &quiet, x.Run.Image); err != nil {
			return err
		}
	}
	id, exit, err := e.deps.Containers.Run(ctx, *x.Run, img, x.body, x.stdout, x.stderr)
	if err == nil && x.Run.Detach {
		_, _ = fmt.Fprintln(x.stdout, id)
	}
	x.done.Exit = exit
	return err
}

func (e *Engine) ps(ctx context.Context, x *exchange) error {
	if e.deps.Containers == nil {
		return errNoContainers
	}
	list, err := e.deps.Containers.List(ctx, x.All)
	if err != nil {
		return err
	}
	if x.Platform != "quiet" {
		_, _ = fmt.Fprintf(x.stdout, "%-14s %-30s %-25s %-20s %s\n", "CONTAINER ID", "IMAGE", "COMMAND", "STATUS", "NAMES")
	}
	for _, c := range list {
		if x.Platform == "quiet" {
			_, _ = fmt.Fprintln(x.stdout, c.ID)
			continue
		}
		_, _ = fmt.Fprintf(x.stdout, "%-14s %-30s %-25s %-20s %s\n", c.ID, c.Image, c.Command, c.Status, c.Name)
	}
	return nil
}

// each calls act with every container that the request names.
func (e *Engine) each(x *exchange, act func(container string) error) error {
	if e.deps.Containers == nil {
		return errNoContainers
	}
	for _, c := range x.Refs {
		if err := act(c); err != nil {
			return err
		}
		_, _ = fmt.Fprintln(x.stdout, c)
	}
	return nil
}

func (e *Engine) rm(ctx context.Context, x *exchange) error {
	return e.each(x, func(c string) error { return e.deps.Containers.Remove(ctx, c, x.Force) })
}

func (e *Engine) stop(ctx context.Context, x *exchange) error {
	return e.each(x, func(c string) error { return e.deps.Containers.Stop(ctx, c) })
}

func (e *Engine) logs(ctx context.Context, x *exchange) error {
	if e.deps.Containers == nil {
		return errNoContainers
	}
	container, err := x.one()
	if err != nil {
		return err
	}
	return e.deps.Containers.Logs(ctx, container, x.stdout, x.stderr)
}
