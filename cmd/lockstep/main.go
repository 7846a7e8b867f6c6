// Lockstep is the whole picture "GitOps with Argo CD on AKS" as one program.
// Started under the name of a child program it is that one: the first process
// of a job's sandbox, or the kustomize of a workflow step.
package main

import (
	"os"

	"github.com/lockstep-gitops/lockstep/internal/platform"
)

// version is set by the build.
var version = "development"

func main() { os.Exit(platform.Main(version, os.Args)) }
