package sandbox

import (
	"errors"
	"fmt"
	"os"
	ossignal "os/signal"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
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
	warnings := os.Args[min(2, len(os.Args)):]
	if len(os.Args) < 2 {
		if warnings, err = firstStage(control); err != nil {
			_ = control.send(message{Error: err.Error()})
			return 1
		}
	}
	syscall.CloseOnExec(controlFD)
	if err := control.send(message{Ready: &ready{Warnings: warnings}}); err != nil {
		return 1
	}
	goruntime.GOMAXPROCS(2)
	makeThreads()
	i := &initProcess{control: control, running: map[int]*child{}}
	i.serve()
	return 0
}

// firstStage makes the mounts and gives up all power that jobs do not need. In
// programs with C in them, which cannot do that for all their threads, it
// starts the second stage in this process and returns only on failure.
func firstStage(control *channel) (warnings []string, err error) {
	m, err := control.receive()
	if err != nil {
		return nil, err
	}
	if m.Plan == nil {
		return nil, errors.New("no sandbox description came")
	}
	files, err := control.takeFiles(len(m.Plan.Trees))
	if err != nil {
		return nil, err
	}
	exe, err := syscall.Open("/proc/self/exe", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open own program: %w", err)
	}
	defer func() { _ = syscall.Close(exe) }()
	if warnings, err = enter(*m.Plan, files); err != nil {
		return nil, err
	}
	if d := m.Plan.Limits.Disk; d > 0 {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: uint64(d), Max: uint64(d)}); err != nil {
			return nil, fmt.Errorf("limit the size of files: %w", err)
		}
	}
	err = confine()
	if errors.Is(err, syscall.ENOTSUP) {
		return nil, become(exe, append([]string{Name, stage2}, warnings...))
	}
	return warnings, err
}

// child is one running command of the supervisor.
type child struct{ id, pid int }

// initProcess starts commands, reaps everything and reports exits.
type initProcess struct {
	control *channel
	mu      sync.Mutex // held over start and reap, so that no exit is missed
	running map[int]*child
}

// spareThreads are made at the start, when the job cannot have used up its
// limit of threads yet: a Go program that gets none when it needs one ends.
const spareThreads = 6

func makeThreads() {
	var all sync.WaitGroup
	all.Add(spareThreads)
	var done sync.WaitGroup
	for range spareThreads {
		done.Go(func() {
			goruntime.LockOSThread()
			defer goruntime.UnlockOSThread() // it stays, and serves others
			all.Done()
			all.Wait()
		})
	}
	done.Wait()
}

// serve works until the supervisor is gone; then the kernel ends the rest of
// the PID namespace with us.
func (i *initProcess) serve() {
	chld := make(chan os.Signal, 1)
	ossignal.Notify(chld, syscall.SIGCHLD)
	// Signals of the terminal or of the job itself must not end init. Nobody
	// reads the channel: to ignore them would make every child ignore them.
	ossignal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
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
		_ = i.control.send(message{Exit: &result{ID: r.ID, Code: 127, Error: err.Error()}})
	}
	n := 1
	if r.Input {
		n++
	}
	if r.Errors {
		n++
	}
	files, err := i.control.takeFiles(n)
	if err != nil {
		fail(err)
		return
	}
	defer closeAll(files)
	if !r.Input {
		null, err := os.Open("/dev/null")
		if err != nil {
			fail(err)
			return
		}
		defer func() { _ = null.Close() }()
		files = append([]*os.File{null}, files...)
	}
	if !r.Errors {
		files = append(files, files[1])
	}
	var who *syscall.Credential
	if r.User != "" {
		home := ""
		if who, home, err = lookUser(r.User, "/etc"); err != nil {
			fail(err)
			return
		}
		if !slices.ContainsFunc(r.Env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") }) {
			r.Env = append(r.Env, "HOME="+home)
		}
		for _, f := range files[1:] { // so that /dev/stdout can be opened
			_ = f.Chown(int(who.Uid), int(who.Gid))
		}
	}
	program, err := lookPath(r.Args[0], r.Env, isExecutable)
	if err != nil {
		fail(err)
		return
	}
	if fi, err := os.Stat(r.Dir); err != nil || !fi.IsDir() {
		fail(fmt.Errorf("working directory %s does not exist", r.Dir))
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	// When memory runs out, the job's programs go before init. What init takes
	// on here for its child it may give back.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("800"), 0)
	pid, err := syscall.ForkExec(program, r.Args, &syscall.ProcAttr{
		Dir: r.Dir, Env: r.Env,
		Files: []uintptr{files[0].Fd(), files[1].Fd(), files[2].Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Credential: who},
	})
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0)
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
		_ = i.control.send(message{Exit: res})
	}
}

func isExecutable(file string) bool {
	fi, err := os.Stat(file)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

// fdPath names an open descriptor as a path.
func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
