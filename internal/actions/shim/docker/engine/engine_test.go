package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
	"github.com/lockstep-gitops/lockstep/internal/actions/shim/docker"
)

// builder writes a random image where it is asked to.
type builder struct {
	last  builtin.BuildRequest
	files string
}

func (b *builder) Build(_ context.Context, r builtin.BuildRequest, progress io.Writer) (builtin.BuildResult, error) {
	b.last = r
	data, err := os.ReadFile(filepath.Join(r.ContextDir, r.Dockerfile))
	if err != nil {
		return builtin.BuildResult{}, err
	}
	if strings.Contains(string(data), "broken") {
		return builtin.BuildResult{}, &builtin.Error{Msg: "unknown instruction: broken", Hint: "mend it"}
	}
	b.files = string(data)
	_, _ = io.WriteString(progress, "#1 building\n")
	img, err := random.Image(64, 1)
	if err != nil {
		return builtin.BuildResult{}, err
	}
	for _, e := range r.Exports {
		tag, err := name.NewTag(r.Tags[0])
		if err != nil {
			return builtin.BuildResult{}, err
		}
		if err := tarball.WriteToFile(e.Dest, tag, img); err != nil {
			return builtin.BuildResult{}, err
		}
	}
	return builtin.BuildResult{Digest: "sha256:d", ImageID: "sha256:i", Metadata: "{}"}, nil
}

// containers echoes.
type containers struct{ ran []docker.Run }

func (c *containers) Run(_ context.Context, r docker.Run, _ v1.Image, stdin io.Reader, stdout, stderr io.Writer) (string, int, error) {
	c.ran = append(c.ran, r)
	if r.Stdin {
		_, _ = io.Copy(stdout, stdin)
	}
	_, _ = io.WriteString(stderr, "to stderr")
	return "c1", 7, nil
}

func (c *containers) List(context.Context, bool) ([]Container, error) {
	return []Container{{ID: "c1", Name: "web"}}, nil
}
func (c *containers) Stop(context.Context, string) error { return nil }
func (c *containers) Remove(context.Context, string, bool) error {
	return errors.New("No such container")
}                                                                              //nolint:staticcheck // the text of docker
func (c *containers) Logs(context.Context, string, io.Writer, io.Writer) error { return nil }

// world is a job's folder with an engine on its socket.
type world struct {
	t       *testing.T
	dir     string
	builder *builder
	boxes   *containers
}

type toHost string

func (h toHost) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Host, r.URL.Scheme, r.URL.Host = r.URL.Host, "http", string(h)
	return http.DefaultTransport.RoundTrip(r)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	images := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(images.Close)
	w := &world{t: t, dir: t.TempDir(), builder: &builder{}, boxes: &containers{}}
	e, err := New(Config{Dir: t.TempDir(), Repo: "o/r"}, Deps{Builder: w.builder, Containers: w.boxes, Transport: toHost(images.Listener.Addr().String())})
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(w.dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: e} //nolint:gosec // a test
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return w
}

func (w *world) docker(stdin, line string, more ...string) (string, string, int) {
	w.t.Helper()
	var out, errs bytes.Buffer
	p := &shim.Process{Args: append(strings.Fields(line), more...), Env: []string{"HOME=" + w.dir, "RUNNER_TEMP=" + w.dir, docker.SocketEnv + "=" + filepath.Join(w.dir, "s"), "TOKEN=tok"}, Dir: w.dir,
		Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs}
	code := docker.Main(w.t.Context(), p)
	return out.String(), errs.String(), code
}

