package forge

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (f *Forge) webhookRoutes(rt routes) {
	const base = "/repos/{owner}/{repo}/hooks"
	rt.handle("GET "+base, scopeAdmin, f.apiHooks)
	rt.handle("POST "+base, scopeAdmin, f.apiCreateHook)
	rt.handle("GET "+base+"/{id}", scopeAdmin, f.apiHook)
	rt.handle("PATCH "+base+"/{id}", scopeAdmin, f.apiChangeHook)
	rt.handle("DELETE "+base+"/{id}", scopeAdmin, f.apiDeleteHook)
	rt.handle("POST "+base+"/{id}/pings", scopeAdmin, f.apiPingHook)
	rt.handle("POST "+base+"/{id}/tests", scopeAdmin, f.apiTestHook)
	rt.handle("GET "+base+"/{id}/deliveries", scopeAdmin, f.apiDeliveries)
	rt.handle("GET "+base+"/{id}/deliveries/{delivery}", scopeAdmin, f.apiDelivery)
	rt.handle("POST "+base+"/{id}/deliveries/{delivery}/attempts", scopeAdmin, f.apiRedeliver)
}

// hookOf is the hook that a request names.
func (f *Forge) hookOf(r *http.Request) (*repository, *hook, error) {
	repo, err := f.administered(r)
	if err != nil {
		return nil, nil, err
	}
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return nil, nil, ErrNotFound
	}
	hooks, err := f.hooksOf(r.Context(), `id = ? and repo = ?`, id, repo.key)
	if err == nil && len(hooks) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, nil, err
	}
	return repo, hooks[0], nil
}

func (f *Forge) hookJSON(r *http.Request, repo *repository, h *hook) map[string]any {
	url := apiBase(r) + "/repos/" + repo.full() + "/hooks/" + strconv.FormatInt(h.id, 10)
	config := map[string]string{"url": h.url, "content_type": "json", "insecure_ssl": "0"}
	if h.form {
		config["content_type"] = "form"
	}
	if h.insecure {
		config["insecure_ssl"] = "1"
	}
	if len(h.secret) > 0 {
		config["secret"] = "********"
	}
	last := map[string]any{"code": nil, "status": "unused", "message": nil}
	if h.lastMessage != "" {
		last = map[string]any{"code": h.lastCode, "status": map[bool]string{true: "active", false: "failed"}[h.lastCode/100 == 2], "message": h.lastMessage}
	}
	return map[string]any{
		"type": "Repository", "id": h.id, "name": "web", "active": h.active, "events": h.events, "config": config, "url": url,
		"created_at": h.created.Truncate(time.Second), "updated_at": h.updated.Truncate(time.Second),
		"test_url": url + "/tests", "ping_url": url + "/pings", "deliveries_url": url + "/deliveries", "last_response": last,
	}
}

func (f *Forge) apiHooks(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.administered(r)
	if err != nil {
		return nil, err
	}
	hooks, err := f.hooksOf(r.Context(), `repo = ?`, repo.key)
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, h := range cutPage(w, r, hooks) {
		list = append(list, f.hookJSON(r, repo, h))
	}
	return list, nil
}

// hookInput is the body of a new or changed hook.
type hookInput struct {
	Name   string `json:"name"`
	Config *struct {
		URL         string          `json:"url"`
		ContentType string          `json:"content_type"`
		Secret      *string         `json:"secret"`
		InsecureSSL json.RawMessage `json:"insecure_ssl"` // "0", "1", 0 or 1
	} `json:"config"`
	Events       []string `json:"events"`
	AddEvents    []string `json:"add_events"`
	RemoveEvents []string `json:"remove_events"`
	Active       *bool    `json:"active"`
}

func (f *Forge) applyHook(h *hook, in hookInput) error {
	if c := in.Config; c != nil {
		if err := f.checkSink(c.URL); err != nil {
			return err
		}
		if c.ContentType != "" && c.ContentType != "json" && c.ContentType != "form" {
			return invalid("Hook", "invalid", "content_type", fmt.Sprintf("%.20q is not json or form", c.ContentType))
		}
		// As on GitHub a new config replaces the old one, but a secret that is not named stays.
		h.url, h.form = c.URL, c.ContentType != "json"
		h.insecure = strings.Trim(string(c.InsecureSSL), `"`) == "1"
		if c.Secret != nil && *c.Secret != "********" {
			sealed, err := f.seal(*c.Secret)
			if err != nil {
				return err
			}
			h.secret = sealed
		}
	}
	if in.Events != nil {
		h.events = in.Events
	}
	h.events = append(slices.Clone(h.events), in.AddEvents...)
	h.events = slices.DeleteFunc(h.events, func(e string) bool { return slices.Contains(in.RemoveEvents, e) })
	slices.Sort(h.events)
	h.events = slices.Compact(h.events)
	if len(h.events) == 0 || len(h.events) > 100 || slices.ContainsFunc(h.events, func(e string) bool { return len(e) > 60 || e == "" }) {
		return invalid("Hook", "invalid", "events", "name 1 to 100 events")
	}
	if in.Active != nil {
		h.active = *in.Active
	}
	return nil
}

