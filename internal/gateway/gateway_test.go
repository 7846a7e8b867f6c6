package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers with what a handler sees of the request.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s host=%s tls=%t proto=%s node=%t http=%d hop=%q uri=%s body=%s",
		r.Method, r.URL, r.Host, r.TLS != nil, r.Header.Get("X-Forwarded-Proto"), FromNode(r.Context()), r.ProtoMajor,
		r.Header.Get("Proxy-Connection")+r.Header.Get("X-Hop"), r.RequestURI, body)
})

func newGateway(t *testing.T, deps Deps) *Gateway {
	t.Helper()
	ca, err := OpenCA(CAConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	deps.CA = ca
	g, err := New(Config{HeaderTimeout: time.Second, StopTimeout: 200 * time.Millisecond, DialTimeout: time.Second}, deps)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Route([]string{"management.azure.com", "*.vault.azure.net", "github.localhost", "localhost", "127.0.0.1"}, echo); err != nil {
		t.Fatal(err)
	}
	return g
}

// listen serves g on a loopback port and returns its address.
func listen(t *testing.T, g *Gateway, opts Options) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, l, opts) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

// proxied is a client that uses the proxy at addr and trusts the gateway's CA.
func proxied(t *testing.T, g *Gateway, addr string, h2 bool) *http.Client {
	t.Helper()
	tr := &http.Transport{
		Proxy:             http.ProxyURL(&url.URL{Scheme: "http", Host: addr}),
		TLSClientConfig:   &tls.Config{RootCAs: g.ca.Pool()},
		ForceAttemptHTTP2: h2,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func get(t *testing.T, c *http.Client, target string) (int, string) {
	t.Helper()
	resp, err := c.Get(target)
	if err != nil {
		t.Fatalf("GET %s: %v", target, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestRequestsReachTheHandlerOfTheirHost(t *testing.T) {
	g := newGateway(t, Deps{})
	addr := listen(t, g, Options{Proxy: true, Tunnel: true})
	c1, c2 := proxied(t, g, addr, false), proxied(t, g, addr, true)
	direct := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	inside := &http.Client{Transport: g.Transport()}
	t.Cleanup(inside.CloseIdleConnections)

	for _, tc := range []struct {
		name   string
		client *http.Client
		url    string
		want   string
	}{
		{"CONNECT, HTTP/1.1", c1, "https://management.azure.com/x?y=1", `GET /x?y=1 host=management.azure.com tls=true proto=https node=false http=1 hop="" uri=/x?y=1 body=`},
		{"CONNECT, HTTP/2", c2, "https://kv.vault.azure.net//a", `GET //a host=kv.vault.azure.net tls=true proto=https node=false http=2 hop="" uri=//a body=`},
		{"absolute URI", c1, "http://github.localhost/o/r", `GET /o/r host=github.localhost tls=false proto=http node=false http=1 hop="" uri=/o/r body=`},
		{"absolute URI, own port", c1, "http://github.localhost:" + addr[len("127.0.0.1:"):] + "/o", `GET /o host=github.localhost:` + addr[len("127.0.0.1:"):] + ` tls=false proto=http node=false http=1 hop="" uri=/o body=`},
		{"straight", direct, "http://" + addr + "/", `GET / host=` + addr + ` tls=false proto=http node=false http=1 hop="" uri=/ body=`},
		{"in process", inside, "https://kv.vault.azure.net/a", `GET /a host=kv.vault.azure.net tls=true proto=https node=false http=1 hop="" uri=/a body=`},
		{"in process, plain", inside, "http://github.localhost/a", `GET /a host=github.localhost tls=false proto=http node=false http=1 hop="" uri=/a body=`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, got := get(t, tc.client, tc.url); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
	if _, err := inside.Get("https://example.com/"); err == nil || !strings.Contains(err.Error(), `host "example.com" is not served here`) {
		t.Errorf("in-process request to another host: %v", err)
	}
}

func TestOtherHostsAreTunnelledOnlyWhereAllowed(t *testing.T) {
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "far ", r.Host) }))
	defer secure.Close()
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "far ", r.URL, " ", r.Header.Get("Proxy-Connection"), r.Header.Get("X-Forwarded-For"))
	}))
	defer plain.Close()

	g := newGateway(t, Deps{})
	trust := x509.NewCertPool()
	trust.AddCert(secure.Certificate())
	open, shut := listen(t, g, Options{Proxy: true, Tunnel: true}), listen(t, g, Options{Proxy: true, Node: true})

	client := func(addr string) *http.Client {
		c := proxied(t, g, addr, false)
		tr := c.Transport.(*http.Transport)
		tr.TLSClientConfig.RootCAs = trust
		tr.Proxy = func(*http.Request) (*url.URL, error) { return &url.URL{Scheme: "http", Host: addr}, nil }
		return c
	}
	if _, got := get(t, client(open), secure.URL); got != "far "+secure.Listener.Addr().String() {
		t.Errorf("tunnel: %q", got)
	}
	if _, got := get(t, client(open), plain.URL+"/p?q=1"); got != "far /p?q=1 " {
		t.Errorf("forward: %q", got)
	}
	if _, err := client(shut).Get(secure.URL); err == nil || !strings.Contains(err.Error(), "Forbidden") {
		t.Errorf("node listener tunnelled: %v", err)
	}
	code, text := get(t, client(shut), plain.URL)
	if code != http.StatusForbidden || !strings.Contains(text, `does not relay to "127.0.0.1"`) {
		t.Errorf("node listener forwarded: %d %s", code, text)
	}
	plain.Close()
	if code, text := get(t, client(open), plain.URL); code != http.StatusBadGateway || !strings.Contains(text, "forward to") {
		t.Errorf("dead host: %d %s", code, text)
	}
}

