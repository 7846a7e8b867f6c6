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
	scope string // of secrets and variables: the repository or an environment
	actor string
}

// routes are the parts of the API below one path.
type routes struct {
	a    *Actions
	mux  *http.ServeMux
	base string
}

func (r routes) read(pattern string, f func(*call) (any, error)) {
	r.a.handle(r.mux, "GET "+r.base+pattern, false, f)
}

func (r routes) write(method, pattern string, f func(*call) (any, error)) {
	r.a.handle(r.mux, method+" "+r.base+pattern, true, f)
}

// Handler serves GitHub's REST API below /repos/{owner}/{repo}/actions and
// /environments. The caller has authenticated the request and set X-Lockstep-Actor and
// X-Lockstep-Write.
func (a *Actions) Handler() http.Handler {
	mux := http.NewServeMux()
	a.runRoutes(routes{a, mux, "/repos/{owner}/{repo}/actions"})
	a.workflowRoutes(routes{a, mux, "/repos/{owner}/{repo}/actions"})
	a.secretRoutes(routes{a, mux, "/repos/{owner}/{repo}/actions"})
	a.environmentRoutes(routes{a, mux, "/repos/{owner}/{repo}/environments"})
	a.secretRoutes(routes{a, mux, "/repos/{owner}/{repo}/environments/{environment}"})
	if a.deps.Services != nil {
		rest := a.deps.Services.REST()
		for _, path := range []string{"/artifacts", "/artifacts/", "/runs/{id}/artifacts", "/caches", "/caches/", "/cache/"} {
			mux.Handle("/repos/{owner}/{repo}/actions"+path, rest)
		}
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusNotFound, map[string]string{"message": "Not Found: this part of the Actions API is not served here yet"})
	})
	return mux
}

func (a *Actions) handle(mux *http.ServeMux, pattern string, writes bool, f func(*call) (any, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		c := &call{Request: r, w: w, repo: r.PathValue("owner") + "/" + r.PathValue("repo"), scope: r.PathValue("owner") + "/" + r.PathValue("repo"), actor: r.Header.Get("X-Lockstep-Actor")}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if e := r.PathValue("environment"); e != "" {
			c.scope = store.Scope(c.repo, e)
		}
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

// created is an answer with status 201.
type created struct{ body any }

func (a *Actions) respond(w http.ResponseWriter, r *http.Request, body any, err error) {
	var p *apiProblem
	var located *LocatedError
	var reviewer *errNotReviewer
	switch status, empty := body.(done); {
	case errors.As(err, &p):
		answer(w, p.status, map[string]string{"message": p.message})
	case errors.As(err, &reviewer):
		answer(w, http.StatusForbidden, map[string]string{"message": reviewer.msg})
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
		status := http.StatusOK
		if c, ok := body.(created); ok {
			status, body = http.StatusCreated, c.body
		}
		answer(w, status, body)
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

// links tells of the other pages of a list in the Link header.
func (c *call) links(total, limit int) {
	page := 1
	if n, err := strconv.Atoi(c.URL.Query().Get("page")); err == nil && n > 1 {
		page = n
	}
	last := max(1, (total+limit-1)/limit)
	var links []string
	add := func(rel string, n int) {
		u := *c.URL
		q := u.Query()
		q.Set("page", strconv.Itoa(n))
		u.RawQuery = q.Encode()
		u.Scheme, u.Host = "http", c.Host
		links = append(links, fmt.Sprintf("<%s>; rel=%q", u.String(), rel))
	}
	if page > 1 {
		add("prev", page-1)
		add("first", 1)
	}
	if page < last {
		add("next", page+1)
		add("last", last)
	}
	if len(links) > 0 {
		c.w.Header().Set("Link", strings.Join(links, ", "))
	}
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
