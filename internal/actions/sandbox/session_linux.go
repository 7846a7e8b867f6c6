package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Session is one running sandbox. It is safe for concurrent use.
type Session struct {
	spec     Spec
	cmd      *exec.Cmd
	control  *channel
	group    *group   // nil without limits
	network  *os.File // nil: the machine's
	relays   *relays
	warnings []string
	users    int           // first user of an untrusted sandbox, outside
	gone     chan struct{} // closed when init has ended and was reaped
	closing  sync.Once
	hosts    sync.Mutex // held over changes of the file of host names

	mu     sync.Mutex
	next   int
	exits  map[int]chan result
	drains sync.WaitGroup
}

// setupTimeout bounds how long mounts may take.
const setupTimeout = 30 * time.Second

// outputGrace is how long the output of an ended command is still awaited
// while something else holds it open.
const outputGrace = 300 * time.Millisecond

// Start makes a sandbox. self is the path of a binary that calls [Main] when
// its argv[0] is [Name]. The caller must Close the session.
func Start(ctx context.Context, self string, spec Spec) (*Session, error) {
	if of := spec.Of; of != nil {
		spec = spec.under(of.spec)
	}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: jobs need root for their namespaces and mounts; run lockstep as root", ErrUnavailable)
	}
	s := &Session{spec: spec, gone: make(chan struct{}), exits: map[int]chan result{}, relays: newRelays()}
	if err := s.makeGroup(); err != nil {
		return nil, err
	}
	stderr := &limited{left: 16 << 10}
	if err := s.launch(self, stderr); err != nil {
		return nil, errors.Join(err, s.removeGroup())
	}
	if err := s.setUp(ctx); err != nil {
		s.Close()
		if text := bytes.TrimSpace(stderr.kept); len(text) > 0 {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return nil, err
	}
	go s.receive()
	return s, nil
}

func (s *Session) makeGroup() (err error) {
	switch of := s.spec.Of; {
	case of != nil && of.group != nil:
		s.group, err = of.group.beside(s.spec.Group, s.spec.Limits)
	case of == nil && s.spec.Group != "":
		s.group, err = newGroup(cgroupRoot, s.spec.Group, s.spec.Limits)
	default:
		return nil
	}
	if err == nil {
		s.warnings = s.group.warnings()
	}
	return err
}

// launch starts the init process, which waits for its description.
func (s *Session) launch(self string, stderr io.Writer) error {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("start sandbox: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control")
	defer func() { _ = theirs.Close() }()
	s.control, err = openChannel(ours)
	_ = ours.Close() // openChannel made a copy
	if err != nil {
		return err
	}
	// By descriptor: a user namespace may not reach the folder of the program.
	program, err := os.Open(self)
	if err != nil {
		_ = s.control.conn.Close()
		return fmt.Errorf("start sandbox: %w", err)
	}
	defer func() { _ = program.Close() }()
	attr := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Setsid:     true,
	}
	if s.spec.Network != HostNetwork && s.spec.Join == nil {
		attr.Cloneflags |= syscall.CLONE_NEWNET
	}
	if s.spec.Untrusted {
		s.mapUsers(attr)
	}
	s.cmd = &exec.Cmd{
		Path: fdPath(controlFD + 1), Args: []string{Name}, Env: []string{}, Dir: "/",
		Stderr: stderr, ExtraFiles: []*os.File{theirs, program},
		SysProcAttr: attr, WaitDelay: time.Second,
	}
	start := s.cmd.Start
	if j := s.spec.Join; j != nil && j.network != nil {
		start = func() error { return inNetwork(j.network, s.cmd.Start) }
	}
	if err := start(); err != nil {
		_ = s.control.conn.Close()
		if errors.Is(err, syscall.EPERM) {
			return fmt.Errorf("%w: this machine does not let root make namespaces (CAP_SYS_ADMIN missing): %v", ErrUnavailable, err)
		}
		return fmt.Errorf("start sandbox: %w", err)
	}
	go func() {
		_ = s.cmd.Wait()
		close(s.gone)
	}()
	return nil
}

// mapUsers gives the process a user namespace: its root is a user of this
// machine that nobody else is.
func (s *Session) mapUsers(attr *syscall.SysProcAttr) {
	const users, first, ranges = 1 << 16, 1 << 30, 1 << 14
	s.users = first + rand.IntN(ranges)*users
	if s.spec.Of != nil && s.spec.Of.users != 0 {
		s.users = s.spec.Of.users
	}
	attr.Cloneflags |= syscall.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: s.users, Size: users}}
	attr.GidMappings = attr.UidMappings
	attr.GidMappingsEnableSetgroups = true
	attr.Credential = &syscall.Credential{Uid: 0, Gid: 0}
}