func (f *Forge) apiCreateHook(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.administered(r)
	if err != nil {
		return nil, err
	}
	var in hookInput
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if in.Name != "" && in.Name != "web" {
		return nil, invalid("Hook", "invalid", "name", "the name of a webhook is \"web\"")
	}
	if in.Config == nil {
		return nil, invalid("Hook", "missing_field", "config", "")
	}
	h := &hook{repo: repo.key, events: []string{"push"}, active: true}
	if err := f.applyHook(h, in); err != nil {
		return nil, err
	}
	if err := f.storeHook(r.Context(), h); err != nil {
		return nil, err
	}
	if err := f.ping(r, repo, h); err != nil {
		return nil, err
	}
	j := f.hookJSON(r, repo, h)
	w.Header().Set("Location", fmt.Sprint(j["url"]))
	writeJSON(w, http.StatusCreated, j)
	return nil, nil
}

// ping queues GitHub's first event of a hook.
func (f *Forge) ping(r *http.Request, repo *repository, h *hook) error {
	body, err := f.payload(r.Context(), repo, IdentityFrom(r.Context()).Actor, "", map[string]any{
		"zen": "What is merged is what runs.", "hook_id": h.id, "hook": f.hookJSON(f.asEvent(r.Context()), repo, h),
	})
	if err != nil {
		return err
	}
	return f.queueNow(r, h, newGUID(), "ping", "", body, false)
}

func (f *Forge) queueNow(r *http.Request, h *hook, guid, event, action string, body []byte, again bool) error {
	err := f.transact(r.Context(), func(tx *sql.Tx) error {
		_, err := f.addDelivery(r.Context(), tx, h, guid, event, action, body, again)
		return err
	})
	f.queued.wake()
	return err
}

func (f *Forge) apiHook(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, h, err := f.hookOf(r)
	if err != nil {
		return nil, err
	}
	return f.hookJSON(r, repo, h), nil
}

func (f *Forge) apiChangeHook(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, h, err := f.hookOf(r)
	if err != nil {
		return nil, err
	}
	var in hookInput
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if err := f.applyHook(h, in); err != nil {
		return nil, err
	}
	if err := f.storeHook(r.Context(), h); err != nil {
		return nil, err
	}
	return f.hookJSON(r, repo, h), nil
}

func (f *Forge) apiDeleteHook(w http.ResponseWriter, r *http.Request) (any, error) {
	_, h, err := f.hookOf(r)
	if err != nil {
		return nil, err
	}
	err = f.transact(r.Context(), func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(r.Context(), `delete from delivery where hook = ?`, h.id); err != nil {
			return err
		}
		_, err := tx.ExecContext(r.Context(), `delete from hook where id = ?`, h.id)
		return err
	})
	if err != nil {
		return nil, err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil, nil
}

func (f *Forge) apiPingHook(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, h, err := f.hookOf(r)
	if err != nil {
		return nil, err
	}
	if err := f.ping(r, repo, h); err != nil {
		return nil, err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil, nil
}

// apiTestHook sends the last push again.
func (f *Forge) apiTestHook(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, h, err := f.hookOf(r)
	if err != nil {
		return nil, err
	}
	last, err := f.newestPush(r.Context(), repo)
	if err != nil {
		return nil, err
	}
	if last != nil && h.wants("push") {
		body, err := f.pushPayload(r.Context(), *last)
		if err != nil {
			return nil, err
		}
		if err := f.queueNow(r, h, newGUID(), "push", "", body, false); err != nil {
			return nil, err
		}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil, nil
}

func deliveryJSON(d *delivery, whole bool) map[string]any {
	status := d.message
	if d.pending && d.attempts == 0 {
		status = "pending"
	}
	j := map[string]any{
		"id": d.id, "guid": d.guid, "event": d.event, "action": nil, "delivered_at": d.created.Truncate(time.Second), "redelivery": d.again,
		"duration": d.took.Seconds(), "status": status, "status_code": d.code, "installation_id": nil, "repository_id": nil, "throttled_at": nil,
	}
	if d.action != "" {
		j["action"] = d.action
	}
	if whole {
		j["request"] = map[string]any{"headers": d.request, "payload": json.RawMessage(d.payload)}
		j["response"] = map[string]any{"headers": d.response, "payload": d.body}
	}
	return j
}

func (f *Forge) apiDeliveries(w http.ResponseWriter, r *http.Request) (any, error) {
	_, h, err := f.hookOf(r)
	if err != nil {
		return nil, err
	}
	all, err := f.deliveries(r.Context(), `hook = ? order by id desc limit 2000`, h.id)
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, d := range cutPage(w, r, all) {
		list = append(list, deliveryJSON(d, false))
	}
	return list, nil
}

func (f *Forge) deliveryOf(r *http.Request) (*hook, *delivery, error) {
	_, h, err := f.hookOf(r)
	if err != nil {
		return nil, nil, err
	}
	id, err := strconv.ParseInt(r.PathValue("delivery"), 10, 64)
	if err != nil {
		return nil, nil, ErrNotFound
	}
	all, err := f.deliveries(r.Context(), `hook = ? and id = ?`, h.id, id)
	if err == nil && len(all) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, nil, err
	}
	return h, all[0], nil
}

func (f *Forge) apiDelivery(_ http.ResponseWriter, r *http.Request) (any, error) {
	_, d, err := f.deliveryOf(r)
	if err != nil {
		return nil, err
	}
	return deliveryJSON(d, true), nil
}

func (f *Forge) apiRedeliver(w http.ResponseWriter, r *http.Request) (any, error) {
	h, d, err := f.deliveryOf(r)
	if err != nil {
		return nil, err
	}
	if err := f.queueNow(r, h, d.guid, d.event, d.action, d.payload, true); err != nil {
		return nil, err
	}
	writeJSON(w, http.StatusAccepted, map[string]any{})
	return nil, nil
}
