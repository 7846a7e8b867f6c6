package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// connect answers a CONNECT: routed hosts end here, others are tunnelled.
func (d *door) connect(w http.ResponseWriter, r *http.Request) {
	d.running.Add(1)
	defer d.running.Done()
	w.Header().Set("Connection", "close") // for the refusals below
	host, port := splitHost(r.Host)
	if port == "" {
		http.Error(w, fmt.Sprintf("lockstep: CONNECT %s has no port", r.Host), http.StatusBadRequest)
		return
	}
	if d.ours(host, port, "https") {
		conn, ok := d.hijack(w)
		if !ok {
			return
		}
		d.intercept(r.Context(), conn)
		return
	}
	if !d.opts.Tunnel {
		http.Error(w, d.refusal(host), http.StatusForbidden)
		return
	}
	select {
	case d.g.tunnels <- struct{}{}:
		defer func() { <-d.g.tunnels }()
	default:
		http.Error(w, fmt.Sprintf("lockstep: %d tunnels are open, the most allowed; try again when one has ended", cap(d.g.tunnels)), http.StatusServiceUnavailable)
		return
	}
	far, err := d.dialOut(r.Context(), net.JoinHostPort(host, port))
	if err != nil {
		d.g.log.Debug("tunnel failed", "host", host, "err", err)
		http.Error(w, "lockstep: "+err.Error(), statusOf(err))
		return
	}
	conn, ok := d.hijack(w)
	if !ok {
		_ = far.Close()
		return
	}
	copyBoth(r.Context(), conn, far, d.g.cfg.IdleTimeout)
}

// refusal is the text for a host that this listener does not relay to.
func (d *door) refusal(host string) string {
	return fmt.Sprintf("lockstep: this proxy does not relay to %q: it only serves %v.\n", host, d.hosts())
}

// hijack takes the connection over and confirms the CONNECT.
func (d *door) hijack(w http.ResponseWriter) (*innerConn, bool) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "lockstep: this connection cannot be tunnelled", http.StatusInternalServerError)
		return nil, false
	}
	_ = conn.SetDeadline(time.Now().Add(d.g.cfg.HeaderTimeout))
	if _, err := io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		_ = conn.Close()
		return nil, false
	}
	_ = conn.SetDeadline(time.Time{})
	return &innerConn{Conn: conn, r: rw.Reader}, true
}

// intercept serves the connection of a CONNECT ourselves: TLS when the client
// opens with a TLS record, else plain HTTP.
func (d *door) intercept(ctx context.Context, conn *innerConn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_ = conn.SetReadDeadline(time.Now().Add(d.g.cfg.HeaderTimeout))
	first, err := conn.r.Peek(1)
	if err != nil {
		_ = conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	const tlsHandshake = 0x16
	var served net.Conn = conn
	if first[0] == tlsHandshake {
		served = tls.Server(conn, d.g.tlsConfig())
	}
	// Serve returns at once; the connection lives on as one of the server's.
	_ = d.server.Serve(&oneConn{conn: served})
}

// forward relays an absolute-URI request to a host that is not ours.
func (d *door) forward(w http.ResponseWriter, r *http.Request) {
	d.running.Add(1)
	defer d.running.Done()
	if !d.opts.Tunnel {
		host, _ := splitHost(r.URL.Host)
		http.Error(w, d.refusal(host), http.StatusForbidden)
		return
	}
	if err := d.mayName(r.URL); err != nil {
		http.Error(w, "lockstep: "+err.Error(), http.StatusForbidden)
		return
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(*httputil.ProxyRequest) {}, // the URL is already the target's
		Transport:     d.out,
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			http.Error(w, fmt.Sprintf("lockstep: forward to %s: %v", r.URL.Host, err), statusOf(err))
		},
	}
	proxy.ServeHTTP(w, r)
}

// dialOut connects to address, through the upstream proxy where there is one.
func (d *door) dialOut(ctx context.Context, address string) (net.Conn, error) {
	g := d.g
	ctx, cancel := context.WithTimeout(ctx, g.cfg.DialTimeout)
	defer cancel()
	upstream, err := g.via(&url.URL{Scheme: "https", Host: address})
	if err != nil {
		return nil, fmt.Errorf("proxy for %s: %w", address, err)
	}
	if upstream == nil {
		conn, err := d.dial(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", address, err)
		}
		return conn, nil
	}
	if err := d.mayName(&url.URL{Scheme: "https", Host: address}); err != nil {
		return nil, err
	}
	port := upstream.Port()
	if port == "" {
		port = map[string]string{"https": "443"}[upstream.Scheme]
		if port == "" {
			port = "80"
		}
	}
	conn, err := g.dial(ctx, "tcp", net.JoinHostPort(upstream.Hostname(), port))
	if err != nil {
		return nil, fmt.Errorf("connect to upstream proxy %s: %w", upstream.Host, err)
	}
	if upstream.Scheme == "https" {
		conn = tls.Client(conn, &tls.Config{ServerName: upstream.Hostname(), MinVersion: tls.VersionTLS12})
	}
	far, err := connectThrough(ctx, conn, upstream, address)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reach %s through upstream proxy %s: %w", address, upstream.Host, err), conn.Close())
	}
	return far, nil
}

// connectThrough asks the proxy at the other end of conn for a tunnel.
func connectThrough(ctx context.Context, conn net.Conn, upstream *url.URL, address string) (net.Conn, error) {
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	if u := upstream.User; u != nil {
		password, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %s", resp.Status)
	}
	_ = conn.SetDeadline(time.Time{})
	return &innerConn{Conn: conn, r: r}, nil
}

// copyBoth moves bytes both ways until both directions end, ctx ends, or no
// byte moved for idle. It closes both connections.
func copyBoth(ctx context.Context, a, b net.Conn, idle time.Duration) {
	closeAll := func() { _, _ = a.Close(), b.Close() }
	stop := context.AfterFunc(ctx, closeAll)
	defer stop()
	var last atomic.Int64
	last.Store(time.Now().UnixNano())
	var both sync.WaitGroup
	for _, pair := range [2][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			if err := copyOne(pair[1], pair[0], idle, &last); err != nil {
				closeAll()
				return
			}
			closeWrite(pair[1])
		})
	}
	both.Wait()
	closeAll()
}

// copyOne moves bytes from src to dst until src ends.
func copyOne(dst, src net.Conn, idle time.Duration, last *atomic.Int64) error {
	buf := make([]byte, 32<<10)
	for {
		_ = src.SetReadDeadline(time.Now().Add(idle))
		n, err := src.Read(buf)
		if n > 0 {
			last.Store(time.Now().UnixNano())
			_ = dst.SetWriteDeadline(time.Now().Add(idle))
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded) && time.Since(time.Unix(0, last.Load())) < idle:
			// The other direction is busy: a long download says nothing upwards.
		default:
			return err
		}
	}
}

// closeWrite tells the peer that no more bytes come.
func closeWrite(c net.Conn) {
	if inner, ok := c.(*innerConn); ok {
		c = inner.Conn
	}
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	_ = c.Close()
}

// innerConn is a connection whose first bytes may already be in a buffer.
type innerConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *innerConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// oneConn is a listener that yields one connection and then ends.
type oneConn struct {
	mu   sync.Mutex
	conn net.Conn
}

func (l *oneConn) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return nil, net.ErrClosed
	}
	c := l.conn
	l.conn = nil
	return c, nil
}

func (l *oneConn) Close() error {
	c, err := l.Accept()
	if err != nil {
		return nil
	}
	return c.Close()
}

func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }
