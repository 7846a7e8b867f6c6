package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// How long a leftover may take to end after SIGTERM, and after SIGKILL.
const (
	leftoverGrace = 2 * time.Second
	leftoverKill  = 5 * time.Second
)

// EndLeftover ends the process that pidFile records, if it still is the same
// process, and removes the file. SIGTERM first, SIGKILL after 2 s. A missing
// file, or one whose process is gone, is no error.
func EndLeftover(pidFile string) error {
	pid, ok, err := readPIDFile(pidFile)
	if err != nil {
		return fmt.Errorf("end leftover: %w", err)
	}
	if ok {
		if err := End(pid, leftoverGrace); err != nil {
			return fmt.Errorf("end leftover of %s: %w", pidFile, err)
		}
	}
	if err := os.Remove(pidFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("end leftover: %w", err)
	}
	return nil
}

// End ends a process that need not be our child: SIGTERM, then SIGKILL after
// grace (0 kills at once). It returns when the process is gone.
func End(pid int, grace time.Duration) error {
	h, err := openProcess(pid)
	if err != nil || h == nil {
		return err // gone already: nil
	}
	defer h.close()
	if grace > 0 {
		if err := h.signal(syscall.SIGTERM); err != nil {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
		if gone, err := h.wait(grace); gone || err != nil {
			return err
		}
	}
	if err := h.signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	gone, err := h.wait(leftoverKill)
	if err == nil && !gone {
		err = fmt.Errorf("process %d does not end %s after SIGKILL: it hangs in the kernel; look at /proc/%d/stack", pid, leftoverKill, pid)
	}
	return err
}

// errEnded says that a process is only waited for.
var errEnded = errors.New("the process has ended")

// writePIDFile records the process as "pid start-time boot-id". There is
// nothing to record of one that has ended already.
func writePIDFile(path string, pid int) error {
	start, err := startTime(pid)
	if errors.Is(err, errEnded) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	tmp := path + ".tmp"
	line := fmt.Sprintf("%d %s %s\n", pid, start, bootID())
	if err := os.WriteFile(tmp, []byte(line), 0o600); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	return nil
}

// readPIDFile returns the recorded process; ok is false when there is no
// file, it is damaged, or the process is not running any more.
func readPIDFile(path string) (pid int, ok bool, err error) {
	body, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	fields := strings.Fields(string(body))
	if len(fields) != 3 || fields[2] != bootID() {
		return 0, false, nil
	}
	pid, err = strconv.Atoi(fields[0])
	if err != nil || pid <= 1 {
		return 0, false, nil
	}
	start, err := startTime(pid)
	return pid, err == nil && start == fields[1], nil
}

// startTime is field 22 of /proc/<pid>/stat: clock ticks since boot. A zombie
// counts as gone.
func startTime(pid int) (string, error) {
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The second field may hold spaces and parentheses: count from its end.
	_, rest, ok := strings.Cut(string(body[strings.LastIndexByte(string(body), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat has an unknown form", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return "", fmt.Errorf("process %d: %w", pid, errEnded)
	}
	return fields[19], nil
}

// bootID tells this boot of the machine from others, "-" where unknown.
func bootID() string {
	body, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "-"
	}
	return strings.TrimSpace(string(body))
}
