package sandbox

import (
	"errors"
	"fmt"
	"runtime"

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

// become drops capabilities from this thread and replaces the program with
// the one at exe. It returns only on failure.
func become(exe int, args []string) error {
	runtime.LockOSThread()
	keep := map[int]bool{}
	for _, c := range keptCaps {
		keep[c] = true
	}
	for c := range unix.CAP_LAST_CAP + 1 {
		if keep[c] {
			continue
		}
		// The set that exec gives root is the bounding set.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	unix.CloseOnExec(exe)
	if err := unix.Exec(fdPath(exe), args, []string{}); err != nil {
		return fmt.Errorf("start the second stage: %w", err)
	}
	return nil
}
