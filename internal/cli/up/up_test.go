package up

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-gitops/lockstep/internal/cli"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/journal"
	"github.com/lockstep-gitops/lockstep/internal/server"
	"github.com/lockstep-gitops/lockstep/internal/server/servertest"
)

// A shell gets the paths back as they are.
func TestHelperIsOneCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), `it's "my" $HOME; `+"`id`"+` \ folder`)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	self := filepath.Join(dir, "lock step")
	if err := os.WriteFile(self, []byte("#!/bin/sh\nprintf '%s\\n' \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", Helper(self, dir, "unit")+" get").Output()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("credential\n--state-dir\n"+dir+"\n--name\nunit\nget\n", string(out)); diff != "" {
		t.Error(diff)
	}
}

func TestFailure(t *testing.T) {
	for name, tc := range map[string]struct {
		log            string
		what, why, try string // an empty try is the log's name
	}{
		"in full": {"time=1 level=INFO msg=started\nerror: the port is taken\n  why: address already in use\n  try: another\n",
			"the port is taken", "address already in use", "another"},
		"only what":     {"error: node: it broke\n", "node: it broke", "", ""},
		"long":          {"error: two\n       lines\n  why: three\n       more\n       lines\n  try: this\n", "two\nlines", "three\nmore\nlines", "this"},
		"the last one":  {"error: old\n  why: old\nerror: new\n", "new", "", ""},
		"others' words": {"error: it broke\ntime=1 msg=x\n  why: not mine\n", "it broke", "", ""},
		"in a line":     {"time=1 level=ERROR msg=\"error: no\"\n", "the platform ended while starting", `time=1 level=ERROR msg="error: no"`, ""},
		"killed":        {"time=1 msg=started\ntime=2 msg=works\n", "the platform ended while starting", "time=2 msg=works", ""},
		"nothing":       {"", "the platform ended while starting", "", ""},
		"after a lot":   {strings.Repeat("time=1 msg=works\n", 200_000) + "error: at the end\n", "at the end", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			const earlier = "error: of an earlier start\n  try: nothing\n"
			if err := os.WriteFile(path, []byte(earlier+tc.log), 0o600); err != nil {
				t.Fatal(err)
			}
			var got *output.Error
			if err := (&daemon{log: path, from: int64(len(earlier))}).failure(); !errors.As(err, &got) {
				t.Fatal(err)
			}
			if tc.try == "" {
				tc.try = "look into " + path
			}
			if diff := cmp.Diff([]string{tc.what, tc.why, tc.try}, []string{got.What, got.Why, got.Try}); diff != "" {
				t.Error(diff)
			}
		})
	}
	if err := (&daemon{log: filepath.Join(t.TempDir(), "none")}).failure(); err == nil || !strings.Contains(err.Error(), "ended while starting") {
		t.Errorf("without a log: %v", err)
	}
}

func TestGaveUp(t *testing.T) {
	var errs bytes.Buffer
	o := &options{Invocation: &invocation.Invocation{Streams: output.Streams{Err: &errs}}}
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	status := server.Status{Platform: server.Platform{Steps: []server.Step{{Name: "network", Ended: time.Now()}, {Name: "node Ready", Note: "kubelet starts"}}}}
	var e *output.Error
	if err := o.gaveUp(late, status); !errors.As(err, &e) || e.Code != output.ExitPending || e.Why != "it waits for: node Ready kubelet starts" || e.Try == "" {
		t.Errorf("%+v", e)
	}
	if err := o.gaveUp(late, server.Status{}); !errors.As(err, &e) || e.Why != "it did not answer" {
		t.Errorf("%+v", e)
	}
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	if err := o.gaveUp(interrupted, status); !errors.Is(err, context.Canceled) || !strings.Contains(errs.String(), "lockstep down") {
		t.Errorf("%v, %s", err, &errs)
	}
}

func TestUserKubeconfig(t *testing.T) {
	for want, vars := range map[string]map[string]string{
		"/one":                   {"KUBECONFIG": "/one:/two", "HOME": "/home/ada"},
		"/home/ada/.kube/config": {"HOME": "/home/ada"},
		"":                       {},
	} {
		if got := userKubeconfig(func(name string) string { return vars[name] }); got != want {
			t.Errorf("%v: %q, want %q", vars, got, want)
		}
	}
}

