package platform

import (
	"context"

	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

var _ server.Apps = apps{}

// ask calls the engine and gives its errors the server's words.
func ask[T any](a apps, f func(*application.Controller) (T, error)) (T, error) {
	engine, err := a.engine()
	if err != nil {
		var none T
		return none, err
	}
	out, err := f(engine)
	return out, notFound(err)
}

func (a apps) tell(f func(*application.Controller) error) error {
	_, err := ask(a, func(c *application.Controller) (struct{}, error) { return struct{}{}, f(c) })
	return err
}

func keyOf(r server.ObjectRef) plan.Key {
	return plan.Key{Group: r.Group, Kind: r.Kind, Namespace: r.Namespace, Name: r.Name}
}

// Plan implements server.Apps.
func (a apps) Plan(ctx context.Context, namespace, name string, at server.At) ([]server.Change, error) {
	objects, err := ask(a, func(c *application.Controller) ([]application.ObjectDiff, error) {
		return c.Plan(ctx, namespace, name, application.At(at))
	})
	return changesOf(objects), err
}

// Manifests implements server.Apps.
func (a apps) Manifests(ctx context.Context, namespace, name string, at server.At) ([]server.Manifest, error) {
	manifests, err := ask(a, func(c *application.Controller) ([]application.Manifest, error) {
		return c.Manifests(ctx, namespace, name, application.At(at))
	})
	var out []server.Manifest
	for _, m := range manifests {
		out = append(out, server.Manifest{Place: m.Place, Hook: m.Hook, Object: m.Object})
	}
	return out, err
}

// Tree implements server.Apps.
func (a apps) Tree(ctx context.Context, namespace, name string) ([]server.Node, error) {
	nodes, err := ask(a, func(c *application.Controller) ([]application.Node, error) { return c.Tree(ctx, namespace, name) })
	return nodesOf(nodes), err
}

func nodesOf(nodes []application.Node) []server.Node {
	var out []server.Node
	for _, n := range nodes {
		out = append(out, server.Node{Created: n.Created, Children: nodesOf(n.Children), Resource: server.Resource{
			Group: n.Group, Kind: n.Kind, Namespace: n.Namespace, Name: n.Name, Health: string(n.Health), Message: n.Message,
		}})
	}
	return out
}

// History implements server.Apps.
func (a apps) History(ctx context.Context, namespace, name string) ([]server.HistoryEntry, error) {
	entries, err := ask(a, func(c *application.Controller) ([]application.HistoryEntry, error) {
		return c.History(ctx, namespace, name)
	})
	var out []server.HistoryEntry
	for _, e := range entries {
		out = append(out, historyOf(e))
	}
	return out, err
}

func historyOf(e application.HistoryEntry) server.HistoryEntry {
	out := server.HistoryEntry{ID: e.ID, Revisions: e.Revisions, Deployed: e.Deployed, Actor: e.Actor, Automated: e.Automated,
		Subject: e.Subject, Author: e.Author, Current: e.Current}
	if !e.Started.IsZero() {
		out.Seconds = e.Deployed.Sub(e.Started).Seconds()
	}
	return out
}

// Rollback implements server.Apps.
func (a apps) Rollback(ctx context.Context, namespace, name string, o server.RollbackOptions) (server.RolledBack, error) {
	id := application.Previous
	if o.History != nil {
		id = max(0, *o.History)
	}
	done, err := ask(a, func(c *application.Controller) (application.RolledBack, error) {
		return c.Rollback(ctx, namespace, name, id, application.RollbackOptions{Actor: forgeUser, Prune: o.Prune, DryRun: o.DryRun})
	})
	return server.RolledBack{Entry: historyOf(done.Entry), Skipped: done.Skipped, Changes: changesOf(done.Changes)}, err
}

// Unhold implements server.Apps.
func (a apps) Unhold(ctx context.Context, namespace, name string) error {
	return a.tell(func(c *application.Controller) error { return c.Unhold(ctx, namespace, name) })
}

// Terminate implements server.Apps.
func (a apps) Terminate(ctx context.Context, namespace, name string) error {
	return a.tell(func(c *application.Controller) error { return c.Terminate(ctx, namespace, name) })
}

// Pause implements server.Apps.
func (a apps) Pause(ctx context.Context, namespace, name, reason string) error {
	return a.tell(func(c *application.Controller) error { return c.Pause(ctx, namespace, name, reason) })
}

// Resume implements server.Apps.
func (a apps) Resume(ctx context.Context, namespace, name string) error {
	return a.tell(func(c *application.Controller) error { return c.Resume(ctx, namespace, name) })
}

// Confirm implements server.Apps.
func (a apps) Confirm(ctx context.Context, namespace, name string) error {
	return a.tell(func(c *application.Controller) error { return c.ConfirmDeletion(ctx, namespace, name) })
}

// Actions implements server.Apps.
func (a apps) Actions(ctx context.Context, namespace, name string, fits server.ObjectRef) ([]server.ObjectActions, error) {
	objects, err := ask(a, func(c *application.Controller) ([]application.ObjectActions, error) {
		return c.Actions(ctx, namespace, name, keyOf(fits))
	})
	var out []server.ObjectActions
	for _, o := range objects {
		item := server.ObjectActions{ObjectRef: server.ObjectRef{Group: o.Group, Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}}
		for _, x := range o.Actions {
			act := server.Action{Name: x.Name, Title: x.DisplayName, Disabled: x.Disabled}
			for _, p := range x.Params {
				act.Params = append(act.Params, server.ActionParam{Name: p.Name, Default: p.Default})
			}
			item.Actions = append(item.Actions, act)
		}
		out = append(out, item)
	}
	return out, err
}

// RunAction implements server.Apps.
func (a apps) RunAction(ctx context.Context, namespace, name string, r server.RunAction) error {
	return a.tell(func(c *application.Controller) error {
		return c.RunAction(ctx, namespace, name, keyOf(r.ObjectRef), r.Action, r.Params)
	})
}

// DeleteObject implements server.Apps.
func (a apps) DeleteObject(ctx context.Context, namespace, name string, o server.ObjectRef, propagation string) error {
	return a.tell(func(c *application.Controller) error {
		return c.DeleteResource(ctx, namespace, name, keyOf(o), propagation)
	})
}
