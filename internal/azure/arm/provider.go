package arm

import (
	"net/http"
	"slices"
	"strings"
)

// providers lists what this resource manager has.
func (c *call) providers() error {
	return c.read(func() error {
		var items []any
		for _, ns := range c.s.namespaces() {
			items = append(items, c.providerBody(ns))
		}
		return c.list(items)
	})
}

// provider serves one: reading and (without effect) registering it.
func (c *call) provider(p path) error {
	for _, ns := range c.s.namespaces() {
		if !strings.EqualFold(ns, p.Namespace) {
			continue
		}
		action := len(p.Types) == 1
		if (action && c.r.Method != http.MethodPost) || (!action && c.r.Method != http.MethodGet) {
			return c.methodNotAllowed()
		}
		writeJSON(c.w, http.StatusOK, c.providerBody(ns))
		return nil
	}
	return refuse(http.StatusNotFound, "InvalidResourceNamespace", "The resource namespace '%s' is not supported by this local Azure. It has: %s.", p.Namespace, strings.Join(c.s.namespaces(), ", "))
}

func (s *Server) namespaces() []string {
	list := []string{"Microsoft.Authorization"}
	for _, k := range s.kinds {
		ns, _, _ := strings.Cut(k.Type, "/")
		list = append(list, ns)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (c *call) providerBody(ns string) map[string]any {
	types := []any{}
	add := func(name string, versions []string) {
		types = append(types, map[string]any{"resourceType": name, "locations": []string{c.s.cfg.Region}, "apiVersions": versions, "capabilities": "SupportsTags, SupportsLocation"})
	}
	if ns == "Microsoft.Authorization" {
		add("roleAssignments", []string{"2022-04-01"})
		add("roleDefinitions", []string{"2022-05-01-preview", "2022-04-01"})
	}
	var kinds []*kind
	for _, k := range c.s.kinds {
		kinds = append(kinds, k)
	}
	slices.SortFunc(kinds, func(a, b *kind) int { return strings.Compare(a.Type, b.Type) })
	for _, k := range kinds {
		if name, ok := strings.CutPrefix(k.Type, ns+"/"); ok {
			add(name, k.Versions)
		}
	}
	return map[string]any{
		"id":        "/subscriptions/" + c.s.cfg.SubscriptionID + "/providers/" + ns,
		"namespace": ns, "registrationState": "Registered", "registrationPolicy": "RegistrationRequired", "resourceTypes": types,
	}
}
