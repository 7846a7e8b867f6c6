package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/lockstep-gitops/lockstep/internal/image"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

var ci = map[string]image.Credential{acr: {Username: "ci", Password: "ci-secret"}}

// pull fetches an image from the registry.
func (w *world) pull(t *testing.T, ref string) v1.Image {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(r, remote.WithTransport(w.registry.Transport()))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// files lists the regular files of an image with their content.
func files(t *testing.T, img v1.Image) map[string]string {
	t.Helper()
	rc := mutate.Extract(img)
	defer func() { _ = rc.Close() }()
	out := map[string]string{}
	r := tar.NewReader(rc)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg && h.Size < 1<<16 {
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			out[h.Name] = string(b)
		}
	}
}

func TestBuildFromScratchAndPush(t *testing.T) {
	w := newWorld(t)
	b, _ := w.builder(t, nil)
	dir := buildContext(t, map[string]string{
		"Dockerfile":    "# syntax=docker/dockerfile:1\nFROM scratch\nARG WHO\nLABEL who=$WHO\nCOPY . /data/\n",
		"hello.txt":     "hello",
		"secret.txt":    "not for the image",
		".dockerignore": "secret.txt\nDockerfile\n.dockerignore\n",
	})
	var out bytes.Buffer
	res, err := b.Build(t.Context(), image.Request{
		Repo: "contoso/storefront", Commit: strings.Repeat("a", 40), ContextDir: dir,
		Tags: []string{acr + "/web:v1", acr + "/web:latest"}, Push: true,
		BuildArgs: map[string]string{"WHO": "me"}, Labels: map[string]string{"rev": "1"}, Credentials: ci,
	}, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, tag := range []string{"v1", "latest"} {
		img := w.pull(t, acr+"/web:"+tag)
		if d, err := img.Digest(); err != nil || d.String() != res.Digest {
			t.Errorf("%s: digest %v, %v; want %s", tag, d, err, res.Digest)
		}
		if c, err := img.ConfigName(); err != nil || c.String() != res.ImageID {
			t.Errorf("%s: config %v, %v; want %s", tag, c, err, res.ImageID)
		}
		cfg, err := img.ConfigFile()
		if err != nil || cfg.Config.Labels["who"] != "me" || cfg.Config.Labels["rev"] != "1" {
			t.Errorf("labels = %v, %v", cfg.Config.Labels, err)
		}
		if got := files(t, img); len(got) != 1 || got["data/hello.txt"] != "hello" {
			t.Errorf("%s: files = %v", tag, got)
		}
	}
	var metadata map[string]any
	if err := json.Unmarshal([]byte(res.Metadata), &metadata); err != nil || metadata["containerimage.digest"] != res.Digest {
		t.Errorf("metadata = %s, %v", res.Metadata, err)
	}
	if n := strings.Count(out.String(), "the one built into BuildKit is used"); n != 1 {
		t.Errorf("the syntax note comes %d times:\n%s", n, out.String())
	}
	events, err := w.journal.Events(t.Context(), journal.Query{Stages: []journal.Stage{journal.StageImage}})
	if err != nil || len(events) != 2 {
		t.Fatalf("events = %+v, %v", events, err)
	}
	last := events[1]
	if events[0].Status != journal.StatusStarted || last.Status != journal.StatusSucceeded || last.Subject != acr+"/web" ||
		last.Data[journal.DataDigest] != res.Digest || last.Data[journal.DataImage] != acr+"/web" || last.Data["steps"] == "" || last.Data["steps"] == "0" {
		t.Errorf("events = %+v", events)
	}
	again, err := b.Build(t.Context(), image.Request{ContextDir: dir, Tags: []string{acr + "/web:v1"}, Push: true,
		BuildArgs: map[string]string{"WHO": "me"}, Labels: map[string]string{"rev": "1"}, Credentials: ci}, io.Discard)
	if err != nil || again.Digest != res.Digest {
		t.Errorf("second build = %+v, %v; want the same digest", again, err)
	}
}

func TestBuildRunsStepsOnBusybox(t *testing.T) {
	w := newWorld(t)
	w.seed(t, "")
	b, _ := w.builder(t, nil)
	dir := buildContext(t, map[string]string{"build/Dockerfile.web": `FROM busybox AS one
RUN --mount=type=secret,id=key test "$(wc -c < /run/secrets/key)" = 6 && echo built by $(id -un) > /out
FROM busybox AS two
RUN exit 1
FROM scratch AS three
COPY --from=one /out /out
`})
	var out bytes.Buffer
	_, err := b.Build(t.Context(), image.Request{
		ContextDir: dir, Dockerfile: "build/Dockerfile.web", Target: "three", Tags: []string{acr + "/step:v1"}, Push: true,
		Secrets: map[string][]byte{"key": []byte("s3cret")}, Credentials: ci, Platforms: []string{"linux/" + runtime.GOARCH},
	}, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if got := files(t, w.pull(t, acr+"/step:v1")); got["out"] != "built by root\n" {
		t.Errorf("files = %v", got)
	}
	if strings.Contains(out.String(), "s3cret") {
		t.Error("the progress tells the secret")
	}
}

const goMain = `package main

import (
	"fmt"
	"net/http"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "VERSION") })
	http.ListenAndServe(":8080", nil)
}
`

const goDockerfile = `FROM golang:1 AS build
WORKDIR /src
COPY go.mod ./
RUN --mount=type=cache,target=/root/.cache/go-build go mod download
COPY . .
RUN --mount=type=cache,target=/root/.cache/go-build go build -o /app .
FROM scratch
COPY --from=build /app /app
ENTRYPOINT ["/app"]
`

func TestBuildGoInTwoStages(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the standard library; left out by -short")
	}
	w := newWorld(t)
	begin := time.Now()
	w.seedGo(t)
	t.Logf("seeded in %v", time.Since(begin))
	b, _ := w.builder(t, nil)
	for i, version := range []string{"one", "two"} {
		dir := buildContext(t, map[string]string{
			"Dockerfile": goDockerfile, "go.mod": "module example.com/app\n\ngo 1.24\n",
			"main.go": strings.Replace(goMain, "VERSION", version, 1),
		})
		var out bytes.Buffer
		begin := time.Now()
		_, err := b.Build(t.Context(), image.Request{ContextDir: dir, Tags: []string{acr + "/app:" + version}, Push: true, Credentials: ci}, &out)
		if err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		took := time.Since(begin)
		t.Logf("build %d took %v, buildkitd uses %s", i+1, took, resident(b.PID()))
		if testing.Verbose() {
			t.Logf("%s", out.String())
		}
		layers, err := w.pull(t, acr+"/app:"+version).Layers()
		if err != nil || len(layers) != 1 {
			t.Errorf("layers = %v, %v", layers, err)
		}
	}
}

// TestWarm: the first build of a Go program after Warm finds the standard
// library compiled.
func TestWarm(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the standard library; left out by -short")
	}
	w := newWorld(t)
	golang := w.seedGo(t)
	b, _ := w.builder(t, nil)
	begin := time.Now()
	if err := b.Warm(t.Context(), golang); err != nil {
		t.Fatal(err)
	}
	t.Logf("warmed up in %v", time.Since(begin))
	begin = time.Now()
	if err := b.Warm(t.Context(), golang); err != nil || time.Since(begin) > time.Second {
		t.Errorf("second Warm = %v after %v", err, time.Since(begin))
	}
	for _, flags := range []string{"-trimpath", "-trimpath=false"} {
		dir := buildContext(t, map[string]string{
			"Dockerfile": strings.Replace(goDockerfile, "go build -o", "go build -v "+flags+" -o", 1),
			"go.mod":     "module example.com/app\n\ngo 1.24\n", "main.go": goMain,
		})
		var out bytes.Buffer
		begin = time.Now()
		if _, err := b.Build(t.Context(), image.Request{ContextDir: dir}, &out); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		t.Logf("first build with %s took %v", flags, time.Since(begin))
		if strings.Contains(out.String(), " net/http\n") {
			t.Errorf("net/http was compiled again:\n%s", out.String())
		}
	}
}

