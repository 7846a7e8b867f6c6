package actions

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/store"
)

// maxBody bounds a request of the API, in bytes.
const maxBody = 256 << 10

// apiProblem is an answer that is not the one asked for.
type apiProblem struct {
	status  int
	message string
}

func (p *apiProblem) Error() string { return p.message }

func refuse(status int, format string, args ...any) error {
	return &apiProblem{status, fmt.Sprintf(format, args...)}
}

// call is one request to a repository's Actions API.
type call struct {
	*http.Request
	w     http.ResponseWriter
	repo  string // "owner/name"
	actor string
}

// Handler serves GitHub's REST API below /repos/{owner}/{repo}/actions/. The
// caller has authenticated the request and set X-Lockstep-Actor and
// X-Lockstep-Write.
func (a *Actions) Handler() http.Handler {
	mux := http.NewServeMux()
	const base = " /repos/{owner}/{repo}/actions"
	read := func(pattern string, f func(*call) (any, error)) { a.handle(mux, "GET"+base+pattern, false, f) }
	write := func(method, pattern string, f func(*call) (any, error)) { a.handle(mux, method+base+pattern, true, f) }

	read("/runs", a.apiRuns)
	read("/runs/{id}", a.apiRun)
	read("/runs/{id}/jobs", a.apiJobs)
	read("/runs/{id}/attempts/{attempt}/jobs", a.apiJobs)
	write("POST", "/runs/{id}/cancel", a.apiCancel)
	write("POST", "/runs/{id}/rerun", a.apiRerun)
	write("POST", "/runs/{id}/rerun-failed-jobs", a.apiRerun)
	read("/jobs/{id}", a.apiJob)
	read("/jobs/{id}/logs", a.apiJobLogs)
	read("/workflows", a.apiWorkflows)
	read("/workflows/{file}", a.apiWorkflow)
	read("/workflows/{file}/runs", a.apiRuns)
	write("POST", "/workflows/{file}/dispatches", a.apiDispatch)

	read("/secrets", a.apiSecrets)
	read("/secrets/public-key", a.apiPublicKey)
	read("/secrets/{name}", a.apiSecret)
	write("PUT", "/secrets/{name}", a.apiSetSecret)
	write("DELETE", "/secrets/{name}", a.apiDeleteSecret)
	read("/variables", a.apiVariables)
	read("/variables/{name}", a.apiVariable)
	write("POST", "/variables", a.apiCreateVariable)
	write("PATCH", "/variables/{name}", a.apiUpdateVariable)
	write("DELETE", "/variables/{name}", a.apiDeleteVariable)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusNotFound, map[string]string{"message": "Not Found: this part of the Actions API is not served here yet"})
	})
	return mux
}

func (a *Actions) handle(mux *http.ServeMux, pattern string, writes bool, f func(*call) (any, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		c := &call{Request: r, w: w, repo: r.PathValue("owner") + "/" + r.PathValue("repo"), actor: r.Header.Get("X-Lockstep-Actor")}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		var body any
		var err error
		if (writes || strings.Contains(pattern, "/secrets")) && r.Header.Get("X-Lockstep-Write") != "true" {
			err = refuse(http.StatusForbidden, "Resource not accessible: write access to %s is needed", c.repo)
		} else {
			body, err = f(c)
		}
		a.respond(w, r, body, err)
	})
}

// done is an answer without a body.
type done int

func (a *Actions) respond(w http.ResponseWriter, r *http.Request, body any, err error) {
	var p *apiProblem
	var located *LocatedError
	switch status, empty := body.(done); {
	case errors.As(err, &p):
		answer(w, p.status, map[string]string{"message": p.message})
	case errors.Is(err, ErrNotFound):
		answer(w, http.StatusNotFound, map[string]string{"message": "Not Found: " + err.Error()})
	case errors.Is(err, errConflict):
		answer(w, http.StatusConflict, map[string]string{"message": err.Error()})
	case errors.As(err, &located):
		answer(w, http.StatusUnprocessableEntity, map[string]string{"message": located.Error()})
	case err != nil && r.Context().Err() != nil: // nobody listens any more
	case err != nil:
		a.log.Error("actions API", "method", r.Method, "path", r.URL.Path, "err", err)
		answer(w, http.StatusInternalServerError, map[string]string{"message": "internal error; see Lockstep's log"})
	case empty:
		w.WriteHeader(int(status))
	case body != nil:
		answer(w, http.StatusOK, body)
	}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func (c *call) decode(into any) error {
	data, err := io.ReadAll(c.Body)
	if err != nil {
		return refuse(http.StatusRequestEntityTooLarge, "the request has more than %d bytes", maxBody)
	}
	if len(data) == 0 {
		return nil
	}
	if err := json.Unmarshal(data, into); err != nil {
		return refuse(http.StatusBadRequest, "Problems parsing JSON: %v", err)
	}
	return nil
}

func (c *call) id() (int64, error) {
	id, err := strconv.ParseInt(c.PathValue("id"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no id: %w", c.PathValue("id"), ErrNotFound)
	}
	return id, nil
}

// page reads per_page and page.
func (c *call) page() (limit, offset int) {
	limit = 30
	if n, err := strconv.Atoi(c.URL.Query().Get("per_page")); err == nil && n > 0 {
		limit = min(n, 100)
	}
	if n, err := strconv.Atoi(c.URL.Query().Get("page")); err == nil && n > 1 {
		offset = (min(n, 100_000) - 1) * limit
	}
	return limit, offset
}

func stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(time.RFC3339)
}

func cut[T any](list []T, limit, offset int) []T {
	offset = min(offset, len(list))
	return list[offset:min(offset+limit, len(list))]
}

func (a *Actions) apiSecrets(c *call) (any, error) {
	list, err := a.store.ListSecrets(c.Context(), c.repo)
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
	created, err := a.store.SetSecret(c.Context(), c.repo, c.PathValue("name"), value)
	if err != nil {
		return nil, err
	}
	if !created {
		return done(http.StatusNoContent), nil
	}
	return done(http.StatusCreated), nil
}

func (a *Actions) apiDeleteSecret(c *call) (any, error) {
	return done(http.StatusNoContent), a.store.DeleteSecret(c.Context(), c.repo, c.PathValue("name"))
}

func variableJSON(n store.Named) any {
	return map[string]any{"name": n.Name, "value": n.Value, "created_at": stamp(n.Created), "updated_at": stamp(n.Updated)}
}

func (a *Actions) apiVariables(c *call) (any, error) {
	list, err := a.store.ListVariables(c.Context(), c.repo)
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
	list, err := a.store.ListVariables(c.Context(), c.repo)
	if err != nil {
		return nil, err
	}
	for _, n := range list {
		if strings.EqualFold(n.Name, body.Name) {
			return nil, refuse(http.StatusConflict, "Already exists - Variable already exists")
		}
	}
	if err := a.SetVariable(c.Context(), c.repo, body.Name, *body.Value); err != nil {
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
	return done(http.StatusNoContent), a.SetVariable(c.Context(), c.repo, c.PathValue("name"), *body.Value)
}

func (a *Actions) apiDeleteVariable(c *call) (any, error) {
	return done(http.StatusNoContent), a.store.DeleteVariable(c.Context(), c.repo, c.PathValue("name"))
}
