package app

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli/client"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/journal/trace"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

// with asks for an application and calls f with it.
func with(ctx context.Context, inv *invocation.Invocation, name string, f func(context.Context, *client.Client, server.App) error) error {
	return inv.Ask(ctx, func(ctx context.Context, c *client.Client) error {
		a, err := c.App(ctx, name)
		if err != nil {
			return err
		}
		return f(ctx, c, a)
	})
}

// ask puts a question on a terminal; without one the answer is yes.
func ask(inv *invocation.Invocation, yes bool, question string, args ...any) error {
	if yes || !inv.Streams.InTTY {
		return nil
	}
	_, _ = fmt.Fprintf(inv.Streams.Err, question+" [y/N] ", args...)
	line, err := bufio.NewReader(io.LimitReader(inv.Streams.In, 100)).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if answer := strings.ToLower(strings.TrimSpace(line)); answer == "y" || answer == "yes" {
		return nil
	}
	return &output.Error{What: "nothing was done", Code: output.ExitCancelled}
}

func historyCommand(inv *invocation.Invocation) *cobra.Command {
	return &cobra.Command{
		Use: "history <application>", Short: "What was synced, the youngest first", Args: cobra.ExactArgs(1),
		Example:           "  lockstep app history storefront\n  lockstep app rollback storefront 3",
		ValidArgsFunction: inv.Complete(invocation.AppNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return with(cmd.Context(), inv, args[0], func(ctx context.Context, c *client.Client, a server.App) error {
				entries, err := c.History(ctx, a)
				if err != nil {
					return err
				}
				return history(inv, a, entries)
			})
		},
	}
}

func history(inv *invocation.Invocation, a server.App, entries []server.HistoryEntry) error {
	var names []string
	t := inv.Table("ID", "REVISION", "SYNCED", "BY", "COMMIT", "NOTE")
	for _, e := range entries {
		names = append(names, strconv.FormatInt(e.ID, 10))
		by := e.Actor
		if e.Automated {
			by = "automated"
		}
		note := ""
		if e.Current {
			note = "wanted now"
		}
		t.Row(output.Text(strconv.FormatInt(e.ID, 10)), output.Text(revisions(e.Revisions)), output.Text(stamp(inv, e.Deployed)),
			output.Text(by), output.Text(e.Subject), output.Text(note))
	}
	return inv.Print(entries, names, func(w io.Writer) error {
		if len(entries) == 0 {
			_, err := fmt.Fprintf(w, "%s/%s was not synced yet.\n", a.Namespace, a.Name)
			return err
		}
		return t.Write(w)
	})
}

func revisions(ids []string) string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = trace.Short(id)
	}
	return strings.Join(out, ",")
}

type rollbackOptions struct {
	server.RollbackOptions
	wait, yes bool
}

func rollbackCommand(inv *invocation.Invocation) *cobra.Command {
	var o rollbackOptions
	cmd := &cobra.Command{
		Use: "rollback <application> [history]", Short: "Go back to an earlier state, by default the one before", Args: cobra.RangeArgs(1, 2),
		Long: "Brings the application to an entry of its history: what was synced before, or the one that is named.\n" +
			"Automated sync stays on: it skips what Git wants now, and goes on when Git brings something else for this application.\n" +
			"`lockstep app unhold` gives a rollback up. On a terminal the plan is shown first.",
		Example: "  lockstep app rollback storefront --dry-run\n  lockstep app rollback storefront --wait\n  lockstep app rollback storefront 3 --yes",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return completeHistory(cmd, inv, args[0])
			}
			return inv.Complete(invocation.AppNames)(cmd, args, typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				id, err := strconv.ParseInt(args[1], 10, 64)
				if err != nil || id < 0 {
					return &output.Error{What: fmt.Sprintf("%q is no entry of a history", args[1]), Try: "lockstep app history " + args[0]}
				}
				o.History = &id
			}
			return rollback(cmd.Context(), inv, args[0], o)
		},
	}
	cmd.Flags().BoolVar(&o.Prune, "prune", false, "delete objects that the earlier state does not have; automated sync with prune does so anyway")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only show what would change (exit code 20 when something would)")
	cmd.Flags().BoolVar(&o.wait, "wait", false, "wait until it runs and is healthy")
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask")
	return cmd
}

func completeHistory(cmd *cobra.Command, inv *invocation.Invocation, name string) ([]string, cobra.ShellCompDirective) {
	return inv.Complete(func(ctx context.Context, c *client.Client) []string {
		a, err := c.App(ctx, name)
		if err != nil {
			return nil
		}
		entries, err := c.History(ctx, a)
		if err != nil {
			return nil
		}
		var out []string
		for _, e := range entries {
			out = append(out, fmt.Sprintf("%d\t%s %s", e.ID, revisions(e.Revisions), e.Subject))
		}
		return out
	})(cmd, nil, "")
}

