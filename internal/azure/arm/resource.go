package arm

import (
	"database/sql"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// resource routes a request for resources of one of the kinds.
func (c *call) resource(p path) error {
	k := c.s.kinds[p.typeKey()]
	if strings.Count(p.Scope, "/") > 4 || k == groupKind {
		return c.unknownType(p) // an extension of another resource
	}
	if p.instance() {
		if k == nil {
			return c.unknownType(p)
		}
		if p.Group == "" {
			return badRequest("InvalidResourceGroup", "A resource of the type %s lives in a resource group.", k.Type)
		}
		return c.instance(k, p)
	}
	// One type more than names: a collection, or an action on an instance.
	if c.r.Method == http.MethodGet && k != nil {
		return c.collection(k, p)
	}
	if owner := p.parent(); len(owner.Types) > 0 {
		return c.below(owner, p.Types[len(p.Types)-1])
	}
	if k == nil {
		return c.unknownType(p)
	}
	return c.methodNotAllowed()
}

// unknownType says what is not there and what is.
func (c *call) unknownType(p path) error {
	var types []string
	for _, k := range c.s.kinds {
		types = append(types, k.Type)
	}
	slices.Sort(types)
	return badRequest("InvalidResourceType", "The resource type '%s/%s' is not supported by this local Azure. It has: %s.",
		p.Namespace, strings.Join(p.Types, "/"), strings.Join(append(types, "Microsoft.Authorization/roleAssignments"), ", "))
}

// canonical writes p as the id under which a resource of the kind is created:
// the group's and parent's own case, the kind's type names, the name as given.
func (c *call) canonical(k *kind, p path, group *resource, parent *resource) string {
	if parent != nil {
		return parent.id() + "/" + k.collection() + "/" + p.Names[len(p.Names)-1]
	}
	return group.id() + "/providers/" + k.Type + "/" + p.Names[0]
}

// instance serves one resource.
func (c *call) instance(k *kind, p path) error {
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		return c.get(k, p)
	case http.MethodPut, http.MethodPatch:
		return c.put(k, p)
	case http.MethodDelete:
		return c.delete(k, p)
	}
	return c.methodNotAllowed()
}

func (c *call) get(k *kind, p path) error {
	if err := c.require(k.Type+"/read", p.id()); err != nil {
		return err
	}
	r, err := c.mustFind(k, p)
	if err != nil {
		return err
	}
	if c.r.Method == http.MethodHead {
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	writeJSON(c.w, http.StatusOK, r.body)
	return nil
}

// mustFind returns the resource, or ARM's error for the outermost thing missing.
func (c *call) mustFind(k *kind, p path) (*resource, error) {
	r, err := find(c.ctx, c.s.deps.DB, p.id())
	if err != nil || r != nil {
		return r, err
	}
	if g, err := find(c.ctx, c.s.deps.DB, p.Scope); err != nil {
		return nil, err
	} else if g == nil && p.Group != "" {
		return nil, noGroup(p.Group)
	}
	return nil, notFound(k, p)
}

func notFound(k *kind, p path) error {
	return refuse(http.StatusNotFound, "ResourceNotFound", "The Resource '%s/%s' under resource group '%s' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix",
		k.Type, strings.Join(p.Names, "/"), p.Group)
}

func noGroup(name string) error {
	return refuse(http.StatusNotFound, "ResourceGroupNotFound", "Resource group '%s' could not be found.", name)
}

// put creates, replaces (PUT) or merges into (PATCH) a resource.
func (c *call) put(k *kind, p path) error {
	if err := c.require(k.Type+"/write", p.id()); err != nil {
		return err
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	name := p.Names[len(p.Names)-1]
	if !k.Name.MatchString(name) {
		return badRequest("InvalidResourceName", "'%s' is not a valid name for a %s: %s.", name, k.Type, k.NameRule)
	}
	var done *resource
	var fresh bool
	err = c.s.deps.DB.Write(c.ctx, func(tx *sql.Tx) error {
		done, fresh, err = c.store(tx, k, p, body)
		return err
	})
	if err != nil {
		return err
	}
	c.s.deps.Log.Info("resource written", "id", done.id(), "new", fresh, "by", c.who.Name)
	status := http.StatusOK
	if fresh {
		status = http.StatusCreated
	}
	writeJSON(c.w, status, done.body)
	return nil
}

// store is the transaction of put.
func (c *call) store(tx *sql.Tx, k *kind, p path, body map[string]any) (*resource, bool, error) {
	group, err := find(c.ctx, tx, p.Scope)
	if err != nil {
		return nil, false, err
	}
	if group == nil {
		return nil, false, noGroup(p.Group)
	}
	var parent *resource
	if k.Child {
		if parent, err = find(c.ctx, tx, p.parent().id()); err != nil {
			return nil, false, err
		}
		if parent == nil {
			return nil, false, refuse(http.StatusNotFound, "ParentResourceNotFound", "Failed to perform 'write' on resource(s) of type '%s', because the parent resource '%s' could not be found.", k.Type, p.parent().id())
		}
	}
	old, err := find(c.ctx, tx, p.id())
	if err != nil {
		return nil, false, err
	}
	u := &update{s: c.s, tx: tx, path: p, ver: c.ver, now: c.now, old: old, uid: uuid.NewString(), id: c.canonical(k, p, group, parent), body: body}
	if old != nil {
		u.uid, u.id = old.uid, old.id()
	}
	if c.r.Method == http.MethodPatch {
		if old == nil {
			return nil, false, notFound(k, p)
		}
		u.body = merge(maps.Clone(old.body), body)
	}
	if err := c.complete(k, u); err != nil {
		return nil, false, err
	}
	r := &resource{key: key(u.id), uid: u.uid, typeKey: strings.ToLower(k.Type), name: strings.ToLower(u.name()), body: u.body}
	return r, old == nil, save(c.ctx, tx, r, old == nil)
}

// complete checks a resource and gives it what only the service sets.
func (c *call) complete(k *kind, u *update) error {
	if !k.Child {
		if err := u.checkLocation(); err != nil {
			return err
		}
		if err := u.checkTags(); err != nil {
			return err
		}
	}
	if err := k.Prepare(c.ctx, u); err != nil {
		return err
	}
	name := u.name()
	if u.old != nil {
		name = text(u.old.body["name"])
	}
	u.body["id"], u.body["name"], u.body["type"] = u.id, name, k.Type
	stamp := c.now.Format("2006-01-02T15:04:05.0000000Z")
	data := map[string]any{"createdBy": c.who.AppID, "createdByType": "Application", "createdAt": stamp}
	if u.old != nil {
		if was, ok := u.old.body["systemData"].(map[string]any); ok {
			data = maps.Clone(was)
		}
	}
	data["lastModifiedBy"], data["lastModifiedByType"], data["lastModifiedAt"] = c.who.AppID, "Application", stamp
	u.body["systemData"] = data
	return nil
}

// merge lays patch over base as PATCH does: objects are merged, except tags,
// which are replaced; null removes.
func merge(base, patch map[string]any) map[string]any {
	for name, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(base, name)
		case map[string]any:
			if old, ok := base[name].(map[string]any); ok && name != "tags" {
				base[name] = merge(maps.Clone(old), v)
				continue
			}
			base[name] = v
		default:
			base[name] = v
		}
	}
	return base
}

