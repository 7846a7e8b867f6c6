// Package app is `lockstep app`: the applications that the GitOps engine keeps
// in step with Git. Start reading at [New].
package app

import (
	"context"
	"errors"
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
	cmd := &cobra.Command{Use: "app", Short: "Applications: list, get, sync, diff, wait", Aliases: []string{"apps"},
		Example: "  lockstep app list\n  lockstep app get storefront\n  lockstep app diff storefront\n  lockstep app sync storefront --wait"}
	cmd.AddCommand(listCommand(inv), getCommand(inv), syncCommand(inv), diffCommand(inv), waitCommand(inv))
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
		if value != "" {
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

func diffCommand(inv *invocation.Invocation) *cobra.Command {
	return &cobra.Command{
		Use: "diff <application>", Short: "What a sync would change", Args: cobra.ExactArgs(1),
		Long:              "Compares what Git wants with what runs. The exit code is 20 when there is a difference.",
		Example:           "  lockstep app diff storefront",
		ValidArgsFunction: inv.Complete(invocation.AppNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return inv.Ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				a, err := c.App(ctx, args[0])
				if err != nil {
					return err
				}
				return diff(ctx, inv, c, a)
			})
		},
	}
}

// diff prints the difference and returns Exit(ExitDiff) when there is one.
func diff(ctx context.Context, inv *invocation.Invocation, c *client.Client, a server.App) error {
	changes, err := c.Diff(ctx, a)
	if err != nil {
		return err
	}
	names := make([]string, len(changes))
	for i, ch := range changes {
		names[i] = strings.Trim(ch.Kind+"/"+ch.Namespace+"/"+ch.Name, "/")
	}
	err = inv.Print(changes, names, func(w io.Writer) error {
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

type syncOptions struct {
	server.SyncOptions
	wait, dryRun bool
}

func syncCommand(inv *invocation.Invocation) *cobra.Command {
	var o syncOptions
	cmd := &cobra.Command{
		Use: "sync <application>", Short: "Bring what Git wants to the cluster now", Args: cobra.ExactArgs(1),
		Example:           "  lockstep app sync storefront --dry-run\n  lockstep app sync storefront --wait --timeout 2m",
		ValidArgsFunction: inv.Complete(invocation.AppNames),
		RunE:              func(cmd *cobra.Command, args []string) error { return synchronize(cmd.Context(), inv, args[0], o) },
	}
	cmd.Flags().BoolVar(&o.Prune, "prune", false, "delete objects that Git no longer has")
	cmd.Flags().StringVar(&o.Revision, "revision", "", "branch, tag or commit instead of the one it tracks")
	cmd.Flags().BoolVar(&o.wait, "wait", false, "wait until it is synced and healthy")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only show what would change (exit code 20 when something would)")
	return cmd
}

func synchronize(ctx context.Context, inv *invocation.Invocation, name string, o syncOptions) error {
	var a server.App
	err := inv.Ask(ctx, func(ctx context.Context, c *client.Client) (err error) {
		if a, err = c.App(ctx, name); err != nil {
			return err
		}
		if o.dryRun {
			return diff(ctx, inv, c, a)
		}
		return c.Sync(ctx, a, o.SyncOptions)
	})
	if err != nil || o.dryRun {
		return err
	}
	inv.Say("%s/%s: sync started", a.Namespace, a.Name)
	if !o.wait {
		return nil
	}
	return wait(ctx, inv, name, waitOptions{})
}

type waitOptions struct {
	commit string // that must run
}

func waitCommand(inv *invocation.Invocation) *cobra.Command {
	var o waitOptions
	cmd := &cobra.Command{
		Use: "wait <application>", Short: "Wait until an application is synced and healthy", Args: cobra.ExactArgs(1),
		Long:              "Waits until the application is synced and healthy, 5 minutes where --timeout says nothing else. The exit code is 8 when it is not by then.",
		Example:           "  lockstep app wait storefront --timeout 2m\n  lockstep app wait storefront --commit 1a2b3c4",
		ValidArgsFunction: inv.Complete(invocation.AppNames),
		RunE:              func(cmd *cobra.Command, args []string) error { return wait(cmd.Context(), inv, args[0], o) },
	}
	cmd.Flags().StringVar(&o.commit, "commit", "", "wait until this commit runs, not just any")
	return cmd
}

func wait(ctx context.Context, inv *invocation.Invocation, name string, o waitOptions) error {
	ctx, cancel := inv.Bound(ctx, 5*time.Minute)
	defer cancel()
	c := inv.Client()
	defer c.Close()
	said := ""
	var a server.App
	changes := c.Changes(ctx, 2*time.Second)
	for {
		select {
		case <-ctx.Done():
			return tooLate(ctx, a, name, o)
		case <-changes:
		}
		next, err := c.App(ctx, name)
		switch {
		case ctx.Err() != nil || client.NotRunning(err) && a.Name != "":
			continue // it ends above, or the platform comes back
		case err != nil:
			return err
		}
		a = next
		if a.Sync == "Synced" && a.Health == "Healthy" && strings.HasPrefix(a.Commit, o.commit) {
			return inv.Print(a, []string{a.Namespace + "/" + a.Name}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s/%s is Synced and Healthy at %s\n", a.Namespace, a.Name, trace.Short(a.Commit))
				return err
			})
		}
		if now := standing(a); now != said {
			inv.Say("%s", now)
			said = now
		}
	}
}

func standing(a server.App) string {
	s := fmt.Sprintf("%s/%s: %s, %s at %s", a.Namespace, a.Name, a.Sync, a.Health, trace.Short(a.Commit))
	if a.Message != "" {
		s += ": " + output.Clean(a.Message)
	}
	return s
}

func tooLate(ctx context.Context, a server.App, name string, o waitOptions) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ctx.Err()
	}
	e := &output.Error{What: fmt.Sprintf("%s is not synced and healthy in time", name), Why: a.Message, Try: a.Hint, Code: output.ExitPending}
	switch {
	case e.Why != "" || a.Name == "":
	case a.Sync == "Synced" && a.Health == "Healthy":
		e.Why = fmt.Sprintf("it runs %s, not %s", trace.Short(a.Commit), o.commit)
	default:
		e.Why = fmt.Sprintf("it is %s and %s", a.Sync, a.Health)
	}
	if e.Try == "" {
		e.Try = "lockstep trace " + name + ", or a longer --timeout"
	}
	return e
}

func since(inv *invocation.Invocation, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return trace.Format(max(time.Second, inv.Now().Sub(t)))
}