func TestTunnelsGoThroughAnUpstreamProxy(t *testing.T) {
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "far") }))
	defer secure.Close()
	upstream := newGateway(t, Deps{})
	upstreamAddr := listen(t, upstream, Options{Proxy: true, Tunnel: true})
	asked := make(chan string, 1)
	g := newGateway(t, Deps{UpstreamProxy: func(u *url.URL) (*url.URL, error) {
		asked <- u.Host
		return &url.URL{Scheme: "http", Host: upstreamAddr, User: url.UserPassword("u", "p")}, nil
	}})
	addr := listen(t, g, Options{Proxy: true, Tunnel: true})
	c := proxied(t, g, addr, false)
	tr := c.Transport.(*http.Transport)
	tr.TLSClientConfig = secure.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	if _, got := get(t, c, "https://"+strings.Replace(secure.Listener.Addr().String(), "127.0.0.1", "127.0.0.1", 1)); got != "far" {
		t.Errorf("got %q", got)
	}
	if host := <-asked; host != secure.Listener.Addr().String() {
		t.Errorf("upstream was asked for %q", host)
	}
}

func TestTLSListenerPicksTheCertificateByServerName(t *testing.T) {
	g := newGateway(t, Deps{})
	addr := listen(t, g, Options{TLS: true, Node: true})
	dial := func(name string) (*tls.Conn, error) {
		return tls.Dial("tcp", addr, &tls.Config{RootCAs: g.ca.Pool(), ServerName: name, NextProtos: []string{"http/1.1"}})
	}
	for _, name := range []string{"management.azure.com", "KV2.vault.azure.net", "127.0.0.1"} {
		conn, err := dial(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s:443\r\nX-Forwarded-Proto: lie\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\r\n", name)
		body, _ := io.ReadAll(conn)
		if !strings.Contains(string(body), "host="+name+" tls=true proto=https node=true http=1 hop=\"\"") {
			t.Errorf("%s: %s", name, body)
		}
		conn.Close()
	}
	if conn, err := dial("example.com"); err == nil {
		conn.Close()
		t.Error("a certificate was made for a host without a route")
	}
}

func TestUnknownHostIsNamed(t *testing.T) {
	g := newGateway(t, Deps{})
	addr := listen(t, g, Options{Proxy: true})
	ask := func() (int, string) {
		req, _ := http.NewRequest("GET", "http://"+addr+"/", nil)
		req.Host = "nowhere.example"
		req.Close = true
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	code, text := ask()
	want := `lockstep: host "nowhere.example" is not served here. Hosts served: *.vault.azure.net, 127.0.0.1, github.localhost, localhost, management.azure.com.`
	if code != http.StatusMisdirectedRequest || strings.TrimSpace(text) != want {
		t.Errorf("got %d %s", code, text)
	}
	g.Default(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "default") }))
	if code, text := ask(); code != 200 || text != "default" {
		t.Errorf("with a default handler: %d %s", code, text)
	}
}

