package az

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
)

// resource is an answer of Resource Manager.
type resource map[string]any

var groupFlags = shim.Flags{shim.F("--name", "-n", "-g", "--resource-group"), shim.F("--location", "-l"), shim.M("--tags"), shim.B("--yes", "-y"), shim.B("--no-wait"), shim.F("--tag")}

const groupVersion = "?api-version=2021-04-01"

func resourceCommands() map[string]command {
	named := shim.Flags{shim.F("--name", "-n"), shim.F("--resource-group", "-g"), shim.F("--ids")}
	return map[string]command{
		"group create": {groupFlags, func(ctx context.Context, c *call) (any, error) {
			if err := c.need("name", "location"); err != nil {
				return nil, err
			}
			return c.group(ctx, http.MethodPut, map[string]any{"location": c.Get("location"), "tags": tags(c.All("tags"))})
		}},
		"group show": {groupFlags, func(ctx context.Context, c *call) (any, error) { return c.group(ctx, http.MethodGet, nil) }},
		"group delete": {groupFlags, func(ctx context.Context, c *call) (any, error) {
			if !c.On("yes") {
				return nil, errors.New("Unable to prompt for confirmation as no tty available. Use --yes.") //nolint:staticcheck // the text of az
			}
			_, err := c.group(ctx, http.MethodDelete, nil)
			return nil, err
		}},
		"group exists": {groupFlags, func(ctx context.Context, c *call) (any, error) {
			_, err := c.group(ctx, http.MethodGet, nil)
			var status *shim.StatusError
			if errors.As(err, &status) && status.Status == http.StatusNotFound {
				return false, nil
			}
			return err == nil, err
		}},
		"group list": {groupFlags, func(ctx context.Context, c *call) (any, error) {
			scope, err := c.scope()
			if err != nil {
				return nil, err
			}
			return c.list(ctx, scope+"/resourcegroups"+groupVersion)
		}},
		"identity list": {named, func(ctx context.Context, c *call) (any, error) {
			return c.listOf(ctx, "Microsoft.ManagedIdentity/userAssignedIdentities", "2023-01-31", true)
		}},
		"identity show": {named, func(ctx context.Context, c *call) (any, error) {
			return c.show(ctx, "Microsoft.ManagedIdentity/userAssignedIdentities", "2023-01-31", true)
		}},
		"resource list": {shim.Flags{shim.F("--name", "-n"), shim.F("--resource-group", "-g"), shim.F("--resource-type"), shim.F("--location", "-l"), shim.F("--tag")}, resourceList},
	}
}

func tags(list []string) map[string]string {
	out := map[string]string{}
	for _, t := range list {
		for pair := range strings.FieldsSeq(t) {
			k, v, _ := strings.Cut(pair, "=")
			out[k] = v
		}
	}
	return out
}

func (c *call) group(ctx context.Context, method string, body any) (any, error) {
	if err := c.need("name"); err != nil {
		return nil, err
	}
	scope, err := c.scope()
	if err != nil {
		return nil, err
	}
	var out resource
	if err := c.arm(ctx, method, scope+"/resourcegroups/"+url.PathEscape(c.Get("name"))+groupVersion, body, &out); err != nil {
		return nil, err
	}
	return out, nil
}

// maxPages bounds how many pages of a list are read.
const maxPages = 200

// list reads all pages.
func (c *call) list(ctx context.Context, route string) ([]resource, error) {
	all := []resource{}
	for range maxPages {
		var page struct {
			Value    []resource `json:"value"`
			NextLink string     `json:"nextLink"`
		}
		if err := c.arm(ctx, http.MethodGet, route, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Value...)
		next, ok := strings.CutPrefix(page.NextLink, armURL)
		if !ok || next == "" {
			return all, nil
		}
		route = next
	}
	return nil, fmt.Errorf("the list has more than %d pages", maxPages)
}

// listOf lists the resources of a type, of one group when it is named.
func (c *call) listOf(ctx context.Context, kind, version string, flat bool) ([]resource, error) {
	scope, err := c.scope()
	if err != nil {
		return nil, err
	}
	if g := c.Get("resource-group"); g != "" {
		scope += "/resourceGroups/" + url.PathEscape(g)
	}
	found, err := c.list(ctx, scope+"/providers/"+kind+"?api-version="+version)
	if err != nil {
		return nil, err
	}
	for i := range found {
		found[i] = found[i].shown(flat)
	}
	return found, nil
}

// show is one resource of a type. Without a group it is looked for by name.
func (c *call) show(ctx context.Context, kind, version string, flat bool) (resource, error) {
	if id := c.Get("ids"); id != "" {
		var out resource
		err := c.arm(ctx, http.MethodGet, id+"?api-version="+version, nil, &out)
		return out.shown(flat), err
	}
	if err := c.need("name"); err != nil {
		return nil, err
	}
	scope, err := c.scope()
	if err != nil {
		return nil, err
	}
	if g := c.Get("resource-group"); g != "" {
		var out resource
		if err := c.arm(ctx, http.MethodGet, scope+"/resourceGroups/"+url.PathEscape(g)+"/providers/"+kind+"/"+url.PathEscape(c.Get("name"))+"?api-version="+version, nil, &out); err != nil {
			return nil, err
		}
		return out.shown(flat), nil
	}
	found, err := c.listOf(ctx, kind, version, flat)
	if err != nil {
		return nil, err
	}
	for _, r := range found {
		if name, _ := r["name"].(string); strings.EqualFold(name, c.Get("name")) {
			return r, nil
		}
	}
	return nil, &shim.StatusError{Status: http.StatusNotFound, Method: http.MethodGet, URL: kind, Body: fmt.Appendf(nil, `{"error":{"code":"ResourceNotFound","message":"The resource with name '%s' and type '%s' could not be found in the subscription."}}`, c.Get("name"), kind)}
}

// shown is a resource as az prints it: with its group, and for most types with
// its properties beside its name.
func (r resource) shown(flat bool) resource {
	if r == nil {
		return nil
	}
	out := maps.Clone(r)
	if id, _ := r["id"].(string); id != "" {
		parts := strings.Split(id, "/")
		for i := 0; i+1 < len(parts); i++ {
			if strings.EqualFold(parts[i], "resourceGroups") {
				out["resourceGroup"] = parts[i+1]
			}
		}
	}
	if properties, ok := r["properties"].(map[string]any); ok && flat {
		delete(out, "properties")
		for k, v := range properties {
			if _, taken := out[k]; !taken {
				out[k] = v
			}
		}
	}
	return out
}

func resourceList(ctx context.Context, c *call) (any, error) {
	scope, err := c.scope()
	if err != nil {
		return nil, err
	}
	if g := c.Get("resource-group"); g != "" {
		scope += "/resourceGroups/" + url.PathEscape(g)
	}
	found, err := c.list(ctx, scope+"/resources"+groupVersion)
	if err != nil {
		return nil, err
	}
	out := []resource{}
	for _, r := range found {
		keep := true
		for option, field := range map[string]string{"name": "name", "resource-type": "type", "location": "location"} {
			value, _ := r[field].(string)
			keep = keep && (!c.Has(option) || strings.EqualFold(value, c.Get(option)))
		}
		if k, v, _ := strings.Cut(c.Get("tag"), "="); k != "" {
			have, _ := r["tags"].(map[string]any)
			keep = keep && have[k] != nil && (v == "" || have[k] == v)
		}
		if keep {
			out = append(out, r.shown(false))
		}
	}
	return out, nil
}
