package mirror

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/credential"
)

const (
	maxOutput  = 64 << 20 // of a listing, in bytes
	maxMessage = 16 << 10 // of what git complains
	sizeEvery  = 500 * time.Millisecond
)

var errTooMuch = errors.New("the answer is too large")

// wire is how git talks to one server: environment and files that it needs.
// What is secret is in the environment or in files that only we can read.
type wire struct {
	env []string
	dir string // of the files, "" when there are none
}

func (w *wire) close() {
	if w.dir != "" {
		_ = os.RemoveAll(w.dir)
	}
}

// newWire prepares talking to the server at with a signed credential.
func newWire(cfg Config, at credential.Location, c credential.Credential) (*wire, error) {
	w := &wire{}
	settings := [][2]string{{"safe.directory", "*"}, {"gc.auto", "0"}, {"maintenance.auto", "false"}, {"core.askPass", ""}, {"credential.helper", ""}}
	env := []string{"GIT_ALLOW_PROTOCOL=https:http:ssh:git", "GIT_TERMINAL_PROMPT=0", "GIT_CEILING_DIRECTORIES=" + cfg.Dir}
	if cfg.AllowFile {
		env[0] += ":file"
	}
	var err error
	switch at.Scheme {
	case "https", "http":
		var more [][2]string
		more, err = w.http(cfg, at, c)
		settings = append(settings, more...)
		if proxy := firstOf(c.NoProxy, cfg.NoProxy); proxy != "" {
			env = append(env, "no_proxy="+proxy, "NO_PROXY="+proxy)
		}
	case "ssh":
		var command string
		command, err = w.ssh(cfg, c)
		env = append(env, "GIT_SSH_COMMAND="+command, "GIT_SSH_VARIANT=ssh")
	}
	if err != nil {
		w.close()
		return nil, err
	}
	for _, v := range git.Env() {
		if !strings.HasPrefix(v, "GIT_CONFIG_COUNT=") && !strings.HasPrefix(v, "GIT_CONFIG_KEY_") && !strings.HasPrefix(v, "GIT_CONFIG_VALUE_") {
			w.env = append(w.env, v)
		}
	}
	w.env = append(w.env, env...)
	w.env = append(w.env, fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(settings)))
	for i, s := range settings {
		w.env = append(w.env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, s[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, s[1]))
	}
	return w, nil
}

// http returns git's settings. The Authorization header goes to this host only.
func (w *wire) http(cfg Config, at credential.Location, c credential.Credential) ([][2]string, error) {
	settings := [][2]string{{"http.lowSpeedLimit", "100"}, {"http.lowSpeedTime", "60"}, {"http.followRedirects", "initial"}}
	header := ""
	switch {
	case c.BearerToken != "":
		header = "Bearer " + c.BearerToken
	case c.Username != "" || c.Password != "":
		user := c.Username
		if user == "" {
			user = "git" // GitHub and others want any name beside a token
		}
		header = "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+c.Password))
	}
	if strings.ContainsAny(header, "\r\n") {
		return nil, fmt.Errorf("Secret %s: its bearerToken has a line break", c.Secret)
	}
	if header != "" {
		settings = append(settings, [2]string{"http." + at.Scheme + "://" + at.Host + "/.extraHeader", "Authorization: " + header})
	}
	if c.Insecure {
		settings = append(settings, [2]string{"http.sslVerify", "false"})
	}
	if proxy := firstOf(c.Proxy, cfg.Proxy); proxy != "" {
		settings = append(settings, [2]string{"http.proxy", proxy})
	}
	for _, f := range [][2]string{{"http.sslCAInfo", firstOf(c.CA, cfg.CA)}, {"http.sslCert", c.TLSCert}, {"http.sslKey", c.TLSKey}} {
		if f[1] == "" {
			continue
		}
		p, err := w.file(cfg, f[0], f[1])
		if err != nil {
			return nil, err
		}
		settings = append(settings, [2]string{f[0], p})
	}
	return settings, nil
}

// ssh returns the command for git, which splits it as a shell does.
func (w *wire) ssh(cfg Config, c credential.Credential) (string, error) {
	if c.Proxy != "" {
		return "", fmt.Errorf("Secret %s: a proxy for SSH is not supported; use an https URL", c.Secret)
	}
	args := []string{"ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15", "-o", "GlobalKnownHostsFile=/dev/null"}
	if c.InsecureHostKey || c.Insecure {
		args = append(args, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR")
	} else {
		p, err := w.file(cfg, "known_hosts", strings.TrimSpace(c.KnownHosts)+"\n")
		if err != nil {
			return "", err
		}
		args = append(args, "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile="+p)
	}
	if c.SSHPrivateKey != "" {
		p, err := w.file(cfg, "key", strings.TrimSpace(strings.ReplaceAll(c.SSHPrivateKey, "\r", ""))+"\n")
		if err != nil {
			return "", err
		}
		args = append(args, "-i", p, "-o", "IdentitiesOnly=yes")
	}
	for i, a := range args {
		args[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	return strings.Join(args, " "), nil
}

// file writes a file that only we can read, until close.
func (w *wire) file(cfg Config, name, content string) (string, error) {
	if w.dir == "" {
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			return "", fmt.Errorf("make %s: %w", cfg.Dir, err)
		}
		dir, err := os.MkdirTemp(cfg.Dir, "run-")
		if err != nil {
			return "", fmt.Errorf("make a folder for keys: %w", err)
		}
		w.dir = dir
	}
	p := filepath.Join(w.dir, name)
	if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
		return "", fmt.Errorf("write a key for git: %w", err)
	}
	return p, nil
}

// run starts git in dir and returns its output; on failure a *gitError. The
// whole process group ends with the context. When limit is not 0, git is ended
// when the folder becomes larger than so many bytes.
func (w *wire) run(ctx context.Context, dir string, stdin string, limit int64, args ...string) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Env = dir, w.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	stdout := &limited{most: maxOutput, full: func() { cancel(errTooMuch) }}
	stderr := &limited{most: maxMessage}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if limit > 0 {
		go watchSize(ctx, dir, limit, cancel)
	}
	err := cmd.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	return nil, &gitError{verb: args[0], message: credential.Redact(strings.TrimSpace(stderr.String())), err: err}
}

// watchSize ends a fetch that brings too much. Git has no limit of its own for
// that, so the folder is measured while it runs.
func watchSize(ctx context.Context, dir string, limit int64, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(sizeEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if size := sizeOf(dir); size > limit {
			cancel(fmt.Errorf("the repository is larger than %d MiB, the limit of a mirror; set depth in its Secret", limit>>20))
			return
		}
	}
}

func sizeOf(dir string) int64 {
	var total int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // it was renamed away meanwhile
		}
		if info, err := d.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	return total
}

// limited is a buffer that forgets what is too much.
type limited struct {
	bytes.Buffer
	most int
	full func()
}

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	if room := l.most - l.Len(); len(p) > room {
		l.Buffer.Write(p[:max(room, 0)])
		if l.full != nil {
			l.full()
		}
		return len(p), nil
	}
	return l.Buffer.Write(p)
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