func TestBadProxyClients(t *testing.T) {
	g := newGateway(t, Deps{})
	addr := listen(t, g, Options{Proxy: true, Tunnel: true})
	for _, tc := range []struct{ name, send, want string }{
		{"no port", "CONNECT management.azure.com HTTP/1.1\r\nHost: management.azure.com\r\n\r\n", "400 Bad Request"},
		{"says nothing", "", ""},
		{"half a header", "GET / HT", "400 Bad Request"},
		{"CONNECT, then nothing", "CONNECT management.azure.com:443 HTTP/1.1\r\nHost: x\r\n\r\n", "200 Connection established"},
		{"plain HTTP in a CONNECT", "CONNECT management.azure.com:80 HTTP/1.1\r\nHost: x\r\n\r\nGET /in HTTP/1.1\r\nHost: management.azure.com\r\nConnection: close\r\n\r\n", "GET /in host=management.azure.com tls=false"},
		{"CONNECT in a CONNECT", "CONNECT management.azure.com:80 HTTP/1.1\r\nHost: x\r\n\r\nCONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "405 Method Not Allowed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(8 * time.Second))
			if _, err := io.WriteString(conn, tc.send); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(tc.name, "CONNECT in") {
				// The answer comes at once, the connection stays.
				r := bufio.NewReader(conn)
				var got string
				for range 3 {
					line, _ := r.ReadString('\n')
					got += line
				}
				if !strings.Contains(got, tc.want) {
					t.Errorf("got %q", got)
				}
				return
			}
			got, err := io.ReadAll(conn) // ends when the gateway hangs up
			if err != nil {
				t.Fatalf("the connection was not ended: %v", err)
			}
			if len(got) > 0 && !strings.Contains(string(got), tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestIdleTunnelEnds(t *testing.T) {
	a, b := net.Pipe()
	c, d := net.Pipe()
	defer a.Close()
	defer d.Close()
	done := make(chan struct{})
	go func() { defer close(done); copyBoth(t.Context(), b, c, 50*time.Millisecond) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("an idle tunnel stayed open")
	}
}

func TestStoppingCutsSlowRequests(t *testing.T) {
	g := newGateway(t, Deps{})
	started := make(chan struct{})
	if err := g.Route([]string{"slow.localhost"}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(started)
		<-r.Context().Done()
	})); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, l, Options{Proxy: true}) }()
	c := proxied(t, g, l.Addr().String(), false)
	failed := make(chan error, 1)
	go func() { _, err := c.Get("https://slow.localhost/"); failed <- err }()
	<-started
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Serve did not stop")
	}
	if err := <-failed; err == nil {
		t.Error("the slow request was not cut")
	}
}

func TestRoutePatterns(t *testing.T) {
	g := newGateway(t, Deps{})
	for pattern, want := range map[string]string{
		"https://x":            "is not a host name",
		"x:80":                 "is not a host name",
		"":                     "is not a host name",
		"*azure":               "a wildcard is",
		"Management.azure.com": "routed twice",
		"a..b":                 "is not a host name",
	} {
		if err := g.Route([]string{pattern}, echo); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Route(%q) = %v, want %q", pattern, err, want)
		}
	}
	named := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name) })
	}
	for pattern, h := range map[string]http.Handler{"*.b.example": named("suffix"), "*.a.b.example": named("longer"), "x.b.example": named("exact")} {
		if err := g.Route([]string{pattern}, h); err != nil {
			t.Fatal(err)
		}
	}
	for host, want := range map[string]string{
		"x.b.example": "exact", "X.B.example.": "exact", "y.b.example": "suffix", "z.a.b.example": "longer",
		"q.z.a.b.example": "longer", "b.example": "", ".b.example": "", "xb.example": "", "": "",
	} {
		got := ""
		if h := g.handler(host); h != nil {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, nil)
			got = w.Body.String()
		}
		if got != want {
			t.Errorf("handler(%q) = %q, want %q", host, got, want)
		}
	}
}

