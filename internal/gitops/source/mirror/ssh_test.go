package mirror

import (
	"bufio"
	"errors"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/gitops/source/credential"
)

// sshd starts a real server for the current user, or skips the test. It returns
// the port, the private key that may sign in and the line of known_hosts.
func sshd(t *testing.T) (port int, key, knownHosts string) {
	t.Helper()
	program := "/usr/sbin/sshd"
	if _, err := os.Stat(program); err != nil {
		t.Skip("sshd is not installed")
	}
	dir := t.TempDir()
	for _, name := range []string{"host", "user"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, name)).CombinedOutput(); err != nil {
			t.Skipf("ssh-keygen: %v %s", err, out)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	_ = os.MkdirAll("/run/sshd", 0o755) // what it runs unprivileged in
	cmd := exec.Command(program, "-D", "-e", "-f", "/dev/null", "-h", filepath.Join(dir, "host"),
		"-o", "ListenAddress=127.0.0.1", "-o", "Port="+strconv.Itoa(port), "-o", "AuthorizedKeysFile="+filepath.Join(dir, "user.pub"),
		"-o", "StrictModes=no", "-o", "PermitRootLogin=yes", "-o", "PidFile=none", "-o", "UsePAM=no", "-o", "PasswordAuthentication=no")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewScanner(stderr)
	for {
		if !lines.Scan() {
			t.Skip("sshd does not start here")
		}
		if strings.Contains(lines.Text(), "Server listening") {
			break
		}
	}
	go func() {
		for lines.Scan() {
		}
	}()
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	return port, read("user"), "[127.0.0.1]:" + strconv.Itoa(port) + " " + read("host.pub")
}

func TestSSH(t *testing.T) {
	port, key, known := sshd(t)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	o := newOrigin(t, false)
	o.create("r")
	want := o.commit("r", "main", "1", false)
	url := "ssh://" + me.Username + "@127.0.0.1:" + strconv.Itoa(port) + filepath.Join(o.root, "r.git")
	in := func(known string, data ...string) credential.Input {
		return credential.Input{KnownHosts: known, Secrets: []credential.Secret{repoSecret(append([]string{"url", url}, data...)...)}}
	}
	windows := strings.ReplaceAll(strings.TrimSpace(key), "\n", "\r\n")
	for _, c := range []struct {
		name string
		in   credential.Input
		want error
	}{
		{"key and host key", in(known, "sshPrivateKey", key), nil},
		{"a key with other line ends", in(known, "sshPrivateKey", windows), nil},
		{"unknown host", in("", "sshPrivateKey", key), ErrUntrusted},
		{"unknown host, ignored", in("", "sshPrivateKey", key, "insecureIgnoreHostKey", "true"), nil},
		{"no key", in(known), ErrRefused},
	} {
		s, _ := newStore(t, Config{}, c.in)
		repo, id, err := s.Commit(t.Context(), "", url, rev("main"))
		if !errors.Is(err, c.want) || err == nil && (id != want || !strings.HasSuffix(repo.Name, "/r")) {
			t.Errorf("%s: %q %q, %v", c.name, repo.Name, id, err)
		}
		left, err := filepath.Glob(filepath.Join(s.cfg.Dir, "run-*"))
		if err != nil || len(left) != 0 {
			t.Errorf("%s: keys are left: %v", c.name, left)
		}
	}
}

func TestCommandHidesSecrets(t *testing.T) {
	cfg := Config{Dir: filepath.Join(t.TempDir(), "it's here")}.withDefaults()
	at, err := credential.Parse("git@example.com:o/r.git")
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWire(cfg, at, credential.Credential{SSHPrivateKey: "hunter2", KnownHosts: "example.com ssh-ed25519 AAAA"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	env := strings.Join(w.env, "\n")
	if strings.Contains(env, "hunter2") || !strings.Contains(env, "'StrictHostKeyChecking=yes'") || !strings.Contains(env, `it'\''s here`) || !strings.Contains(env, "IdentitiesOnly=yes") {
		t.Errorf("environment:\n%s", env)
	}
	info, err := os.Stat(filepath.Join(w.dir, "key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info, err)
	}
	if got := addressOf(at); got != "git@example.com:o/r.git" {
		t.Errorf("address %s", got)
	}
	if _, err := newWire(cfg, at, credential.Credential{Proxy: "http://p"}); err == nil {
		t.Error("a proxy for SSH is ignored silently")
	}
}
