package process

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func shell(t *testing.T, script string) Spec {
	dir := t.TempDir()
	return Spec{
		Name: "sh", Path: "/bin/sh", Args: []string{"sh", "-c", script},
		Log: filepath.Join(dir, "sh.log"), PIDFile: filepath.Join(dir, "sh.pid"),
	}
}

func TestStartAndWait(t *testing.T) {
	spec := shell(t, "echo out; echo err >&2; exit 3")
	c, err := Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := describeEnd(c.Wait()), "ended with exit code 3"; got != want {
		t.Errorf("end = %q, want %q", got, want)
	}
	if got, want := logTail(spec.Log, 0, 5), "out\nerr"; got != want {
		t.Errorf("log = %q, want %q", got, want)
	}
	if _, err := os.Stat(spec.PIDFile); !os.IsNotExist(err) {
		t.Errorf("pid file after the end: %v, want not exist", err)
	}
}

func TestStartRefuses(t *testing.T) {
	for name, spec := range map[string]Spec{
		"no name":       {Path: "/bin/true"},
		"relative path": {Name: "x", Path: "true"},
		"no program":    {Name: "x", Path: "/nonexistent/x"},
		"no namespace":  {Name: "x", Path: "/bin/true", NetNS: "/nonexistent/ns"},
	} {
		if _, err := Start(t.Context(), spec); err == nil {
			t.Errorf("%s: started, want an error", name)
		}
	}
}

func TestStop(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		killed       bool
	}{
		{"obeys", "echo ready; exec sleep 60", false},
		{"ignores the signal", "trap '' TERM; echo ready; while :; do sleep 0.05; done", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spec := shell(t, tc.script)
			spec.StopTimeout = 300 * time.Millisecond
			c, err := Start(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			waitFor(t, func() bool { return logSize(spec.Log) > 0 })
			if err := c.Stop(t.Context()); (err != nil) != tc.killed {
				t.Errorf("Stop = %v, want killed = %v", err, tc.killed)
			}
			select {
			case <-c.Done():
			default:
				t.Error("Stop returned before the child was reaped")
			}
		})
	}
}

func TestContextStopsChild(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c, err := Start(ctx, shell(t, "exec sleep 60"))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if got := describeEnd(c.Wait()); !strings.Contains(got, "terminated") {
		t.Errorf("end = %q, want one by SIGTERM", got)
	}
}

func TestSuperviseRestarts(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	j, err := journal.Open(ctx, filepath.Join(t.TempDir(), "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	restarts, pids := make(chan Restart, 1), make(chan int, 9)
	spec := shell(t, "echo no such luck >&2; exit 7")
	done := make(chan error, 1)
	go func() {
		done <- Supervise(ctx, spec, Deps{
			Log: slog.New(slog.DiscardHandler), Journal: j,
			OnStart: func(pid int) { pids <- pid },
			OnRestart: func(r Restart) {
				if r.Count == 2 {
					restarts <- r
				}
			},
		})
	}()
	r := <-restarts
	if r.Reason != "ended with exit code 7: no such luck" || r.Wait != 2*minBackoff {
		t.Errorf("second restart = %+v, want exit code 7 with its output and a wait of %s", r, 2*minBackoff)
	}
	if len(pids) != 2 {
		t.Errorf("%d starts, want 2", len(pids))
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Supervise = %v, want nil after its context ended", err)
	}
	events, err := j.Events(t.Context(), journal.Query{})
	if err != nil || len(events) == 0 || !strings.Contains(events[0].Message, "exit code 7") {
		t.Errorf("journal = %v, %v, want the reason", events, err)
	}
}

func TestSuperviseFirstStartFails(t *testing.T) {
	err := Supervise(t.Context(), Spec{Name: "x", Path: "/nonexistent/x"}, Deps{Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		t.Error("Supervise of a missing program = nil, want an error")
	}
}

func TestEndLeftover(t *testing.T) {
	spec := shell(t, "exec sleep 60")
	c, err := Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := EndLeftover(spec.PIDFile); err != nil {
		t.Fatal(err)
	}
	if got := describeEnd(c.Wait()); !strings.Contains(got, "terminated") {
		t.Errorf("end = %q, want one by SIGTERM", got)
	}
}

func TestEndLeftoverSparesStrangers(t *testing.T) {
	c, err := Start(t.Context(), Spec{Name: "stranger", Path: "/bin/sleep", Args: []string{"sleep", "60"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop(t.Context())
	start, err := startTime(c.PID())
	if err != nil {
		t.Fatal(err)
	}
	for name, line := range map[string]string{
		"other start time": fmt.Sprintf("%d %s1 %s\n", c.PID(), start, bootID()),
		"other boot":       fmt.Sprintf("%d %s other\n", c.PID(), start),
		"damaged":          strconv.Itoa(c.PID()),
		"init":             "1 0 " + bootID(),
		"empty":            "",
	} {
		file := filepath.Join(t.TempDir(), "pid")
		if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := EndLeftover(file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		select {
		case <-c.Done():
			t.Fatalf("%s: the stranger was ended", name)
		default:
		}
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("%s: pid file is still there", name)
		}
	}
	if err := EndLeftover(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Errorf("missing pid file: %v, want nil", err)
	}
}

func TestLogRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	f, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 { // twice: .1 becomes .2
		if _, err := f.Write(make([]byte, maxLog+1)); err != nil {
			t.Fatal(err)
		}
		rotateOpenLog(path)
		if _, err := f.WriteString("after\n"); err != nil {
			t.Fatal(err)
		}
		if got := logSize(path); got != int64(len("after\n")) {
			t.Errorf("log is %d bytes after rotation, want %d", got, len("after\n"))
		}
	}
	if logSize(path+".1") <= maxLog || logSize(path+".2") <= maxLog {
		t.Errorf("old logs are %d and %d bytes, want both full", logSize(path+".1"), logSize(path+".2"))
	}
}

func TestStartInNetNS(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	// A process in a namespace of its own lends it to the test.
	holder := Spec{Name: "unshare", Path: "/usr/bin/unshare", Args: []string{"unshare", "-n", "sleep", "60"}}
	if _, err := os.Stat(holder.Path); err != nil {
		t.Skip("needs the program unshare")
	}
	h, err := Start(t.Context(), holder)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Stop(t.Context())
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	ns := fmt.Sprintf("/proc/%d/ns/net", h.PID())
	var there string
	waitFor(t, func() bool { there, err = os.Readlink(ns); return err == nil && there != home })
	spec := shell(t, "readlink /proc/self/ns/net")
	spec.NetNS = ns
	c, err := Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := logTail(spec.Log, 0, 1); got != there {
		t.Errorf("child ran in %s, want %s", got, there)
	}
	if now, _ := os.Readlink(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())); now != home {
		t.Errorf("we are in %s now, want %s", now, home)
	}
}

func TestDescribeEndSignal(t *testing.T) {
	c, err := Start(t.Context(), Spec{Name: "sleep", Path: "/bin/sleep", Args: []string{"sleep", "60"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(c.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := describeEnd(c.Wait()); !strings.Contains(got, "killed by signal killed") {
		t.Errorf("end = %q, want one that names the signal", got)
	}
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatal("condition not met in 10 s")
		}
		time.Sleep(5 * time.Millisecond)
	}
}
