package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config holds the gateway's limits. The zero value takes every default.
type Config struct {
	// DialTimeout bounds one outgoing connection of the proxy. Default 10 s.
	DialTimeout time.Duration
	// HeaderTimeout bounds a TLS handshake and the reading of one request's
	// headers. Default 15 s.
	HeaderTimeout time.Duration
	// IdleTimeout ends a kept-alive connection without a request, and a tunnel
	// that moved no byte in either direction. Default 5 min.
	IdleTimeout time.Duration
	// StopTimeout is how long running requests may go on after the context of
	// Serve ends. Default 2 s.
	StopTimeout time.Duration
	// MaxTunnels bounds the tunnels to other hosts that are open at a time.
	// Default 1024.
	MaxTunnels int
}

// Validate fails when a limit is negative.
func (c Config) Validate() error {
	if c.DialTimeout < 0 || c.HeaderTimeout < 0 || c.IdleTimeout < 0 || c.StopTimeout < 0 || c.MaxTunnels < 0 {
		return errors.New("gateway config: time-outs and MaxTunnels must not be negative; leave them 0 for the defaults")
	}
	return nil
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.DialTimeout, 10*time.Second)
	set(&c.HeaderTimeout, 15*time.Second)
	set(&c.IdleTimeout, 5*time.Minute)
	set(&c.StopTimeout, 2*time.Second)
	if c.MaxTunnels == 0 {
		c.MaxTunnels = 1024
	}
	return c
}

// Deps is what the gateway needs from others.
type Deps struct {
	Log *slog.Logger
	// CA signs the certificates of the routed hosts.
	CA *CA
	// UpstreamProxy names the proxy through which tunnels to other hosts go,
	// for machines that reach the internet only so. nil, or a nil URL from it,
	// means a direct connection. httpproxy.FromEnvironment().ProxyFunc() fits.
	UpstreamProxy func(*url.URL) (*url.URL, error)
	// Dial replaces the dialler of outgoing connections, for tests.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Gateway routes requests by host. It is safe for concurrent use; routes may be
// added while it serves.
type Gateway struct {
	cfg     Config
	log     *slog.Logger
	ca      *CA
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	via     func(*url.URL) (*url.URL, error)
	tunnels chan struct{}   // one token per open tunnel
	out     *http.Transport // of forwarded absolute-URI requests

	mu       sync.RWMutex
	exact    map[string]http.Handler
	suffixes map[string]http.Handler // by suffix with its leading dot
	fallback http.Handler
}

// New makes a gateway without routes. It opens nothing.
func New(cfg Config, deps Deps) (*Gateway, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.CA == nil {
		return nil, errors.New("gateway: Deps.CA is missing; open one with OpenCA")
	}
	cfg = cfg.withDefaults()
	g := &Gateway{
		cfg: cfg, log: deps.Log, ca: deps.CA, dial: deps.Dial, via: deps.UpstreamProxy,
		tunnels:  make(chan struct{}, cfg.MaxTunnels),
		exact:    map[string]http.Handler{},
		suffixes: map[string]http.Handler{},
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	if g.dial == nil {
		g.dial = (&net.Dialer{Timeout: cfg.DialTimeout, KeepAlive: 30 * time.Second}).DialContext
	}
	if g.via == nil {
		g.via = func(*url.URL) (*url.URL, error) { return nil, nil }
	}
	g.out = g.transport(g.dial)
	return g, nil
}

// transport is for absolute-URI requests to other hosts.
func (g *Gateway) transport(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Transport {
	return &http.Transport{
		DialContext:         dial,
		Proxy:               func(r *http.Request) (*url.URL, error) { return g.via(r.URL) },
		DisableCompression:  true,
		TLSHandshakeTimeout: g.cfg.DialTimeout,
		IdleConnTimeout:     30 * time.Second,
		MaxIdleConnsPerHost: 4,
		MaxIdleConns:        64,
	}
}

// Route gives the hosts that match patterns to h. A pattern is a host name
// without port ("management.azure.com", "127.0.0.1") or "*." and a suffix
// ("*.vault.azure.net", any number of labels). An exact pattern wins over a
// suffix, a longer suffix over a shorter. A pattern can be routed once.
func (g *Gateway) Route(patterns []string, h http.Handler) error {
	if h == nil {
		return errors.New("gateway: route without a handler")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range patterns {
		p = strings.ToLower(p)
		table, key := g.exact, p
		if rest, ok := strings.CutPrefix(p, "*"); ok {
			table, key = g.suffixes, rest
			if !strings.HasPrefix(rest, ".") {
				return fmt.Errorf("gateway: route %q: a wildcard is \"*.\" and a suffix", p)
			}
		}
		if name := strings.TrimPrefix(key, "."); !validHost(name) {
			return fmt.Errorf("gateway: route %q is not a host name; give it without scheme, port and path", p)
		}
		if _, taken := table[key]; taken {
			return fmt.Errorf("gateway: host %q is routed twice", p)
		}
		table[key] = h
	}
	return nil
}

// Default gives every request that came straight to a listener (not through its
// proxy) for a host without a route to h. Without it they get 421 and a text
// that names the routed hosts.
func (g *Gateway) Default(h http.Handler) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fallback = h
}

// Serves reports whether a host name, without port, is routed.
func (g *Gateway) Serves(host string) bool { return g.handler(host) != nil }

// Hosts lists the routed patterns, sorted.
func (g *Gateway) Hosts() []string {
	g.mu.RLock()
	defer g.mu.RUnlock()
	hosts := make([]string, 0, len(g.exact)+len(g.suffixes))
	for p := range g.exact {
		hosts = append(hosts, p)
	}
	for p := range g.suffixes {
		hosts = append(hosts, "*"+p)
	}
	slices.Sort(hosts)
	return hosts
}

// handler finds the handler of a host name without port; nil when it has no route.
func (g *Gateway) handler(host string) http.Handler {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	g.mu.RLock()
	defer g.mu.RUnlock()
	if h := g.exact[host]; h != nil {
		return h
	}
	for rest := host; ; {
		i := strings.IndexByte(rest, '.')
		if i < 0 {
			return nil
		}
		if h := g.suffixes[rest[i:]]; h != nil && i+len(host)-len(rest) > 0 {
			return h
		}
		rest = rest[i+1:]
	}
}

func (g *Gateway) defaultHandler() http.Handler {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.fallback
}

// validHost accepts IP addresses and host names of letters, digits, '-', '_'.
func validHost(host string) bool {
	if net.ParseIP(host) != nil {
		return true
	}
	if host == "" || len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			switch {
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			default:
				return false
			}
		}
	}
	return true
}

// splitHost separates "host:port"; the port is "" when there is none. IPv6
// brackets are removed.
func splitHost(hostport string) (host, port string) {
	if h, p, err := net.SplitHostPort(hostport); err == nil {
		return h, p
	}
	return strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]"), ""
}

// isLoopback tells names and addresses that mean this machine itself.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