func rollback(ctx context.Context, inv *invocation.Invocation, name string, o rollbackOptions) error {
	var a server.App
	var done server.RolledBack
	err := with(ctx, inv, name, func(ctx context.Context, c *client.Client, found server.App) (err error) {
		a = found
		if o.DryRun || inv.Streams.InTTY && !o.yes {
			if err := preview(ctx, inv, c, a, &o); err != nil {
				return err
			}
		}
		done, err = c.Rollback(ctx, a, o.RollbackOptions)
		return err
	})
	if err != nil {
		return err
	}
	to := fmt.Sprintf("history %d (%s)", done.Entry.ID, revisions(done.Entry.Revisions))
	inv.Say("%s/%s: rolls back to %s", a.Namespace, a.Name, to)
	if len(done.Skipped) > 0 {
		inv.Say("automated sync skips %s until Git brings something else for it; `lockstep app unhold %s` gives that up", revisions(done.Skipped), a.Name)
	}
	if !o.wait {
		return inv.Print(done, []string{strconv.FormatInt(done.Entry.ID, 10)}, func(io.Writer) error { return nil })
	}
	w := waitOptions{unsynced: len(done.Skipped) == 0}
	if len(done.Entry.Revisions) == 1 {
		w.commit = done.Entry.Revisions[0]
	}
	return wait(ctx, inv, name, w)
}

// preview shows what a rollback would do. It ends a dry run; on a terminal it
// asks whether to go on, with the entry that was shown.
func preview(ctx context.Context, inv *invocation.Invocation, c *client.Client, a server.App, o *rollbackOptions) error {
	dry := o.RollbackOptions
	dry.DryRun = true
	plan, err := c.Rollback(ctx, a, dry)
	if err != nil {
		return err
	}
	inv.Say("%s/%s to history %d (%s) %s", a.Namespace, a.Name, plan.Entry.ID, revisions(plan.Entry.Revisions), output.Clean(plan.Entry.Subject))
	if o.DryRun {
		return show(inv, a, plan.Changes)
	}
	if err := show(inv, a, plan.Changes); err != nil && err != error(output.Exit(output.ExitDiff)) {
		return err
	}
	o.History = &plan.Entry.ID
	return ask(inv, false, "Roll back?")
}

// verb is a command that changes an application and says what it did.
func verb(inv *invocation.Invocation, use, short, example, said string, do func(c *client.Client, ctx context.Context, a server.App) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " <application>", Short: short, Example: example, Args: cobra.ExactArgs(1), ValidArgsFunction: inv.Complete(invocation.AppNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return with(cmd.Context(), inv, args[0], func(ctx context.Context, c *client.Client, a server.App) error {
				if err := do(c, ctx, a); err != nil {
					return err
				}
				inv.Say("%s/%s: %s", a.Namespace, a.Name, said)
				return nil
			})
		},
	}
}

func unholdCommand(inv *invocation.Invocation) *cobra.Command {
	cmd := verb(inv, "unhold", "Give up a rollback: what Git wants counts again", "  lockstep app unhold storefront",
		"what Git wants counts again", (*client.Client).Unhold)
	cmd.Aliases = []string{"set-free"}
	return cmd
}

func terminateCommand(inv *invocation.Invocation) *cobra.Command {
	cmd := verb(inv, "terminate", "End the sync under way", "  lockstep app terminate storefront", "the sync is being ended", (*client.Client).Terminate)
	cmd.Aliases = []string{"terminate-op"}
	cmd.Long = "Ends the sync under way. What it has written stays. Automated sync does not try the same commit again."
	return cmd
}

func resumeCommand(inv *invocation.Invocation) *cobra.Command {
	return verb(inv, "resume", "Let automated syncs go on", "  lockstep app resume storefront", "automated syncs go on", (*client.Client).Resume)
}

func confirmCommand(inv *invocation.Invocation) *cobra.Command {
	cmd := verb(inv, "confirm-deletion", "Approve what waits for it before it is deleted", "  lockstep app confirm-deletion storefront",
		"the deletion is approved", (*client.Client).Confirm)
	cmd.Long = "Approves the deletion of objects that ask for it by the sync options Prune=confirm or Delete=confirm."
	return cmd
}

func refreshCommand(inv *invocation.Invocation) *cobra.Command {
	hard := false
	cmd := verb(inv, "refresh", "Look at Git and the cluster again", "  lockstep app refresh storefront\n  lockstep app refresh storefront --hard", "looks again",
		func(c *client.Client, ctx context.Context, a server.App) error { return c.Refresh(ctx, a, hard) })
	cmd.Flags().BoolVar(&hard, "hard", false, "render anew as well")
	return cmd
}

func pauseCommand(inv *invocation.Invocation) *cobra.Command {
	reason := ""
	cmd := verb(inv, "pause", "Stop automated syncs until resume", "  lockstep app pause storefront --reason 'incident 7'", "automated syncs are paused; see `lockstep app resume`",
		func(c *client.Client, ctx context.Context, a server.App) error { return c.Pause(ctx, a, reason) })
	cmd.Long = "Stops automated syncs until `lockstep app resume`. A sync under way goes on; syncs by hand are possible."
	cmd.Flags().StringVar(&reason, "reason", "paused by hand", "for those who wonder later")
	return cmd
}