func (s *Session) untrusted() bool { return s.spec.Untrusted }

// setUp describes the sandbox to init and waits until it stands.
func (s *Session) setUp(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.control.conn.Close() })
	defer stop()
	_ = s.control.conn.SetDeadline(time.Now().Add(setupTimeout))
	if s.group != nil {
		if err := s.group.enter(s.PID()); err != nil {
			return err
		}
	}
	if err := s.connect(ctx); err != nil {
		return err
	}
	if err := s.describe(); err != nil {
		return fmt.Errorf("set up sandbox: %w", err)
	}
	m, err := s.control.receive()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("set up sandbox: %w", ctx.Err())
	case err != nil:
		return fmt.Errorf("set up sandbox: %w", err)
	case m.Error != "":
		return fmt.Errorf("set up sandbox: %s", m.Error)
	case m.Ready == nil:
		return errors.New("set up sandbox: unexpected answer")
	}
	s.warnings = append(s.warnings, m.Ready.Warnings...)
	return s.control.conn.SetDeadline(time.Time{})
}

// connect makes the network and its relays.
func (s *Session) connect(ctx context.Context) error {
	if s.spec.Network == HostNetwork {
		s.warnings = append(s.warnings, "the job has the machine's network: it reaches what listens on this machine")
		return nil
	}
	if j := s.spec.Join; j != nil && j.network == nil {
		return nil
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", s.PID()))
	if err != nil {
		return fmt.Errorf("open the job's network: %w", err)
	}
	s.network = ns
	if s.spec.Join != nil {
		return nil
	}
	var config net.ListenConfig
	return inNetwork(ns, func() error {
		if err := prepareNetwork(); err != nil {
			return err
		}
		for _, r := range s.spec.Relays {
			l, err := config.Listen(ctx, "tcp", r.Listen)
			if err != nil {
				return fmt.Errorf("listen at %s in the job's network: %w", r.Listen, err)
			}
			s.relays.serve(l, func(ctx context.Context) (net.Conn, error) { return dialOutside(ctx, r.Dial) })
		}
		return nil
	})
}

// describe sends the plan with all that it needs of the host.
func (s *Session) describe() error {
	spec := s.spec
	own, err := s.writeFiles()
	if err != nil {
		return err
	}
	spec.Binds = append(slices.Clone(spec.Binds), own...)
	var users *os.File
	if spec.Untrusted {
		if users, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", s.PID())); err != nil {
			return err
		}
		defer func() { _ = users.Close() }()
	}
	trees, files, err := openTrees(spec, users)
	if err != nil {
		return err
	}
	defer closeAll(files)
	return s.control.send(message{Plan: &plan{
		Hostname: spec.Hostname, Masks: spec.Masks, Links: spec.Links, Trees: trees, Limits: spec.Limits,
		Image: len(spec.Layers) > 0, Dirs: spec.Dirs, ReadOnly: spec.ReadOnly, Untrusted: spec.Untrusted,
	}}, files...)
}

// Warnings says what this machine could not isolate.
func (s *Session) Warnings() []string { return s.warnings }

// PID is the init process, as the host sees it.
func (s *Session) PID() int { return s.cmd.Process.Pid }

// Close kills every process of the sandbox, waits until they are gone, and
// removes its cgroup.
func (s *Session) Close() {
	s.closing.Do(func() {
		_ = s.cmd.Process.Kill()
		<-s.gone
		_ = s.control.conn.Close()
		s.relays.close()
		s.drains.Wait()
		if s.network != nil {
			_ = s.network.Close()
		}
		_ = s.removeGroup() // empty; the next Sweep takes what stays
	})
}

// ForJobs are limits that keep one job from taking this machine with it.
func ForJobs() Limits {
	var info syscall.Sysinfo_t
	memory := int64(8 << 30)
	if syscall.Sysinfo(&info) == nil {
		memory = int64(info.Totalram) * int64(info.Unit)
	}
	// What a job writes outside of its folders is memory too.
	return Limits{Memory: memory * 3 / 4, PIDs: 8192, CPU: 100, Disk: memory / 2, Output: 4 << 30}
}

// Done is closed when the sandbox has ended.
func (s *Session) Done() <-chan struct{} { return s.gone }

func (s *Session) removeGroup() error {
	if s.group == nil {
		return nil
	}
	return s.group.remove()
}

// Relays are the addresses inside that lead out.
func (s *Session) Relays() []string {
	var out []string
	for _, r := range s.spec.Relays {
		out = append(out, r.Listen)
	}
	return out
}