func (w *world) file(name, text string) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(w.dir, name)), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func TestBuildPushPull(t *testing.T) {
	w := newWorld(t)
	w.file("app/Dockerfile", "FROM scratch\n")
	w.file("app/main.txt", "hello")
	w.file("lib/l.txt", "lib")
	w.file("sec.txt", "hush")
	_, errs, code := w.docker("", "build -t shop.azurecr.io/web:1 --build-arg A=1 --build-arg TOKEN --secret id=s,src=sec.txt --build-context lib=lib --platform linux/amd64 --iidfile iid --metadata-file meta app")
	if code != 0 || !strings.Contains(errs, "#1 building") || !strings.Contains(errs, "emulated by lockstep") {
		t.Fatalf("%d %s", code, errs)
	}
	r := w.builder.last
	if r.BuildArgs["TOKEN"] != "tok" || r.BuildArgs["A"] != "1" || string(r.Secrets["s"]) != "hush" || r.Contexts["lib"] == "" || r.Push || r.Platforms[0] != "linux/amd64" {
		t.Errorf("%+v", r)
	}
	if data, err := os.ReadFile(filepath.Join(w.dir, "iid")); err != nil || string(data) != "sha256:i" {
		t.Errorf("iid %q %v", data, err)
	}
	for _, step := range []struct {
		line, want string
		code       int
	}{
		{"tag shop.azurecr.io/web:1 shop.azurecr.io/web:2", "", 0}, {"push shop.azurecr.io/web:2", "2: digest: sha256:", 0}, {"images", "shop.azurecr.io/web", 0},
		{"inspect -f {{.Architecture}}{{json", "is not emulated", 1}, {"inspect shop.azurecr.io/web:1", `"RepoTags"`, 0}, {"inspect -f {{.Os}}-{{.Size}} shop.azurecr.io/web:1", "-", 0},
		{"save -o x.tar shop.azurecr.io/web:2", "", 0}, {"rmi shop.azurecr.io/web:1 shop.azurecr.io/web:2", "Untagged", 0}, {"push shop.azurecr.io/web:2", "does not exist locally", 1},
		{"load -i x.tar", "Loaded image: shop.azurecr.io/web:2", 0}, {"pull shop.azurecr.io/web:2", "Digest: sha256:", 0}, {"pull shop.azurecr.io/none:1", "pull shop.azurecr.io/none:1", 1},
		{"buildx imagetools inspect shop.azurecr.io/web:2", "MediaType:", 0}, {"image ls -q", "", 0}, {"push UPPER/x", "invalid reference", 1},
		{"swarm init", "does not know this command", 2}, {"build --frob .", "unknown option --frob", 2}, {"build https://x/y.git", "is not emulated", 2}, {"build none", "not found", 1},
		{"build -o type=local,dest=x app", "is not emulated", 2}, {"version", "emulated by lockstep", 0},
	} {
		if strings.HasSuffix(step.line, "{{json") {
			step.line = "inspect -f {{range}} shop.azurecr.io/web:1"
		}
		out, errs, code := w.docker("", step.line)
		if code != step.code || !strings.Contains(out+errs, step.want) {
			t.Errorf("docker %s: %d\n%s%s", step.line, code, out, errs)
		}
	}
	if _, errs, code := w.docker("broken\n", "build -t x:1 -f - app"); code != 1 || !strings.Contains(errs, "unknown instruction") || !strings.Contains(errs, "mend it") {
		t.Errorf("%d %s", code, errs)
	}
}

func TestRun(t *testing.T) {
	w := newWorld(t)
	w.file("app/Dockerfile", "FROM scratch\n")
	w.docker("", "build -q -t web app")
	out, errs, code := w.docker("from stdin", "run -i --rm -e TOKEN -v /a:/b web echo -n hi")
	if code != 7 || out != "from stdin" || !strings.Contains(errs, "to stderr") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if r := w.boxes.ran[0]; strings.Join(r.Command, " ") != "echo -n hi" || r.Env[0] != "TOKEN=tok" || !r.Remove || r.Volumes[0] != "/a:/b" {
		t.Errorf("%+v", r)
	}
	if out, _, code := w.docker("", "ps"); code != 0 || !strings.Contains(out, "web") {
		t.Errorf("%d %s", code, out)
	}
	if _, errs, code := w.docker("", "rm x"); code != 1 || !strings.Contains(errs, "No such container") {
		t.Errorf("%d %s", code, errs)
	}
}

func TestHostileStreams(t *testing.T) {
	e, err := New(Config{Dir: t.TempDir()}, Deps{Builder: &builder{}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(e)
	defer server.Close()
	for _, c := range []struct {
		path, body, want string
		status           int
	}{
		{"/build", "no json\n", "read the request", 400}, {"/frob", "{}\n", "no such command", 404}, {"/build", `{"build":{}}` + "\nno tar", "receive the build context", 200},
		{"/build", "{}\n", "names no build", 200}, {"/run", `{"run":{"Image":"x"}}` + "\n", "cannot be run here", 200}, {"/load", "{}\nxx", "no docker archive", 200}, {"/inspect", "{}", "read the request", 400},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		data, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != c.status || !strings.Contains(string(data), c.want) {
			t.Errorf("%s %q: %d %s", c.path, c.body, resp.StatusCode, data)
		}
	}
}

func TestContextThatIsALink(t *testing.T) {
	dir := t.TempDir()
	var stream bytes.Buffer
	w := tar.NewWriter(&stream)
	for _, h := range []*tar.Header{{Name: "context", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "named/x", Typeflag: tar.TypeSymlink, Linkname: "/etc"}} {
		if h.Name == "named/x" {
			if err := w.WriteHeader(&tar.Header{Name: "named/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	err := receive(&stream, dir)
	if err == nil {
		err = contexts(dir, map[string]string{})
	}
	if err == nil {
		t.Error("a link was taken as a context")
	}
}

func FuzzField(f *testing.F) {
	f.Add("{{.A}} {{json .B}} {{index .B 0}}")
	f.Fuzz(func(_ *testing.T, format string) {
		_, _ = field(map[string]any{"A": "a", "B": []string{"x"}}, format)
	})
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := receive(bytes.NewReader(data), filepath.Join(dir, ".")); err == nil && len(data) > 2048 {
			t.Skip()
		}
	})
}
