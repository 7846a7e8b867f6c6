// Package version is `lockstep version`: the program's version, and the
// running platform's where one runs. Start reading at [New].
package version

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
)

type versions struct {
	Program  string `json:"program"`
	Go       string `json:"go"`
	OS       string `json:"os"`
	Platform string `json:"platform,omitempty"` // of the running platform
}

// New makes the command.
func New(inv *invocation.Invocation) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Versions of this program and of the running platform", Args: cobra.NoArgs,
		Example: "  lockstep version\n  lockstep version -o json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return print(cmd.Context(), inv) },
	}
}

func print(ctx context.Context, inv *invocation.Invocation) error {
	v := versions{Program: inv.Version, Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH}
	ctx, cancel := inv.Bound(ctx, 2*time.Second)
	defer cancel()
	c := inv.Client()
	defer c.Close()
	if s, err := c.Status(ctx); err == nil { // that none runs is no error here
		v.Platform = s.Version
	}
	return inv.Print(v, []string{v.Program}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "lockstep %s (%s, %s)\n", v.Program, v.Go, v.OS)
		if v.Platform != "" && v.Platform != v.Program {
			_, err = fmt.Fprintf(w, "platform %s: %s; restart it to have this version (lockstep down, lockstep up)\n", inv.Name, v.Platform)
		}
		return err
	})
}
