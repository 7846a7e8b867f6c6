// Package kustomize is the `kustomize` program that jobs find on their PATH
// when the machine has none.
//
// Input: the arguments of the kustomize command line. Output: its text, its
// edits in the working directory, and an exit code.
//
// Start reading at [Main].
package kustomize

import (
	"fmt"
	"io"

	"sigs.k8s.io/kustomize/kustomize/v5/commands"
)

// Main runs kustomize with args (without the program's name) and returns its
// exit code. The library prints the output of `build` and `cfg` on the
// process's own standard output, so Main is for a process of its own.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	cmd := commands.NewDefaultCommand()
	cmd.SetArgs(args)
	cmd.SetIn(stdin)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	if err := cmd.Execute(); err != nil {
		_, _ = fmt.Fprintln(stderr, "Error:", err)
		return 1
	}
	return 0
}