func TestBrokenInput(t *testing.T) {
	w := newWorld(t)
	w.seed(t, "")
	b, _ := w.builder(t, nil)
	for _, c := range []struct {
		name, dockerfile string
		req              image.Request
		line             int
		message, hint    string
	}{
		{name: "unknown instruction", dockerfile: "FROM busybox\n\nRUNN true\n", line: 3, message: "unknown instruction: RUNN"},
		{name: "failing step", dockerfile: "FROM busybox\nRUN echo the reason; exit 3\n", line: 2, message: "the reason"},
		{name: "missing file", dockerfile: "FROM busybox\nCOPY nothing.txt /\n", line: 2, message: `"/nothing.txt" is not in the build context`, hint: ".dockerignore"},
		{name: "missing file of a stage", dockerfile: "FROM busybox AS made\nRUN true\nFROM scratch\nCOPY --from=made /out/app /\n", line: 4,
			message: `"/out/app" is not in the stage or image "made"`, hint: "the steps of made make it"},
		{name: "missing base image", dockerfile: "ARG X=1\nFROM python:3.13-slim\n", line: 2,
			message: "the base image python:3.13-slim is not on this machine", hint: "lockstep image import <file.tar> docker.io/library/python:3.13-slim"},
		{name: "base image that nobody pushed", dockerfile: "FROM " + acr + "/base:v7\n", line: 1, req: image.Request{Credentials: ci},
			message: "storefront.azurecr.io/base:v7 is not on this machine", hint: "let the workflow that builds it run first"},
		{name: "base image without login", dockerfile: "FROM " + acr + "/base:v7\n", line: 1, message: "does not let this build pull", hint: "docker/login-action"},
		{name: "base image from nowhere", dockerfile: "FROM example.org/x:1\n", line: 1, message: "example.org/x:1 cannot be had", hint: "no registry example.org is served here"},
		{name: "no network", dockerfile: "FROM busybox\nRUN nslookup nowhere.invalid\n", line: 2, message: "nowhere.invalid", hint: "without internet"},
		{name: "push without login", dockerfile: "FROM scratch\nCOPY Dockerfile /\n", req: image.Request{Tags: []string{acr + "/x:1"}, Push: true},
			message: "refused the push", hint: "AcrPush"},
		{name: "push with a wrong password", dockerfile: "FROM scratch\nCOPY Dockerfile /\n",
			req:     image.Request{Tags: []string{acr + "/x:1"}, Push: true, Credentials: map[string]image.Credential{acr: {Username: "ci", Password: "wr0ng"}}},
			message: "refused the push", hint: "AcrPush"},
		{name: "no Dockerfile", req: image.Request{Dockerfile: "Dockerfile.web"}, message: "no such Dockerfile", hint: "`context`"},
		{name: "Dockerfile outside", req: image.Request{Dockerfile: "../Dockerfile"}, message: "inside the build context", hint: "context"},
		{name: "unknown target", dockerfile: "FROM busybox AS a\n", req: image.Request{Target: "b"}, message: `target stage "b" could not be found`},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin := time.Now()
			c.req.ContextDir, c.req.Path = buildContext(t, map[string]string{"Dockerfile": c.dockerfile}), "app"
			var out bytes.Buffer
			_, err := b.Build(t.Context(), c.req, &out)
			var be *image.BuildError
			if !errors.As(err, &be) {
				t.Fatalf("error = %v (%T)", err, err)
			}
			if be.Line != c.line || !strings.Contains(be.Message, c.message) || !strings.Contains(be.Hint, c.hint) {
				t.Errorf("error = %s\nline %d, want %d; want message %q, hint %q", err, be.Line, c.line, c.message, c.hint)
			}
			if c.req.Dockerfile == "" && be.File != "app/Dockerfile" {
				t.Errorf("file = %q", be.File)
			}
			if strings.Contains(err.Error()+out.String(), "wr0ng") {
				t.Error("the password is told")
			}
			t.Logf("%v: %s", time.Since(begin).Round(time.Millisecond), err)
		})
	}
	events, err := w.journal.Events(t.Context(), journal.Query{Statuses: []journal.Status{journal.StatusFailed}})
	if err != nil || len(events) == 0 || !slices.ContainsFunc(events, func(e journal.Event) bool {
		return e.File == "app/Dockerfile" && e.Line == 3 && strings.Contains(e.Message, "RUNN")
	}) {
		t.Errorf("events = %+v, %v", events, err)
	}
}

func TestCancelledBuildLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.seed(t, "")
	b, stop := w.builder(t, nil)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo started; sleep 600\n"})
	ctx, cancel := context.WithCancel(t.Context())
	out := &trigger{word: "started", hit: cancel}
	begin := time.Now()
	_, err := b.Build(ctx, image.Request{ContextDir: dir}, out)
	if !errors.Is(err, context.Canceled) || time.Since(begin) > 60*time.Second {
		t.Errorf("Build = %v after %v", err, time.Since(begin))
	}
	events, err := w.journal.Events(t.Context(), journal.Query{Statuses: []journal.Status{journal.StatusCancelled}})
	if err != nil || len(events) != 1 {
		t.Errorf("cancelled events = %+v, %v", events, err)
	}
	stop()
}

// TestStopDuringBuild: the end of Run breaks a build off and nothing is left.
func TestStopDuringBuild(t *testing.T) {
	w := newWorld(t)
	w.seed(t, "")
	b, stop := w.builder(t, nil)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo started; sleep 600\n"})
	out := &trigger{word: "started", hit: func() { go stop() }}
	if _, err := b.Build(t.Context(), image.Request{ContextDir: dir}, out); err == nil {
		t.Error("the build succeeded")
	}
	stop()
	if _, err := b.Build(t.Context(), image.Request{ContextDir: dir}, io.Discard); err == nil {
		t.Error("a build ran after Run ended")
	}
}

