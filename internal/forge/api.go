package forge

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// Headers by which a handler behind Deps.Fallback learns who asks.
const (
	HeaderActor = "X-Lockstep-Actor" // login, empty when anonymous
	HeaderWrite = "X-Lockstep-Write" // "true" when the repository may be changed
)

// maxBody bounds the JSON of a request, in bytes.
const maxBody = 1 << 20

const docsURL = "https://docs.github.com/rest"

// apiError is an answer in GitHub's form.
type apiError struct {
	Status  int
	Message string
}

func (e *apiError) Error() string { return e.Message }

func fail(status int, format string, args ...any) error {
	return &apiError{Status: status, Message: fmt.Sprintf(format, args...)}
}

type apiBaseKey struct{}

// withAPIBase remembers below which URL the client sees the API.
func withAPIBase(r *http.Request, prefix string) *http.Request {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return r.WithContext(context.WithValue(r.Context(), apiBaseKey{}, scheme+"://"+r.Host+prefix))
}

func apiBase(r *http.Request) string {
	base, _ := r.Context().Value(apiBaseKey{}).(string)
	return base
}

// newAPI makes the handler of GitHub's REST and GraphQL API, rooted at "/".
func (f *Forge) newAPI() http.Handler {
	mux := http.NewServeMux()
	// A handler returns what is to be sent as JSON, or an error.
	handle := func(pattern string, h func(http.ResponseWriter, *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			answer, err := h(w, r)
			f.respond(w, r, answer, err)
		})
	}
	handle("/", f.unsupported)
	handle("GET /{$}", f.apiRoot)
	handle("GET /rate_limit", f.apiRateLimit)
	handle("GET /meta", f.apiMeta)
	handle("GET /user", f.apiUser)
	handle("GET /users/{login}", f.apiAccount)
	handle("GET /orgs/{login}", f.apiAccount)
	handle("GET /user/repos", f.apiRepositories)
	handle("GET /users/{login}/repos", f.apiRepositories)
	handle("GET /orgs/{login}/repos", f.apiRepositories)
	handle("POST /user/repos", f.apiCreateRepository)
	handle("POST /orgs/{login}/repos", f.apiCreateRepository)
	handle("GET /repos/{owner}/{repo}", f.apiRepository)
	handle("DELETE /repos/{owner}/{repo}", f.apiDeleteRepository)
	handle("GET /repos/{owner}/{repo}/branches", f.apiBranches)
	handle("GET /repos/{owner}/{repo}/branches/{branch...}", f.apiBranch)
	handle("GET /repos/{owner}/{repo}/git/ref/{ref...}", f.apiRef)
	handle("GET /repos/{owner}/{repo}/git/matching-refs/{ref...}", f.apiMatchingRefs)
	handle("GET /repos/{owner}/{repo}/commits", f.apiCommits)
	handle("GET /repos/{owner}/{repo}/commits/{ref...}", f.apiCommitOrStatus)
	handle("GET /repos/{owner}/{repo}/contents/{path...}", f.apiContents)
	handle("GET /repos/{owner}/{repo}/contents", f.apiContents)
	handle("POST /repos/{owner}/{repo}/statuses/{sha}", f.apiCreateStatus)
	handle("POST /graphql", f.apiGraphQL)
	mux.HandleFunc("/repos/{owner}/{repo}/actions/{rest...}", f.apiActions)
	return f.apiGate(mux)
}

// apiGate authenticates and sets the headers that GitHub's clients look at.
func (f *Forge) apiGate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request [8]byte
		_, _ = rand.Read(request[:])
		h := w.Header()
		h.Set("X-GitHub-Request-Id", strings.ToUpper(hex.EncodeToString(request[:])))
		h.Set("X-GitHub-Media-Type", "github.v3; format=json")
		h.Set("X-RateLimit-Limit", strconv.Itoa(rateLimit))
		h.Set("X-RateLimit-Remaining", strconv.Itoa(rateLimit))
		h.Set("X-RateLimit-Used", "0")
		h.Set("X-RateLimit-Resource", "core")
		h.Set("X-RateLimit-Reset", strconv.FormatInt(f.deps.Now().Add(time.Hour).Unix(), 10))
		r.Header.Del(HeaderActor)
		r.Header.Del(HeaderWrite)
		if r.URL.Path == "" {
			r.URL.Path = "/"
		}
		id, err := f.authenticate(r)
		if errors.Is(err, errBadToken) {
			err = fail(http.StatusUnauthorized, "Bad credentials")
		}
		if err != nil {
			f.respond(w, r, nil, err)
			return
		}
		if !id.Anonymous() {
			h.Set("X-OAuth-Scopes", scopes(id))
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, withIdentity(r, id))
	})
}

const rateLimit = 5000

// scopes is what gh wants to see before it calls itself signed in.
func scopes(id Identity) string {
	if id.mayCreate() {
		return "repo, workflow, read:org, gist, delete_repo"
	}
	return ""
}

