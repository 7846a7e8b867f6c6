package forge

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Headers by which a handler behind Deps.Fallback learns who asks.
const (
	HeaderActor = "X-Lockstep-Actor" // login, empty when anonymous
	HeaderWrite = "X-Lockstep-Write" // "true" when the repository may be changed
)

// maxBody bounds the JSON of a request, in bytes.
const maxBody = 1 << 20

const docsURL = "https://docs.github.com/rest"

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

// endpoint returns what is to be sent as JSON, or an error. It returns nil and
// nil when it has sent the answer itself.
type endpoint func(http.ResponseWriter, *http.Request) (any, error)

// routes collects the endpoints of the API.
type routes struct {
	f   *Forge
	mux *http.ServeMux
}

// handle registers an endpoint. scope is the permission, or several with commas
// of which one is enough, that a token with Scopes needs for it: to read for GET and HEAD, to
// write for all else. [Forge.target] and [Forge.writable] enforce it, so each endpoint of
// a repository calls one of them. "" asks for no more than a token.
func (rt routes) handle(pattern, scope string, h endpoint) { rt.limited(pattern, scope, maxBody, h) }

// limited is handle with a limit of its own for the request's body, in bytes.
func (rt routes) limited(pattern, scope string, limit int64, h endpoint) {
	rt.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		r = r.WithContext(context.WithValue(r.Context(), scopeKey{}, scope))
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		answer, err := h(w, r)
		rt.f.respond(w, r, answer, err)
	})
}

// newAPI makes the handler of GitHub's REST and GraphQL API, rooted at "/". Each
// noun registers its routes beside its endpoints.
func (f *Forge) newAPI() http.Handler {
	rt := routes{f, http.NewServeMux()}
	rt.handle("/", "", f.unsupported)
	rt.handle("GET /{$}", "", f.apiRoot)
	rt.handle("GET /rate_limit", "", f.apiRateLimit)
	rt.handle("GET /meta", "", f.apiMeta)
	rt.handle("POST /graphql", "", f.apiGraphQL)
	f.repositoryRoutes(rt)
	f.commitRoutes(rt)
	f.contentsRoutes(rt)
	f.pullRoutes(rt)
	f.gitdataRoutes(rt)
	f.archiveRoutes(rt)
	f.protectRoutes(rt)
	f.webhookRoutes(rt)
	f.releaseRoutes(rt)
	f.deployRoutes(rt)
	f.keyRoutes(rt)
	f.forkRoutes(rt)
	f.fallbackRoutes(rt)
	return f.apiGate(rt.mux)
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
		if err := selectVersion(r, h); err != nil {
			f.respond(w, r, nil, err)
			return
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

var apiVersion = regexp.MustCompile(`^20[0-9]{2}-[0-9]{2}-[0-9]{2}$`)

// selectVersion answers the client's choice of an API version. All dates are served
// alike.
func selectVersion(r *http.Request, h http.Header) error {
	version := r.Header.Get("X-GitHub-Api-Version")
	if version == "" {
		version = "2022-11-28"
	}
	if !apiVersion.MatchString(version) {
		return fail(http.StatusBadRequest, "%.40q is not a supported API version: send a date like 2022-11-28", version)
	}
	h.Set("X-GitHub-Api-Version-Selected", version)
	return nil
}

// target is the repository of the request, if its identity may see it and has
// the route's scope.
func (f *Forge) target(r *http.Request) (*repository, error) {
	repo, err := f.find(r.Context(), r.PathValue("owner")+"/"+r.PathValue("repo"))
	if err != nil {
		return nil, err
	}
	id := IdentityFrom(r.Context())
	if !id.mayRead(repo) {
		return nil, ErrNotFound
	}
	if repo.private && !id.allows(scopeOf(r), "read") {
		return nil, errScope
	}
	return repo, nil
}

// writable is target for a request that changes something.
func (f *Forge) writable(r *http.Request) (*repository, error) {
	repo, err := f.find(r.Context(), r.PathValue("owner")+"/"+r.PathValue("repo"))
	if err != nil {
		return nil, err
	}
	id := IdentityFrom(r.Context())
	if !id.mayRead(repo) {
		return nil, ErrNotFound
	}
	if id.Anonymous() {
		return nil, errNoToken
	}
	if !id.mayChange(repo.key, scopeOf(r)) {
		if id.Scopes != nil {
			return nil, errScope
		}
		return nil, fail(http.StatusForbidden, "Resource not accessible by this token: it may not write to %s", repo.full())
	}
	if repo.settings.Archived && scopeOf(r) != scopeAdmin {
		return nil, fail(http.StatusForbidden, "Repository was archived so is read-only.")
	}
	return repo, nil
}

// administered is target for what only those may see who administer the
// repository.
func (f *Forge) administered(r *http.Request) (*repository, error) { return f.writable(r) }

var (
	errNoToken error = &apiError{Status: http.StatusUnauthorized, Message: "Requires authentication: `lockstep env` prints a token"}
	errScope   error = &apiError{Status: http.StatusForbidden, Message: "Resource not accessible by integration"}
)

// fallbackRoutes hands on what belongs to the engine of the workflows.
func (f *Forge) fallbackRoutes(rt routes) {
	for _, name := range []string{"actions", "environments"} {
		rt.limited("/repos/{owner}/{repo}/"+name, scopeActions, maxForwarded, f.apiForward)
		rt.limited("/repos/{owner}/{repo}/"+name+"/{rest...}", scopeActions, maxForwarded, f.apiForward)
	}
}

// maxForwarded bounds the body of a request that is handed on, in bytes.
const maxForwarded = 16 << 20

// apiForward hands a request on to the engine of the workflows, with the name
// of the repository as it is written here.
func (f *Forge) apiForward(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	if f.deps.Fallback == nil {
		return f.unsupported(w, r)
	}
	id := IdentityFrom(r.Context())
	if !id.Anonymous() && !id.allows(scopeActions, "read") {
		return nil, errScope
	}
	r = r.Clone(r.Context())
	r.Header.Set(HeaderActor, id.Actor)
	r.Header.Set(HeaderWrite, strconv.FormatBool(id.mayChange(repo.key, scopeActions)))
	prefix := "/repos/" + r.PathValue("owner") + "/" + r.PathValue("repo")
	own := "/repos/" + repo.full()
	if r.URL.RawPath != "" {
		r.URL.RawPath = own + strings.TrimPrefix(r.URL.RawPath, prefix)
	}
	r.URL.Path = own + strings.TrimPrefix(r.URL.Path, prefix)
	f.deps.Fallback.ServeHTTP(w, r)
	return nil, nil
}
