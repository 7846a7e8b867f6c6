// Package app is `lockstep app`: the applications that the GitOps engine keeps
// in step with Git. Start reading at [New].
package app

import (
	"context"
	"fmt"
	"io"
	"strings"
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
	cmd := &cobra.Command{Use: "app", Short: "Applications: list, get, diff, sync, roll back, wait", Aliases: []string{"apps"},
		Example: "  lockstep app list\n  lockstep app get storefront\n  lockstep app diff storefront\n  lockstep app sync storefront --wait\n  lockstep app rollback storefront --dry-run"}
	cmd.AddCommand(listCommand(inv), getCommand(inv), syncCommand(inv), diffCommand(inv), waitCommand(inv), refreshCommand(inv),
		historyCommand(inv), rollbackCommand(inv), unholdCommand(inv), terminateCommand(inv), pauseCommand(inv), resumeCommand(inv),
		resourcesCommand(inv), manifestsCommand(inv), actionsCommand(inv), deleteObjectCommand(inv), confirmCommand(inv))
	return cmd
}

func listCommand(inv *invocation.Invocation) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "All applications, those that need a look first", Args: cobra.NoArgs,
		Example: "  lockstep app list\n  lockstep app list -o name",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return inv.Ask(cmd.Context(), func(ctx context.Context, c *client.Client) error { return list(ctx, inv, c) })
		},
	}
}

func list(ctx context.Context, inv *invocation.Invocation, c *client.Client) error {
	apps, err := c.Apps(ctx)
	if err != nil {
		return err
	}
	names := make([]string, len(apps))
	for i, a := range apps {
		names[i] = a.Namespace + "/" + a.Name
	}
	return inv.Print(apps, names, func(w io.Writer) error {
		if len(apps) == 0 {
			_, err := fmt.Fprintln(w, "There are no applications. Apply an Application with kubectl, or start with `lockstep up --example storefront`.")
			return err
		}
		t := inv.Table("APPLICATION", "SYNC", "HEALTH", "COMMIT", "SINCE", "MESSAGE")
		for i, a := range apps {
			t.Row(output.Text(names[i]), t.State(a.Sync), t.State(a.Health), output.Text(trace.Short(a.Commit)), output.Text(since(inv, a.Changed)), output.Text(a.Message))
		}
		return t.Write(w)
	})
}

func getCommand(inv *invocation.Invocation) *cobra.Command {
	return &cobra.Command{
		Use: "get <application>", Short: "One application with its objects", Args: cobra.ExactArgs(1),
		Example:           "  lockstep app get storefront\n  lockstep app get argocd/storefront -o json",
		ValidArgsFunction: inv.Complete(invocation.AppNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return inv.Ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				a, err := c.App(ctx, args[0])
				if err != nil {
					return err
				}
				return inv.Print(a, []string{a.Namespace + "/" + a.Name}, func(w io.Writer) error { return draw(w, inv, a) })
			})
		},
	}
}

func draw(w io.Writer, inv *invocation.Invocation, a server.App) error {
	p := inv.Color()
	field := func(name, value string) {
		if value = output.Clean(value); value != "" {
			_, _ = fmt.Fprintf(w, "  %-9s %s\n", name, value) // w is a buffer
		}
	}
	_, _ = fmt.Fprintf(w, "%s is %s and %s\n", p.Bold(a.Namespace+"/"+a.Name), p.State(a.Sync), p.State(a.Health))
	if a.Message != "" {
		_, _ = fmt.Fprintf(w, "  %s\n", output.Clean(a.Message))
	}
	if a.Hint != "" {
		_, _ = fmt.Fprintf(w, "  %s %s\n", p.Busy("try:"), output.Clean(a.Hint))
	}
	field("source", strings.TrimSuffix(a.RepoURL+" "+a.Path, " "))
	field("tracks", a.Revision)
	field("runs", a.Commit)
	if a.Wanted != a.Commit {
		field("wants", a.Wanted)
	}
	if a.Held != nil {
		field("held", fmt.Sprintf("at history %d by a rollback", *a.Held))
	}
	field("paused", a.Paused)
	if !a.RetryAt.IsZero() {
		field("retries", stamp(inv, a.RetryAt))
	}
	field("since", since(inv, a.Changed))
	for _, u := range a.URLs {
		field("answers", u)
	}
	for _, image := range a.Images {
		field("image", image)
	}
	if len(a.Resources) == 0 {
		return nil
	}
	_, _ = fmt.Fprintln(w)
	t := inv.Table("KIND", "NAMESPACE", "NAME", "SYNC", "HEALTH", "MESSAGE")
	for _, r := range a.Resources {
		t.Row(output.Text(r.Kind), output.Text(r.Namespace), output.Text(r.Name), t.State(r.Sync), t.State(r.Health), output.Text(r.Message))
	}
	return t.Write(w)
}

func since(inv *invocation.Invocation, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return trace.Format(max(time.Second, inv.Now().Sub(t)))
}
