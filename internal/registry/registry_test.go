package registry

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	ggcrname "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/stream"
)

const acr = "storefront.azurecr.io"

// users is an Authorizer: alice may do everything, reader may pull.
type users struct{}

func (users) Login(_ context.Context, _, user, password string) (Principal, error) {
	if user == "broken" {
		return Principal{}, errors.New("directory is down")
	}
	if password != user+"-secret" {
		return Principal{}, ErrBadCredentials
	}
	return Principal{Name: user}, nil
}

func (users) Allowed(_ context.Context, p Principal, _, _, action string) bool {
	return p.Name == "alice" || p.Name == "entra-subject" || action == ActionPull && p.Name == "reader"
}

type entra struct{}

func (entra) VerifyEntra(_ context.Context, token string) (string, error) {
	if token != "good" {
		return "", fmt.Errorf("parse: %w", ErrBadCredentials)
	}
	return "entra-subject", nil
}

type resources map[string]bool

func (r resources) Exists(_ context.Context, host string) (bool, error) { return r[host], nil }

// world is a registry behind a TLS server that answers to every name, and a
// node-facing plain one.
type world struct {
	*Registry
	front, node *httptest.Server
	client      *http.Transport

	mu     sync.Mutex
	pushes []Push
}

func start(t *testing.T, cfg Config) *world {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	w := &world{}
	r, err := New(cfg, Deps{
		Authorizer: users{}, Tokens: entra{}, Registries: resources{acr: true},
		OnPush: func(_ context.Context, p Push) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.pushes = append(w.pushes, p)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Registry = r
	w.front = httptest.NewTLSServer(r.Handler())
	w.node = httptest.NewServer(r.NodeHandler())
	w.client = &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // the test server's certificate is for example.com
		DialTLSContext:  nil,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			var d net.Dialer
			if strings.HasSuffix(addr, ":443") {
				addr = w.front.Listener.Addr().String()
			}
			return d.DialContext(ctx, network, addr)
		},
	}
	t.Cleanup(func() {
		w.client.CloseIdleConnections()
		w.front.Close()
		w.node.Close()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) as(user string) []remote.Option {
	return []remote.Option{remote.WithTransport(w.client), remote.WithAuth(&authn.Basic{Username: user, Password: user + "-secret"})}
}

func tag(t *testing.T, s string) ggcrname.Tag {
	t.Helper()
	ref, err := ggcrname.NewTag(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func image(t *testing.T, size int64, layers int64) v1.Image {
	t.Helper()
	img, err := random.Image(size, layers)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestPushAndPull(t *testing.T) {
	w := start(t, Config{})
	ref := tag(t, acr+"/team/web:v1")
	img := image(t, 1<<20, 3)
	if err := remote.Write(ref, img, w.as("alice")...); err != nil {
		t.Fatal(err)
	}
	want, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	got, err := remote.Image(ref, w.as("reader")...)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := got.Digest(); err != nil || d != want {
		t.Errorf("pulled digest = %v, %v; want %v", d, err, want)
	}
	if len(w.pushes) != 1 {
		t.Fatalf("pushes = %+v, want one", w.pushes)
	}
	p := w.pushes[0]
	if p.Host != acr || p.Repo != "team/web" || p.Tag != "v1" || p.Digest != want.String() || p.Actor != "alice" || p.MediaType == "" {
		t.Errorf("push = %+v", p)
	}
	if repos, err := w.Catalog(t.Context(), acr); err != nil || !slices.Equal(repos, []string{"team/web"}) {
		t.Errorf("Catalog = %v, %v", repos, err)
	}
	if tags, err := w.Tags(t.Context(), acr, "team/web"); err != nil || !slices.Equal(tags, []string{"v1"}) {
		t.Errorf("Tags = %v, %v", tags, err)
	}
	if tags, err := w.Tags(t.Context(), acr, "nothing"); err != nil || len(tags) != 0 {
		t.Errorf("Tags of nothing = %v, %v", tags, err)
	}
	if hosts, err := w.Hosts(); err != nil || !slices.Equal(hosts, []string{acr}) {
		t.Errorf("Hosts = %v, %v", hosts, err)
	}
	if repos, err := w.Catalog(t.Context(), "ghcr.io"); err != nil || len(repos) != 0 {
		t.Errorf("Catalog of an empty host = %v, %v", repos, err)
	}
}

// TestStoredAcrossRestart: what was acknowledged is there for a new process,
// and so are tokens.
func TestStoredAcrossRestart(t *testing.T) {
	dir := t.TempDir()
	first := start(t, Config{Dir: dir})
	ref := tag(t, acr+"/web:v1")
	if err := remote.Write(ref, image(t, 4096, 1), first.as("alice")...); err != nil {
		t.Fatal(err)
	}
	token, err := first.keys.issue("alice", acr, kindRefresh, nil, refreshLifetime)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := start(t, Config{Dir: dir})
	if _, err := remote.Image(ref, remote.WithTransport(second.client), remote.WithAuth(&authn.Basic{Username: tokenUser, Password: token})); err != nil {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	w := start(t, Config{})
	img := image(t, 1024, 1)
	with := func(user, password string) []remote.Option {
		return []remote.Option{remote.WithTransport(w.client), remote.WithAuth(&authn.Basic{Username: user, Password: password})}
	}
	for _, c := range []struct {
		name, ref string
		options   []remote.Option
		status    int
		want      string
	}{
		{"wrong password", acr + "/web:v1", with("alice", "guess"), 401, `user name or password for storefront.azurecr.io is wrong (user "alice")`},
		{"wrong token", acr + "/web:v1", with(tokenUser, "guess"), 401, "az acr login"},
		{"anonymous", acr + "/web:v1", []remote.Option{remote.WithTransport(w.client)}, 401, "authentication is required"},
		{"may only pull", acr + "/web:v1", w.as("reader"), 401, "reader may not push storefront.azurecr.io/web"},
		{"no such registry", "other.azurecr.io/web:v1", w.as("alice"), 404, `create the resource Microsoft.ContainerRegistry/registries "other"`},
		{"no such mirror", "example.org/web:v1", w.as("alice"), 404, "Lockstep mirrors no registry example.org"},
		{"directory down", acr + "/web:v1", with("broken", "x"), 503, "try again"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := remote.Write(tag(t, c.ref), img, c.options...)
			var e *transport.Error
			if !errors.As(err, &e) || e.StatusCode != c.status || !strings.Contains(err.Error(), c.want) {
				t.Errorf("push: %v; want %d with %q", err, c.status, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "guess") {
				t.Errorf("the error tells the password: %v", err)
			}
		})
	}
	if len(w.pushes) != 0 {
		t.Errorf("pushes = %+v, want none", w.pushes)
	}
}

// get does one plain request; user "" sends no credentials.
func (w *world) get(t *testing.T, method, address, user string, form url.Values) (*http.Response, string) {
	t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(t.Context(), method, address, body)
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if user != "" {
		req.SetBasicAuth(user, user+"-secret")
	}
	res, err := (&http.Client{Transport: w.client}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(text)
}

func TestChallengeIsACRs(t *testing.T) {
	w := start(t, Config{})
	res, body := w.get(t, "GET", "https://"+acr+"/v2/web/manifests/v1", "", nil)
	want := `Bearer realm="https://storefront.azurecr.io/oauth2/token",service="storefront.azurecr.io",scope="repository:web:pull"`
	if got := res.Header.Get("Www-Authenticate"); res.StatusCode != 401 || got != want {
		t.Errorf("%d, challenge %s\nwant %s", res.StatusCode, got, want)
	}
	var e struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil || len(e.Errors) != 1 || e.Errors[0].Code != "UNAUTHORIZED" {
		t.Errorf("body = %s, %v", body, err)
	}
	res, _ = w.get(t, "GET", w.front.URL+"/v2/?ns=docker.io", "", nil)
	want = `Bearer realm="` + w.front.URL + `/v2/oauth2/token",service="docker.io"`
	if got := res.Header.Get("Www-Authenticate"); got != want {
		t.Errorf("mirror challenge %s\nwant %s", got, want)
	}
}

func TestAzACRLogin(t *testing.T) {
	w := start(t, Config{})
	res, body := w.get(t, "POST", "https://"+acr+"/oauth2/exchange", "", url.Values{
		"grant_type": {"access_token"}, "service": {acr}, "tenant": {"t"}, "access_token": {"good"}})
	var a struct {
		Refresh string `json:"refresh_token"`
		Access  string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(body), &a); err != nil || res.StatusCode != 200 || a.Refresh == "" {
		t.Fatalf("exchange: %d %s", res.StatusCode, body)
	}
	if err := remote.Write(tag(t, acr+"/web:v1"), image(t, 1024, 1), remote.WithTransport(w.client),
		remote.WithAuth(&authn.Basic{Username: tokenUser, Password: a.Refresh})); err != nil {
		t.Error(err)
	}
	if len(w.pushes) != 1 || w.pushes[0].Actor != "entra-subject" {
		t.Errorf("pushes = %+v", w.pushes)
	}
	res, body = w.get(t, "POST", "https://"+acr+"/oauth2/token", "", url.Values{
		"grant_type": {"refresh_token"}, "service": {acr}, "scope": {"repository:web:pull"}, "refresh_token": {a.Refresh}})
	if err := json.Unmarshal([]byte(body), &a); err != nil || res.StatusCode != 200 || a.Access == "" {
		t.Fatalf("token: %d %s", res.StatusCode, body)
	}
	claims, err := w.keys.verify(a.Access, acr, kindAccess)
	if err != nil || !claims.allows(access{"web", ActionPull}) || claims.allows(access{"web", ActionPush}) {
		t.Errorf("claims = %+v, %v", claims, err)
	}
	if _, err := w.keys.verify(a.Access, "other.azurecr.io", kindAccess); err == nil {
		t.Error("a token for one registry is good for another")
	}
	if res, body = w.get(t, "POST", "https://"+acr+"/oauth2/exchange", "", url.Values{
		"grant_type": {"access_token"}, "service": {acr}, "access_token": {"bad"}}); res.StatusCode != 401 {
		t.Errorf("exchange of a bad token: %d %s", res.StatusCode, body)
	}
	if res, body = w.get(t, "POST", "https://"+acr+"/oauth2/token", "", url.Values{"grant_type": {"x"}}); res.StatusCode != 400 {
		t.Errorf("unknown grant: %d %s", res.StatusCode, body)
	}
	if res, _ = w.get(t, "GET", "https://"+acr+"/v2/", "", nil); res.StatusCode != 401 {
		t.Errorf("/v2/ without credentials: %d", res.StatusCode)
	}
	if res, _ = w.get(t, "GET", "https://"+acr+"/v2/", "alice", nil); res.StatusCode != 200 {
		t.Errorf("/v2/ with Basic: %d", res.StatusCode)
	}
}

func TestNodePullsOnly(t *testing.T) {
	w := start(t, Config{})
	if err := remote.Write(tag(t, acr+"/web:v1"), image(t, 1024, 1), w.as("alice")...); err != nil {
		t.Fatal(err)
	}
	if res, body := w.get(t, "GET", w.node.URL+"/v2/web/manifests/v1?ns="+acr, "", nil); res.StatusCode != 200 {
		t.Errorf("pull by ns: %d %s", res.StatusCode, body)
	}
	if res, _ := w.get(t, "GET", w.node.URL+"/v2/", "", nil); res.StatusCode != 200 {
		t.Errorf("/v2/: %d", res.StatusCode)
	}
	for _, c := range []struct{ method, path string }{
		{"POST", "/v2/web/blobs/uploads/?ns=" + acr}, {"PUT", "/v2/web/manifests/v2?ns=" + acr},
		{"DELETE", "/v2/web/manifests/v1?ns=" + acr}, {"GET", "/v2/_catalog?ns=" + acr},
	} {
		if res, body := w.get(t, c.method, w.node.URL+c.path, "alice", nil); res.StatusCode != 403 {
			t.Errorf("%s %s: %d %s; want 403", c.method, c.path, res.StatusCode, body)
		}
	}
	for ns, want := range map[string]string{
		"docker.io": "lockstep image import <file.tar> docker.io/library/redis:7",
		acr:         "nobody has built and pushed it",
	} {
		res, body := w.get(t, "GET", w.node.URL+"/v2/library/redis/manifests/7?ns="+ns, "", nil)
		var e struct {
			Errors []struct{ Code, Message string }
		}
		if err := json.Unmarshal([]byte(body), &e); err != nil || res.StatusCode != 404 || len(e.Errors) != 1 ||
			e.Errors[0].Code != "MANIFEST_UNKNOWN" || !strings.Contains(e.Errors[0].Message, want) {
			t.Errorf("missing at %s: %d %s", ns, res.StatusCode, body)
		}
	}
}

func TestAnonymousPull(t *testing.T) {
	w := start(t, Config{AnonymousPull: true})
	ref := tag(t, acr+"/web:v1")
	if err := remote.Write(ref, image(t, 1024, 1), w.as("alice")...); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Image(ref, remote.WithTransport(w.client)); err != nil {
		t.Error(err)
	}
	if err := remote.Write(ref, image(t, 1024, 1), remote.WithTransport(w.client)); err == nil {
		t.Error("an anonymous push went through")
	}
	if res, _ := w.get(t, "GET", "https://"+acr+"/v2/web/manifests/v1", "", nil); res.StatusCode != 200 {
		t.Errorf("pull without any token: %d", res.StatusCode)
	}
}

// TestTransport: the platform's own door imports into a mirror, and both
// doors then serve it.
func TestTransport(t *testing.T) {
	w := start(t, Config{})
	ref := tag(t, "docker.io/library/busybox:latest")
	img := image(t, 3<<20, 2)
	if err := remote.Write(ref, img, remote.WithTransport(w.Transport())); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Head(ref, remote.WithTransport(w.Transport())); err != nil {
		t.Error(err)
	}
	got, err := remote.Image(ref, remote.WithTransport(w.Transport()))
	if err != nil {
		t.Fatal(err)
	}
	layers, err := got.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		rc, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, rc); err != nil {
			t.Error(err)
		}
		if err := rc.Close(); err != nil {
			t.Error(err)
		}
	}
	if res, body := w.get(t, "GET", w.node.URL+"/v2/library/busybox/manifests/latest?ns=docker.io", "", nil); res.StatusCode != 200 {
		t.Errorf("pull by ns: %d %s", res.StatusCode, body)
	}
	if _, err := remote.Head(tag(t, "docker.io/library/none:1"), remote.WithTransport(w.Transport())); err == nil {
		t.Error("an image that is not there was found")
	}
}

func TestBigStreamedBlob(t *testing.T) {
	w := start(t, Config{})
	const size = 64 << 20
	layer := stream.NewLayer(io.NopCloser(io.LimitReader(rand.Reader, size)))
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	ref := tag(t, acr+"/big:v1")
	if err := remote.Write(ref, img, w.as("alice")...); err != nil {
		t.Fatal(err)
	}
	got, err := remote.Image(ref, w.as("alice")...)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := got.Layers()
	if err != nil {
		t.Fatal(err)
	}
	rc, err := layers[0].Uncompressed() // verifies the digest as it reads
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, rc); err != nil || n != size {
		t.Errorf("read %d, %v; want %d", n, err, size)
	}
	if err := rc.Close(); err != nil {
		t.Error(err)
	}
}

func TestConcurrentPushes(t *testing.T) {
	w := start(t, Config{})
	shared := image(t, 256<<10, 2)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			own, err := mutate.AppendLayers(shared, mustLayer(t))
			if err != nil {
				t.Error(err)
				return
			}
			ref := tag(t, fmt.Sprintf("%s/app%d:v%d", acr, i%2, i))
			if err := remote.Write(ref, own, w.as("alice")...); err != nil {
				t.Error(err)
				return
			}
			got, err := remote.Get(ref, w.as("alice")...)
			if err != nil {
				t.Error(err)
				return
			}
			if want, err := own.Digest(); err != nil || got.Digest != want {
				t.Errorf("%s = %v, want %v (%v)", ref, got.Digest, want, err)
			}
		})
	}
	wg.Wait()
	if len(w.pushes) != 8 {
		t.Errorf("%d pushes, want 8", len(w.pushes))
	}
}

func mustLayer(t *testing.T) v1.Layer {
	t.Helper()
	l, err := random.Layer(64<<10, "application/vnd.docker.image.rootfs.diff.tar.gzip")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestHostsAreBounded(t *testing.T) {
	w := start(t, Config{MaxHosts: 1})
	if res, _ := w.get(t, "GET", w.node.URL+"/v2/?ns=docker.io", "", nil); res.StatusCode != 200 {
		t.Fatalf("first host: %d", res.StatusCode)
	}
	if res, body := w.get(t, "GET", w.node.URL+"/v2/?ns=ghcr.io", "", nil); res.StatusCode != 503 {
		t.Errorf("second host: %d %s", res.StatusCode, body)
	}
	for _, ns := range []string{"..", "a/../b", "-", "%00"} {
		if res, _ := w.get(t, "GET", w.node.URL+"/v2/?ns="+url.QueryEscape(ns), "", nil); res.StatusCode != 400 {
			t.Errorf("ns=%q: %d, want 400", ns, res.StatusCode)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Dir: "relative"}, "absolute path"},
		{Config{Dir: "/x", Mirrors: []string{"a b"}}, "not a registry host name"},
		{Config{Dir: "/x", MaxHosts: -1}, "MaxHosts"},
		{Config{Dir: "/x", TokenLifetime: 1}, "TokenLifetime"},
	} {
		if err := c.cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Validate(%+v) = %v, want %q", c.cfg, err, c.want)
		}
	}
	if err := (Config{Dir: "/x"}).Validate(); err != nil {
		t.Error(err)
	}
}
