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

type waitOptions struct {
	commit   string // that must run
	unsynced bool   // it is enough that the commit runs, although Git wants another
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
		if !a.Syncing && (a.Sync == "Synced" || o.unsynced) && a.Health == "Healthy" && strings.HasPrefix(a.Commit, o.commit) {
			return inv.Print(a, []string{a.Namespace + "/" + a.Name}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s/%s is %s and Healthy at %s\n", a.Namespace, a.Name, a.Sync, trace.Short(a.Commit))
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
	case a.Syncing:
		e.Why = "a sync is under way"
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
