package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// open starts a sandbox of spec; Root and Hostname are filled in.
func open(t testing.TB, spec Spec) *Session {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("sandboxes need root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	spec.Root, spec.Hostname = t.TempDir(), "job"
	s, err := Start(t.Context(), self, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// groupOf is a cgroup name of this test alone.
func groupOf(t testing.TB) string {
	instance := fmt.Sprintf("lockstep-test-%d", os.Getpid())
	t.Cleanup(func() {
		if err := Sweep(instance); err != nil {
			t.Error(err)
		}
	})
	return instance + "/" + strings.ReplaceAll(t.Name(), "/", "_")
}

func TestTheNetworkIsTheJobsOwn(t *testing.T) {
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "front door "+r.Host) }))
	defer door.Close()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	unixDoor := &http.Server{Handler: door.Config.Handler, ReadHeaderTimeout: time.Second}
	go func() { _ = unixDoor.Serve(l) }()
	defer func() { _ = unixDoor.Close() }()
	address := door.Listener.Addr().String()
	s := open(t, Spec{
		Hosts:  []string{"127.0.0.1 github.localhost"},
		Relays: []Relay{{Listen: "127.0.0.1:80", Dial: address}, {Listen: "127.0.0.1:8081", Dial: socket}},
	})
	other := open(t, Spec{})
	sh(t, other, "(while true; do echo hello | busybox nc -l -p 7777 >/dev/null 2>&1; done) & echo")
	for _, c := range []struct{ name, script, want string }{
		{"front door", "curl -s http://github.localhost/", "front door github.localhost"},
		{"by unix socket", "curl -s http://127.0.0.1:8081/", "front door 127.0.0.1:8081"},
		{"not the host's loopback", "curl -s --max-time 3 http://" + address + "/ || echo refused", "refused"},
		{"not another job", "curl -s --max-time 3 http://127.0.0.1:7777/ || echo refused", "refused"},
		{"no other interface", "ls /sys/class/net | grep -v -e '^lo$' -e tunl -e sit -e ip6 -e gre -e erspan || true", ""},
		{"own ports", "(busybox httpd -f -p 127.0.0.1:8082 -h /etc & ) ; sleep 0.2; curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8082/hostname", "200"},
	} {
		if got, _ := sh(t, s, c.script); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	host := open(t, Spec{Network: HostNetwork})
	if got, _ := sh(t, host, "curl -s http://"+address+"/"); got != "front door "+address {
		t.Errorf("host network: %q", got)
	}
	if len(host.Warnings()) == 0 {
		t.Error("the machine's network is used without a word")
	}
}

func TestLimitsHoldAndSayWhy(t *testing.T) {
	s := open(t, Spec{Group: groupOf(t), Limits: Limits{Memory: 64 << 20, PIDs: 40, CPU: 50, Disk: 8 << 20, Output: 1 << 20}})
	for _, w := range s.Warnings() {
		t.Log(w)
	}
	t.Run("memory", func(t *testing.T) {
		_, exit := sh(t, s, `head -c 200m /dev/zero | tail -c 150m | wc -c`)
		if !strings.Contains(exit.String(), "64 MiB of memory") && exit.OK() {
			_, exit = sh(t, s, `python3 -c 'x = bytearray(200 << 20)'`)
		}
		if exit.OK() || !strings.Contains(exit.Why, "64 MiB of memory") {
			t.Errorf("a memory hog ended with %+v", exit)
		}
	})
	t.Run("fork bomb", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var out bytes.Buffer
		exit, err := s.Exec(ctx, Command{Args: []string{"sh", "-c", "for i in $(seq 200); do sleep 20 & done; echo done"}, Env: env, Dir: "/", Output: &out})
		if err != nil || exit.OK() || !strings.Contains(exit.Why, "40 processes") {
			t.Errorf("a fork bomb ended with %+v, %v", exit, err)
		}
		if exit.Why == "" {
			t.Errorf("no reason for %+v: %s", exit, out.String())
		}
	})
	s.Close()
	s = open(t, Spec{Group: groupOf(t), Limits: Limits{Memory: 512 << 20, Disk: 8 << 20, Output: 1 << 20}})
	t.Run("disk", func(t *testing.T) {
		if out, exit := sh(t, s, "cd /usr && for i in 1 2 3 4; do dd if=/dev/zero of=f$i bs=1M count=3 || exit 1; done"); exit.OK() || !strings.Contains(out, "No space left") || !strings.Contains(exit.Why, "disk of 8 MiB is full") {
			t.Errorf("a full disk: %v, %s", exit, out)
		}
		if out, exit := sh(t, s, "rm -f /usr/f*; dd if=/dev/zero of=/usr/huge bs=1M count=20"); exit.OK() {
			t.Errorf("a huge file: %v, %s", exit, out)
		}
	})
	t.Run("output", func(t *testing.T) {
		out, exit := sh(t, s, "head -c 5000000 /dev/zero | tr '\\0' x")
		if !exit.OK() || len(out) > 1<<20+200 || !strings.Contains(out, "longer than what is kept") {
			t.Errorf("a flood of output: %v, %d bytes", exit, len(out))
		}
	})
}

