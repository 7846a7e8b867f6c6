package sandbox

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// denied are system calls that no build step needs and that reach parts of the
// kernel which namespaces do not divide, or that break out of them. Docker's
// profile denies them too. They fail with EPERM.
var denied = []uint32{
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL, // keyrings are shared by all of a user
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN,
	unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, unix.SYS_SETNS,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_REBOOT, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_SYSLOG,
	unix.SYS_CLOCK_SETTIME, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_ADJTIME,
}

// Return values of a filter (seccomp(2)).
const (
	retAllow = 0x7fff0000
	retErrno = 0x00050000
)

// x32Bit marks the calls of the x32 ABI, which share the number of the
// architecture.
const x32Bit = 0x40000000

// filter is the program that the kernel runs at each system call.
func filter() ([]bpf.RawInstruction, error) {
	arch := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	if arch == 0 {
		return nil, fmt.Errorf("no system call filter for %s", runtime.GOARCH)
	}
	errno := func(e unix.Errno) bpf.Instruction { return bpf.RetConstant{Val: retErrno | uint32(e)} }
	const number, machine, firstArgument = 0, 4, 16 // struct seccomp_data, little endian
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: machine, Size: 4},
		// Programs of other architectures would pass by the numbers below.
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1}, errno(unix.ENOSYS),
		bpf.LoadAbsolute{Off: number, Size: 4},
	}
	if runtime.GOARCH == "amd64" {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32Bit, SkipFalse: 1}, errno(unix.ENOSYS))
	}
	for _, nr := range denied {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipFalse: 1}, errno(unix.EPERM))
	}
	// clone3 has its flags in memory; libc falls back to clone, which is checked.
	program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_CLONE3, SkipFalse: 1}, errno(unix.ENOSYS))
	const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWIPC |
		unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	program = append(program,
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_CLONE, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_UNSHARE, SkipFalse: 3},
		bpf.LoadAbsolute{Off: firstArgument, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: namespaces, SkipFalse: 1}, errno(unix.EPERM),
		bpf.RetConstant{Val: retAllow},
	)
	return bpf.Assemble(program)
}

// installFilter filters the system calls of every thread of this process and
// of all that it starts. It needs no_new_privs.
func installFilter() error {
	raw, err := filter()
	if err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(raw)), Filter: (*unix.SockFilter)(unsafe.Pointer(&raw[0]))}
	const setModeFilter, threadSync = 1, 1
	tid, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, threadSync, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(raw)
	if errno != 0 {
		return fmt.Errorf("filter system calls: %w", errno)
	}
	if tid != 0 {
		return fmt.Errorf("filter system calls: thread %d has a filter of its own", tid)
	}
	return nil
}
