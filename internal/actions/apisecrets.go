package actions

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/store"
)

// secretRoutes serve secrets and variables, of a repository or an environment.
func (a *Actions) secretRoutes(r routes) {
	known := func(f func(*call) (any, error)) func(*call) (any, error) {
		return func(c *call) (any, error) {
			if e := c.PathValue("environment"); e != "" {
				if _, err := a.store.Environment(c.Context(), c.repo, e); err != nil {
					return nil, err
				}
			}
			return f(c)
		}
	}
	r.read("/secrets", known(a.apiSecrets))
	r.read("/secrets/public-key", known(a.apiPublicKey))
	r.read("/secrets/{name}", known(a.apiSecret))
	r.write("PUT", "/secrets/{name}", known(a.apiSetSecret))
	r.write("DELETE", "/secrets/{name}", known(a.apiDeleteSecret))
	r.read("/variables", known(a.apiVariables))
	r.read("/variables/{name}", known(a.apiVariable))
	r.write("POST", "/variables", known(a.apiCreateVariable))
	r.write("PATCH", "/variables/{name}", known(a.apiUpdateVariable))
	r.write("DELETE", "/variables/{name}", known(a.apiDeleteVariable))
}

func (a *Actions) apiSecrets(c *call) (any, error) {
	list, err := a.store.ListSecrets(c.Context(), c.scope)
	if err != nil {
		return nil, err
	}
	limit, offset := c.page()
	items := []any{}
	for _, n := range cut(list, limit, offset) {
		items = append(items, map[string]any{"name": n.Name, "created_at": stamp(n.Created), "updated_at": stamp(n.Updated)})
	}
	return map[string]any{"total_count": len(list), "secrets": items}, nil
}

func (a *Actions) apiPublicKey(*call) (any, error) {
	id, key := a.store.PublicKey()
	return map[string]string{"key_id": id, "key": key}, nil
}

func (a *Actions) apiSecret(c *call) (any, error) {
	return named(c, a.store.ListSecrets, func(n store.Named) any {
		return map[string]any{"name": n.Name, "created_at": stamp(n.Created), "updated_at": stamp(n.Updated)}
	})
}

func (a *Actions) apiSetSecret(c *call) (any, error) {
	var body struct {
		Value string `json:"encrypted_value"`
		KeyID string `json:"key_id"`
	}
	if err := c.decode(&body); err != nil {
		return nil, err
	}
	if id, _ := a.store.PublicKey(); body.KeyID != "" && body.KeyID != id {
		return nil, refuse(http.StatusUnprocessableEntity, "key_id %q is not the current public key's", body.KeyID)
	}
	value, err := a.store.Unseal(body.Value)
	if err != nil {
		return nil, refuse(http.StatusUnprocessableEntity, "%v", err)
	}
	if err := store.CheckName(c.PathValue("name")); err != nil {
		return nil, refuse(http.StatusUnprocessableEntity, "%v", err)
	}
	created, err := a.store.SetSecret(c.Context(), c.scope, c.PathValue("name"), value)
	if err != nil {
		return nil, err
	}
	if !created {
		return done(http.StatusNoContent), nil
	}
	return done(http.StatusCreated), nil
}

func (a *Actions) apiDeleteSecret(c *call) (any, error) {
	return done(http.StatusNoContent), a.store.DeleteSecret(c.Context(), c.scope, c.PathValue("name"))
}

func variableJSON(n store.Named) any {
	return map[string]any{"name": n.Name, "value": n.Value, "created_at": stamp(n.Created), "updated_at": stamp(n.Updated)}
}

func (a *Actions) apiVariables(c *call) (any, error) {
	list, err := a.store.ListVariables(c.Context(), c.scope)
	if err != nil {
		return nil, err
	}
	limit, offset := c.page()
	items := []any{}
	for _, n := range cut(list, limit, offset) {
		items = append(items, variableJSON(n))
	}
	return map[string]any{"total_count": len(list), "variables": items}, nil
}

func (a *Actions) apiVariable(c *call) (any, error) {
	return named(c, a.store.ListVariables, variableJSON)
}

type variableBody struct {
	Name  string  `json:"name"`
	Value *string `json:"value"`
}

func (a *Actions) apiCreateVariable(c *call) (any, error) {
	var body variableBody
	if err := c.decode(&body); err != nil {
		return nil, err
	}
	if err := store.CheckName(body.Name); err != nil || body.Value == nil {
		return nil, refuse(http.StatusUnprocessableEntity, "name and value are needed: %v", err)
	}
	list, err := a.store.ListVariables(c.Context(), c.scope)
	if err != nil {
		return nil, err
	}
	for _, n := range list {
		if strings.EqualFold(n.Name, body.Name) {
			return nil, refuse(http.StatusConflict, "Already exists - Variable already exists")
		}
	}
	if err := a.SetVariable(c.Context(), c.scope, body.Name, *body.Value); err != nil {
		return nil, err
	}
	return done(http.StatusCreated), nil
}

func (a *Actions) apiUpdateVariable(c *call) (any, error) {
	var body variableBody
	if err := c.decode(&body); err != nil {
		return nil, err
	}
	if _, err := a.apiVariable(c); err != nil {
		return nil, err
	}
	if body.Value == nil {
		return done(http.StatusNoContent), nil
	}
	return done(http.StatusNoContent), a.SetVariable(c.Context(), c.scope, c.PathValue("name"), *body.Value)
}

func (a *Actions) apiDeleteVariable(c *call) (any, error) {
	return done(http.StatusNoContent), a.store.DeleteVariable(c.Context(), c.scope, c.PathValue("name"))
}

// named finds one entry of a list by the name in the path.
func named(c *call, list func(context.Context, string) ([]store.Named, error), show func(store.Named) any) (any, error) {
	all, err := list(c.Context(), c.scope)
	if err != nil {
		return nil, err
	}
	for _, n := range all {
		if strings.EqualFold(n.Name, c.PathValue("name")) {
			return show(n), nil
		}
	}
	return nil, fmt.Errorf("%s: %w", c.PathValue("name"), ErrNotFound)
}
