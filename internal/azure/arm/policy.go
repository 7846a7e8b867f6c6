package arm

import (
	"context"
	"slices"
	"strings"
)

// changePolicies adds to, replaces or removes from a vault's access policies.
// Policies are the same when principal and application are.
func changePolicies(op string, old, given any) []any {
	list, _ := old.([]any)
	out := slices.Clone(list)
	changes, _ := given.([]any)
	if op == "replace" {
		return slices.Clone(changes)
	}
	for _, change := range changes {
		i := slices.IndexFunc(out, func(p any) bool { return policyKey(p) == policyKey(change) })
		switch {
		case op == "remove" && i >= 0:
			out = slices.Delete(out, i, i+1)
		case op == "add" && i >= 0:
			out[i] = addPermissions(out[i], change)
		case op == "add":
			out = append(out, change)
		}
	}
	if out == nil {
		out = []any{}
	}
	return out
}

func policyKey(p any) string {
	m, _ := p.(map[string]any)
	return strings.ToLower(text(m["objectId"]) + "|" + text(m["applicationId"]))
}

// addPermissions unites the permissions of two policies of one principal.
func addPermissions(old, change any) any {
	merged := map[string]any{}
	for _, p := range []any{old, change} {
		m, _ := p.(map[string]any)
		for name, v := range m {
			if name != "permissions" {
				merged[name] = v
				continue
			}
			perms, _ := v.(map[string]any)
			united, _ := merged[name].(map[string]any)
			if united == nil {
				united = map[string]any{}
			}
			for object, list := range perms {
				have, _ := united[object].([]any)
				more, _ := list.([]any)
				have = slices.Clone(have)
				for _, perm := range more {
					if !slices.ContainsFunc(have, func(h any) bool { return strings.EqualFold(text(h), text(perm)) }) {
						have = append(have, perm)
					}
				}
				united[object] = have
			}
			merged[name] = united
		}
	}
	return merged
}

// Vault is a key vault resource as its data plane sees it.
type Vault struct {
	ID, UID, Name, Location string
	RBAC                    bool // role assignments decide; else access policies
	PurgeProtection         bool
	RetentionDays           int
	policies                []any
}

// Vault finds a vault by its name, or nil.
func (s *Server) Vault(ctx context.Context, name string) (*Vault, error) {
	list, err := resources(ctx, s.deps.DB, `where type = ? and name = ?`, strings.ToLower(vaultType), strings.ToLower(name))
	if err != nil || len(list) == 0 {
		return nil, err
	}
	r := list[0]
	policies, _ := r.prop("accessPolicies").([]any)
	return &Vault{
		ID: r.id(), UID: r.uid, Name: r.name, Location: text(r.body["location"]),
		RBAC: r.prop("enableRbacAuthorization") == true, PurgeProtection: r.prop("enablePurgeProtection") == true,
		RetentionDays: storedInt(r.prop("softDeleteRetentionInDays"), 90), policies: policies,
	}, nil
}

// PolicyAllows reports whether an access policy of the vault gives the principal
// a permission ("get", "list", …) on a kind of object ("secrets").
func (v *Vault) PolicyAllows(objectID, object, permission string) bool {
	for _, item := range v.policies {
		policy, _ := item.(map[string]any)
		if !strings.EqualFold(text(policy["objectId"]), objectID) {
			continue
		}
		perms, _ := policy["permissions"].(map[string]any)
		list, _ := perms[object].([]any)
		for _, p := range list {
			// "all" means everything but purge.
			if strings.EqualFold(text(p), permission) || (strings.EqualFold(text(p), "all") && permission != "purge") {
				return true
			}
		}
	}
	return false
}
