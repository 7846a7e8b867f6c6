package sandbox

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == Name {
		os.Exit(Main())
	}
	os.Exit(m.Run())
}

func start(t *testing.T, binds ...Bind) *Session {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("sandboxes need root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Start(t.Context(), self, Spec{
		Root: t.TempDir(), Hostname: "job", Hosts: []string{"127.0.0.1 github.localhost"},
		Binds: binds, Masks: []string{"/etc/ssl"},
		Links: []Link{{Path: "/opt/lockstep/bin/greet", To: "/bin/echo"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

var env = []string{"PATH=/opt/lockstep/bin:/usr/bin:/bin:/usr/sbin:/sbin"}

func sh(t *testing.T, s *Session, script string) (string, Exit) {
	t.Helper()
	var out bytes.Buffer
	exit, err := s.Exec(t.Context(), Command{Args: []string{"sh", "-c", script}, Env: env, Dir: "/", Output: &out})
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return strings.TrimSpace(out.String()), exit
}

func TestWhatTheJobSees(t *testing.T) {
	t.Chdir("/")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	shown := t.TempDir()
	s := start(t, Bind{Source: shown, Target: "/home/runner/work"})
	for _, c := range []struct{ name, script, want string }{
		{"own pid namespace", `[ -d /proc/1 ] && tr '\0' ' ' </proc/1/cmdline | cut -d' ' -f1`, Name},
		{"environment starts empty", `env | grep -v -e ^PATH= -e ^PWD= -e ^_= -e ^SHLVL= || true`, ""},
		{"host name", "uname -n", "job"},
		{"hosts", "grep -c github.localhost /etc/hosts", "1"},
		{"temp is empty", "ls -A /tmp", ""},
		{"root's home is empty", "ls -A /root", ""},
		{"host file is hidden", "cat " + secret + " 2>/dev/null || echo hidden", "hidden"},
		{"masked", "ls -A /etc/ssl", ""},
		{"home", "ls -A /home", "runner"},
		{"programs are there", "command -v git >/dev/null && echo yes", "yes"},
		{"link", "greet hello", "hello"},
		{"null device", "echo x > /dev/null && echo ok", "ok"},
		{"no disks", "ls /dev/vda /dev/sda 2>/dev/null", ""},
		{"no mknod", "mknod /tmp/disk b 254 0 2>/dev/null || echo refused", "refused"},
		{"no mounts", "mount -t tmpfs x /mnt 2>/dev/null || echo refused", "refused"},
		{"kernel settings read-only", "echo x 2>/dev/null > /proc/sys/kernel/core_pattern || echo refused", "refused"},
		{"old root is gone", "grep -c ' /.* ext4 ' /proc/mounts | sed 's/[1-9].*/some/'", "some"},
		{"root is writable", "echo hi > /usr/marker && cat /usr/marker", "hi"},
		{"capabilities", "grep -i capeff /proc/self/status | cut -f2", "00000000a00425fb"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _ := sh(t, s, c.script)
			if c.name == "old root is gone" {
				return // informative: the bind of the workspace shows the disk's type
			}
			if c.name == "capabilities" {
				n, err := strconv.ParseUint(got, 16, 64)
				if err != nil || n&(1<<21) != 0 || n&(1<<27) != 0 || n&1 == 0 {
					t.Fatalf("effective capabilities %s", got)
				}
				return
			}
			if got != c.want {
				t.Errorf("%s\n got %q\nwant %q", c.script, got, c.want)
			}
		})
	}
	if _, err := os.Stat("/usr/marker"); err == nil {
		t.Error("a write inside reached the host")
	}
	sh(t, s, "echo shared > /home/runner/work/file")
	if data, _ := os.ReadFile(filepath.Join(shown, "file")); string(data) != "shared\n" {
		t.Errorf("bound directory holds %q", data)
	}
}

func TestExits(t *testing.T) {
	s := start(t)
	if _, e := sh(t, s, "exit 3"); e.Code != 3 || e.OK() {
		t.Errorf("exit 3 came as %v", e)
	}
	if _, e := sh(t, s, "kill -9 $$"); e.Signal == "" || e.Code != 137 {
		t.Errorf("kill came as %+v", e)
	}
	_, err := s.Exec(t.Context(), Command{Args: []string{"no-such-program"}, Env: env, Dir: "/"})
	if err == nil || !strings.Contains(err.Error(), "command not found") {
		t.Errorf("unknown program: %v", err)
	}
	_, err = s.Exec(t.Context(), Command{Args: []string{"true"}, Env: env, Dir: "/no/such"})
	if err == nil || !strings.Contains(err.Error(), "/no/such") {
		t.Errorf("unknown directory: %v", err)
	}
	// A background process neither holds up the step nor dies with it.
	before := time.Now()
	if out, _ := sh(t, s, "sleep 30 & echo started"); out != "started" || time.Since(before) > 5*time.Second {
		t.Errorf("background: %q after %v", out, time.Since(before))
	}
	if out, _ := sh(t, s, "grep -l sleep /proc/[0-9]*/comm | wc -l"); out == "0" {
		t.Error("the background process is gone")
	}
}

func TestOrphansAreReaped(t *testing.T) {
	s := start(t)
	sh(t, s, "for i in 1 2 3 4 5; do (sleep 0.05 &) ; done")
	deadline := time.Now().Add(5 * time.Second)
	for {
		out, _ := sh(t, s, "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l")
		if out == "0" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s zombies are left", out)
		}
	}
}

func TestCancelEndsTheStepAndCloseEndsTheJob(t *testing.T) {
	s := start(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("cancelled by a test")
	time.AfterFunc(300*time.Millisecond, func() { cancel(why) })
	exit, err := s.Exec(ctx, Command{Args: []string{"sh", "-c", "trap '' INT TERM; sleep 300 & sleep 300"},
		Env: env, Dir: "/", Grace: 100 * time.Millisecond})
	if !errors.Is(err, why) || exit.OK() {
		t.Errorf("cancelled step: %v, %v", exit, err)
	}
	if out, _ := sh(t, s, "echo still here"); out != "still here" {
		t.Errorf("after a cancelled step: %q", out)
	}
	sh(t, s, "setsid sleep 300 & echo")
	children := processesBelow(t, s.PID())
	if len(children) == 0 {
		t.Fatal("no process to look for")
	}
	s.Close()
	for _, pid := range children {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("process %d outlived its job", pid)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), t.Name()) {
		t.Error("a mount leaked out of the sandbox")
	}
}

func TestALostSupervisorEndsTheJob(t *testing.T) {
	s := start(t)
	sh(t, s, "setsid sleep 300 & echo")
	children := processesBelow(t, s.PID())
	if len(children) == 0 {
		t.Fatal("no process to look for")
	}
	_ = s.control.conn.Close() // as when the supervisor is killed
	select {
	case <-s.gone:
	case <-time.After(10 * time.Second):
		t.Fatal("init goes on without its supervisor")
	}
	for _, pid := range children {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("process %d outlived its supervisor", pid)
		}
	}
	if _, err := s.Exec(t.Context(), Command{Args: []string{"true"}, Env: env, Dir: "/"}); err == nil {
		t.Error("a lost sandbox runs commands")
	}
}

// processesBelow lists the descendants of pid.
func processesBelow(t *testing.T, pid int) []int {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	parents := map[int]int{}
	for _, file := range entries {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		_, rest, ok := strings.Cut(string(data), ") ")
		f := strings.Fields(rest)
		if !ok || len(f) < 2 {
			continue
		}
		id, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		parents[id], _ = strconv.Atoi(f[1])
	}
	below := []int{}
	for id := range parents {
		for p := id; p > 1; p = parents[p] {
			if parents[p] == pid {
				below = append(below, id)
				break
			}
		}
	}
	slices.Sort(below)
	return below
}

func TestSpecIsChecked(t *testing.T) {
	for _, s := range []Spec{{}, {Root: "/x", Binds: []Bind{{Source: "a", Target: "/b"}}},
		{Root: "/x", Masks: []string{"/"}}, {Root: "/x", Binds: []Bind{{Source: "/a", Target: "/b/../c"}}}} {
		if s.Validate() == nil {
			t.Errorf("%+v passed", s)
		}
	}
}
