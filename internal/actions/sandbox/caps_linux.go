package sandbox

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// keptCaps are the capabilities that ordinary build steps of root need:
// changing owners and modes, switching users, killing, low ports, ping and
// chroot. Not kept, among others: SYS_ADMIN (mounts), MKNOD (disks),
// SYS_MODULE, SYS_PTRACE of others, SYS_RAWIO, NET_ADMIN, DAC_READ_SEARCH.
var keptCaps = []int{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL,
	unix.CAP_SETGID, unix.CAP_SETUID, unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW,
	unix.CAP_SYS_CHROOT, unix.CAP_AUDIT_WRITE, unix.CAP_SETFCAP,
}

// keep is keptCaps as bits.
func keep() (bits uint64) {
	for _, c := range keptCaps {
		bits |= 1 << c
	}
	return bits
}

// lastCap is the highest capability that this kernel knows.
func lastCap() int {
	for c := range 64 {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err != nil {
			return c - 1
		}
	}
	return 63
}

// confine drops power from every thread of this process, for good. It fails
// with ENOTSUP where the program has C in it.
func confine() error {
	all := func(what string, call, a, b, c uintptr) error {
		if _, _, errno := syscall.AllThreadsSyscall6(call, a, b, c, 0, 0, 0); errno != 0 {
			return fmt.Errorf("%s: %w", what, errno)
		}
		return nil
	}
	if err := all("forbid new privileges", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return err
	}
	if err := all("own view of cgroups", unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	kept := keep()
	for c := range lastCap() + 1 {
		if kept&(1<<c) == 0 {
			if err := all("drop capability", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c), 0); err != nil {
				return err
			}
		}
	}
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := &[2]unix.CapUserData{}
	for i := range data {
		half := uint32(kept >> (32 * i))
		data[i] = unix.CapUserData{Effective: half, Permitted: half}
	}
	// The allocator moves nothing, and both live on.
	err := all("drop capabilities", unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(&data[0])), 0)
	runtime.KeepAlive(header)
	runtime.KeepAlive(data)
	if err != nil {
		return err
	}
	return installFilter()
}

// become drops power from this thread and replaces the program with the one at
// exe, which has only this thread then. It returns only on failure.
func become(exe int, args []string) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("own view of cgroups: %w", err)
	}
	kept := keep()
	for c := range lastCap() + 1 {
		if kept&(1<<c) != 0 {
			continue
		}
		// The set that exec gives root is the bounding set.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := installFilter(); err != nil {
		return err
	}
	if err := unix.Exec(fdPath(exe), args, []string{}); err != nil {
		return fmt.Errorf("start the second stage: %w", err)
	}
	return nil
}
