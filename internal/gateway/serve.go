package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Options says how one listener behaves.
type Options struct {
	// TLS makes the listener speak TLS (HTTP/1.1 and HTTP/2) with a certificate
	// for the server name that the client asks for. It excludes Proxy.
	TLS bool
	// Proxy answers CONNECT and absolute-URI requests for the routed hosts.
	Proxy bool
	// Tunnel lets the proxy reach all other hosts too. Give it only to a
	// listener that no stranger can reach: it is an open relay.
	Tunnel bool
	// Node marks the requests of this listener for [FromNode].
	Node bool
	// Serves says which routed hosts this listener serves; nil is all of them.
	Serves func(host string) bool
	// Reaches refuses addresses to which tunnels and forwarded requests would
	// go, after the name was resolved; nil refuses none. Behind an upstream
	// proxy, which resolves names itself, only literal addresses and localhost
	// are asked about.
	Reaches func(netip.AddrPort) error
}

type nodeKey struct{}

// FromNode reports whether the request of ctx came in on the node-facing
// listener, that is from a pod or the node and not from this machine's user.
func FromNode(ctx context.Context) bool {
	node, _ := ctx.Value(nodeKey{}).(bool)
	return node
}

// Serve accepts connections on l until ctx ends, then lets running requests
// finish within StopTimeout, closes everything and returns nil. It owns l.
func (g *Gateway) Serve(ctx context.Context, l net.Listener, opts Options) error {
	if opts.TLS && opts.Proxy {
		return errors.Join(errors.New("gateway: a listener is TLS or Proxy, not both; open two"), l.Close())
	}
	if opts.Tunnel && !opts.Proxy {
		return errors.Join(errors.New("gateway: Options.Tunnel needs Options.Proxy"), l.Close())
	}
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	d := &door{g: g, opts: opts, out: g.out}
	if opts.Reaches != nil { // connections are not shared with other doors
		d.out = g.transport(d.dial)
		defer d.out.CloseIdleConnections()
	}
	_, d.port = splitHost(l.Addr().String())
	d.server = g.newServer(base, d)
	if opts.TLS {
		l = tls.NewListener(l, g.tlsConfig())
	}
	served := make(chan error, 1)
	go func() { served <- d.server.Serve(l) }()

	var err error
	select {
	case <-ctx.Done():
		grace, stop := context.WithTimeout(base, g.cfg.StopTimeout)
		_ = d.server.Shutdown(grace) // requests that outlast it are cut below
		stop()
		<-served
	case err = <-served:
		err = fmt.Errorf("gateway: serve %s: %w", l.Addr(), err)
	}
	cancel()
	_ = d.server.Close()
	d.running.Wait()
	g.out.CloseIdleConnections()
	return err
}

// newServer makes the HTTP server of a door; base ends its requests.
func (g *Gateway) newServer(base context.Context, d *door) *http.Server {
	return &http.Server{
		Handler:           d,
		TLSConfig:         g.tlsConfig(), // also switches HTTP/2 on for intercepted connections
		ReadHeaderTimeout: g.cfg.HeaderTimeout,
		IdleTimeout:       g.cfg.IdleTimeout,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(base, nodeKey{}, d.opts.Node)
		},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if t, ok := c.(*tls.Conn); ok {
				c = t.NetConn()
			}
			if _, ok := c.(*innerConn); ok {
				return context.WithValue(ctx, innerKey{}, true)
			}
			return ctx
		},
	}
}

// tlsConfig answers each routed server name with a certificate for it.
func (g *Gateway) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			name := hello.ServerName
			if name == "" {
				// Clients send no server name for an IP address.
				name, _ = splitHost(hello.Conn.LocalAddr().String())
				if net.ParseIP(name) == nil {
					return nil, errors.New("gateway: TLS client sent no server name")
				}
			} else if g.handler(name) == nil {
				return nil, fmt.Errorf("gateway: no route for TLS server name %q", name)
			}
			return g.ca.Leaf(name)
		},
	}
}

// innerKey marks requests of a connection inside a CONNECT or of Transport.
type innerKey struct{}

// door is one listener's HTTP handler.
type door struct {
	g      *Gateway
	opts   Options
	port   string // own port, decimal
	server *http.Server
	out    *http.Transport // of forwarded absolute-URI requests

	running sync.WaitGroup // handlers that hold hijacked connections
}

// ServeHTTP routes one request.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	inner, _ := r.Context().Value(innerKey{}).(bool)
	if r.Method == http.MethodConnect {
		if inner || !d.opts.Proxy || r.ProtoMajor != 1 {
			http.Error(w, "lockstep: CONNECT is only answered on the proxy port", http.StatusMethodNotAllowed)
			return
		}
		d.connect(w, r)
		return
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	hostport := r.Host
	if absolute := r.URL.Host != "" && r.ProtoMajor == 1; absolute {
		scheme, hostport = strings.ToLower(r.URL.Scheme), r.URL.Host
		if host, port := splitHost(hostport); !inner && d.opts.Proxy && !d.ours(host, port, scheme) {
			d.forward(w, r)
			return
		}
		// From here on it is an ordinary request to a host of ours.
		u := *r.URL
		u.Scheme, u.Host = "", ""
		r.URL = &u
		r.RequestURI = u.RequestURI()
	}
	d.serveRouted(w, r, scheme, hostport)
}

// serveRouted hands a request to the handler of its host.
func (d *door) serveRouted(w http.ResponseWriter, r *http.Request, scheme, hostport string) {
	host, port := splitHost(hostport)
	h := d.handler(host)
	if h == nil {
		if h = d.g.defaultHandler(); h == nil || d.opts.Serves != nil {
			http.Error(w, d.unknown(host), http.StatusMisdirectedRequest)
			return
		}
	}
	if (scheme == "http" && port == "80") || (scheme == "https" && port == "443") {
		hostport = strings.TrimSuffix(hostport, ":"+port)
	}
	r.Host = hostport
	cleanHeader(r.Header)
	r.Header.Set("X-Forwarded-Proto", scheme)
	h.ServeHTTP(w, r)
}

// handler finds the handler of a host that this listener serves.
func (d *door) handler(host string) http.Handler {
	if d.opts.Serves != nil && !d.opts.Serves(strings.TrimSuffix(strings.ToLower(host), ".")) {
		return nil
	}
	return d.g.handler(host)
}

// hosts are the routed patterns that this listener serves.
func (d *door) hosts() []string {
	hosts := d.g.Hosts()
	if d.opts.Serves != nil {
		hosts = slices.DeleteFunc(hosts, func(h string) bool { return !d.opts.Serves(h) })
	}
	return hosts
}

// unknown is the text for a host without a route.
func (d *door) unknown(host string) string {
	return fmt.Sprintf("lockstep: host %q is not served here. Hosts served: %s.\n", host, strings.Join(d.hosts(), ", "))
}

// ours reports whether a proxy request for host:port means a routed host. Only
// the default ports and our own do: another port of such a name, and any port
// of this machine's own names, belongs to another server.
func (d *door) ours(host, port, scheme string) bool {
	if d.handler(host) == nil {
		return false
	}
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[scheme]
	}
	if port == d.port {
		return true
	}
	return !isLoopback(host) && (port == "80" || port == "443")
}

// cleanHeader removes what is meant for the proxy only, and what only the
// gateway may say.
func cleanHeader(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			name = strings.TrimSpace(name)
			if name != "" && !strings.EqualFold(name, "upgrade") {
				h.Del(name)
			}
		}
	}
	for _, name := range []string{"Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Keep-Alive", "Te",
		"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		h.Del(name)
	}
}
