package container

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
	"golang.org/x/sys/unix"
)

// initProgram builds the first process of sandboxes: static, because an image
// has no libraries for it.
var initProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "lockstep-init-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", dir+"/init", "github.com/lockstep-gitops/lockstep/internal/actions/sandbox/lockstep-init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("build lockstep-init: %w: %s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := initProgram(); dir != "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// file is one entry of a layer.
type file struct {
	name, content, link string
	mode                int64
	kind                byte
	uid                 int
	xattrs              map[string]string
}

func layerOf(t testing.TB, files ...file) v1.Layer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content)), Typeflag: f.kind, Linkname: f.link, Uid: f.uid}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		for k, v := range f.xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// busybox is a layer with the machine's static busybox and some users.
func busybox(t testing.TB) v1.Layer {
	t.Helper()
	program, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		t.Skip("no static busybox on this machine to make images of (Debian: busybox-static)")
	}
	files := []file{
		{name: "bin", kind: tar.TypeDir, mode: 0o755}, {name: "bin/busybox", content: string(program), mode: 0o755},
		{name: "etc", kind: tar.TypeDir, mode: 0o755},
		{name: "etc/passwd", content: "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"},
		{name: "etc/group", content: "root:x:0:\napp:x:1000:\nextra:x:2000:app\n"},
		{name: "tmp", kind: tar.TypeDir, mode: 0o1777},
		{name: "data", kind: tar.TypeDir, mode: 0o700, uid: 1000}, {name: "data/old", content: "old"}, {name: "data/gone", content: "x"},
		{name: "opaque", kind: tar.TypeDir, mode: 0o755}, {name: "opaque/below", content: "x"},
	}
	for _, applet := range strings.Fields("sh cat ls echo sleep id env stat wget httpd nc hostname grep kill true false head dd ip awk touch seq test pwd nslookup") {
		files = append(files, file{name: "bin/" + applet, kind: tar.TypeSymlink, link: "busybox"})
	}
	return layerOf(t, files...)
}

// imageOfLayers has a config that config changes.
func imageOfLayers(t testing.TB, config func(*v1.Config), layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	f, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	f = f.DeepCopy()
	f.OS, f.Architecture = "linux", "amd64"
	if p, err := parsePlatform(""); err == nil {
		f.Architecture = p.Architecture
	}
	if config != nil {
		config(&f.Config)
	}
	if img, err = mutate.ConfigFile(img, f); err != nil {
		t.Fatal(err)
	}
	return img
}

// world is an engine with a registry and a job.
type world struct {
	*Engine
	registry string
}

func newWorld(t testing.TB, change func(*Config)) *world {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(nopLogger())))
	t.Cleanup(server.Close)
	program, err := initProgram()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: t.TempDir(), Self: program + "/init"}
	if change != nil {
		change(&cfg)
	}
	e, err := Open(cfg, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{e, strings.TrimPrefix(server.URL, "http://")}
}

// push puts an image into the registry and returns its name.
func (w *world) push(t testing.TB, repo string, img v1.Image) string {
	t.Helper()
	ref := w.registry + "/" + repo
	n, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(n, img); err != nil {
		t.Fatal(err)
	}
	return ref
}

// base pushes an image of busybox alone.
func (w *world) base(t testing.TB) string {
	ref := w.push(t, "base:1", imageOfLayers(t, func(c *v1.Config) { c.Cmd = []string{"sh"}; c.Env = []string{"FROM_IMAGE=yes"} }, busybox(t)))
	if _, err := w.Pull(t.Context(), ref, Auth{}, nil); err != nil {
		t.Fatal(err)
	}
	return ref
}

func (w *world) job(t testing.TB, change func(*sandbox.Spec)) *sandbox.Session {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	spec := sandbox.Spec{Root: t.TempDir(), Hostname: "job"}
	if change != nil {
		change(&spec)
	}
	s, err := sandbox.Start(t.Context(), w.cfg.Self, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// sh runs a script in an image and returns what it wrote.
func (w *world) sh(t testing.TB, job *sandbox.Session, spec Spec, script string) (string, sandbox.Exit) {
	t.Helper()
	spec.Args = []string{"sh", "-c", script}
	var out bytes.Buffer
	exit, err := w.Run(t.Context(), job, spec, &out, nil)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out.String())
	}
	return strings.TrimSpace(out.String()), exit
}

// inJob runs a script in the job itself.
func inJob(t testing.TB, job *sandbox.Session, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var out bytes.Buffer
	if _, err := job.Exec(ctx, sandbox.Command{Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin"}, Dir: "/", Output: &out}); err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return strings.TrimSpace(out.String())
}

func emptyIndex() v1.ImageIndex { return empty.Index }

func mutateConfig(t testing.TB, img v1.Image, f *v1.ConfigFile) v1.Image {
	t.Helper()
	out, err := mutate.ConfigFile(img, f)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// tarOf is a folder as an archive.
func tarOf(t testing.TB, dir string) io.Reader {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &buf
}

func listAttributes(t testing.TB, path string) []string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Listxattr(path, buf)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(buf[:n]), "\x00")
}
