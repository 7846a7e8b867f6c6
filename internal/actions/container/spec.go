package container

import (
	"fmt"
	"io"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
	"golang.org/x/sys/unix"
)

// Spec describes one container.
type Spec struct {
	Name       string // unique in the job; others reach it by it. "" makes one up
	Image      string
	Entrypoint []string // instead of the image's, when not nil
	Args       []string // instead of the image's command, when not nil
	Env        []string // "NAME=value", over the image's
	Dir        string   // instead of the image's, when not empty
	User       string   // instead of the image's, when not empty
	Hostname   string   // "" is the start of the ID
	Aliases    []string // more names
	Hosts      []string // "name:address", for /etc/hosts
	Binds      []sandbox.Bind
	// Volumes are as `docker run -v` takes them: "/path/of/the/job:/inside[:ro]",
	// "name:/inside" for a folder that lives as long as the job, or "/inside".
	Volumes []string
	// Ports are as `docker run -p` takes them: "[address:][port:]port[/tcp]".
	Ports    []string
	Limits   sandbox.Limits
	ReadOnly bool
	// Network is "" for the job's bridge, "host" for the job's own network, or
	// "container:ID". Every other name means the bridge too.
	Network    string
	Health     *Health // instead of the image's, when not nil
	StopSignal string  // "" is the image's or SIGTERM
	StopGrace  time.Duration
	// Idle runs nothing but waits for Exec, whatever the image's command is.
	Idle  bool
	Input io.Reader
}

// Health is a health check.
type Health struct {
	// Test is ["CMD", args…], ["CMD-SHELL", script] or ["NONE"].
	Test        []string
	Interval    time.Duration // between checks; 0 is 30 s
	Timeout     time.Duration // of one check; 0 is 30 s
	StartPeriod time.Duration // failures in it do not count
	Retries     int           // failures until unhealthy; 0 is 3
}

// port is one published port.
type port struct {
	address string // inside of the job; "" is every one
	outer   int    // 0 picks a free one
	inner   int
}

// parsePort reads what -p takes, with ranges refused.
func parsePort(s string) (port, error) {
	bad := func(why string) (port, error) { return port{}, fmt.Errorf("port %q: %s", s, why) }
	text, protocol, _ := strings.Cut(s, "/")
	if protocol != "" && protocol != "tcp" {
		return bad("only tcp can be published; the container is reached by its name at any port")
	}
	p := port{}
	parts := strings.Split(text, ":")
	if len(parts) > 3 || strings.Contains(text, "[") {
		return bad("want [address:][port:]port")
	}
	if len(parts) == 3 {
		if net.ParseIP(parts[0]).To4() == nil {
			return bad("the address is no IPv4 address")
		}
		if p.address, parts = parts[0], parts[1:]; p.address == "0.0.0.0" {
			p.address = ""
		}
	}
	number := func(s string) (int, bool) {
		n, err := strconv.Atoi(s)
		return n, err == nil && n > 0 && n < 1<<16
	}
	ok := true
	if len(parts) == 2 {
		if parts[0] != "" {
			p.outer, ok = number(parts[0])
		}
		parts = parts[1:]
	}
	if !ok {
		return bad("want numbers from 1 to 65535, no ranges")
	}
	if p.inner, ok = number(parts[0]); !ok {
		return bad("want numbers from 1 to 65535, no ranges")
	}
	return p, nil
}

// parseVolume reads what -v takes.
func parseVolume(s string) (source, target string, readOnly bool, err error) {
	parts := strings.Split(s, ":")
	switch len(parts) {
	case 1:
		target = parts[0]
	case 2, 3:
		source, target = parts[0], parts[1]
	default:
		return "", "", false, fmt.Errorf("volume %q: want source:target[:ro]", s)
	}
	if len(parts) == 3 {
		for mode := range strings.SplitSeq(parts[2], ",") {
			switch mode {
			case "ro":
				readOnly = true
			case "rw", "z", "Z", "cached", "delegated", "consistent", "rprivate", "private", "nocopy", "":
			default:
				return "", "", false, fmt.Errorf("volume %q: mode %q is not supported; use ro or rw", s, mode)
			}
		}
	}
	if !path.IsAbs(target) || path.Clean(target) == "/" {
		return "", "", false, fmt.Errorf("volume %q: the path in the container must be absolute and not the root", s)
	}
	if source != "" && !path.IsAbs(source) && (strings.ContainsAny(source, "/\x00") || strings.Trim(source, ".") == "") {
		return "", "", false, fmt.Errorf("volume %q: the source must be an absolute path or a name", s)
	}
	return source, path.Clean(target), readOnly, nil
}

// program is what a container runs, of its spec and its image.
type program struct {
	args   []string
	env    []string
	dir    string
	user   string
	health *Health
	signal syscall.Signal
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func (s Spec) program(image v1.Config) (program, error) {
	p := program{dir: image.WorkingDir, user: image.User, health: s.Health, env: mergeEnv([]string{defaultPath}, image.Env, s.Env), signal: syscall.SIGTERM}
	if s.Dir != "" {
		p.dir = s.Dir
	}
	if p.dir = path.Clean("/" + p.dir); s.Dir != "" && !path.IsAbs(s.Dir) {
		return p, fmt.Errorf("the working directory %q is not absolute", s.Dir)
	}
	if s.User != "" {
		p.user = s.User
	}
	entrypoint, args := image.Entrypoint, image.Cmd
	if s.Entrypoint != nil {
		entrypoint, args = s.Entrypoint, nil // as Docker: the image's command goes with its entrypoint
	}
	if s.Args != nil {
		args = s.Args
	}
	p.args = slices.Concat(entrypoint, args)
	if len(p.args) == 0 && !s.Idle {
		return p, fmt.Errorf("image %s has no command; name one", s.Image)
	}
	name := s.StopSignal
	if name == "" {
		name = image.StopSignal
	}
	if name != "" {
		if p.signal = signalOf(name); p.signal == 0 {
			return p, fmt.Errorf("stop signal %q is not known", name)
		}
	}
	if h := image.Healthcheck; p.health == nil && h != nil && len(h.Test) > 0 {
		p.health = &Health{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, Retries: h.Retries}
	}
	if p.health != nil {
		if len(p.health.Test) < 2 || p.health.Test[0] == "NONE" {
			p.health = nil
		}
	}
	return p, nil
}

// mergeEnv joins environments; later ones win.
func mergeEnv(blocks ...[]string) []string {
	var out []string
	at := map[string]int{}
	for _, kv := range slices.Concat(blocks...) {
		name, _, _ := strings.Cut(kv, "=")
		if i, ok := at[name]; ok {
			out[i] = kv
			continue
		}
		at[name] = len(out)
		out = append(out, kv)
	}
	return out
}

func signalOf(name string) syscall.Signal {
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n)
	}
	name = strings.ToUpper(name)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	return unix.SignalNum(name)
}
