package container

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
)

func nopLogger() *log.Logger { return log.New(io.Discard, "", 0) }

func TestRunIsWhatTheImageSays(t *testing.T) {
	w := newWorld(t, nil)
	second := layerOf(t,
		file{name: "data/.wh.gone"}, file{name: "data/new", content: "new"}, file{name: "data/hard", kind: tar.TypeLink, link: "data/new"},
		file{name: "opaque/.wh..wh..opq"}, file{name: "opaque/above", content: "x"},
		file{name: "entry", content: "#!/bin/sh\necho entry \"$@\"\npwd\nid -u\nid -G\necho $HOME $FROM_IMAGE $GIVEN\n", mode: 0o755})
	img := imageOfLayers(t, func(c *v1.Config) {
		c.Entrypoint, c.Cmd, c.Env, c.WorkingDir, c.User = []string{"/entry"}, []string{"default"}, []string{"FROM_IMAGE=yes"}, "/work/dir", "app"
	}, busybox(t), second)
	ref := w.push(t, "app:1", img)
	job := w.job(t, nil)
	var out bytes.Buffer
	exit, err := w.Run(t.Context(), job, Spec{Image: ref, Env: []string{"GIVEN=too"}}, &out, nil)
	if err != nil || !exit.OK() {
		t.Fatal(exit, err, out.String())
	}
	_, got, _ := strings.Cut(out.String(), "Digest: ")
	_, got, _ = strings.Cut(got, "\n")
	if want := "entry default\n/work/dir\n1000\n1000 2000\n/home/app yes too\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	out.Reset()
	if _, err := w.Run(t.Context(), job, Spec{Image: ref, Args: []string{"a b", "c"}, User: "0", Dir: "/tmp"}, &out, nil); err != nil || !strings.HasPrefix(out.String(), "entry a b c\n/tmp\n0\n") {
		t.Errorf("with arguments: %q, %v", out.String(), err)
	}
	root := Spec{Image: ref, Entrypoint: []string{}, User: "root"}
	for _, c := range []struct{ name, script, want string }{
		{"whiteout", "ls /data", "hard\nnew\nold"},
		{"hard link", "stat -c %h /data/new", "2"},
		{"owner of the folder below", "stat -c '%u %a' /data", "1000 700"},
		{"opaque", "ls /opaque", "above"},
		{"not the host's files", "ls -A /", "bin\ndata\ndev\nentry\netc\nopaque\nproc\nsys\ntmp\nwork"},
		{"no secrets of the host", "ls /home /root 2>/dev/null | head -1", ""},
		{"sticky tmp", "stat -c %a /tmp", "1777"},
		{"devices", "ls /dev", "fd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero"},
		{"writable", "echo x > /bin/new && cat /bin/new", "x"},
		{"fresh", "ls /bin/new 2>/dev/null", ""},
		{"names", "cat /etc/resolv.conf | head -c 1; cat /etc/hostname | head -c 2 | grep -c .", "#1"},
	} {
		if got, _ := w.sh(t, job, root, c.script); got != c.want {
			t.Errorf("%s: %s\n got %q\nwant %q", c.name, c.script, got, c.want)
		}
	}
	if _, exit := w.sh(t, job, root, "exit 7"); exit.Code != 7 {
		t.Errorf("exit %v", exit)
	}
	if _, err := w.Run(t.Context(), job, Spec{Image: ref, Entrypoint: []string{"/missing"}}, nil, nil); err == nil || !strings.Contains(err.Error(), "/missing") {
		t.Errorf("missing program: %v", err)
	}
	var stdout, stderr bytes.Buffer
	if _, err := w.Run(t.Context(), job, Spec{Image: ref, Entrypoint: []string{"sh"}, Args: []string{"-c", "cat; echo bad >&2"}, Input: strings.NewReader("in")}, &stdout, &stderr); err != nil || stdout.String() != "in" || stderr.String() != "bad\n" {
		t.Errorf("streams: %q, %q, %v", stdout.String(), stderr.String(), err)
	}
	if left := w.Containers(job); len(left) > 0 {
		t.Errorf("%d containers are left", len(left))
	}
}

