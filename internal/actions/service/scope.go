package service

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// Scope is one job of one attempt of a run, and what it may reach.
type Scope struct {
	Repo    string // "owner/name"
	Run     int64
	Attempt int
	Job     int64

	Ref           string // "refs/heads/main", "refs/pull/7/merge"
	BaseRef       string // of a pull request, a branch name or a full ref; may be empty
	DefaultBranch string // "main"
	// CacheMode is what the job may do with caches: "" and "write" for reading
	// and writing, "read", "write-only" or "none".
	CacheMode string

	// IDToken says that the job has the permission `id-token: write`.
	IDToken  bool
	Identity Identity
}

// opened is a scope while its job runs.
type opened struct {
	Scope
	id      string
	request string // token ID of the ID token requests; empty without the permission
	created int    // artifacts so far
}

// refs are the cache scopes that the job reads, nearest first; the first is
// the one it writes.
func (s Scope) refs() []string {
	var refs []string
	add := func(ref string) {
		if ref == "" {
			return
		}
		if !strings.HasPrefix(ref, "refs/") {
			ref = "refs/heads/" + ref
		}
		for _, r := range refs {
			if r == ref {
				return
			}
		}
		refs = append(refs, ref)
	}
	add(s.Ref)
	add(s.BaseRef)
	add(s.DefaultBranch)
	return refs
}

// headBranch is the branch that the run works for.
func (s Scope) headBranch() string {
	if s.Identity.HeadRef != "" {
		return s.Identity.HeadRef
	}
	return strings.TrimPrefix(strings.TrimPrefix(s.Ref, "refs/heads/"), "refs/tags/")
}

func (s Scope) readsCache() bool  { return s.CacheMode != "none" && s.CacheMode != "write-only" }
func (s Scope) writesCache() bool { return s.CacheMode != "none" && s.CacheMode != "read" }

// runBackend and jobBackend are the identifiers that clients take from the
// token and send back. A run keeps its identifier over its attempts.
func (s Scope) runBackend() string { return backendID(fmt.Sprintf("run/%d", s.Run)) }
func (s Scope) jobBackend() string {
	return backendID(fmt.Sprintf("job/%d/%d/%d", s.Run, s.Attempt, s.Job))
}

func backendID(name string) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://"+ResultsHost+"/"+name)).String()
}

// tokenLife bounds a token whose scope is never closed; closing ends it at once.
const tokenLife = 48 * time.Hour

// Open lets a job use the services. The result is what its steps need in their
// environment; the tokens in it are secrets and the caller masks them. After
// closing, the tokens open nothing and unfinished uploads are gone.
func (s *Service) Open(scope Scope) (env map[string]string, closing func()) {
	o := &opened{Scope: scope, id: randomID()}
	env = map[string]string{
		"ACTIONS_RUNTIME_TOKEN":    s.runtimeToken(o),
		"ACTIONS_RUNTIME_URL":      s.cfg.URL + "/",
		"ACTIONS_RESULTS_URL":      s.cfg.URL + "/",
		"ACTIONS_CACHE_URL":        s.cfg.URL + "/",
		"ACTIONS_CACHE_SERVICE_V2": "True",
	}
	if scope.CacheMode != "" {
		env["ACTIONS_CACHE_MODE"] = scope.CacheMode
	}
	if scope.IDToken {
		o.request = randomID()
		env["ACTIONS_ID_TOKEN_REQUEST_URL"] = fmt.Sprintf("%s/idtoken/%s/%s?api-version=2.0", s.cfg.URL, scope.runBackend(), scope.jobBackend())
		env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] = s.sign(o.request, jwt.MapClaims{"scp": "Actions.GenerateIdToken:" + scope.runBackend() + ":" + scope.jobBackend()})
	}
	s.mu.Lock()
	s.scopes[o.id] = o
	if o.request != "" {
		s.scopes[o.request] = o
	}
	s.mu.Unlock()
	return env, func() { s.closeScope(o) }
}

func (s *Service) closeScope(o *opened) {
	s.mu.Lock()
	delete(s.scopes, o.id)
	delete(s.scopes, o.request)
	var left []*upload
	for _, u := range s.uploads {
		if u.owner == o.id {
			left = append(left, u)
		}
	}
	s.mu.Unlock()
	for _, u := range left {
		s.drop(u)
	}
}

// runtimeToken is a JWT in the form that clients parse: @actions/artifact
// takes its identifiers from `scp`, BuildKit's gha cache its scopes from `ac`.
func (s *Service) runtimeToken(o *opened) string {
	type access struct {
		Scope      string
		Permission int
	}
	var list []access
	for i, ref := range o.refs() {
		permission := 1 // read
		if i == 0 && o.writesCache() {
			permission = 3 // and write
		}
		list = append(list, access{ref, permission})
	}
	ac, _ := json.Marshal(list) // strings and numbers: cannot fail
	return s.sign(o.id, jwt.MapClaims{
		"scp": "Actions.Results:" + o.runBackend() + ":" + o.jobBackend(),
		"ac":  string(ac), "repository": o.Repo, "run_id": strconv.FormatInt(o.Run, 10),
	})
}

func (s *Service) sign(id string, claims jwt.MapClaims) string {
	now := s.now()
	claims["iss"], claims["aud"], claims["jti"] = s.cfg.URL, s.cfg.URL, id
	claims["nbf"], claims["iat"], claims["exp"] = now.Add(-5*time.Minute).Unix(), now.Unix(), now.Add(tokenLife).Unix()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(s.secret)
	if err != nil {
		panic("service: sign token: " + err.Error()) // HS256 with a byte key cannot fail
	}
	return token
}

// scopeOf finds the job behind the Authorization header, by its runtime token
// or, with idToken, by its token for requesting ID tokens.
func (s *Service) scopeOf(r *http.Request, idToken bool) (*opened, error) {
	const hint = "the job's tokens are valid while the job runs: use ACTIONS_RUNTIME_TOKEN of this job"
	scheme, raw, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || raw == "" {
		return nil, &twirpError{"unauthenticated", "the request has no bearer token: " + hint}
	}
	var claims jwt.RegisteredClaims
	_, err := jwt.ParseWithClaims(strings.TrimSpace(raw), &claims, func(*jwt.Token) (any, error) { return s.secret, nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithTimeFunc(s.now), jwt.WithExpirationRequired())
	if err != nil {
		return nil, &twirpError{"unauthenticated", "the token is not one of this service: " + hint}
	}
	s.mu.Lock()
	o := s.scopes[claims.ID]
	s.mu.Unlock()
	if o == nil || (claims.ID == o.request) != idToken {
		return nil, &twirpError{"unauthenticated", "the token's job has ended, or the token is for another service: " + hint}
	}
	return o, nil
}

func randomID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
