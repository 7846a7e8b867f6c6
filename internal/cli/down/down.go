// Package down is `lockstep down`: it stops a platform and leaves nothing of it
// on the machine but its state. Start reading at [New].
package down

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/progress"
)

// Platform is how the program ends a platform.
type Platform interface {
	// Down stops the platform, also one whose supervisor was killed.
	Down(ctx context.Context, name, stateDir string, note func(string)) error
	// Purge removes the state of a platform that is down.
	Purge(name, stateDir string) error
}

const limit = 2 * time.Minute

// New returns the command's constructor.
func New(platform Platform) invocation.Constructor {
	return func(inv *invocation.Invocation) *cobra.Command {
		var all bool
		cmd := &cobra.Command{
			Use:   "down",
			Short: "Stop the platform and remove everything but its state",
			Long: `Stop the platform: its processes, containers, mounts, interfaces and control groups go.
Repositories, images, secrets and the cluster's objects stay for the next up,
unless --purge removes them too.`,
			Example: `  lockstep down
  lockstep down --purge        forget everything
  lockstep down --name second`,
			Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				ctx, cancel := inv.Bound(cmd.Context(), limit)
				defer cancel()
				out := &progress.Printer{Writer: inv.Streams.Err, Live: inv.Streams.ErrTTY, Color: bool(inv.ErrColor())}
				if err := out.Step(ctx, "stop "+inv.Name, func(ctx context.Context, note func(string)) error {
					return platform.Down(ctx, inv.Name, inv.StateDir, note)
				}); err != nil || !all {
					return err
				}
				return out.Step(ctx, "remove "+inv.Dir(), func(context.Context, func(string)) error {
					return platform.Purge(inv.Name, inv.StateDir)
				})
			},
		}
		cmd.Flags().BoolVar(&all, "purge", false, "also remove all state: repositories, images, secrets, the cluster")
		return cmd
	}
}
