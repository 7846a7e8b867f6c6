package app

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/lockstep-gitops/lockstep/internal/cli/client"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

type syncOptions struct {
	server.SyncOptions
	objects      []string // as written
	wait, dryRun bool
}

func syncCommand(inv *invocation.Invocation) *cobra.Command {
	var o syncOptions
	cmd := &cobra.Command{
		Use: "sync <application>", Short: "Bring what Git wants to the cluster now", Args: cobra.ExactArgs(1),
		Long: "Brings what Git wants to the cluster. A sync to another revision needs automated sync to be off; see `lockstep app rollback`.\n" +
			"With --resource only some objects are synced, and no hooks run; the format is KIND[.GROUP]/[NAMESPACE/]NAME, or GROUP:KIND:[NAMESPACE/]NAME.",
		Example: "  lockstep app sync storefront --dry-run\n  lockstep app sync storefront --wait --timeout 2m\n" +
			"  lockstep app sync storefront --resource Deployment/web --resource ConfigMap/shop/settings\n  lockstep app sync storefront --revision v1.2.0 --dry-run",
		ValidArgsFunction: inv.Complete(invocation.AppNames),
		RunE:              func(cmd *cobra.Command, args []string) error { return synchronize(cmd.Context(), inv, args[0], o) },
	}
	cmd.Flags().BoolVar(&o.Prune, "prune", false, "delete objects that Git no longer has")
	cmd.Flags().StringVar(&o.Revision, "revision", "", "branch, tag or commit instead of the one it tracks")
	cmd.Flags().StringArrayVar(&o.objects, "resource", nil, "only this object; can be repeated")
	cmd.Flags().BoolVar(&o.Force, "force", false, "delete and create anew what cannot be changed in place")
	cmd.Flags().BoolVar(&o.NoHooks, "no-hooks", false, "apply only, without hooks")
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
		if o.Resources, err = selected(a, o.objects); err != nil {
			return err
		}
		if o.dryRun {
			return dryRun(ctx, inv, c, a, o)
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

func dryRun(ctx context.Context, inv *invocation.Invocation, c *client.Client, a server.App, o syncOptions) error {
	var changes []server.Change
	var err error
	if o.Revision == "" {
		changes, err = c.Diff(ctx, a)
	} else {
		changes, err = c.Plan(ctx, a, server.At{Revision: o.Revision})
	}
	if err != nil {
		return err
	}
	if len(o.Resources) > 0 {
		changes = slices.DeleteFunc(changes, func(ch server.Change) bool {
			return !slices.Contains(o.Resources, server.ObjectRef{Group: ch.Group, Kind: ch.Kind, Namespace: ch.Namespace, Name: ch.Name})
		})
	}
	return show(inv, a, changes)
}

// selected finds the objects of an application that are named.
func selected(a server.App, texts []string) ([]server.ObjectRef, error) {
	var out []server.ObjectRef
	for _, text := range texts {
		pattern, err := parseObject(text)
		if err != nil {
			return nil, err
		}
		found := 0
		for _, r := range a.Resources {
			if ref := refOf(r); fits(pattern, ref) {
				out = append(out, ref)
				found++
			}
		}
		if found == 0 {
			return nil, &output.Error{What: a.Namespace + "/" + a.Name + " has no object " + text, Try: "lockstep app get " + a.Name}
		}
	}
	return out, nil
}