func TestNothingIsLeft(t *testing.T) {
	name := groupOf(t)
	s := open(t, Spec{Group: name, Limits: Limits{PIDs: 100}})
	_, mounts := layout(cgroupRoot)
	dir := filepath.Join(mounts["pids"], name)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("this machine gives no pids cgroup: %v", err)
	}
	sh(t, s, "setsid sleep 300 & echo")
	s.Close()
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left", dir)
	}
	// As after kill -9 of the supervisor with a process that hangs on.
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p, err := os.StartProcess("/bin/sleep", []string{"sleep", "300"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, p.Pid), 0o644); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { _, err := p.Wait(); ended <- err }()
	if err := Sweep(strings.Split(name, "/")[0]); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("Sweep left a process")
		_ = p.Kill()
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("Sweep left %s", dir)
	}
	for _, bad := range []string{"", ".", "..", "a/b"} {
		if Sweep(bad) == nil {
			t.Errorf("Sweep(%q) was taken", bad)
		}
	}
}

func TestWhatTheKernelRefuses(t *testing.T) {
	s := open(t, Spec{})
	for _, c := range []struct{ name, script, want string }{
		{"user namespaces", "unshare -U true 2>/dev/null || echo refused", "refused"},
		{"mount namespaces", "unshare -m true 2>/dev/null || echo refused", "refused"},
		{"seccomp", "grep ^Seccomp: /proc/self/status | tr -d '\\t '", "Seccomp:2"},
		{"no new privileges", "grep ^NoNewPrivs: /proc/self/status | tr -d '\\t '", "NoNewPrivs:1"},
		{"kcore", "head -c1 /proc/kcore 2>/dev/null | wc -c", "0"},
		{"sysrq", "echo b 2>/dev/null >/proc/sysrq-trigger || echo refused", "refused"},
		{"firmware", "ls /sys/firmware", ""},
		{"sys", "echo 1 2>/dev/null >/sys/kernel/mm/ksm/run || echo refused", "refused"},
		{"dmesg", "dmesg >/dev/null 2>&1 || echo refused", "refused"},
		{"init's memory", "cat /proc/1/mem 2>/dev/null | wc -c; ls -l /proc/1/root >/dev/null 2>&1 || true", "0"},
		{"host processes", "[ $(ls -d /proc/[0-9]* | wc -l) -lt 12 ] && echo few", "few"},
		{"switching users", "setpriv --reuid 65534 --clear-groups id -u", "65534"},
	} {
		if got, _ := sh(t, s, c.script); got != c.want {
			t.Errorf("%s: %s\n got %q\nwant %q", c.name, c.script, got, c.want)
		}
	}
}