// trigger calls hit once a word was written.
type trigger struct {
	bytes.Buffer
	word string
	hit  func()
	done bool
}

func (w *trigger) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	// The step's own command line has the word in it too: wait for its output.
	if !w.done && strings.Contains(w.String(), " "+w.word+"\n") {
		w.done = true
		w.hit()
	}
	return n, err
}

func TestIdleStopAndRestart(t *testing.T) {
	w := newWorld(t)
	b, _ := w.builder(t, func(c *image.Config) { c.IdleTimeout = 200 * time.Millisecond })
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	if b.PID() != 0 {
		t.Error("buildkitd runs before the first build")
	}
	for range 2 {
		begin := time.Now()
		if _, err := b.Build(t.Context(), image.Request{ContextDir: dir}, io.Discard); err != nil {
			t.Fatal(err)
		}
		t.Logf("build with start: %v", time.Since(begin))
		if b.PID() == 0 {
			t.Fatal("buildkitd is gone at once")
		}
		waitFor(t, "buildkitd to stop", func() bool { return b.PID() == 0 })
	}
}

func TestBuildSurvivesDeathOfBuildKit(t *testing.T) {
	w := newWorld(t)
	w.seed(t, "")
	b, _ := w.builder(t, nil)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo started; sleep 3\n"})
	out := &trigger{word: "started", hit: func() { kill(t, b.PID()) }}
	if _, err := b.Build(t.Context(), image.Request{ContextDir: dir}, out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), "buildkitd ended unexpectedly") {
		t.Errorf("the progress does not tell:\n%s", out.String())
	}
	events, err := w.journal.Events(t.Context(), journal.Query{Stages: []journal.Stage{journal.StagePlatform}})
	if err != nil || len(events) != 1 || !strings.Contains(events[0].Message, "killed") {
		t.Errorf("platform events = %+v, %v", events, err)
	}
}

// TestLeftoverIsEnded: a builder ends the buildkitd that another one left when
// its process was killed.
func TestLeftoverIsEnded(t *testing.T) {
	w := newWorld(t)
	w.seed(t, "")
	first, _ := w.builder(t, nil)
	dir := buildContext(t, map[string]string{"Dockerfile": "FROM busybox\nRUN true\n"})
	if _, err := first.Build(t.Context(), image.Request{ContextDir: dir}, io.Discard); err != nil {
		t.Fatal(err)
	}
	old := first.PID()
	second, _ := w.builder(t, nil) // the same state directory, as after a crash
	var out bytes.Buffer
	if _, err := second.Build(t.Context(), image.Request{ContextDir: dir}, &out); err != nil {
		t.Fatal(err)
	}
	if second.PID() == old || alive(old) {
		t.Errorf("the old buildkitd %d lives", old)
	}
	if !strings.Contains(out.String(), "CACHED") {
		t.Errorf("the cache was lost:\n%s", out.String())
	}
}

func TestConcurrentBuilds(t *testing.T) {
	w := newWorld(t)
	w.seed(t, "")
	b, _ := w.builder(t, nil)
	errs := make(chan error)
	for _, tag := range []string{"a", "b", "c"} {
		dir := buildContext(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo " + tag + " > /tag\n"})
		go func() {
			_, err := b.Build(t.Context(), image.Request{ContextDir: dir, Tags: []string{acr + "/many:" + tag}, Push: true, Credentials: ci}, io.Discard)
			errs <- err
		}()
	}
	for range 3 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for _, tag := range []string{"a", "b", "c"} {
		if got := files(t, w.pull(t, acr+"/many:"+tag)); got["tag"] != tag+"\n" {
			t.Errorf("image %s holds %q", tag, got["tag"])
		}
	}
}

func TestConfigValidate(t *testing.T) {
	good := image.Config{Dir: "/s", Buildkitd: "/b", Runc: "/r"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*image.Config){
		"absolute path":       func(c *image.Config) { c.Runc = "runc" },
		"longer than 107":     func(c *image.Config) { c.Dir = filepath.Join("/", strings.Repeat("x", 100)) },
		"neither overlayfs":   func(c *image.Config) { c.Snapshotter = "btrfs" },
		"must not be negativ": func(c *image.Config) { c.IdleTimeout = -1 },
	} {
		c := good
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate = %v, want %q", err, want)
		}
	}
}
