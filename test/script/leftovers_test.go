package script

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// nothingLeft fails when anything of the story's platform is still on the
// machine: a process, a mount, a network namespace, an interface, a cgroup.
// Firewall rules live in the namespace and go with it.
func nothingLeft(ts *testscript.TestScript, _ bool, _ []string) {
	name, state := ts.Getenv("LOCKSTEP_NAME"), ts.Getenv("LOCKSTEP_STATE_DIR")
	var left []string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		left = leftovers(name, state)
		if len(left) == 0 {
			return
		}
	}
	ts.Fatalf("left behind:\n%s", strings.Join(left, "\n"))
}

func leftovers(name, state string) []string {
	var left []string
	add := func(kind, what string) { left = append(left, fmt.Sprintf("%s: %s", kind, what)) }

	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range processes {
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		line := strings.ReplaceAll(string(cmdline), "\x00", " ")
		if strings.Contains(line, state) || strings.Contains(string(cgroup), "/lockstep-"+name) {
			add("process", filepath.Base(dir)+" "+line)
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, state) || strings.Contains(line, "/lockstep-"+name) || strings.Contains(line, "/lockstep/"+name+"/") {
			add("mount", strings.TrimSpace(line))
		}
	}
	for _, pattern := range []string{"/run/netns/lockstep-" + name, "/run/lockstep/" + name,
		"/sys/fs/cgroup/lockstep-" + name, "/sys/fs/cgroup/*/lockstep-" + name} {
		found, _ := filepath.Glob(pattern)
		for _, f := range found {
			add("path", f)
		}
	}
	return left
}
