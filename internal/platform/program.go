package platform

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/lockstep-gitops/lockstep/internal/actions/builtin/kustomize"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
	"github.com/lockstep-gitops/lockstep/internal/actions/shim/az"
	"github.com/lockstep-gitops/lockstep/internal/actions/shim/docker"
	"github.com/lockstep-gitops/lockstep/internal/actions/shim/gh"
	"github.com/lockstep-gitops/lockstep/internal/cli"
	"github.com/lockstep-gitops/lockstep/internal/cli/credential"
	"github.com/lockstep-gitops/lockstep/internal/cli/doctor"
	"github.com/lockstep-gitops/lockstep/internal/cli/down"
	"github.com/lockstep-gitops/lockstep/internal/cli/env"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/cli/up"
)

// Main is the program: it runs the command, or the child program whose name
// args[0] is, and returns the exit code.
func Main(version string, args []string) int {
	switch filepath.Base(args[0]) {
	case "lockstep-sandbox":
		return sandbox.Main()
	case "kustomize":
		return kustomize.Main(args[1:], os.Stdin, os.Stdout, os.Stderr)
	case "az":
		return stand(az.Main, args)
	case "docker":
		return stand(docker.Main, args)
	case "gh":
		return stand(gh.Main, args)
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error: cannot find my own program:", err)
		return output.ExitError
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	program := program{version: version, self: self}
	return cli.Main(ctx, cli.Options{
		Streams: output.System(), Getenv: os.Getenv, Version: version, Self: self,
		Commands: []invocation.Constructor{up.New(program), down.New(program), doctor.New(program), env.New, credential.New},
	}, args[1:])
}

// stand runs a program that stands in for one that a job's machine lacks.
func stand(program func(context.Context, *shim.Process) int, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return program(ctx, &shim.Process{Args: args[1:], Env: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
}

// program is what the commands up, down and doctor do in this process.
type program struct{ version, self string }

// Run implements up.Platform.
func (p program) Run(ctx context.Context, s up.Settings, log io.Writer, ready func()) error {
	cfg := Config{
		Name: s.Name, StateDir: s.StateDir, Port: s.Port, Kubeconfig: s.Kubeconfig, UserKubeconfig: s.UserKubeconfig,
		Self: s.Self, Version: s.Version, JobEnv: jobEnv(os.Getenv), JobPath: jobPath(),
	}
	return explain(cfg, Run(ctx, cfg, Deps{Log: slog.New(slog.NewTextHandler(log, nil)), Ready: ready}))
}

// Down implements down.Platform.
func (p program) Down(ctx context.Context, name, stateDir string, note func(string)) error {
	return Down(ctx, Config{Name: name, StateDir: stateDir}, note)
}

// Purge implements down.Platform.
func (p program) Purge(name, stateDir string) error {
	return Purge(Config{Name: name, StateDir: stateDir})
}

// usualPath is the PATH of a workflow step.
const usualPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// jobPath is the usual PATH, and the folder of this machine's Go where that is
// elsewhere: actions/setup-go lends it to jobs.
func jobPath() string {
	program, err := exec.LookPath("go")
	if err != nil {
		return usualPath
	}
	dir := filepath.Dir(program)
	if slices.Contains(filepath.SplitList(usualPath), dir) || !filepath.IsAbs(dir) {
		return usualPath
	}
	return usualPath + ":" + dir
}

// jobEnv is what workflow jobs inherit of this machine: how its Go reaches
// modules. Everything else starts empty.
func jobEnv(getenv func(string) string) map[string]string {
	env := map[string]string{"GOTOOLCHAIN": "local"}
	for _, name := range []string{"GOPROXY", "GONOSUMDB", "GONOSUMCHECK", "GOSUMDB", "GOPRIVATE", "GOFLAGS"} {
		if value := getenv(name); value != "" {
			env[name] = value
		}
	}
	return env
}
