package arm

import (
	"context"
	"database/sql"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const groupType = "Microsoft.Resources/resourceGroups"

var groupKind = &kind{
	Type:     groupType,
	Versions: []string{"2025-04-01", "2024-11-01", "2023-07-01", "2022-09-01", "2021-04-01"},
	Name:     regexp.MustCompile(`^[\p{L}\p{N}_().-]{0,89}[\p{L}\p{N}_()-]$`),
	NameRule: "1 to 90 letters, digits, '_', '(', ')', '-' and '.', not ending with '.'",
	Prepare: func(_ context.Context, u *update) error {
		props, err := u.props()
		if err != nil {
			return err
		}
		props["provisioningState"] = "Succeeded"
		return nil
	},
}

// groupPath makes a path of the form that put and get expect.
func (c *call) groupPath(name string) path {
	sub := "/subscriptions/" + c.s.cfg.SubscriptionID
	return path{Scope: sub, Subscription: c.s.cfg.SubscriptionID, Types: []string{"resourceGroups"}, Names: []string{name}}
}

// plain serves paths without a provider: tenants, subscriptions, groups.
func (c *call) plain(p path) error {
	segs := p.Rest
	first := strings.ToLower(at(segs, 0))
	if first == "providers" {
		return c.providers()
	}
	if first == "tenants" && len(segs) == 1 {
		return c.read(func() error {
			return c.list([]any{map[string]any{"id": "/tenants/" + c.s.cfg.TenantID, "tenantId": c.s.cfg.TenantID, "displayName": "Lockstep", "tenantCategory": "Home"}})
		})
	}
	if first != "subscriptions" {
		return refuse(http.StatusNotFound, "InvalidRequestUri", "The path '%s' is not known. Paths begin with /subscriptions, /tenants or /providers.", c.r.URL.Path)
	}
	switch {
	case len(segs) == 1:
		return c.read(func() error { return c.list([]any{c.subscription()}) })
	case len(segs) == 2:
		return c.read(func() error { writeJSON(c.w, http.StatusOK, c.subscription()); return nil })
	case len(segs) == 3 && strings.EqualFold(segs[2], "locations"):
		return c.read(func() error {
			return c.list([]any{map[string]any{"id": "/subscriptions/" + c.s.cfg.SubscriptionID + "/locations/" + c.s.cfg.Region,
				"name": c.s.cfg.Region, "displayName": c.s.cfg.Region, "regionalDisplayName": c.s.cfg.Region, "type": "Region"}})
		})
	case len(segs) == 3 && strings.EqualFold(segs[2], "resources"):
		return c.read(func() error { return c.resources("/subscriptions/" + c.s.cfg.SubscriptionID) })
	case strings.EqualFold(segs[2], "resourcegroups"):
		switch {
		case len(segs) == 3:
			return c.read(c.groups)
		case len(segs) == 4:
			return c.group(segs[3])
		case len(segs) == 5 && strings.EqualFold(segs[4], "resources"):
			return c.read(func() error {
				scope := "/subscriptions/" + c.s.cfg.SubscriptionID + "/resourceGroups/" + segs[3]
				if g, err := find(c.ctx, c.s.deps.DB, scope); err != nil {
					return err
				} else if g == nil {
					return noGroup(segs[3])
				}
				return c.resources(scope)
			})
		}
	}
	return refuse(http.StatusNotFound, "InvalidRequestUri", "The path '%s' is not supported by this local Azure.", c.r.URL.Path)
}

// read runs fn for a GET only.
func (c *call) read(fn func() error) error {
	if c.r.Method != http.MethodGet {
		return c.methodNotAllowed()
	}
	return fn()
}

func (c *call) subscription() map[string]any {
	return map[string]any{
		"id": "/subscriptions/" + c.s.cfg.SubscriptionID, "subscriptionId": c.s.cfg.SubscriptionID, "tenantId": c.s.cfg.TenantID,
		"displayName": c.s.cfg.SubscriptionName, "state": "Enabled", "authorizationSource": "RoleBased", "managedByTenants": []any{},
		"subscriptionPolicies": map[string]any{"locationPlacementId": "Public_2014-09-01", "quotaId": "PayAsYouGo_2014-09-01", "spendingLimit": "Off"},
	}
}

func (c *call) groups() error {
	list, err := resources(c.ctx, c.s.deps.DB, `where type = ?`, strings.ToLower(groupType))
	if err != nil {
		return err
	}
	return c.listReadable(list, func(r *resource) any { return r.body })
}

// group serves one resource group. Its id has no provider.
func (c *call) group(name string) error {
	p := c.groupPath(name)
	id := p.Scope + "/resourceGroups/" + name
	const action = "Microsoft.Resources/subscriptions/resourceGroups/"
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		if err := c.require(action+"read", id); err != nil {
			return err
		}
		g, err := find(c.ctx, c.s.deps.DB, id)
		if err != nil {
			return err
		}
		if g == nil {
			return noGroup(name)
		}
		if c.r.Method == http.MethodHead {
			c.w.WriteHeader(http.StatusNoContent)
			return nil
		}
		writeJSON(c.w, http.StatusOK, g.body)
		return nil
	case http.MethodPut, http.MethodPatch:
		if err := c.require(action+"write", id); err != nil {
			return err
		}
		return c.putGroup(p, id, name)
	case http.MethodDelete:
		if err := c.require(action+"delete", id); err != nil {
			return err
		}
		return c.s.deps.DB.Write(c.ctx, func(tx *sql.Tx) error { return c.deleteGroup(tx, id, name) })
	}
	return c.methodNotAllowed()
}

