package sandbox

import (
	"errors"
	"fmt"
	"os"
	ossignal "os/signal"
	goruntime "runtime"
	"strconv"
	"sync"
	"syscall"
)

// controlFD is where the control socket waits in the child.
const controlFD = 3

// stage2 is the argument of the second start, after the mounts are made and
// the capabilities dropped.
const stage2 = "run"

// Main is the whole program of a sandbox's init process (PID 1 inside). It
// returns the exit code; the caller exits with it.
func Main() int {
	file := os.NewFile(controlFD, "control")
	// The second stage inherits the descriptor: it must not be closed by the
	// garbage collector in the middle of the first.
	defer goruntime.KeepAlive(file)
	control, err := openChannel(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, "lockstep-sandbox is started by lockstep, not by hand:", err)
		return 2
	}
	if len(os.Args) < 2 {
		err := firstStage(control)
		_ = control.send(message{Error: err.Error()}, nil)
		return 1
	}
	syscall.CloseOnExec(controlFD)
	var r ready
	r.Warnings = os.Args[2:]
	if err := control.send(message{Ready: &r}, nil); err != nil {
		return 1
	}
	i := &initProcess{control: control, running: map[int]*child{}}
	i.serve()
	return 0
}

// firstStage makes the mounts and starts the second stage in this process. It
// returns only on failure.
func firstStage(control *channel) error {
	m, err := control.receive()
	if err != nil {
		return err
	}
	if m.Spec == nil {
		return errors.New("no sandbox description came")
	}
	exe, err := syscall.Open("/proc/self/exe", syscall.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("open own program: %w", err)
	}
	warnings, err := enter(*m.Spec)
	if err != nil {
		return err
	}
	args := append([]string{Name, stage2}, warnings...)
	return become(exe, args)
}

// child is one running command of the supervisor.
type child struct{ id, pid int }

// initProcess starts commands, reaps everything and reports exits.
type initProcess struct {
	control *channel
	mu      sync.Mutex // held over start and reap, so that no exit is missed
	running map[int]*child
}

// serve works until the supervisor is gone; then the kernel ends the rest of
// the PID namespace with us.
func (i *initProcess) serve() {
	chld := make(chan os.Signal, 1)
	ossignal.Notify(chld, syscall.SIGCHLD)
	// Signals of the terminal or of the job itself must not end init.
	ossignal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	go func() {
		for range chld {
			i.reap()
		}
	}()
	for {
		m, err := i.control.receive()
		if err != nil {
			return
		}
		switch {
		case m.Exec != nil:
			i.start(*m.Exec)
		case m.Kill != nil:
			i.kill(*m.Kill)
		}
	}
}

func (i *initProcess) start(r request) {
	fail := func(err error) {
		_ = i.control.send(message{Exit: &result{ID: r.ID, Code: 127, Error: err.Error()}}, nil)
	}
	out, err := i.control.takeFile()
	if err != nil {
		fail(err)
		return
	}
	defer func() { _ = out.Close() }()
	program, err := lookPath(r.Args[0], r.Env, isExecutable)
	if err != nil {
		fail(err)
		return
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		fail(err)
		return
	}
	defer func() { _ = null.Close() }()
	if fi, err := os.Stat(r.Dir); err != nil || !fi.IsDir() {
		fail(fmt.Errorf("working directory %s does not exist", r.Dir))
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	pid, err := syscall.ForkExec(program, r.Args, &syscall.ProcAttr{
		Dir: r.Dir, Env: r.Env,
		Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		fail(fmt.Errorf("start %s: %w", program, err))
		return
	}
	i.running[pid] = &child{id: r.ID, pid: pid}
}

func (i *initProcess) kill(s signal) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, c := range i.running {
		if c.id == s.ID {
			_ = syscall.Kill(-c.pid, syscall.Signal(s.Signal))
		}
	}
}

func (i *initProcess) reap() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		c := i.running[pid]
		if c == nil {
			continue // an orphan
		}
		delete(i.running, pid)
		res := &result{ID: c.id, Code: ws.ExitStatus()}
		if ws.Signaled() {
			res.Code, res.Signal = 128+int(ws.Signal()), ws.Signal().String()
		}
		_ = i.control.send(message{Exit: res}, nil)
	}
}

func isExecutable(file string) bool {
	fi, err := os.Stat(file)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

// fdPath names an open descriptor as a path.
func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
