package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
)

// gatewayAddress is the job, as its containers see it.
const gatewayAddress = "172.18.0.1"

// pod is the containers of one job.
type pod struct {
	engine *Engine
	job    *sandbox.Session
	dir    string
	work   sync.WaitGroup
	bridge func() error // makes the job's bridge, once

	starting sync.RWMutex // held shared by those that start, alone to end all

	mu         sync.Mutex // over what follows and the number and box of each
	closed     bool
	next       int
	containers []*Container
}

// podOf finds the containers of a job, or begins with none.
func (e *Engine) podOf(job *sandbox.Session) (*pod, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errors.New("the container engine is closed")
	}
	if p := e.pods[job]; p != nil {
		return p, nil
	}
	e.next++
	p := &pod{engine: e, job: job, dir: filepath.Join(e.cfg.Dir, "run", fmt.Sprint(e.next))}
	p.bridge = sync.OnceValue(func() error {
		if err := makeBridge(job); err != nil {
			return err
		}
		return relayToContainers(e.ctx, job)
	})
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of the job's containers: %w", err)
	}
	e.pods[job] = p
	e.work.Go(func() {
		select {
		case <-job.Done():
		case <-e.ctx.Done():
		}
		p.close()
	})
	return p, nil
}

// relayToContainers makes the job's relays reachable at the bridge, so that none
// of the containers' own ports is taken by one.
func relayToContainers(ctx context.Context, job *sandbox.Session) error {
	for _, at := range job.Relays() {
		host, port, err := net.SplitHostPort(at)
		if err != nil || host != "127.0.0.1" {
			continue
		}
		if _, err := job.Publish(ctx, net.JoinHostPort(gatewayAddress, port), at); err != nil {
			return fmt.Errorf("lead the job's containers out by %s: %w", at, err)
		}
	}
	return nil
}

// close ends all containers of the job.
func (p *pod) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.starting.Lock()
	defer p.starting.Unlock()
	p.mu.Lock()
	all := slices.Clone(p.containers)
	p.mu.Unlock()
	for _, c := range all {
		if c.box != nil {
			c.box.Close()
		}
	}
	for _, c := range all {
		c.remove()
	}
	p.work.Wait()
	p.engine.mu.Lock()
	delete(p.engine.pods, p.job)
	p.engine.mu.Unlock()
	_ = os.RemoveAll(p.dir)
}

var containerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// admit gives a container its place, name and number.
func (p *pod) admit(c *Container) error {
	if c.spec.Name == "" {
		c.spec.Name = "container-" + c.id[:12]
	}
	for _, n := range append([]string{c.spec.Name}, c.spec.Aliases...) {
		if !containerName.MatchString(n) {
			return fmt.Errorf("container name %q: only letters, digits, _, . and - are allowed", n)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return errors.New("the job of the container has ended")
	case len(p.containers) >= p.engine.cfg.MaxContainers:
		return fmt.Errorf("the job has %d containers, the most allowed; stop one", len(p.containers))
	case p.next >= 65000:
		return errors.New("the job has started too many containers")
	case slices.ContainsFunc(p.containers, func(o *Container) bool { return o.spec.Name == c.spec.Name }):
		return fmt.Errorf("the container name %q is already in use in this job", c.spec.Name)
	}
	c.number = p.next
	p.next++
	p.containers = append(p.containers, c)
	return nil
}

func (p *pod) forget(c *Container) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.containers = slices.DeleteFunc(p.containers, func(o *Container) bool { return o == c })
}

// find looks for a container by name or the start of its ID.
func (p *pod) find(ref string) *Container {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.containers {
		if c.spec.Name == ref || len(ref) >= 3 && strings.HasPrefix(c.id, ref) {
			return c
		}
	}
	return nil
}

// boxOf is the sandbox of a container that runs; nil when there is none.
func (p *pod) boxOf(ref string) *sandbox.Session {
	c := p.find(ref)
	if c == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return c.box
}

// names are those by which the containers reach each other.
func (p *pod) names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, c := range p.containers {
		out = append(out, c.spec.Name)
		out = append(out, c.spec.Aliases...)
		if c.number >= 0 {
			out = append(out, addressOf(c.number))
		}
	}
	return append(out, gatewayAddress)
}

// connect gives c an address, and tells it and the others of their names.
func (p *pod) connect(c *Container) error {
	if c.number < 0 {
		return nil // it has the network of another
	}
	if err := p.bridge(); err != nil {
		return err
	}
	if err := plug(p.job, c.box, c.number); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.containers {
		if o.box == nil || o.number < 0 {
			continue
		}
		if err := o.box.AddHost(c.line()); err != nil {
			return err
		}
		if o != c {
			if err := c.box.AddHost(o.line()); err != nil {
				return err
			}
		}
	}
	return nil
}

// line is the container in a file of hosts.
func (c *Container) line() string {
	names := append([]string{c.spec.Name}, c.spec.Aliases...)
	if c.spec.Hostname != "" {
		names = append(names, c.spec.Hostname)
	}
	return addressOf(c.number) + " " + strings.Join(append(names, c.id[:12]), " ")
}

// Containers lists the containers of a job, in the order of their start.
func (e *Engine) Containers(job *sandbox.Session) []*Container {
	e.mu.Lock()
	p := e.pods[job]
	e.mu.Unlock()
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.containers)
}

// Container finds a container of a job by name or the start of its ID.
func (e *Engine) Container(job *sandbox.Session, ref string) (*Container, error) {
	e.mu.Lock()
	p := e.pods[job]
	e.mu.Unlock()
	if p != nil {
		if c := p.find(ref); c != nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("no such container: %s", ref)
}
