package forge

import (
	"os/exec"
	"syscall"
)

// dieWithParent keeps a killed forge from leaving a git behind that would still
// move refs.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