func TestCAIsKeptAndConstrained(t *testing.T) {
	dir := t.TempDir()
	first, err := OpenCA(CAConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "ca.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("ca.key: %v %v", info, err)
	}
	again, err := OpenCA(CAConfig{Dir: dir})
	if err != nil || !again.cert.Equal(first.cert) {
		t.Errorf("a second OpenCA made another authority (err %v)", err)
	}
	verify := func(ca *CA, host string) error {
		leaf, err := ca.Leaf(host)
		if err != nil {
			return err
		}
		_, err = leaf.Leaf.Verify(x509.VerifyOptions{Roots: first.Pool(), DNSName: host})
		return err
	}
	for _, host := range []string{"kv.vault.azure.net", "github.localhost", "127.0.0.1", "10.1.0.1"} {
		if err := verify(again, host); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	for _, host := range []string{"www.example.com", "8.8.8.8"} {
		if err := verify(again, host); err == nil {
			t.Errorf("the authority can impersonate %s", host)
		}
	}
	if _, err := again.Leaf("a/b"); err == nil {
		t.Error("a certificate for a/b")
	}
	later := func() time.Time { return time.Now().Add(9*365*24*time.Hour + time.Hour) }
	renewed, err := OpenCA(CAConfig{Dir: dir, Now: later})
	if err != nil || renewed.cert.Equal(first.cert) {
		t.Errorf("an authority near its end was not renewed (err %v)", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), []byte("junk"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCA(CAConfig{Dir: dir}); err == nil || !strings.Contains(err.Error(), "delete ca.crt and ca.key") {
		t.Errorf("damaged authority: %v", err)
	}
}

func TestLeavesAreCachedBoundedAndRenewed(t *testing.T) {
	now := time.Now()
	ca, err := OpenCA(CAConfig{Dir: t.TempDir(), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	a, _ := ca.Leaf("a.localhost")
	if b, _ := ca.Leaf("a.localhost"); a != b {
		t.Error("not cached")
	}
	for i := range leafCached + 10 {
		if _, err := ca.Leaf(fmt.Sprintf("n%d.localhost", i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(ca.leaves) != leafCached || len(ca.recent) != leafCached {
		t.Errorf("cache holds %d/%d", len(ca.leaves), len(ca.recent))
	}
	c, _ := ca.Leaf("c.localhost")
	now = now.Add(leafLife - leafRenew + time.Minute)
	if d, _ := ca.Leaf("c.localhost"); c == d {
		t.Error("not renewed")
	}
}

func TestBundleHoldsSystemRootsAndTheCA(t *testing.T) {
	dir := t.TempDir()
	ca, err := OpenCA(CAConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	other, err := OpenCA(CAConfig{Dir: filepath.Join(dir, "other")})
	if err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(dir, "bundle.pem")
	if err := ca.Bundle(bundle, filepath.Join(dir, "missing"), filepath.Join(dir, "other", "ca.crt")); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) || strings.Count(string(data), "BEGIN CERTIFICATE") != 2 {
		t.Errorf("bundle:\n%s", data)
	}
	for _, issuer := range []*CA{ca, other} {
		leaf, _ := issuer.Leaf("x.localhost")
		if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "x.localhost"}); err != nil {
			t.Error(err)
		}
	}
}

func TestEnv(t *testing.T) {
	env := Env("http://127.0.0.1:1", "/b.pem", "10.1.0.0/16")
	if env["no_proxy"] != "127.0.0.1,::1,10.1.0.0/16" || env["https_proxy"] != "http://127.0.0.1:1" || env["SSL_CERT_FILE"] != "/b.pem" {
		t.Errorf("%v", env)
	}
	if slices.Contains(strings.Split(env["NO_PROXY"], ","), "localhost") {
		t.Error("localhost in NO_PROXY makes clients reach github.localhost directly")
	}
	got := RealAzureCredentials([]string{"PATH=/bin", "ARM_CLIENT_SECRET=x", "AZURE_CLIENT_SECRET=", "arm_oidc_token=y", "AZURE_TENANT_ID=t"})
	if !slices.Equal(got, []string{"ARM_CLIENT_SECRET", "arm_oidc_token"}) {
		t.Errorf("%v", got)
	}
}

func FuzzSplitHost(f *testing.F) {
	for _, s := range []string{"a:1", "[::1]:80", "::1", "a", ":", "[", "a:b:c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, port := splitHost(s)
		_ = validHost(host)
		if len(host)+len(port) > len(s) {
			t.Errorf("splitHost(%q) = %q, %q", s, host, port)
		}
	})
}
