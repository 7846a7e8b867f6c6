package actions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
	"github.com/lockstep-gitops/lockstep/internal/actions/container"
	"github.com/lockstep-gitops/lockstep/internal/actions/execute"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
	"github.com/lockstep-gitops/lockstep/internal/actions/shim/docker"
	"github.com/lockstep-gitops/lockstep/internal/actions/shim/docker/engine"
)

// dockerSocket is what the docker program of a job talks to.
func dockerSocket(builder builtin.Builder, containers *container.Engine, registries http.RoundTripper) execute.Socket {
	return execute.Socket{Name: "docker.sock", Env: "LOCKSTEP_DOCKER_SOCKET", New: func(j execute.SocketJob) (http.Handler, func(), error) {
		deps := engine.Deps{Builder: builder, Transport: registries}
		if containers != nil {
			deps.Containers = dockerContainers{containers, j.Box}
		}
		e, err := engine.New(engine.Config{
			Repo: j.Plan.Repo, Commit: j.Plan.Commit, Ref: j.Plan.Ref, Run: j.Plan.RunID, Workflow: j.Plan.Workflow.File, Dir: j.Dir,
		}, deps)
		return e, nil, err
	}}
}

// dockerContainers runs the containers of `docker run` beside the job.
type dockerContainers struct {
	engine *container.Engine
	box    func() *sandbox.Session
}

var _ engine.Containers = dockerContainers{}

// dockerGrace is how long `docker stop` waits.
const dockerGrace = 10 * time.Second

func (d dockerContainers) job() (*sandbox.Session, error) {
	if box := d.box(); box != nil {
		return box, nil
	}
	return nil, errors.New("the job has not started yet")
}

// Run implements engine.Containers.
func (d dockerContainers) Run(ctx context.Context, r docker.Run, image v1.Image, stdin io.Reader, stdout, stderr io.Writer) (id string, exit int, err error) {
	box, err := d.job()
	if err != nil {
		return "", 0, err
	}
	spec, err := runSpec(r)
	if err != nil {
		return "", 0, err
	}
	if spec.Image, err = d.load(image); err != nil {
		return "", 0, fmt.Errorf("unpack %s: %w", r.Image, err)
	}
	if r.Stdin {
		spec.Input = stdin
	}
	if r.Detach {
		c, err := d.engine.Start(context.WithoutCancel(ctx), box, spec, io.Discard) // it lives as long as the job
		if err != nil {
			return "", 0, err
		}
		return c.ID(), 0, nil
	}
	ended, err := d.engine.Run(ctx, box, spec, stdout, stderr)
	return "", ended.Code, err
}

// load puts an image into the engine's store, once.
func (d dockerContainers) load(image v1.Image) (string, error) {
	id, err := image.ConfigName()
	if err != nil {
		return "", err
	}
	reference := "localhost/job:" + id.Hex
	if _, err := d.engine.Find(reference); err == nil {
		return reference, nil
	}
	_, err = d.engine.Keep(image, reference)
	return reference, err
}

// runSpec reads what `docker run` was asked for.
func runSpec(r docker.Run) (container.Spec, error) {
	if r.Privileged {
		return container.Spec{}, errors.New("--privileged: a container has the rights of its job, not more")
	}
	var words []string
	for option, value := range map[string]string{"--memory": r.Memory, "--cpus": r.CPUs} {
		if value != "" {
			words = append(words, option, value)
		}
	}
	for _, host := range r.AddHosts {
		words = append(words, "--add-host", host)
	}
	call, err := container.ParseOptions(words)
	if err != nil {
		return container.Spec{}, err
	}
	s := call.Spec
	s.Name, s.Env, s.Dir, s.User, s.Hostname = r.Name, r.Env, r.Workdir, r.User, r.Hostname
	s.Volumes, s.Ports, s.Network, s.ReadOnly = r.Volumes, r.Ports, r.Network, r.ReadOnly
	if r.Entrypoint != nil {
		s.Entrypoint = strings.Fields(*r.Entrypoint)
	}
	if len(r.Command) > 0 {
		s.Args = r.Command
	}
	return s, nil
}

// List implements engine.Containers.
func (d dockerContainers) List(_ context.Context, all bool) ([]engine.Container, error) {
	box, err := d.job()
	if err != nil {
		return nil, err
	}
	var out []engine.Container
	for _, c := range d.engine.Containers(box) {
		status := "Up since " + c.Started().UTC().Format(time.TimeOnly)
		if exit, _, ended := c.Exited(); ended {
			if !all {
				continue
			}
			status = fmt.Sprintf("Exited (%d)", exit.Code)
		}
		image := strings.Join(c.Image().Names, ",")
		out = append(out, engine.Container{ID: c.ID()[:12], Name: c.Name(), Image: image, Command: strings.Join(c.Spec().Args, " "), Status: status})
	}
	return out, nil
}

func (d dockerContainers) find(ref string) (*container.Container, error) {
	box, err := d.job()
	if err != nil {
		return nil, err
	}
	return d.engine.Container(box, ref)
}

// Stop implements engine.Containers.
func (d dockerContainers) Stop(ctx context.Context, ref string) error {
	c, err := d.find(ref)
	if err != nil {
		return err
	}
	return c.Stop(ctx, dockerGrace)
}

// Remove implements engine.Containers.
func (d dockerContainers) Remove(ctx context.Context, ref string, force bool) error {
	c, err := d.find(ref)
	if err != nil {
		return err
	}
	if _, _, ended := c.Exited(); !ended && !force {
		return fmt.Errorf("container %s is running: stop it, or use rm -f", ref)
	}
	return c.Stop(ctx, time.Millisecond)
}

// Logs implements engine.Containers.
func (d dockerContainers) Logs(ctx context.Context, ref string, stdout, _ io.Writer) error {
	c, err := d.find(ref)
	if err != nil {
		return err
	}
	return c.Logs(ctx, stdout, false)
}