// foreground is a platform of this process that ends at once.
type foreground struct{ got chan Settings }

func (f foreground) Run(_ context.Context, s Settings, _ io.Writer, ready func()) error {
	ready()
	f.got <- s
	return nil
}

func call(t *testing.T, self, stateDir string, args ...string) (code int, out, errs string, got chan Settings) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	got = make(chan Settings, 1)
	code = cli.Main(t.Context(), cli.Options{
		Streams: output.Streams{Out: &stdout, Err: &stderr}, Self: self, Getenv: func(string) string { return "" },
		Commands: []invocation.Constructor{New(foreground{got})},
	}, append([]string{"up", "--state-dir", stateDir}, args...))
	return code, stdout.String(), stderr.String(), got
}

func TestBadFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--example nosuch":                  "lockstep up --example storefront",
		"--foreground --wait":               "second terminal",
		"--foreground --example storefront": "second terminal",
		"--port 65536":                      "no port 65536",
		"--port -1":                         "no port -1",
		"--port eighty":                     "--port",
		"--kubeconfig /none/there":          "/none/there",
		"storefront":                        "lockstep up --help",
	} {
		dir := t.TempDir()
		code, out, errs, _ := call(t, "/none/lockstep", dir, strings.Fields(args)...)
		if code != 1 || out != "" || !strings.Contains(errs, want) || strings.Count(errs, "error:") != 1 {
			t.Errorf("up %s: exit code %d, %s", args, code, errs)
		}
		if entries, _ := os.ReadDir(dir); len(entries) > 0 {
			t.Errorf("up %s: left %v", args, entries)
		}
	}
}

func TestForeground(t *testing.T) {
	code, _, errs, got := call(t, "/self", "/state", "--foreground", "--port", "8090", "--name", "unit")
	if code != 0 || !strings.Contains(errs, "Ctrl-C") {
		t.Fatalf("exit code %d, %s", code, errs)
	}
	if diff := cmp.Diff(Settings{Name: "unit", StateDir: "/state", Self: "/self", Port: 8090}, <-got); diff != "" {
		t.Error(diff)
	}
}

// A supervisor that ends before it is ready: its reason is the message.
func TestSupervisorThatEnds(t *testing.T) {
	dir := t.TempDir()
	self := filepath.Join(dir, "program")
	script := "#!/bin/sh\necho \"$@\"\nprintf 'error: it cannot be\\n  why: of a reason\\n  try: something else\\n'\nexit 1\n"
	if err := os.WriteFile(self, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	code, out, errs, _ := call(t, self, dir, "--port", "8090")
	if code != 1 || out != "" || errs != "error: it cannot be\n  why: of a reason\n  try: something else\n" {
		t.Errorf("exit code %d, %q\n%s", code, out, errs)
	}
	log, err := os.ReadFile(filepath.Join(dir, "lockstep", "logs", "lockstep.log"))
	if want := "up --foreground --no-color --name lockstep --state-dir " + dir + " --port 8090\n"; err != nil || !strings.HasPrefix(string(log), want) {
		t.Errorf("%s, %v, want %s", log, err, want)
	}
	if code, _, errs, _ := call(t, filepath.Join(dir, "none"), dir); code != 1 || !strings.Contains(errs, "start the supervisor") {
		t.Errorf("no program: exit code %d, %s", code, errs)
	}
}

func TestRunningPlatform(t *testing.T) {
	dir, err := os.MkdirTemp("", "ls") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "lockstep"), 0o700); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(t.Context(), filepath.Join(dir, "lockstep", "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	p := servertest.New(j)
	s, err := server.New(server.Config{Socket: filepath.Join(dir, "lockstep", "lockstep.sock"), Coalesce: 10 * time.Millisecond}, p.Deps())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-s.Ready()

	code, out, errs, _ := call(t, "/none/lockstep", dir)
	if code != 0 || !strings.Contains(errs, "Platform lockstep is running.") || !strings.Contains(out, "http://localhost:8080") || !strings.Contains(out, "--context lockstep") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	code, out, errs, _ = call(t, "/none/lockstep", dir, "--wait", "--timeout", "300ms")
	if code != output.ExitPending || out != "" || !strings.Contains(errs, "lockstep app list") {
		t.Errorf("ledger is degraded: exit code %d, %s%s", code, out, errs)
	}
}
