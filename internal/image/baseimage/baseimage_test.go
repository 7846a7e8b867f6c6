package baseimage

import (
	"archive/tar"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	ggcrregistry "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// mirror is a registry that answers to every name.
type mirror struct{ server *httptest.Server }

func newMirror(t *testing.T) mirror {
	t.Helper()
	m := mirror{httptest.NewServer(ggcrregistry.New(ggcrregistry.Logger(log.New(io.Discard, "", 0))))}
	t.Cleanup(m.server.Close)
	return m
}

func (m mirror) RoundTrip(req *http.Request) (*http.Response, error) {
	r := req.Clone(req.Context())
	r.URL.Scheme, r.URL.Host = "http", m.server.Listener.Addr().String()
	return http.DefaultTransport.RoundTrip(r)
}

func (m mirror) image(t *testing.T, ref string) v1.Image {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(tag, remote.WithTransport(m))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// staticBusybox skips the test where there is none.
func staticBusybox(t *testing.T) {
	t.Helper()
	if err := checkStatic("/bin/busybox"); err != nil {
		t.Skip(err)
	}
}

// fakeToolchain is a GOROOT of a few files.
func fakeToolchain(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"VERSION": version + "\ntime 2026-01-01T00:00:00Z\n", "bin/go": "#!/bin/sh\n", "src/fmt/print.go": "package fmt\n",
		"src/fmt/print_test.go": "package fmt\n", "src/fmt/testdata/x": "x", "src/cmd/go/main.go": "package main\n", "test/x.go": "package x\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestSeed(t *testing.T) {
	staticBusybox(t)
	m := newMirror(t)
	cfg := Config{Dir: t.TempDir(), GOROOT: fakeToolchain(t, "go1.99.3")}
	images, err := Seed(t.Context(), cfg, Deps{Transport: m})
	if err != nil || len(images) != 2 {
		t.Fatalf("Seed = %+v, %v", images, err)
	}
	golang := images[1]
	var tags []string
	for _, ref := range golang.Tags {
		tags = append(tags, strings.TrimPrefix(ref, "docker.io/library/golang:"))
		if d, err := m.image(t, ref).Digest(); err != nil || d.String() != golang.Digest {
			t.Errorf("%s = %v, %v; want %s", ref, d, err, golang.Digest)
		}
	}
	if want := []string{"1.99.3", "1.99", "1", "latest"}; !slices.Equal(tags, want) {
		t.Errorf("tags = %v, want %v", tags, want)
	}
	img := m.image(t, golang.Tags[0])
	got := paths(t, img)
	for _, want := range []string{"bin/sh", "etc/passwd", "usr/local/go/bin/go", "usr/local/go/src/fmt/print.go"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is missing", want)
		}
	}
	for _, p := range got {
		if strings.Contains(p, "_test.go") || strings.Contains(p, "testdata") || strings.Contains(p, "src/cmd") || strings.Contains(p, "go/test") {
			t.Errorf("%s is not needed", p)
		}
	}
	file, err := img.ConfigFile()
	if err != nil || !strings.Contains(file.Config.Labels["org.opencontainers.image.description"], "Made by Lockstep") {
		t.Errorf("labels = %v, %v", file.Config.Labels, err)
	}

	again, err := Seed(t.Context(), cfg, Deps{Transport: m})
	if err != nil || again[0].Made || again[1].Made || again[1].Digest != golang.Digest {
		t.Errorf("second Seed = %+v, %v; want nothing made", again, err)
	}
	other := newMirror(t)
	anew, err := Seed(t.Context(), Config{Dir: t.TempDir(), GOROOT: cfg.GOROOT}, Deps{Transport: other})
	if err != nil || !anew[1].Made || anew[1].Digest != golang.Digest {
		t.Errorf("Seed elsewhere = %+v, %v; want digest %s", anew, err, golang.Digest)
	}
	if err := os.WriteFile(filepath.Join(cfg.GOROOT, "src/fmt/scan.go"), []byte("package fmt\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	changed, err := Seed(t.Context(), cfg, Deps{Transport: m})
	if err != nil || changed[0].Made || !changed[1].Made || changed[1].Digest == golang.Digest {
		t.Errorf("Seed of a changed toolchain = %+v, %v", changed, err)
	}
}

// TestForeignImageStays: what somebody imported is not replaced.
func TestForeignImageStays(t *testing.T) {
	staticBusybox(t)
	m := newMirror(t)
	img, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag("docker.io/library/golang:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithTransport(m)); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: t.TempDir(), GOROOT: fakeToolchain(t, "go1.99")}
	for range 2 {
		if _, err := Seed(t.Context(), cfg, Deps{Transport: m}); err != nil {
			t.Fatal(err)
		}
	}
	want, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.image(t, "docker.io/library/golang:1").Digest(); err != nil || got != want {
		t.Errorf("golang:1 = %v, %v; want the imported %v", got, err, want)
	}
	if got, err := m.image(t, "docker.io/library/golang:1.99").Digest(); err != nil || got == want {
		t.Errorf("golang:1.99 = %v, %v; want ours", got, err)
	}
}

func TestSeedSaysWhatIsMissing(t *testing.T) {
	dynamic, err := exec.LookPath("git")
	if err != nil {
		t.Skip(err)
	}
	for _, c := range []struct {
		name, busybox, goroot, want string
		images                      int
	}{
		{"no busybox", "/does/not/exist", "", "apt-get install busybox-static", 0},
		{"dynamic busybox", dynamic, "", "linked dynamically", 0},
		{"no toolchain", "", "/does/not/exist", "no Go toolchain", 1},
		{"unreleased toolchain", "", fakeToolchain(t, "devel go1.99-abcdef"), "not a released version", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.busybox == "" {
				staticBusybox(t)
			}
			images, err := Seed(t.Context(), Config{Dir: t.TempDir(), Busybox: c.busybox, GOROOT: c.goroot}, Deps{Transport: newMirror(t)})
			if err == nil || !strings.Contains(err.Error(), c.want) || len(images) != c.images {
				t.Errorf("Seed = %+v, %v; want %q", images, err, c.want)
			}
		})
	}
}

func TestGolangTags(t *testing.T) {
	for in, want := range map[string]string{
		"go1.26.8": "1.26.8 1.26 1 latest", "go1.26": "1.26 1 latest", "go1.27rc1": "1.27rc1",
		"devel": "", "": "", "go1": "", "go1.26.8 X:exp": "",
	} {
		got, err := golangTags(in)
		if strings.Join(got, " ") != want || (err != nil) != (want == "") {
			t.Errorf("golangTags(%q) = %v, %v; want %q", in, got, err, want)
		}
	}
}

func paths(t *testing.T, img v1.Image) []string {
	t.Helper()
	rc := mutate.Extract(img)
	defer func() { _ = rc.Close() }()
	var out []string
	r := tar.NewReader(rc)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, h.Name)
	}
}
