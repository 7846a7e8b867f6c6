package execute

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/action"
	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/mask"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// healthTimeout bounds how long a service may take to become healthy.
const healthTimeout = 5 * time.Minute

// maxServices bounds the services of one job.
const maxServices = 32

// network is how services and the job's container name their network.
const network = "github_network_lockstep"

// startContainers starts the services and the job's container. It is shown as
// the step "Initialize containers". ok is false when the job cannot go on.
func (j *job) startContainers() (ok bool) {
	p := j.plan.Job
	if p.Container == nil && len(p.Services) == 0 && !p.ServicesExpr.IsSet() {
		return true
	}
	const name = "Initialize containers"
	j.begin(name)
	line, err := j.initContainers(j.late())
	result := schedule.Success
	if err != nil {
		result = schedule.Failure
		j.tell(err)
		j.fail(j.number, name, err, line)
	}
	j.finish(Step{Number: j.number, Name: name, Conclusion: result, Outcome: result})
	return err == nil
}

// initContainers returns the line of the file at which an error happened.
func (j *job) initContainers(ctx context.Context) (line int, err error) {
	p := j.plan.Job
	services := expr.NewObject()
	j.jobInfo = expr.NewObject().Set("services", services)
	if p.ServicesExpr.IsSet() {
		return p.ServicesExpr.Line, errors.New("`services` made by one expression are not supported; list them")
	}
	if len(p.Services) > maxServices {
		return p.Services[maxServices].Line, fmt.Errorf("more than %d services", maxServices)
	}
	started := map[int]Container{}
	for i, s := range p.Services {
		c, err := j.startService(ctx, s)
		if err != nil {
			return s.Line, fmt.Errorf("service %s: %w", s.Name, err)
		}
		if c == nil {
			continue // its image is empty: the service is left out
		}
		started[i] = c
		ports := expr.NewObject()
		for inside, outside := range c.Ports() {
			ports.Set(inside, outside)
		}
		services.Set(s.Name, expr.NewObject().Set("id", c.ID()).Set("network", network).Set("ports", ports))
	}
	if p.Container != nil {
		if err := j.startJobContainer(ctx, p.Container); err != nil {
			return p.Container.Line, fmt.Errorf("the job's container: %w", err)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, healthTimeout, fmt.Errorf("not healthy within %s", healthTimeout))
	defer cancel()
	for i, s := range p.Services {
		if c := started[i]; c != nil {
			if err := c.Healthy(ctx); err != nil {
				return s.Line, fmt.Errorf("service %s: %w", s.Name, err)
			}
		}
	}
	return 0, nil
}

func (j *job) startService(ctx context.Context, s syntax.Service) (Container, error) {
	c, err := j.containerSpec(ctx, s.Name, &s.Container)
	if err != nil || c.Image == "" {
		return nil, err
	}
	started, err := j.Containers.Start(ctx, j.box, c, io.Discard)
	if err != nil {
		return nil, err
	}
	j.services = append(j.services, started)
	j.log(fmt.Sprintf("Service %s runs as %s", s.Name, started.ID()))
	return started, nil
}

func (j *job) startJobContainer(ctx context.Context, container *syntax.Container) error {
	c, err := j.containerSpec(ctx, "job", container)
	if err != nil || c.Image == "" {
		return err
	}
	c.Idle, c.Dir, c.Args = true, j.workspace(), nil
	c.Binds = append(j.jobBinds(), c.Binds...)
	started, err := j.Containers.Start(ctx, j.box, c, io.Discard)
	if err != nil {
		return err
	}
	j.container = started
	j.jobInfo.Set("container", expr.NewObject().Set("id", started.ID()).Set("network", network))
	j.log("The job's steps run in " + started.ID())
	return nil
}

// jobBinds are the job's folders at the places where its steps know them, and
// the workspace also where GitHub's containers have it.
func (j *job) jobBinds() []sandbox.Bind {
	l, own := j.layout, path.Base(j.workspace())
	binds := []sandbox.Bind{
		{Source: l.home, Target: homeDir}, {Source: l.work, Target: j.workspace()}, {Source: l.temp, Target: tempDir},
		{Source: l.actions, Target: actionsDir}, {Source: l.cache, Target: homeDir + "/.cache"},
		{Source: l.work, Target: "/__w/" + own + "/" + own}, {Source: l.temp, Target: "/__w/_temp"},
		{Source: l.home, Target: dockerHome}, {Source: l.temp + "/_github_workflow", Target: dockerWorkflow},
	}
	if j.Config.CAFile != "" {
		binds = append(binds, sandbox.Bind{Source: j.Config.CAFile, Target: caBundle, ReadOnly: true})
	}
	return binds
}

// containerSpec evaluates a container of the file and gets its image.
func (j *job) containerSpec(ctx context.Context, name string, c *syntax.Container) (ContainerSpec, error) {
	if j.Containers == nil {
		return ContainerSpec{}, noContainers("it")
	}
	env := j.exprEnv(j.top, nil)
	var failed error
	text := func(t syntax.Text) string {
		v, err := env.Interpolate(t.Value)
		failed = cmpError(failed, err)
		return strings.TrimSpace(v)
	}
	spec := ContainerSpec{Name: name, Image: text(c.Image), Entrypoint: text(c.Entrypoint)}
	login := builtin.Credential{Username: text(c.Username), Password: text(c.Password)}
	for _, p := range c.Ports {
		spec.Ports = append(spec.Ports, text(p))
	}
	vars := expr.NewObject()
	failed = cmpError(failed, j.addEnv(j.top, vars, c.Env, nil))
	for _, k := range vars.Keys() {
		v, _ := vars.Get(k)
		spec.Env = append(spec.Env, k+"="+expr.Text(v))
	}
	var err error
	if spec.Options, err = splitWords(text(c.Options)); err != nil {
		return spec, fmt.Errorf("options: %w", err)
	}
	if command := text(c.Command); command != "" {
		if spec.Args, err = splitWords(command); err != nil {
			return spec, fmt.Errorf("command: %w", err)
		}
	}
	for _, v := range c.Volumes {
		spec.Volumes = append(spec.Volumes, text(v))
	}
	if failed != nil || spec.Image == "" {
		return spec, failed
	}
	if login.Password != "" {
		j.masker.Add(login.Password)
	}
	if err := checkPorts(spec.Ports); err != nil {
		return spec, err
	}
	spec.Image = strings.TrimPrefix(spec.Image, "docker://")
	if ref, err := action.Parse("docker://" + spec.Image); err != nil || ref.Kind != action.Image {
		return spec, fmt.Errorf("%q names no image", spec.Image)
	}
	out := &mask.Writer{Masker: j.masker, Out: j.line}
	defer out.Flush()
	_, err = j.Containers.Pull(ctx, spec.Image, login, out)
	return spec, err
}

// checkPorts finds what is no port before anything starts.
func checkPorts(ports []string) error {
	for _, p := range ports {
		number, protocol, _ := strings.Cut(p, "/")
		if protocol != "" && protocol != "tcp" && protocol != "udp" {
			return fmt.Errorf("port %q: only tcp and udp are known", p)
		}
		parts := strings.Split(number, ":")
		for _, n := range parts[max(0, len(parts)-2):] {
			from, to, ranged := strings.Cut(n, "-")
			if !goodPort(from) || ranged && !goodPort(to) {
				return fmt.Errorf("port %q is not of the form PORT or HOST:PORT", p)
			}
		}
	}
	return nil
}

func goodPort(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n > 0 && n < 1<<16
}
