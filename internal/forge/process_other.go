//go:build !linux

package forge

import "os/exec"

// dieWithParent needs Linux. Elsewhere git ends when its input does.
func dieWithParent(*exec.Cmd) {}
