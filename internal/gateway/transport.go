package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Transport returns a RoundTripper that reaches the routed hosts inside this
// process, with TLS and HTTP as on the wire but without a socket. For any other
// host it fails; it never dials out. It holds no goroutine while it has no
// connection (30 s after the last request, or after CloseIdleConnections).
func (g *Gateway) Transport() http.RoundTripper {
	d := &door{g: g}
	d.server = g.newServer(context.Background(), d)
	return &http.Transport{
		DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			host, _ := splitHost(address)
			if g.handler(host) == nil {
				return nil, fmt.Errorf("gateway: host %q is not served here; hosts served: %v", host, g.Hosts())
			}
			near, far := net.Pipe()
			go d.intercept(context.Background(), &innerConn{Conn: far, r: bufio.NewReader(far)})
			return near, nil
		},
		TLSClientConfig:       &tls.Config{RootCAs: g.ca.Pool(), MinVersion: tls.VersionTLS12},
		IdleConnTimeout:       30 * time.Second,
		TLSHandshakeTimeout:   g.cfg.HeaderTimeout,
		ResponseHeaderTimeout: time.Minute,
		MaxIdleConnsPerHost:   4,
	}
}