func TestUntrustedRootIsNobodyOutside(t *testing.T) {
	shown := t.TempDir()
	if err := os.WriteFile(filepath.Join(shown, "mine"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hi") }))
	defer door.Close()
	s := open(t, Spec{Untrusted: true, Group: groupOf(t), Limits: Limits{PIDs: 100}, Binds: []Bind{{Source: shown, Target: "/home/runner/work"}},
		Relays: []Relay{{Listen: "127.0.0.1:80", Dial: door.Listener.Addr().String()}}})
	for _, c := range []struct{ name, script, want string }{
		{"root inside", "id -u", "0"},
		{"mapped", "awk '{print ($2 >= 1073741824), $3}' /proc/self/uid_map", "1 65536"},
		{"owns its files", "stat -c %u /usr/bin/env /home/runner/work/mine | tr '\\n' ' '", "0 0"},
		{"reads its files", "cat /home/runner/work/mine", "x"},
		{"writes them", "echo new > /home/runner/work/file && echo ok", "ok"},
		{"writes the root", "echo hi > /usr/marker && rm /usr/bin/env && cat /usr/marker", "hi"},
		{"front door", "curl -s http://127.0.0.1/", "hi"},
		{"temp", "touch /tmp/x && echo ok", "ok"},
		{"null", "echo x >/dev/null && echo ok", "ok"},
		{"switching users", "setpriv --reuid 1000 --clear-groups id -u", "1000"},
	} {
		if got, _ := sh(t, s, c.script); got != c.want {
			t.Errorf("%s: %s\n got %q\nwant %q", c.name, c.script, got, c.want)
		}
	}
	fi, err := os.Stat(filepath.Join(shown, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || st.Uid != 0 {
		t.Errorf("a file of the job belongs to %v outside", st.Uid)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(status), "Uid:\t0\t") {
		t.Error("init is root outside")
	}
}

func TestInputErrorsAndUser(t *testing.T) {
	s := open(t, Spec{})
	var out, errs bytes.Buffer
	exit, err := s.Exec(t.Context(), Command{Args: []string{"sh", "-c", "cat; id -un; echo bad >&2; echo $HOME; echo x >/dev/stdout"}, Env: env, Dir: "/",
		User: "nobody", Input: strings.NewReader("from outside\n"), Output: &out, Errors: &errs})
	if err != nil || !exit.OK() {
		t.Fatal(exit, err, errs.String())
	}
	if out.String() != "from outside\nnobody\n/nonexistent\nx\n" || errs.String() != "bad\n" {
		t.Errorf("output %q, errors %q", out.String(), errs.String())
	}
	if _, err := s.Exec(t.Context(), Command{Args: []string{"true"}, Env: env, Dir: "/", User: "no-such-user"}); err == nil || !strings.Contains(err.Error(), "no-such-user") {
		t.Errorf("unknown user: %v", err)
	}
	// A reader that never ends does not hold up the command.
	r, w := io.Pipe()
	defer func() { _ = w.Close() }()
	if exit, err := s.Exec(t.Context(), Command{Args: []string{"true"}, Env: env, Dir: "/", Input: r}); err != nil || !exit.OK() {
		t.Errorf("with a blocked input: %v, %v", exit, err)
	}
}

func TestAddHost(t *testing.T) {
	s := open(t, Spec{})
	if err := s.AddHost("127.9.9.9 database"); err != nil {
		t.Fatal(err)
	}
	if got, _ := sh(t, s, "getent hosts database | awk '{print $1}'"); got != "127.9.9.9" {
		t.Errorf("database is %q", got)
	}
	if s.AddHost("1.2.3.4 a\n6.6.6.6 github.localhost") == nil {
		t.Error("two lines were taken")
	}
}

func TestInsideFollowsLinksAsTheSandboxDoes(t *testing.T) {
	root := t.TempDir()
	for link, to := range map[string]string{"etc": "/../../../host/etc", "up": "../../..", "loop": "loop", "var": "real/var"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for target, want := range map[string]string{"/etc/hosts": "/host/etc/hosts", "/up/x": "/x", "/var/x/../y": "/real/var/y", "/plain/a": "/plain/a", "/": "/"} {
		if got, err := inside(root, target); err != nil || strings.TrimSuffix(got, "/") != strings.TrimSuffix(root+want, "/") {
			t.Errorf("inside(%q) = %q, %v", target, strings.TrimPrefix(got, root), err)
		}
	}
	if _, err := inside(root, "/loop/x"); err == nil {
		t.Error("a loop of links was followed")
	}
}

func BenchmarkStart(b *testing.B) {
	for name, spec := range map[string]Spec{
		"own": {}, "limited": {Group: groupOf(b), Limits: Limits{Memory: 1 << 30, PIDs: 1000, CPU: 100}},
		"relays": {Relays: []Relay{{Listen: "127.0.0.1:80", Dial: "127.0.0.1:1"}, {Listen: "127.0.0.1:8080", Dial: "127.0.0.1:1"}}}, "host": {Network: HostNetwork},
		"untrusted": {Untrusted: true},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s := open(b, spec)
				b.StopTimer()
				s.Close()
				b.StartTimer()
			}
		})
	}
}

// A machine with cgroup v2, played by folders.
func TestLimitsOfCgroupV2(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(root+"/cgroup.controllers", []byte("cpuset cpu io memory pids\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	g, err := newGroup(root, "lockstep-x/7", Limits{Memory: 1 << 30, PIDs: 100, CPU: 50})
	if err != nil || len(g.missing) > 0 {
		t.Fatal(err, g.missing)
	}
	if err := g.enter(42); err != nil {
		t.Fatal(err)
	}
	b, err := g.beside("c-1", Limits{Memory: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"lockstep-x/7/memory.max": "1073741824", "lockstep-x/7/memory.swap.max": "0", "lockstep-x/7/pids.max": "100", "lockstep-x/7/cpu.weight": "50",
		"lockstep-x/7/job/cgroup.procs": "42", "lockstep-x/7/c-1/memory.max": "1048576",
		"cgroup.subtree_control": "+cpu", "lockstep-x/cgroup.subtree_control": "+cpu", "lockstep-x/7/cgroup.subtree_control": "+cpu",
	} {
		if got, err := os.ReadFile(filepath.Join(root, file)); err != nil || string(got) != want {
			t.Errorf("%s holds %q, want %q, %v", file, got, want, err)
		}
	}
	before := b.trouble()
	if err := os.WriteFile(root+"/lockstep-x/7/memory.events", []byte("low 0\noom 1\noom_kill 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if why := b.why(before); !strings.Contains(why, "1 MiB of memory") {
		t.Errorf("why: %q", why)
	}
}
