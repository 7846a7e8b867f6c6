package app

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli/client"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

func diffCommand(inv *invocation.Invocation) *cobra.Command {
	var at server.At
	cmd := &cobra.Command{
		Use: "diff <application>", Short: "What a sync would change", Args: cobra.ExactArgs(1),
		Long:              "Compares what Git wants with what runs. The exit code is 20 when there is a difference.",
		Example:           "  lockstep app diff storefront\n  lockstep app diff storefront --revision my-branch",
		ValidArgsFunction: inv.Complete(invocation.AppNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return with(cmd.Context(), inv, args[0], func(ctx context.Context, c *client.Client, a server.App) error {
				return dryRun(ctx, inv, c, a, syncOptions{SyncOptions: server.SyncOptions{Revision: at.Revision}})
			})
		},
	}
	cmd.Flags().StringVar(&at.Revision, "revision", "", "branch, tag or commit instead of the one it tracks")
	return cmd
}

// show prints changes and returns Exit(ExitDiff) when there are some.
func show(inv *invocation.Invocation, a server.App, changes []server.Change) error {
	names := make([]string, len(changes))
	for i, ch := range changes {
		names[i] = strings.Trim(ch.Kind+"/"+ch.Namespace+"/"+ch.Name, "/")
	}
	err := inv.Print(changes, names, func(w io.Writer) error {
		p := inv.Color()
		for i, ch := range changes {
			why := ""
			if ch.Why != "" {
				why = p.Dim(" (" + output.Clean(ch.Why) + ")")
			}
			_, _ = fmt.Fprintf(w, "%s %s%s\n", ch.Action, p.Bold(output.Clean(names[i])), why) // w is a buffer
			for line := range strings.Lines(ch.Diff) {
				line = output.Clean(strings.TrimSuffix(line, "\n"))
				switch {
				case strings.HasPrefix(line, "+"):
					line = p.Good(line)
				case strings.HasPrefix(line, "-"):
					line = p.Bad(line)
				}
				_, _ = fmt.Fprintln(w, "  "+line)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(changes) == 0 {
		inv.Say("%s/%s: no difference", a.Namespace, a.Name)
		return nil
	}
	return output.Exit(output.ExitDiff)
}
