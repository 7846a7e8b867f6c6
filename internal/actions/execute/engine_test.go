package execute

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/lockstep-gitops/lockstep/internal/actions/container"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
)

// busyboxImage is an image of the machine's static busybox.
func busyboxImage(t *testing.T) v1.Image {
	t.Helper()
	program, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		t.Skip("no static busybox on this machine to make an image of (Debian: busybox-static)")
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(h tar.Header, content string) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, "")
	add(tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, "")
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, string(program))
	for applet := range strings.FieldsSeq("sh cat echo sleep env id httpd wget grep ls pwd mkdir") {
		add(tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, "")
	}
	add(tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}, "")
	add(tar.Header{Name: "etc/image-name", Typeflag: tar.TypeReg, Mode: 0o644}, "the image\n")
	add(tar.Header{Name: "www/", Typeflag: tar.TypeDir, Mode: 0o755}, "")
	add(tar.Header{Name: "www/index.html", Typeflag: tar.TypeReg, Mode: 0o644}, "served by the service\n")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", "amd64"
	if runnerArch() == "ARM64" {
		file.Architecture = "arm64"
	}
	file.Config.Env, file.Config.Cmd = []string{"FROM_IMAGE=yes", "PATH=/bin"}, []string{"httpd", "-f", "-p", "8080", "-h", "/www"}
	if image, err = mutate.ConfigFile(image, file); err != nil {
		t.Fatal(err)
	}
	return image
}

// TestContainersOfTheRealEngine runs a service, a job container, a docker://
// step and an action with an image in the engine that jobs get.
func TestContainersOfTheRealEngine(t *testing.T) {
	w := newWorld(t)
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	ref := strings.TrimPrefix(server.URL, "http://") + "/acme/box:1"
	n, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(n, busyboxImage(t)); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "init") // static: the image has no libraries for this test's binary
	build := exec.Command("go", "build", "-o", program, "github.com/lockstep-gitops/lockstep/internal/actions/sandbox/lockstep-init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	engine, err := container.Open(container.Config{Dir: filepath.Join(w.dir, "containers"), Self: program}, container.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	w.runner.Containers = FromEngine(engine)
	w.runner.Config.Network = sandbox.OwnNetwork
	w.publish("acme/docker", map[string]string{"action.yml": "inputs:\n  word: {default: hello}\nruns:\n  using: docker\n  image: docker://" + ref + "\n  entrypoint: /bin/sh\n  args: [\"-c\", \"echo \\\"$INPUT_WORD from $(cat /etc/image-name) in $(pwd) $FROM_IMAGE\\\"; cat made-by-step; echo out=done >> $GITHUB_OUTPUT\"]\n"})
	o := w.run(w.plan(nil, `on: push
jobs:
  a:
    runs-on: x
    services:
      web:
        image: `+ref+`
        ports: ["18080:8080"]
        options: --health-cmd "wget -q -O- http://127.0.0.1:8080/" --health-interval 100ms --health-retries 50
    steps:
      - run: |
          echo kept > made-by-step
          curl --silent http://localhost:${{ job.services.web.ports['8080'] }}/
      - id: d
        uses: acme/docker@v1
      - run: echo "output ${{ steps.d.outputs.out }}"
      - uses: docker://`+ref+`
        with: {entrypoint: /bin/cat, args: /etc/image-name}
`))
	if o.Conclusion != schedule.Success {
		t.Fatalf("%+v\n%s", o.Failure, o.log())
	}
	o.wants("served by the service\n", "hello from the image in /github/workspace yes\nkept\n", "output done\n")

	o = w.run(w.plan(nil, `on: push
jobs:
  a:
    runs-on: x
    container: {image: `+ref+`, env: {OWN: given}}
    services:
      web: {image: `+ref+`}
    steps:
      - run: |
          echo "in $(cat /etc/image-name) $FROM_IMAGE $OWN $(pwd)"
          echo "A=later" >> "$GITHUB_ENV"
          wget -q -O- http://web:8080/
      - run: echo "$A"; exit 3
`))
	if o.Conclusion != schedule.Failure || o.Failure.Message != "Process completed with exit code 3." {
		t.Errorf("%+v", o.Failure)
	}
	o.wants("in the image yes given /home/runner/work/r/r\n", "served by the service\n", "later\n")
}
