package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
)

func (c *Container) sandboxSpec(layers []string) (sandbox.Spec, error) {
	host := c.spec.Hostname
	if host == "" {
		host = c.id[:12]
	}
	s := sandbox.Spec{
		Root: c.dir + "/root", Hostname: host, Layers: layers, Of: c.pod.job, Group: "c-" + c.id[:12], Limits: c.spec.Limits,
		Binds: slices.Clone(c.spec.Binds), ReadOnly: c.spec.ReadOnly, Dirs: []string{c.program.dir},
	}
	for _, h := range c.spec.Hosts {
		name, address, ok := strings.Cut(h, ":")
		if address == "host-gateway" {
			address = gatewayAddress
		}
		if !ok || net.ParseIP(address) == nil || strings.ContainsAny(name, " \t\r\n") || name == "" {
			return s, fmt.Errorf("host %q: want name:address", h)
		}
		s.Hosts = append(s.Hosts, address+" "+name)
	}
	for i, v := range c.spec.Volumes {
		source, target, readOnly, err := parseVolume(v)
		if err != nil {
			return s, err
		}
		b := sandbox.Bind{Source: source, Target: target, ReadOnly: readOnly, Of: c.pod.job}
		if !strings.HasPrefix(source, "/") { // ours: a name of the job, or none
			b.Of = nil
			b.Source = filepath.Join(c.pod.dir, "volumes", source)
			if source == "" {
				b.Source = filepath.Join(c.dir, "volumes", strconv.Itoa(i))
			}
			if err := os.MkdirAll(b.Source, 0o755); err != nil {
				return s, err
			}
		}
		s.Binds = append(s.Binds, b)
	}
	// A bind below another must come after it.
	slices.SortStableFunc(s.Binds, func(a, b sandbox.Bind) int { return strings.Count(a.Target, "/") - strings.Count(b.Target, "/") })
	switch n := c.spec.Network; {
	case !c.pod.job.OwnNetwork(), n == "host":
		s.Join = c.pod.job
	case n == "" || !strings.HasPrefix(n, "container:"):
		s.Gateway = gatewayAddress
	case strings.HasPrefix(n, "container:"):
		if s.Join = c.pod.boxOf(strings.TrimPrefix(n, "container:")); s.Join == nil {
			return s, fmt.Errorf("network %q: no such container runs", n)
		}
	}
	return s, nil
}

// publish opens the ports in the job's network.
func (c *Container) publish(ctx context.Context) error {
	for _, text := range c.spec.Ports {
		p, err := parsePort(text)
		if err != nil {
			return err
		}
		key := strconv.Itoa(p.inner)
		if c.number < 0 { // it has the job's network itself
			if p.outer != 0 && p.outer != p.inner {
				return fmt.Errorf("port %q: with the job's own network a port keeps its number", text)
			}
			c.ports[key] = key
			continue
		}
		at, err := c.pod.job.Publish(ctx, net.JoinHostPort(p.address, strconv.Itoa(p.outer)), net.JoinHostPort(addressOf(c.number), key))
		if err != nil {
			if errors.Is(err, syscall.EADDRINUSE) {
				err = fmt.Errorf("port %d of the job is taken: %w", p.outer, err)
			}
			return err
		}
		_, outer, _ := net.SplitHostPort(at)
		c.ports[key] = outer
	}
	return nil
}

// ID names the container.
func (c *Container) ID() string { return c.id }

// Name is its name in the job.
func (c *Container) Name() string { return c.spec.Name }

// Image is what it runs.
func (c *Container) Image() Image { return c.image }

// Spec is how it was started.
func (c *Container) Spec() Spec { return c.spec }

// Started is when.
func (c *Container) Started() time.Time { return c.started }

// Address is where containers of the job reach it; "" without an address.
func (c *Container) Address() string {
	if c.number < 0 {
		return ""
	}
	return addressOf(c.number)
}

// Ports are the published ports: "5432" to the port of the job's localhost.
func (c *Container) Ports() map[string]string { return c.ports }

// Warnings says what this machine could not isolate.
func (c *Container) Warnings() []string { return c.box.Warnings() }
