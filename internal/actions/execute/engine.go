package execute

import (
	"context"
	"io"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
	"github.com/lockstep-gitops/lockstep/internal/actions/container"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
)

// stopGrace is how long a container may take to end by itself.
const stopGrace = 10 * time.Second

// FromEngine makes Containers of a container engine.
func FromEngine(e *container.Engine) Containers { return engine{e} }

type engine struct{ *container.Engine }

// Pull implements Containers.
func (e engine) Pull(ctx context.Context, image string, login builtin.Credential, out io.Writer) (string, error) {
	pulled, err := e.Engine.Pull(ctx, image, container.Auth(login), out)
	if err != nil {
		return "", err
	}
	return pulled.Digest.String(), nil
}

// Run implements Containers.
func (e engine) Run(ctx context.Context, box *sandbox.Session, c ContainerSpec, out io.Writer) (sandbox.Exit, error) {
	spec, err := engineSpec(c, out)
	if err != nil {
		return sandbox.Exit{}, err
	}
	return e.Engine.Run(ctx, box, spec, out, out)
}

// Start implements Containers.
func (e engine) Start(ctx context.Context, box *sandbox.Session, c ContainerSpec, out io.Writer) (Container, error) {
	spec, err := engineSpec(c, out)
	if err != nil {
		return nil, err
	}
	started, err := e.Engine.Start(ctx, box, spec, out)
	if err != nil {
		return nil, err
	}
	return engineContainer{started}, nil
}

// engineSpec lays what the job says over what its options say. Options that
// change nothing are named in out.
func engineSpec(c ContainerSpec, out io.Writer) (container.Spec, error) {
	call, err := container.ParseOptions(c.Options)
	if err != nil {
		return container.Spec{}, err
	}
	for _, note := range call.Notes {
		_, _ = io.WriteString(out, note+"\n")
	}
	s := call.Spec
	if s.Name != "" {
		s.Aliases = append(s.Aliases, s.Name)
	}
	s.Name, s.Image, s.Args, s.Idle = c.Name, c.Image, c.Args, c.Idle
	s.Env = append(s.Env, c.Env...)
	s.Binds = append(s.Binds, c.Binds...)
	s.Volumes, s.Ports = append(s.Volumes, c.Volumes...), append(s.Ports, c.Ports...)
	if c.Entrypoint != "" {
		s.Entrypoint = []string{c.Entrypoint}
	}
	if c.Dir != "" {
		s.Dir = c.Dir
	}
	return s, nil
}

type engineContainer struct{ *container.Container }

// Stop implements Container.
func (c engineContainer) Stop(ctx context.Context) error { return c.Container.Stop(ctx, stopGrace) }
