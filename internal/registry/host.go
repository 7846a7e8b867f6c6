package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

var hostPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

// parseHost brings a registry host into the one form in which it is stored:
// lower case, without port, Docker Hub's names as docker.io, and every name of
// this machine as [DefaultHost].
func parseHost(s string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	switch name {
	case "", "localhost", "lockstep.localhost":
		return DefaultHost, nil
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return "docker.io", nil
	}
	if net.ParseIP(strings.Trim(name, "[]")) != nil {
		return DefaultHost, nil
	}
	if len(name) > 253 || !hostPattern.MatchString(name) {
		return "", fmt.Errorf("%q is not a registry host name", s)
	}
	return name, nil
}

// hostOf says which registry a request is for.
func (r *Registry) hostOf(req *http.Request) (string, error) {
	if ns := req.URL.Query().Get("ns"); ns != "" {
		return parseHost(ns)
	}
	return parseHost(req.Host)
}

// exists returns an error for people when there is no such registry.
func (r *Registry) exists(ctx context.Context, name string) error {
	if r.known[name] {
		return nil
	}
	if !strings.HasSuffix(name, ".azurecr.io") {
		return &apiError{http.StatusNotFound, codeNameUnknown, fmt.Sprintf(
			"Lockstep mirrors no registry %s; it mirrors %s. Import the image under one of these names with `lockstep image import`",
			name, strings.Join(r.cfg.Mirrors, ", "))}
	}
	if r.deps.Registries != nil {
		ok, err := r.deps.Registries.Exists(ctx, name)
		if err != nil {
			r.log.ErrorContext(ctx, "look up container registry", "host", name, "err", err)
			return &apiError{http.StatusServiceUnavailable, codeUnknown, "cannot find out whether the registry " + name + " exists; try again"}
		}
		if ok {
			return nil
		}
	}
	return &apiError{http.StatusNotFound, codeNameUnknown, fmt.Sprintf(
		"there is no container registry %s: create the resource Microsoft.ContainerRegistry/registries %q first (terraform apply)",
		name, strings.TrimSuffix(name, ".azurecr.io"))}
}

// open returns the storage of a registry that exists, starting it when needed.
func (r *Registry) open(name string) (*host, error) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil, &apiError{http.StatusServiceUnavailable, codeUnknown, "the registry is shutting down"}
	}
	h, ok := r.hosts[name]
	if !ok {
		if len(r.hosts) >= r.cfg.MaxHosts {
			r.mu.Unlock()
			return nil, &apiError{http.StatusServiceUnavailable, codeUnknown, fmt.Sprintf(
				"%d registries are open, which is the most that this process opens", r.cfg.MaxHosts)}
		}
		h = &host{name: name, dir: filepath.Join(r.cfg.Dir, "hosts", name)}
		r.hosts[name] = h
	}
	r.mu.Unlock()
	if err := h.start(); err != nil {
		r.log.Error("open container registry", "host", name, "err", err)
		return nil, &apiError{http.StatusInternalServerError, codeUnknown, "cannot open the storage of " + name}
	}
	return h, nil
}

// host is one registry: a Distribution app over its own folder.
type host struct {
	name string
	dir  string

	once sync.Once
	err  error
	app  *app
}

func (h *host) start() error {
	h.once.Do(func() { h.app, h.err = newApp(h.dir) })
	return h.err
}

func (h *host) close() error {
	h.once.Do(func() { h.err = errors.New("closed before it was opened") })
	if h.app == nil {
		return nil
	}
	return h.app.close()
}