func TestServicesAreReachedByPortAndName(t *testing.T) {
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "front door") }))
	defer door.Close()
	w := newWorld(t, nil)
	ref := w.base(t)
	job := w.job(t, func(s *sandbox.Spec) {
		s.Relays, s.Hosts = []sandbox.Relay{{Listen: "127.0.0.1:80", Dial: door.Listener.Addr().String()}}, []string{"127.0.0.1 github.localhost"}
	})
	serve := func(name string, ports ...string) *Container {
		c, err := w.Start(t.Context(), job, Spec{Name: name, Image: ref, Ports: ports, Aliases: []string{name + "-alias"},
			Args:   []string{"sh", "-c", "mkdir -p /www; echo " + name + " > /www/index.html; sleep 0.3; exec httpd -f -p 8080 -h /www"},
			Health: &Health{Test: []string{"CMD-SHELL", "wget -q -O /dev/null http://localhost:8080/"}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	one, two := serve("one", "5000:8080"), serve("two", "8080")
	for _, c := range []*Container{one, two} {
		if err := c.Healthy(t.Context()); err != nil {
			t.Fatal(err)
		}
		if state, _ := c.Health(); state != Healthy {
			t.Errorf("%s is %s", c.Name(), state)
		}
	}
	if one.Ports()["8080"] != "5000" || two.Ports()["8080"] == "" {
		t.Errorf("ports %v and %v", one.Ports(), two.Ports())
	}
	for url, want := range map[string]string{"localhost:5000": "one", "[::1]:5000": "one", "127.0.0.1:" + two.Ports()["8080"]: "two", "github.localhost": "front door"} {
		if got := inJob(t, job, "curl -s http://"+url+"/"); got != want {
			t.Errorf("%s from the job: %q", url, got)
		}
	}
	client := Spec{Image: ref}
	for url, want := range map[string]string{"one:8080": "one", "two-alias:8080": "two", "github.localhost": "front door"} {
		if got, _ := w.sh(t, job, client, "wget -q -O - http://"+url+"/"); got != want {
			t.Errorf("%s from a container: %q", url, got)
		}
	}
	proxied := Spec{Image: ref, Env: []string{"http_proxy=http://127.0.0.1:1", "no_proxy=127.0.0.1"}}
	if got, _ := w.sh(t, job, proxied, "echo $no_proxy"); !strings.HasPrefix(got, "127.0.0.1,one,one-alias,172.18.0.2,two,") {
		t.Errorf("not by the proxy: %q", got)
	}
	if got, _ := w.sh(t, job, proxied, "echo $http_proxy"); got != "http://172.18.0.1:1" {
		t.Errorf("the proxy as a container reaches it: %q", got)
	}
	// The way out takes no port of a container.
	if got, exit := w.sh(t, job, client, "mkdir /www; echo mine >/www/index.html; httpd -p 80 -h /www && wget -q -O - http://127.0.0.1/"); got != "mine" || !exit.OK() {
		t.Errorf("port 80 of a container: %q, %v", got, exit)
	}
	// A name of a container that came later.
	var out bytes.Buffer
	if exit, err := one.Exec(t.Context(), sandbox.Command{Args: []string{"wget", "-q", "-O", "-", "http://two:8080/"}, Output: &out}); err != nil || !exit.OK() || out.String() != "two\n" {
		t.Errorf("from an older container: %q, %v, %v", out.String(), exit, err)
	}
	host := Spec{Image: ref, Network: "host"}
	if got, _ := w.sh(t, job, host, "wget -q -O - http://127.0.0.1:5000/"); got != "one" {
		t.Errorf("with the job's own network: %q", got)
	}
	// Another job has the same ports and does not see these.
	other := w.job(t, nil)
	if got := inJob(t, other, "curl -s --max-time 2 http://localhost:5000/ || echo refused"); got != "refused" {
		t.Errorf("another job reaches the service: %q", got)
	}
	if _, err := w.Start(t.Context(), job, Spec{Image: ref, Ports: []string{"5000:1"}}, nil); err == nil || !strings.Contains(err.Error(), "5000") {
		t.Errorf("a port that is taken: %v", err)
	}
	if _, err := w.Start(t.Context(), job, Spec{Name: "one", Image: ref}, nil); err == nil || !strings.Contains(err.Error(), "already in use") {
		t.Errorf("a name that is taken: %v", err)
	}
	job.Close()
	for range 100 { // the containers go with their job
		if len(w.Containers(job)) == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n := len(w.Containers(job)); n > 0 {
		t.Errorf("%d containers outlive their job", n)
	}
}

func TestStopLogsAndUnhealthy(t *testing.T) {
	w := newWorld(t, nil)
	ref := w.base(t)
	job := w.job(t, nil)
	c, err := w.Start(t.Context(), job, Spec{Image: ref, Args: []string{"sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while true; do sleep 0.05; done"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, pw := io.Pipe()
	followed := make(chan error, 1)
	go func() { followed <- c.Logs(ctx, pw, true) }()
	line := make([]byte, 3)
	if _, err := io.ReadFull(r, line); err != nil || string(line) != "up\n" {
		t.Fatalf("log %q, %v", line, err)
	}
	rest := make(chan string, 1)
	go func() { data, _ := io.ReadAll(r); rest <- string(data) }()
	stopping, stopped := context.WithCancel(t.Context())
	stopped()
	exit, err := c.Wait(stopping)
	if err != nil || exit.Code != 3 {
		t.Errorf("stopped: %v, %v", exit, err)
	}
	if err := <-followed; err != nil {
		t.Error(err)
	}
	_ = pw.Close()
	if got := <-rest; !strings.Contains(got, "bye") {
		t.Errorf("last words %q", got)
	}
	if err := c.Stop(t.Context(), 0); err != nil {
		t.Error(err)
	}

	bad, err := w.Start(t.Context(), job, Spec{Image: ref, Idle: true, Health: &Health{Test: []string{"CMD", "sh", "-c", "echo no luck; exit 1"}, Interval: 20 * time.Millisecond, Retries: 2}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := bad.Healthy(ctx); err == nil || !strings.Contains(err.Error(), "no luck") {
		t.Errorf("unhealthy: %v", err)
	}
	dead, err := w.Start(t.Context(), job, Spec{Image: ref, Args: []string{"sh", "-c", "echo cannot start; exit 4"}, Health: &Health{Test: []string{"CMD", "false"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.Healthy(ctx); err == nil || !strings.Contains(err.Error(), "cannot start") {
		t.Errorf("ended: %v", err)
	}
	if _, err := dead.Exec(ctx, sandbox.Command{Args: []string{"true"}}); err == nil {
		t.Error("an ended container runs programs")
	}
	why := errors.New("cancelled by a test")
	running, end := context.WithCancelCause(t.Context())
	time.AfterFunc(300*time.Millisecond, func() { end(why) })
	if _, err := w.Run(running, job, Spec{Image: ref, Args: []string{"sleep", "300"}, StopGrace: 50 * time.Millisecond}, nil, nil); !errors.Is(err, why) {
		t.Errorf("a cancelled run: %v", err)
	}
}

func TestVolumesAreWhatTheJobSees(t *testing.T) {
	w := newWorld(t, nil)
	ref := w.base(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("of the machine"), 0o644); err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	job := w.job(t, func(s *sandbox.Spec) { s.Binds = []sandbox.Bind{{Source: work, Target: "/home/runner/work"}} })
	inJob(t, job, "echo hello > /home/runner/work/file; ln -s "+filepath.Dir(secret)+" /home/runner/work/escape; echo own > /etc/own")
	spec := Spec{Image: ref, Volumes: []string{"/home/runner/work:/src", "/etc/own:/own:ro", "cache:/cache", "/scratch"}}
	for script, want := range map[string]string{
		"cat /src/file":                 "hello",
		"cat /own":                      "own",
		"echo x > /own || echo refused": "sh: can't create /own: Read-only file system\nrefused",
		"echo back > /src/back; echo kept > /cache/kept; echo y > /scratch/y; cat /scratch/y": "y",
	} {
		if got, _ := w.sh(t, job, spec, script); got != want {
			t.Errorf("%s: got %q, want %q", script, got, want)
		}
	}
	if got, _ := w.sh(t, job, spec, "cat /cache/kept; ls /scratch"); got != "kept" {
		t.Errorf("the named volume holds %q", got)
	}
	if data, _ := os.ReadFile(filepath.Join(work, "back")); string(data) != "back\n" {
		t.Errorf("the workspace holds %q", data)
	}
	// What a link leads to is looked up inside of the job, where it is not.
	if _, err := w.Run(t.Context(), job, Spec{Image: ref, Volumes: []string{"/home/runner/work/escape:/x"}}, nil, nil); err == nil {
		t.Error("a link out of the job was followed")
	}
	// A bind of the engine itself does not follow what a job put there.
	_, err := w.Run(t.Context(), job, Spec{Image: ref, Binds: []sandbox.Bind{{Source: work + "/escape", Target: "/x"}}}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("a link as a bind: %v", err)
	}
}

func TestContainersShareTheLimitsAndUsersOfTheJob(t *testing.T) {
	w := newWorld(t, nil)
	ref := w.base(t)
	instance := fmt.Sprintf("lockstep-container-test-%d", os.Getpid())
	t.Cleanup(func() {
		if err := sandbox.Sweep(instance); err != nil {
			t.Error(err)
		}
	})
	work := t.TempDir()
	job := w.job(t, func(s *sandbox.Spec) {
		s.Untrusted, s.Group, s.Limits = true, instance+"/job", sandbox.Limits{Memory: 128 << 20, PIDs: 60}
		s.Binds = []sandbox.Bind{{Source: work, Target: "/home/runner/work"}}
	})
	spec := Spec{Image: ref, Volumes: []string{"/home/runner/work:/src"}}
	if got, _ := w.sh(t, job, spec, "id -u; stat -c %u /bin/busybox; ls /opaque; echo x > /src/x; stat -c %u /src/x; awk '{print ($2 >= 1073741824)}' /proc/self/uid_map"); got != "0\n0\nbelow\n0\n1" {
		t.Errorf("untrusted container: %q", got)
	}
	if _, exit := w.sh(t, job, spec, "for i in $(seq 100); do sleep 5 & done"); !strings.Contains(exit.Why, "60 processes") {
		t.Errorf("fork bomb: %+v", exit)
	}
	narrow := spec
	narrow.Limits.Memory = 32 << 20
	narrow.Args = []string{"sh", "-c", "head -c 100000000 /dev/zero > /big"}
	if exit, err := w.Run(t.Context(), job, narrow, nil, nil); !strings.Contains(exit.Why, "32 MiB") {
		t.Errorf("memory of one container: %+v, %v", exit, err)
	}
}

func BenchmarkRun(b *testing.B) {
	w := newWorld(b, nil)
	ref := w.base(b)
	job := w.job(b, nil)
	for b.Loop() {
		if exit, err := w.Run(b.Context(), job, Spec{Image: ref, Args: []string{"true"}}, nil, nil); err != nil || !exit.OK() {
			b.Fatal(exit, err)
		}
	}
}

func TestWithTheMachinesNetwork(t *testing.T) {
	w := newWorld(t, nil)
	ref := w.base(t)
	job := w.job(t, func(s *sandbox.Spec) { s.Network = sandbox.HostNetwork })
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "machine") }))
	defer door.Close()
	if got, _ := w.sh(t, job, Spec{Image: ref, Ports: []string{"8080:8080"}}, "wget -q -O - "+door.URL); got != "machine" {
		t.Errorf("got %q", got)
	}
	if _, err := w.Start(t.Context(), job, Spec{Image: ref, Ports: []string{"8081:8080"}}, nil); err == nil || !strings.Contains(err.Error(), "keeps its number") {
		t.Errorf("another port: %v", err)
	}
	if left := w.Containers(job); len(left) > 0 {
		t.Errorf("%d containers are left", len(left))
	}
}

func TestMaxContainersAndClose(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxContainers = 2 })
	ref := w.base(t)
	job := w.job(t, nil)
	for range 2 {
		if _, err := w.Start(t.Context(), job, Spec{Image: ref, Idle: true}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Start(t.Context(), job, Spec{Image: ref, Idle: true}, nil); err == nil || !strings.Contains(err.Error(), "the most allowed") {
		t.Errorf("a third: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Join(w.cfg.Dir, "run")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	if _, err := w.Start(t.Context(), job, Spec{Image: ref}, nil); err == nil {
		t.Error("a closed engine starts containers")
	}
}
