package image_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/image"
	"github.com/lockstep-gitops/lockstep/internal/image/baseimage"
	"github.com/lockstep-gitops/lockstep/internal/journal"
	"github.com/lockstep-gitops/lockstep/internal/registry"
)

// acr is the registry that the builds push to.
const acr = "storefront.azurecr.io"

// world is the neighbourhood of a builder: registries behind a node-facing
// port and behind a proxy that ends TLS with a CA of its own.
type world struct {
	registry *registry.Registry
	mirror   string // host:port
	proxy    string // URL
	caFile   string
	journal  *journal.Journal
	dir      string
}

type accounts struct{}

func (accounts) Login(_ context.Context, _, user, password string) (registry.Principal, error) {
	if user != "ci" || password != "ci-secret" {
		return registry.Principal{}, registry.ErrBadCredentials
	}
	return registry.Principal{Name: user}, nil
}

func (accounts) Allowed(context.Context, registry.Principal, string, string, string) bool {
	return true
}

type existing struct{}

func (existing) Exists(_ context.Context, host string) (bool, error) { return host == acr, nil }

// newWorld starts everything but the builder, or skips the test where builds
// cannot run.
func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldAt(t, "127.0.0.1")
}

// newWorldAt lets the servers listen at an address.
func newWorldAt(t *testing.T, address string) *world {
	t.Helper()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("builds need Linux and root")
	}
	dir, err := os.MkdirTemp("", "lsi") // short: it holds a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	w := &world{dir: dir}
	w.journal, err = journal.Open(t.Context(), filepath.Join(dir, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	w.registry, err = registry.New(registry.Config{Dir: filepath.Join(dir, "registry")},
		registry.Deps{Authorizer: accounts{}, Registries: existing{}})
	if err != nil {
		t.Fatal(err)
	}
	nodeServer := serveAt(t, address, w.registry.NodeHandler())
	w.mirror = nodeServer.Listener.Addr().String()
	front := w.serveTLS(t)
	proxy := serveAt(t, address, connectProxy{to: front.Listener.Addr().String()})
	w.proxy = proxy.URL
	t.Cleanup(func() {
		proxy.Close()
		front.Close()
		nodeServer.Close()
		if err := w.registry.Close(); err != nil {
			t.Error(err)
		}
		if err := w.journal.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func serveAt(t *testing.T, address string, h http.Handler) *httptest.Server {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	if err := s.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	s.Listener = l
	s.Start()
	return s
}

// serveTLS serves the registry with a certificate for acr.
func (w *world) serveTLS(t *testing.T) *httptest.Server {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, DNSNames: []string{acr},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	w.caFile = filepath.Join(w.dir, "ca.pem")
	if err := os.WriteFile(w.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	front := httptest.NewUnstartedServer(w.registry.Handler())
	front.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	front.StartTLS()
	return front
}

// connectProxy tunnels *.azurecr.io to one address and refuses all else, as a
// machine without internet.
type connectProxy struct{ to string }

func (p connectProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect || !strings.HasSuffix(r.URL.Hostname(), ".azurecr.io") {
		http.Error(w, "no route to "+r.URL.Hostname(), http.StatusBadGateway)
		return
	}
	var d net.Dialer
	up, err := d.DialContext(r.Context(), "tcp", p.to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	down, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if _, err := io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { pipe(up, buf.Reader); _ = up.Close() })
	both.Go(func() { pipe(down, bufio.NewReader(up)); _ = down.Close() })
	both.Wait()
}

func pipe(to io.Writer, from io.Reader) { _, _ = io.Copy(to, from) }

// builder starts a builder whose end the test waits for.
func (w *world) builder(t *testing.T, change func(*image.Config)) (*image.Builder, func()) {
	t.Helper()
	buildkitd, runc := programs(t)
	cfg := image.Config{
		Dir: filepath.Join(w.dir, "bk"), Buildkitd: buildkitd, Runc: runc,
		RegistryMirror: w.mirror, Proxy: w.proxy, CAFile: w.caFile,
	}
	if change != nil {
		change(&cfg)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	b, err := image.New(cfg, image.Deps{Log: log, Journal: w.journal})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	<-b.Ready()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("Run: %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Error("Run did not end")
			}
			checkNothingLeft(t, cfg.Dir)
			if t.Failed() {
				if text, err := os.ReadFile(filepath.Join(cfg.Dir, "buildkitd.log")); err == nil {
					t.Logf("buildkitd.log:\n%s", text)
				}
			}
		})
	}
	t.Cleanup(stop)
	return b, stop
}

// programs are the BuildKit and runc to test with.
func programs(t *testing.T) (buildkitd, runc string) {
	t.Helper()
	buildkitd, runc = os.Getenv("LOCKSTEP_TEST_BUILDKITD"), os.Getenv("LOCKSTEP_TEST_RUNC")
	if buildkitd == "" || runc == "" {
		t.Skip("set LOCKSTEP_TEST_BUILDKITD and LOCKSTEP_TEST_RUNC to the programs of the bundle")
	}
	return buildkitd, runc
}

// seed puts the base images into the mirror.
func (w *world) seed(t *testing.T, goroot string) []baseimage.Image {
	t.Helper()
	images, err := baseimage.Seed(t.Context(), baseimage.Config{Dir: filepath.Join(w.dir, "base"), GOROOT: goroot},
		baseimage.Deps{Transport: w.registry.Transport()})
	if err != nil {
		if strings.Contains(err.Error(), "busybox-static") {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	if len(images) == 0 || !images[0].Made {
		t.Fatalf("Seed = %+v", images)
	}
	return images
}

// seedGo adds the golang image and returns its reference with digest.
func (w *world) seedGo(t *testing.T) string {
	t.Helper()
	goroot, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Skipf("no Go toolchain: %v", err)
	}
	images := w.seed(t, strings.TrimSpace(string(goroot)))
	last := images[len(images)-1]
	return "docker.io/library/golang@" + last.Digest
}

// checkNothingLeft looks for processes and mounts of a builder.
func checkNothingLeft(t *testing.T, dir string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir+"/") {
			t.Errorf("mount left: %s", line)
		}
	}
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		cmdline, err := os.ReadFile(e)
		if err == nil && strings.Contains(string(cmdline), dir) {
			t.Errorf("process left: %s %q", e, cmdline)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		if left, err := filepath.Glob(pattern + image.CgroupName(dir)); err != nil || len(left) > 0 {
			t.Errorf("cgroups left: %v, %v", left, err)
		}
	}
}

// buildContext writes files, content by name, to a new directory.
func buildContext(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