// respond sends an answer or an error in GitHub's form. An answer of nil without
// an error was sent by the handler itself.
func (f *Forge) respond(w http.ResponseWriter, r *http.Request, answer any, err error) {
	if err == nil {
		if answer != nil {
			writeJSON(w, http.StatusOK, answer)
		}
		return
	}
	var known *apiError
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &known):
	case errors.Is(err, ErrNotFound):
		known = &apiError{http.StatusNotFound, "Not Found"}
	case errors.As(err, &tooLong):
		known = &apiError{http.StatusRequestEntityTooLarge, fmt.Sprintf("the request has more than %d bytes", maxBody)}
	default:
		if r.Context().Err() == nil {
			f.log.Error("API request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		}
		known = &apiError{http.StatusInternalServerError, "lockstep: this failed inside; its log says why"}
	}
	writeJSON(w, known.Status, map[string]any{
		"message": known.Message, "documentation_url": docsURL, "status": strconv.Itoa(known.Status),
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// readJSON decodes the request's body into v. Unknown fields are GitHub's.
func readJSON(r *http.Request, v any) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fail(http.StatusBadRequest, "Problems parsing JSON: %s", err)
	}
	return nil
}

func (f *Forge) unsupported(_ http.ResponseWriter, r *http.Request) (any, error) {
	return nil, fail(http.StatusNotFound, "Not Found: Lockstep's forge doesn't support %s %s", r.Method, r.URL.Path)
}

// target is the repository of the request, if its identity may see it.
func (f *Forge) target(r *http.Request) (*repository, error) {
	repo, err := f.find(r.Context(), r.PathValue("owner")+"/"+r.PathValue("repo"))
	if err != nil {
		return nil, err
	}
	if !IdentityFrom(r.Context()).mayRead(repo) {
		return nil, ErrNotFound
	}
	return repo, nil
}

// writable is target for a request that changes something.
func (f *Forge) writable(r *http.Request) (*repository, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	id := IdentityFrom(r.Context())
	if id.Anonymous() {
		return nil, errNoToken
	}
	if !id.mayWrite(repo.key) {
		return nil, fail(http.StatusForbidden, "Resource not accessible by this token: it may not write to %s", repo.full())
	}
	return repo, nil
}

var errNoToken error = &apiError{http.StatusUnauthorized, "Requires authentication: `lockstep env` prints a token"}

// revisionError turns a missing commit into GitHub's answer.
func revisionError(err error, rev string) error {
	if errors.Is(err, git.ErrNotFound) {
		return fail(http.StatusUnprocessableEntity, "No commit found for SHA: %s", rev)
	}
	return err
}

// apiActions hands a request on to the engine of the workflows.
func (f *Forge) apiActions(w http.ResponseWriter, r *http.Request) {
	repo, err := f.target(r)
	if err == nil && f.deps.Fallback == nil {
		_, err = f.unsupported(w, r)
	}
	if err != nil {
		f.respond(w, r, nil, err)
		return
	}
	id := IdentityFrom(r.Context())
	r = r.Clone(r.Context())
	r.Header.Set(HeaderActor, id.Actor)
	r.Header.Set(HeaderWrite, strconv.FormatBool(id.mayWrite(repo.key)))
	r.URL.Path, r.URL.RawPath = "/repos/"+repo.full()+"/actions/"+r.PathValue("rest"), ""
	f.deps.Fallback.ServeHTTP(w, r)
}

// page is the part of a list that a request asks for.
type page struct{ number, size int }

func pageOf(r *http.Request) page {
	q := r.URL.Query()
	p := page{number: 1, size: 30}
	if n, err := strconv.Atoi(q.Get("page")); err == nil && n > 0 {
		p.number = min(n, 1_000_000)
	}
	if n, err := strconv.Atoi(q.Get("per_page")); err == nil && n > 0 {
		p.size = min(n, 100)
	}
	return p
}

func (p page) skip() int { return (p.number - 1) * p.size }

// link tells the client where the next and the previous page are.
func (p page) link(w http.ResponseWriter, r *http.Request, more bool) {
	at := func(number int, rel string) string {
		q := r.URL.Query()
		q.Set("page", strconv.Itoa(number))
		u := url.URL{Path: r.URL.Path, RawQuery: q.Encode()}
		return fmt.Sprintf("<%s%s>; rel=%q", apiBase(r), u.String(), rel)
	}
	var links []string
	if p.number > 1 {
		links = append(links, at(p.number-1, "prev"), at(1, "first"))
	}
	if more {
		links = append(links, at(p.number+1, "next"))
	}
	if len(links) > 0 {
		w.Header().Set("Link", strings.Join(links, ", "))
	}
}

// cutPage is the part of all that the request asks for.
func cutPage[T any](w http.ResponseWriter, r *http.Request, all []T) []T {
	p := pageOf(r)
	from := min(p.skip(), len(all))
	to := min(from+p.size, len(all))
	p.link(w, r, to < len(all))
	return append([]T{}, all[from:to]...) // never null
}
