// Package run is `lockstep run`: the runs of workflows, their jobs and logs.
// Start reading at [New].
package run

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli/client"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/journal/trace"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

// New makes the command and its verbs.
func New(inv *invocation.Invocation) *cobra.Command {
	cmd := &cobra.Command{Use: "run", Short: "Workflow runs: list, view, dispatch, approve, cancel, rerun", Aliases: []string{"runs"},
		Example: "  lockstep run list\n  lockstep run view --log\n  lockstep run view 12 --log --failed\n  lockstep run rerun 12"}
	cmd.AddCommand(listCommand(inv), viewCommand(inv), cancelCommand(inv), rerunCommand(inv),
		reviewCommand(inv, true), reviewCommand(inv, false), dispatchCommand(inv))
	return cmd
}

func listCommand(inv *invocation.Invocation) *cobra.Command {
	q := server.RunQuery{}
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "Runs, newest first", Args: cobra.NoArgs,
		Example: "  lockstep run list\n  lockstep run list --repo contoso/storefront --commit 1a2b3c4",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return inv.Ask(cmd.Context(), func(ctx context.Context, c *client.Client) error { return list(ctx, inv, c, q) })
		},
	}
	cmd.Flags().StringVar(&q.Repo, "repo", "", "only of this repository, owner/name")
	cmd.Flags().StringVar(&q.Commit, "commit", "", "only of this commit")
	cmd.Flags().IntVar(&q.Limit, "limit", 20, "at most this many, 1 to 100")
	return cmd
}

func list(ctx context.Context, inv *invocation.Invocation, c *client.Client, q server.RunQuery) error {
	runs, err := c.Runs(ctx, q)
	if err != nil {
		return err
	}
	names := make([]string, len(runs))
	for i, r := range runs {
		names[i] = strconv.FormatInt(r.ID, 10)
	}
	return inv.Print(runs, names, func(w io.Writer) error {
		if len(runs) == 0 {
			_, err := fmt.Fprintln(w, "No workflow has run. A push starts the workflows in .github/workflows that ask for it.")
			return err
		}
		t := inv.Table("ID", "STATE", "REPOSITORY", "WORKFLOW", "REF", "COMMIT", "TOOK", "STARTED", "TITLE")
		for i, r := range runs {
			t.Row(output.Text(names[i]), t.State(state(r.Status, r.Conclusion)), output.Text(r.Repo), output.Text(r.Workflow), output.Text(trace.ShortRef(r.Ref)),
				output.Text(trace.Short(r.Commit)), output.Text(took(inv, r.Started, r.Ended)), output.Text(ago(inv, r.Created)), output.Text(r.Title))
		}
		return t.Write(w)
	})
}

func cancelCommand(inv *invocation.Invocation) *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use: "cancel <id>", Short: "End a run", Args: cobra.ExactArgs(1), Example: "  lockstep run cancel 12\n  lockstep run cancel 12 --force",
		ValidArgsFunction: inv.Complete(ids),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parse(args[0])
			if err != nil {
				return err
			}
			return inv.Ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				end := c.CancelRun
				if force {
					end = c.ForceCancelRun
				}
				if err := end(ctx, id); err != nil {
					return err
				}
				inv.Say("run %d is being cancelled", id)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "at once, without its always() steps")
	return cmd
}

func rerunCommand(inv *invocation.Invocation) *cobra.Command {
	failed := false
	cmd := &cobra.Command{
		Use: "rerun <id>", Short: "Run it again", Args: cobra.ExactArgs(1), Example: "  lockstep run rerun 12 --failed",
		ValidArgsFunction: inv.Complete(ids),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parse(args[0])
			if err != nil {
				return err
			}
			return inv.Ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				again, err := c.Rerun(ctx, id, failed)
				if err != nil {
					return err
				}
				inv.Say("started")
				_, err = fmt.Fprintln(inv.Streams.Out, again)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&failed, "failed", false, "only the jobs that failed")
	return cmd
}

func ids(ctx context.Context, c *client.Client) []string {
	runs, err := c.Runs(ctx, server.RunQuery{Limit: 30})
	if err != nil {
		return nil
	}
	var out []string
	for _, r := range runs {
		out = append(out, fmt.Sprintf("%d\t%s %s", r.ID, state(r.Status, r.Conclusion), output.Clean(r.Title)))
	}
	return out
}

func parse(text string) (int64, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 {
		return 0, &output.Error{What: fmt.Sprintf("%q is no run", text), Why: "a run is a number", Try: "lockstep run list"}
	}
	return id, nil
}

func state(status, conclusion string) string {
	if conclusion != "" {
		return conclusion
	}
	return status
}

func took(inv *invocation.Invocation, from, to time.Time) string {
	switch {
	case from.IsZero():
		return ""
	case to.IsZero():
		to = inv.Now()
	}
	return trace.Format(to.Sub(from))
}

func ago(inv *invocation.Invocation, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return trace.Format(max(time.Second, inv.Now().Sub(t))) + " ago"
}
