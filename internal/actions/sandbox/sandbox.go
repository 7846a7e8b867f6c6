// Package sandbox gives a job a machine of its own: a process tree that sees
// the host's programs but not its files, and that ends as a whole.
//
// Input: a [Spec] (which host directories appear where) and [Command]s.
// Output: the commands' combined output and exit, from inside a new mount,
// PID, UTS and IPC namespace whose root is an overlay of the host's root.
//
// What is isolated: files (writes go to a size-limited tmpfs that vanishes; home
// folders, /root, /run, /tmp and every masked path are hidden; or the whole root
// is an image's), processes, network (its own loopback, with [Relay]s as the
// only ways out), host name, System V IPC, keyrings, environment, devices (only
// null, zero, full, random, urandom, tty, ptys), kernel settings (/proc and /sys
// are masked as containers do), most capabilities (see keptCaps), dangerous
// system calls (see denied), and memory, processes and CPU by cgroups. A trusted
// job is root without a user namespace; an untrusted one ([Spec.Untrusted]) has
// one, so that its root is nobody outside.
//
// Invariants: no mount is visible outside the namespace; when the session is
// closed, or the supervisor dies, every process of the job dies with its init.
//
// Start reading at [Start]; [Main] is the other side.
package sandbox

import (
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Name is argv[0] under which the binary at self must call [Main].
const Name = "lockstep-sandbox"

var groupName = regexp.MustCompile(`^[A-Za-z0-9_.-]*[A-Za-z0-9_-](/[A-Za-z0-9_.-]*[A-Za-z0-9_-])?$`)

// ErrUnavailable says that this machine or user cannot have sandboxes.
var ErrUnavailable = errors.New("job sandbox unavailable")

// Bind makes a host file or directory appear inside.
type Bind struct {
	Source   string // on the host, or inside of Of; must exist
	Target   string // absolute, inside; created when missing
	ReadOnly bool
	// Of is the sandbox in which Source is looked up, by its own links and
	// mounts, so that a job can only show what it sees itself.
	Of *Session `json:"-"`
}

// Link is a symbolic link made inside.
type Link struct{ Path, To string }

// Network says which network a sandbox has.
type Network string

// The networks a sandbox can have. The zero value is OwnNetwork.
const (
	OwnNetwork  Network = "own"  // loopback and relays only
	HostNetwork Network = "host" // the machine's
)

// Relay makes an address outside reachable inside of an own network.
type Relay struct {
	Listen string // "127.0.0.1:80", inside
	// Dial is "host:port" or the path of a unix socket, outside.
	Dial string
}

// Limits bound what a sandbox may use. Zero fields are not limited.
type Limits struct {
	Memory int64 // bytes, with its tmpfs files
	PIDs   int64 // processes and threads
	CPU    int64 // weight against others, 1 to 10000; 100 is ordinary
	// Disk bounds the files outside of binds and of each tmpfs, in bytes, and
	// the size of any single file.
	Disk int64
	// Output bounds what one command may write, in bytes; the rest is dropped.
	Output int64
}

// Spec describes the inside of a sandbox.
type Spec struct {
	Root     string   // existing empty host directory
	Hostname string   // as the job sees it
	Hosts    []string // lines added to /etc/hosts
	Binds    []Bind   // in order; later ones may lie below earlier ones
	Masks    []string // host paths that are empty inside
	Links    []Link
	// Layers are host directories whose overlay is the root, top first, with
	// whiteouts as overlayfs has them. Empty: the host's root.
	Layers   []string
	ReadOnly bool // the root cannot be written
	Network  Network
	Relays   []Relay // only with an own network
	Limits   Limits
	// Group names the cgroup, "instance/job". "" gives no limits; [Sweep]
	// removes what a killed supervisor left of an instance. With Of it is one
	// word, unique in the job.
	Group string
	// Of is the session of the job that this sandbox belongs to. It has the
	// job's relays and hosts, shares its limits, which Limits may narrow, and
	// its users where it is untrusted.
	Of *Session `json:"-"`
	// Gateway is where a sandbox with Of finds the job's relays, which are then
	// not opened in its own network: its ports are all free.
	Gateway string
	Dirs    []string // folders made inside when missing
	// Untrusted runs everything in a user namespace of its own.
	Untrusted bool
	// Join is a session whose network, rather than a new one, this one has.
	Join *Session `json:"-"`
}

// under fills in what a sandbox has of its job.
func (s Spec) under(job Spec) Spec {
	s.Untrusted = job.Untrusted
	hosts := slices.Clone(job.Hosts)
	if s.Gateway != "" && s.Join == nil {
		for i, line := range hosts {
			if names, ok := strings.CutPrefix(line, "127.0.0.1 "); ok {
				hosts[i] = s.Gateway + " " + names
			}
		}
	}
	s.Hosts = append(hosts, s.Hosts...)
	if job.Network == HostNetwork {
		s.Network = HostNetwork
	}
	if s.Network != HostNetwork && s.Join == nil && s.Gateway == "" {
		s.Relays = append(slices.Clone(job.Relays), s.Relays...)
	}
	if s.Limits.Disk == 0 {
		s.Limits.Disk = job.Limits.Disk
	}
	if s.Limits.Output == 0 {
		s.Limits.Output = job.Limits.Output
	}
	return s
}

// Validate reports the first field that cannot work.
func (s Spec) Validate() error {
	if !path.IsAbs(s.Root) {
		return fmt.Errorf("sandbox root %q is not absolute", s.Root)
	}
	for _, b := range s.Binds {
		if !path.IsAbs(b.Source) || !path.IsAbs(b.Target) || path.Clean(b.Target) != b.Target || b.Target == "/" {
			return fmt.Errorf("sandbox bind %q at %q: both must be absolute and clean", b.Source, b.Target)
		}
	}
	for _, l := range s.Layers {
		if !path.IsAbs(l) {
			return fmt.Errorf("sandbox layer %q is not absolute", l)
		}
	}
	switch {
	case s.Network != "" && s.Network != OwnNetwork && s.Network != HostNetwork:
		return fmt.Errorf("sandbox network %q: use own or host", s.Network)
	case len(s.Relays) > 0 && (s.Network == HostNetwork || s.Join != nil):
		return errors.New("sandbox relays need a network of their own")
	case s.Untrusted && (s.Network == HostNetwork || s.Join != nil && !s.Join.untrusted()):
		return errors.New("an untrusted sandbox needs a network of its own")
	case s.Group != "" && s.Of == nil && (!groupName.MatchString(s.Group) || strings.Count(s.Group, "/") != 1),
		s.Of != nil && (!groupName.MatchString(s.Group) || strings.Contains(s.Group, "/")):
		return fmt.Errorf("sandbox group %q: want instance/job, or one word beside another session", s.Group)
	}
	for _, m := range s.Masks {
		if !path.IsAbs(m) || path.Clean(m) == "/" {
			return fmt.Errorf("sandbox mask %q must be absolute and not the root", m)
		}
	}
	return nil
}

// Command is one process to run inside.
type Command struct {
	Args []string // Args[0] is looked up in the PATH of Env
	Env  []string // the whole environment
	Dir  string   // absolute, inside
	// User is "user[:group]", names or numbers, looked up inside. "" is root.
	User string
	// Input is standard input; nil is empty. A reader that blocks is left when
	// the command ends.
	Input io.Reader
	// Output receives standard output and standard error as they come. What
	// a background process writes after the command ended is dropped.
	Output io.Writer
	// Errors receives standard error on its own. nil: Output has both.
	Errors io.Writer
	// When the context ends the process group gets SIGINT, then SIGTERM,
	// then SIGKILL, each Grace after the one before. 0 means 2.5 s.
	Grace time.Duration
	// Signals replace SIGINT and SIGTERM.
	Signals []syscall.Signal
}

// Exit is how a command ended.
type Exit struct {
	Code   int    // exit status; 128 + signal number after a signal
	Signal string // "killed", empty when the command exited by itself
	// Why says which limit of the sandbox the command ran into, if any.
	Why string
}

// OK reports success.
func (e Exit) OK() bool { return e.Code == 0 }

func (e Exit) String() string {
	if e.Why != "" {
		return e.Why
	}
	if e.Signal != "" {
		return "ended by signal " + e.Signal
	}
	return fmt.Sprintf("exit code %d", e.Code)
}

// lookPath finds a program as a shell would, in the PATH of env.
func lookPath(name string, env []string, executable func(string) bool) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	search := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
		}
	}
	for dir := range strings.SplitSeq(search, ":") {
		if !path.IsAbs(dir) {
			continue
		}
		if file := path.Join(dir, name); executable(file) {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s: command not found in PATH %q", name, search)
}
