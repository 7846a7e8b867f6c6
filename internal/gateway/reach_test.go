package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

// viaProxy is a client that sends everything, loopback too, through addr.
func viaProxy(t *testing.T, addr string) *http.Client {
	t.Helper()
	c := &http.Transport{
		Proxy:           func(*http.Request) (*url.URL, error) { return &url.URL{Scheme: "http", Host: addr}, nil },
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // a test server's certificate
	}
	t.Cleanup(c.CloseIdleConnections)
	return &http.Client{Transport: c}
}

func TestAListenerKeepsItsUsersFromAddresses(t *testing.T) {
	far := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "far") })
	secure, plain := httptest.NewTLSServer(far), httptest.NewServer(far)
	defer secure.Close()
	defer plain.Close()
	allowed := httptest.NewServer(far)
	defer allowed.Close()
	except := allowed.Listener.Addr().(*net.TCPAddr).AddrPort()
	reaches := func(at netip.AddrPort) error {
		if at.Addr().IsLoopback() && at != except {
			return errors.New("it is this machine itself")
		}
		return nil
	}
	g := newGateway(t, Deps{})
	// A connection of another listener must not be lent to this one.
	if _, got := get(t, viaProxy(t, listen(t, g, Options{Proxy: true, Tunnel: true})), plain.URL); got != "far" {
		t.Fatal(got)
	}
	c := viaProxy(t, listen(t, g, Options{Proxy: true, Tunnel: true, Reaches: reaches}))
	byName := strings.Replace(plain.URL, "127.0.0.1", "localhost", 1)
	for _, target := range []string{plain.URL, byName, strings.Replace(plain.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1)} {
		if code, text := get(t, c, target); code != http.StatusForbidden || !strings.Contains(text, "this machine itself") {
			t.Errorf("%s: %d %s", target, code, text)
		}
	}
	if _, err := c.Get(secure.URL); err == nil || !strings.Contains(err.Error(), "Forbidden") {
		t.Errorf("a tunnel to this machine: %v", err)
	}
	if _, got := get(t, c, allowed.URL); got != "far" {
		t.Errorf("an allowed address: %s", got)
	}
}

func TestAnUpstreamProxyIsNotAskedForThisMachine(t *testing.T) {
	upstream := newGateway(t, Deps{})
	upstreamAddr := listen(t, upstream, Options{Proxy: true, Tunnel: true})
	g := newGateway(t, Deps{UpstreamProxy: func(*url.URL) (*url.URL, error) { return &url.URL{Scheme: "http", Host: upstreamAddr}, nil }})
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "far") }))
	defer far.Close()
	c := viaProxy(t, listen(t, g, Options{Proxy: true, Tunnel: true, Reaches: func(at netip.AddrPort) error {
		if at.Addr().IsLoopback() {
			return errors.New("it is this machine itself")
		}
		return nil
	}}))
	if code, text := get(t, c, far.URL); code != http.StatusForbidden {
		t.Errorf("%d %s", code, text)
	}
	if _, err := c.Get("https://localhost:1/"); err == nil || !strings.Contains(err.Error(), "Forbidden") {
		t.Errorf("a tunnel: %v", err)
	}
	// A name is the upstream's to resolve, and the upstream itself is reached.
	if code, text := get(t, c, "http://nothing.invalid/"); code != http.StatusBadGateway {
		t.Errorf("%d %s", code, text)
	}
}

func TestAListenerServesSomeHosts(t *testing.T) {
	g := newGateway(t, Deps{})
	addr := listen(t, g, Options{Proxy: true, Tunnel: true, Serves: func(host string) bool { return host != "localhost" && host != "127.0.0.1" },
		Reaches: func(netip.AddrPort) error { return errors.New("nowhere") }})
	c := viaProxy(t, addr)
	if code, _ := get(t, c, "http://github.localhost/x"); code != http.StatusOK {
		t.Errorf("a host that it serves: %d", code)
	}
	if code, text := get(t, c, "http://localhost/x"); code != http.StatusForbidden {
		t.Errorf("a host that it does not serve, by proxy: %d %s", code, text)
	}
	direct := &http.Client{Transport: &http.Transport{}}
	defer direct.CloseIdleConnections()
	if code, text := get(t, direct, "http://"+addr+"/x"); code != http.StatusMisdirectedRequest || strings.Contains(text, "[localhost") {
		t.Errorf("a host that it does not serve: %d %s", code, text)
	}
}
