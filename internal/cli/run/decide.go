package run

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

// reviewCommand is approve or reject.
func reviewCommand(inv *invocation.Invocation, approve bool) *cobra.Command {
	verb, what, done := "approve", "Let jobs deploy that wait for an approval", "approved"
	if !approve {
		verb, what, done = "reject", "End jobs that wait for an approval", "rejected"
	}
	comment := ""
	cmd := &cobra.Command{
		Use: verb + " <id>", Short: what, Args: cobra.ExactArgs(1), Example: "  lockstep run " + verb + " 12 --comment 'as discussed'",
		Long: what + `: those of the run whose environment wants
reviewers. You decide as the owner of this machine, which environments can forbid.`,
		ValidArgsFunction: inv.Complete(ids),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parse(args[0])
			if err != nil {
				return err
			}
			return inv.Ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				jobs, err := c.ReviewRun(ctx, id, server.RunReview{Approve: approve, Comment: comment})
				if err != nil {
					return err
				}
				return inv.Print(server.ReviewedRun{Jobs: jobs}, jobs, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "%s: %s\n", done, output.Clean(strings.Join(jobs, ", ")))
					return err
				})
			})
		},
	}
	cmd.Flags().StringVar(&comment, "comment", "", "why, for those who look later")
	return cmd
}

func dispatchCommand(inv *invocation.Invocation) *cobra.Command {
	var d server.RunDispatch
	var fields []string
	cmd := &cobra.Command{
		Use: "dispatch <owner/name> <workflow>", Short: "Start a workflow that has workflow_dispatch", Args: cobra.ExactArgs(2),
		Long: "Starts a workflow by hand. The output is the run's ID.",
		Example: `  lockstep run dispatch contoso/storefront ci.yaml
  lockstep run dispatch contoso/storefront deploy.yaml --ref v1.2 --field environment=prod`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			d.Repo, d.Workflow, d.Inputs = args[0], args[1], map[string]string{}
			for _, f := range fields {
				name, value, ok := strings.Cut(f, "=")
				if !ok || name == "" {
					return &output.Error{What: fmt.Sprintf("%q is no input", f), Try: "--field name=value"}
				}
				d.Inputs[name] = value
			}
			return inv.Ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				id, err := c.DispatchRun(ctx, d)
				if err != nil {
					return err
				}
				return inv.Print(server.Rerun{ID: id}, []string{fmt.Sprint(id)}, func(w io.Writer) error {
					_, err := fmt.Fprintln(w, id)
					return err
				})
			})
		},
	}
	cmd.Flags().StringVar(&d.Ref, "ref", "", "branch or tag (default: the repository's default branch)")
	cmd.Flags().StringArrayVarP(&fields, "field", "f", nil, "an input, name=value; may be repeated")
	return cmd
}