func (c *call) deleteGroup(tx *sql.Tx, id, name string) error {
	g, err := find(c.ctx, tx, id)
	if err != nil {
		return err
	}
	if g == nil {
		return noGroup(name)
	}
	if err := c.s.remove(c.ctx, tx, g); err != nil {
		return err
	}
	c.s.deps.Log.Info("resource group deleted", "id", id, "by", c.who.Name)
	return nil
}

func (c *call) putGroup(p path, id, name string) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	if !groupKind.Name.MatchString(name) {
		return badRequest("InvalidResourceGroup", "'%s' is not a valid resource group name: %s.", name, groupKind.NameRule)
	}
	var g *resource
	fresh := false
	err = c.s.deps.DB.Write(c.ctx, func(tx *sql.Tx) error {
		old, err := find(c.ctx, tx, id)
		if err != nil {
			return err
		}
		fresh = old == nil
		u := &update{s: c.s, tx: tx, path: p, ver: c.ver, now: c.now, old: old, id: id, body: body, uid: key(id)}
		if old != nil {
			u.id = old.id()
		}
		if c.r.Method == http.MethodPatch {
			if old == nil {
				return noGroup(name)
			}
			u.body = merge(old.body, body)
		}
		if err := c.complete(groupKind, u); err != nil {
			return err
		}
		delete(u.body, "systemData") // a group has none
		g = &resource{key: key(id), uid: u.uid, typeKey: strings.ToLower(groupType), name: strings.ToLower(name), body: u.body}
		return save(c.ctx, tx, g, fresh)
	})
	if err != nil {
		return err
	}
	status := http.StatusOK
	if fresh {
		status = http.StatusCreated
	}
	writeJSON(c.w, status, g.body)
	return nil
}

var resourceTypeFilter = regexp.MustCompile(`(?i)^\s*resourceType\s+eq\s+'([^']+)'\s*$`)

// resources lists all top-level resources inside a scope, without properties.
func (c *call) resources(scope string) error {
	where, args := below+`and type != ?`, []any{likeArg(key(scope)), strings.ToLower(groupType)}
	if filter := c.query("$filter"); filter != "" {
		m := resourceTypeFilter.FindStringSubmatch(filter)
		if m == nil {
			return badRequest("InvalidFilterInQueryString", "The filter '%s' is not supported by this local Azure; it takes resourceType eq '…'.", filter)
		}
		where, args = where+` and type = ?`, append(args, strings.ToLower(m[1]))
	}
	list, err := resources(c.ctx, c.s.deps.DB, where, args...)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(r *resource) bool { return c.s.kinds[r.typeKey].Child })
	if top, err := strconv.Atoi(c.query("$top")); err == nil && top >= 0 && top < len(list) {
		list = list[:top]
	}
	return c.listReadable(list, func(r *resource) any {
		short := map[string]any{}
		for _, name := range []string{"id", "name", "type", "location", "tags", "sku", "kind", "identity", "systemData"} {
			if v, ok := r.body[name]; ok {
				short[name] = v
			}
		}
		if strings.Contains(c.query("$expand"), "provisioningState") {
			short["provisioningState"] = "Succeeded"
		}
		return short
	})
}
