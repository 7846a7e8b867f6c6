// Package sandbox gives a job a machine of its own: a process tree that sees
// the host's programs but not its files, and that ends as a whole.
//
// Input: a [Spec] (which host directories appear where) and [Command]s.
// Output: the commands' combined output and exit, from inside a new mount,
// PID, UTS and IPC namespace whose root is an overlay of the host's root.
//
// What is isolated: files (writes go to a tmpfs that vanishes; home folders,
// /root, /run, /tmp and every masked path are hidden), processes, host name,
// System V IPC, environment, devices (only null, zero, full, random, urandom,
// tty, ptys), kernel settings (/proc/sys is read-only) and most capabilities
// (see keptCaps). What is not: the network is the host's, the user is root
// without a user namespace, and CPU, memory and PIDs have no limit of their
// own. So a sandbox holds honest jobs apart; it is no wall against hostile code.
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
	"strings"
	"time"
)

// Name is argv[0] under which the binary at self must call [Main].
const Name = "lockstep-sandbox"

// ErrUnavailable says that this machine or user cannot have sandboxes.
var ErrUnavailable = errors.New("job sandbox unavailable")

// Bind makes a host file or directory appear inside.
type Bind struct {
	Source   string // on the host; must exist
	Target   string // absolute, inside; created when missing
	ReadOnly bool
}

// Link is a symbolic link made inside.
type Link struct{ Path, To string }

// Spec describes the inside of a sandbox.
type Spec struct {
	Root     string   // existing empty host directory for the mounts
	Hostname string   // as the job sees it
	Hosts    []string // lines added to /etc/hosts
	Binds    []Bind   // in order; later ones may lie below earlier ones
	Masks    []string // host paths that are empty inside
	Links    []Link
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
	// Output receives standard output and standard error as they come. What
	// a background process writes after the command ended is dropped.
	Output io.Writer
	// When the context ends the process group gets SIGINT, then SIGTERM,
	// then SIGKILL, each Grace after the one before. 0 means 2.5 s.
	Grace time.Duration
}

// Exit is how a command ended.
type Exit struct {
	Code   int    // exit status; 128 + signal number after a signal
	Signal string // "killed", empty when the command exited by itself
}

// OK reports success.
func (e Exit) OK() bool { return e.Code == 0 }

func (e Exit) String() string {
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
