package forge

import (
	"context"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// serverConfig is how the served repositories behave. It is given to git by
// each call, so that it changes with the program and not with the repository.
var serverConfig = []string{
	"uploadpack.allowFilter=true",
	"uploadpack.allowAnySHA1InWant=true",
	"receive.fsckObjects=true",
	// Old public histories have these; GitHub takes them too.
	"receive.fsck.zeroPaddedFilemode=warn",
	"receive.fsck.badTimezone=warn",
	"receive.fsck.missingSpaceBeforeDate=warn",
	"receive.denyDeleteCurrent=true",
	"receive.advertisePushOptions=true",
	"receive.hideRefs=refs", "receive.hideRefs=!refs/heads", "receive.hideRefs=!refs/tags",
	"receive.autogc=false", "gc.auto=0", "maintenance.auto=false",
	// What was acknowledged survives a power cut.
	"core.fsync=objects,derived-metadata,reference", "core.fsyncMethod=batch",
}

// gitCommand prepares git in dir, for run. When ctx ends git is asked to end,
// and killed 5 seconds later. It dies with this process.
func gitCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	all := make([]string, 0, 2*len(serverConfig)+len(args))
	for _, setting := range serverConfig {
		all = append(all, "-c", setting)
	}
	cmd := exec.CommandContext(ctx, "git", append(all, args...)...)
	cmd.Dir, cmd.Env = dir, git.Env()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	dieWithParent(cmd)
	return cmd
}

// run runs a gitCommand to its end. The kernel ends git with the thread that
// started it, so that thread stays until then.
func run(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
}

// acquire waits for a place among the running git processes.
func (f *Forge) acquire(ctx context.Context) error {
	select {
	case f.procs <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *Forge) release() { <-f.procs }

// head keeps the first bytes of what git says on standard error.
type head struct{ strings.Builder }

func (t *head) Write(p []byte) (int, error) {
	if room := 2000 - t.Len(); room > 0 {
		_, _ = t.Builder.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