func (c *call) delete(k *kind, p path) error {
	if err := c.require(k.Type+"/delete", p.id()); err != nil {
		return err
	}
	found := false
	err := c.s.deps.DB.Write(c.ctx, func(tx *sql.Tx) error {
		r, err := find(c.ctx, tx, p.id())
		if err != nil || r == nil {
			return err
		}
		found = true
		return c.s.remove(c.ctx, tx, r)
	})
	if err != nil {
		return err
	}
	if !found {
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	c.s.deps.Log.Info("resource deleted", "id", p.id(), "by", c.who.Name)
	c.w.WriteHeader(http.StatusOK)
	return nil
}

// collection lists the resources of one kind in a subscription, group or parent.
func (c *call) collection(k *kind, p path) error {
	scope := p.Scope
	if k.Child {
		parent := p.parent()
		if _, err := c.mustFind(c.s.kinds[parent.typeKey()], parent); err != nil {
			return err
		}
		scope = parent.id()
	} else if p.Group != "" {
		if g, err := find(c.ctx, c.s.deps.DB, scope); err != nil {
			return err
		} else if g == nil {
			return noGroup(p.Group)
		}
	}
	list, err := resources(c.ctx, c.s.deps.DB, below+`and type = ?`, likeArg(key(scope)), strings.ToLower(k.Type))
	if err != nil {
		return err
	}
	return c.listReadable(list, func(r *resource) any { return r.body })
}

// listReadable answers with those resources that the caller may read.
func (c *call) listReadable(list []*resource, show func(*resource) any) error {
	var items []any
	for _, r := range list {
		ok, err := c.s.Allowed(c.ctx, c.who.ObjectID, c.s.kinds[r.typeKey].Type+"/read", r.id(), false)
		if err != nil {
			return err
		}
		if ok {
			items = append(items, show(r))
		}
	}
	return c.list(items)
}

// below serves a POST action or a fixed list of one resource.
func (c *call) below(owner path, name string) error {
	k := c.s.kinds[owner.typeKey()]
	if k == nil {
		return c.unknownType(owner)
	}
	action := k.Actions[strings.ToLower(name)]
	switch {
	case c.r.Method == http.MethodGet && slices.ContainsFunc(k.Lists, func(l string) bool { return strings.EqualFold(l, name) }):
		if err := c.require(k.Type+"/"+name+"/read", owner.id()); err != nil {
			return err
		}
		if _, err := c.mustFind(k, owner); err != nil {
			return err
		}
		return c.list(nil)
	case c.r.Method == http.MethodPost && action != nil:
		if err := c.require(k.Type+"/"+name+"/action", owner.id()); err != nil {
			return err
		}
		r, err := c.mustFind(k, owner)
		if err != nil {
			return err
		}
		return action(c, r)
	}
	return badRequest("InvalidResourceType", "'%s %s' of the resource type %s is not supported by this local Azure.", c.r.Method, name, k.Type)
}
