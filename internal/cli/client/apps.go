package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

// Apps lists the applications, all pages.
func (c *Client) Apps(ctx context.Context) ([]server.App, error) {
	all := []server.App{} // an empty list is no null in JSON
	for offset := 0; ; {
		page, err := get[server.AppList](ctx, c, "/apps?limit=100&offset="+strconv.Itoa(offset))
		if err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if offset = page.Next; offset == 0 {
			return all, nil
		}
	}
}

// App finds an application by "name" or "namespace/name".
func (c *Client) App(ctx context.Context, name string) (server.App, error) {
	namespace, short, qualified := strings.Cut(name, "/")
	if qualified {
		return get[server.App](ctx, c, appPath(namespace, short))
	}
	apps, err := c.Apps(ctx)
	if err != nil {
		return server.App{}, err
	}
	var found []string
	for _, a := range apps {
		if a.Name == name {
			found = append(found, a.Namespace)
		}
	}
	switch len(found) {
	case 0:
		return server.App{}, &output.Error{What: fmt.Sprintf("there is no application %q", name), Try: "lockstep app list", Err: server.ErrNotFound}
	case 1:
		return get[server.App](ctx, c, appPath(found[0], name))
	}
	return server.App{}, &output.Error{What: fmt.Sprintf("several applications are named %q", name),
		Why: "they are in the namespaces " + strings.Join(found, ", "), Try: "name it as " + found[0] + "/" + name}
}

// Diff compares an application with the cluster.
func (c *Client) Diff(ctx context.Context, a server.App) ([]server.Change, error) {
	d, err := get[server.Diff](ctx, c, appPath(a.Namespace, a.Name)+"/diff")
	return d.Changes, err
}

// Sync starts a sync.
func (c *Client) Sync(ctx context.Context, a server.App, o server.SyncOptions) error {
	return c.do(ctx, http.MethodPost, appPath(a.Namespace, a.Name)+"/sync", o, nil)
}

// Refresh makes the engine look again.
func (c *Client) Refresh(ctx context.Context, a server.App, hard bool) error {
	path := appPath(a.Namespace, a.Name) + "/refresh"
	if hard {
		path += "?hard=1"
	}
	return c.do(ctx, http.MethodPost, path, nil, nil)
}

// change asks for one of the changes of an application that have no answer.
func (c *Client) change(ctx context.Context, a server.App, verb string, body any) error {
	return c.do(ctx, http.MethodPost, appPath(a.Namespace, a.Name)+"/"+verb, body, nil)
}

// Plan asks what bringing an application to a state would change.
func (c *Client) Plan(ctx context.Context, a server.App, at server.At) ([]server.Change, error) {
	d, err := get[server.Diff](ctx, c, appPath(a.Namespace, a.Name)+"/plan?"+query(at))
	return d.Changes, err
}

// Manifests asks what the source has at a state.
func (c *Client) Manifests(ctx context.Context, a server.App, at server.At) ([]server.Manifest, error) {
	list, err := get[server.Items[server.Manifest]](ctx, c, appPath(a.Namespace, a.Name)+"/manifests?"+query(at))
	return list.Items, err
}

func query(at server.At) string {
	v := url.Values{}
	if at.Revision != "" {
		v.Set("revision", at.Revision)
	}
	if at.History != nil {
		v.Set("history", strconv.FormatInt(*at.History, 10))
	}
	return v.Encode()
}

// Tree lists the live objects of an application with those that they own.
func (c *Client) Tree(ctx context.Context, a server.App) ([]server.Node, error) {
	list, err := get[server.Items[server.Node]](ctx, c, appPath(a.Namespace, a.Name)+"/tree")
	return list.Items, err
}

// History lists the syncs of an application, youngest first.
func (c *Client) History(ctx context.Context, a server.App) ([]server.HistoryEntry, error) {
	list, err := get[server.Items[server.HistoryEntry]](ctx, c, appPath(a.Namespace, a.Name)+"/history")
	return list.Items, err
}

// Rollback starts a rollback, or says what it would do.
func (c *Client) Rollback(ctx context.Context, a server.App, o server.RollbackOptions) (server.RolledBack, error) {
	var out server.RolledBack
	err := c.do(ctx, http.MethodPost, appPath(a.Namespace, a.Name)+"/rollback", o, &out)
	return out, err
}

// Unhold gives up a rollback.
func (c *Client) Unhold(ctx context.Context, a server.App) error {
	return c.change(ctx, a, "unhold", nil)
}

// Terminate ends the sync under way.
func (c *Client) Terminate(ctx context.Context, a server.App) error {
	return c.change(ctx, a, "terminate", nil)
}

// Pause stops automated syncs.
func (c *Client) Pause(ctx context.Context, a server.App, reason string) error {
	return c.change(ctx, a, "pause", server.Pause{Reason: reason})
}

// Resume lets automated syncs go on.
func (c *Client) Resume(ctx context.Context, a server.App) error {
	return c.change(ctx, a, "resume", nil)
}

// Confirm approves what waits for it before it is deleted.
func (c *Client) Confirm(ctx context.Context, a server.App) error {
	return c.change(ctx, a, "confirm", nil)
}

// Actions lists what the live objects that fit offer.
func (c *Client) Actions(ctx context.Context, a server.App, fits server.ObjectRef) ([]server.ObjectActions, error) {
	list, err := get[server.Items[server.ObjectActions]](ctx, c, appPath(a.Namespace, a.Name)+"/actions?"+queryOf(fits).Encode())
	return list.Items, err
}

// RunAction runs an action of an object.
func (c *Client) RunAction(ctx context.Context, a server.App, r server.RunAction) error {
	return c.change(ctx, a, "actions", r)
}

// DeleteObject deletes a live object.
func (c *Client) DeleteObject(ctx context.Context, a server.App, o server.ObjectRef, propagation string) error {
	v := queryOf(o)
	if propagation != "" {
		v.Set("propagation", propagation)
	}
	return c.do(ctx, http.MethodDelete, appPath(a.Namespace, a.Name)+"/objects?"+v.Encode(), nil, nil)
}

func queryOf(o server.ObjectRef) url.Values {
	v := url.Values{}
	for name, value := range map[string]string{"group": o.Group, "kind": o.Kind, "namespace": o.Namespace, "name": o.Name} {
		if value != "" {
			v.Set(name, value)
		}
	}
	return v
}
