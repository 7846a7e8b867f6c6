package registry

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/lockstep-gitops/lockstep/internal/durable"
)

// Kinds of tokens that we issue.
const (
	kindAccess  = "access"  // opens the API for its scopes
	kindRefresh = "refresh" // stands for a password, see tokenUser
)

const refreshLifetime = 3 * time.Hour // as ACR

// maxForm bounds the body of a token request; an Entra token has a few KiB.
const maxForm = 64 << 10

// tokenKeys signs and verifies tokens.
type tokenKeys struct {
	key      []byte
	lifetime time.Duration
	now      func() time.Time
}

// tokenClaims is what a token says. Audience is the registry host.
type tokenClaims struct {
	jwt.RegisteredClaims
	Kind   string       `json:"typ"`
	Access []tokenGrant `json:"access,omitempty"`
}

// tokenGrant is Docker's form of an access claim.
type tokenGrant struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

func (c *tokenClaims) allows(a access) bool {
	for _, g := range c.Access {
		switch {
		case a.action == ActionCatalog:
			if g.Type == "registry" {
				return true
			}
		case g.Type == "repository" && g.Name == a.repo:
			for _, action := range g.Actions {
				if action == a.action {
					return true
				}
			}
		}
	}
	return false
}

// loadKey reads the signing key or makes one.
func loadKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if err == nil && len(key) == 32 {
		return key, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("registry: read token key: %w", err)
	}
	key = make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	if err := durable.WriteFile(path, key, 0o600); err != nil {
		return nil, fmt.Errorf("registry: token key: %w", err)
	}
	return key, nil
}

// issue signs a token for subject at host.
func (k tokenKeys) issue(subject, host, kind string, grants []access, lifetime time.Duration) (string, error) {
	now := k.now()
	claims := tokenClaims{Kind: kind, RegisteredClaims: jwt.RegisteredClaims{
		Issuer: "lockstep", Subject: subject, Audience: jwt.ClaimStrings{host},
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now.Add(-time.Minute)),
		ExpiresAt: jwt.NewNumericDate(now.Add(lifetime)),
	}}
	index := map[string]int{}
	for _, a := range grants {
		if a.action == ActionCatalog {
			claims.Access = append(claims.Access, tokenGrant{"registry", "catalog", []string{"*"}})
			continue
		}
		i, ok := index[a.repo]
		if !ok {
			i = len(claims.Access)
			index[a.repo] = i
			claims.Access = append(claims.Access, tokenGrant{Type: "repository", Name: a.repo})
		}
		claims.Access[i].Actions = append(claims.Access[i].Actions, a.action)
	}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(k.key)
}

// verify reads a token of ours that is for host and of the kind.
func (k tokenKeys) verify(token, host, kind string) (*tokenClaims, error) {
	var claims tokenClaims
	_, err := jwt.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return k.key, nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithAudience(host), jwt.WithIssuer("lockstep"),
		jwt.WithExpirationRequired(), jwt.WithTimeFunc(k.now))
	if err != nil {
		return nil, err
	}
	if claims.Kind != kind {
		return nil, fmt.Errorf("the token is of kind %q, not %q", claims.Kind, kind)
	}
	return &claims, nil
}

func serveTokens(path string) bool {
	switch path {
	case "/oauth2/token", "/oauth2/exchange", "/v2/oauth2/token", "/v2/oauth2/exchange":
		return true
	}
	return false
}

// serveToken answers the token endpoints. host is the one that the address
// names; the parameter "service", which a client copies from the challenge,
// goes before it.
func (r *Registry) serveToken(w http.ResponseWriter, req *http.Request, host string) {
	req.Body = http.MaxBytesReader(w, req.Body, maxForm)
	if err := req.ParseForm(); err != nil {
		writeError(w, http.StatusBadRequest, codeUnsupported, "the form of the token request cannot be read: "+err.Error())
		return
	}
	if s := req.Form.Get("service"); s != "" {
		var err error
		if host, err = parseHost(s); err != nil {
			writeError(w, http.StatusBadRequest, codeNameInvalid, "service: "+err.Error())
			return
		}
	}
	if err := r.exists(req.Context(), host); err != nil {
		writeAPIError(w, err)
		return
	}
	if req.URL.Path == "/oauth2/exchange" || req.URL.Path == "/v2/oauth2/exchange" {
		r.exchange(w, req, host)
		return
	}
	who, ok := r.tokenRequester(w, req, host)
	if !ok {
		return
	}
	var grants []access
	for _, a := range parseScopes(req.Form["scope"]) {
		if who.Name == "" {
			if r.cfg.AnonymousPull && a.action == ActionPull {
				grants = append(grants, a)
			}
			continue
		}
		if r.deps.Authorizer.Allowed(req.Context(), who, host, a.repo, a.action) {
			grants = append(grants, a)
		}
	}
	token, err := r.keys.issue(who.Name, host, kindAccess, grants, r.keys.lifetime)
	if err != nil {
		r.tokenFailed(w, req, err)
		return
	}
	answer := map[string]any{
		"access_token": token, "token": token,
		"expires_in": int(r.keys.lifetime.Seconds()), "issued_at": r.keys.now().UTC().Format(time.RFC3339),
	}
	offline := req.Form.Get("offline_token") == "true" || req.Form.Get("access_type") == "offline"
	if offline && who.Name != "" {
		refresh, err := r.keys.issue(who.Name, host, kindRefresh, nil, refreshLifetime)
		if err != nil {
			r.tokenFailed(w, req, err)
			return
		}
		answer["refresh_token"] = refresh
	}
	writeJSON(w, answer)
}

// tokenRequester says who asks for a token. When it cannot, it has answered.
func (r *Registry) tokenRequester(w http.ResponseWriter, req *http.Request, host string) (Principal, bool) {
	user, password, basic := req.BasicAuth()
	switch grant := req.Form.Get("grant_type"); {
	case basic:
	case req.Method == http.MethodPost && grant == "password":
		user, password = req.PostForm.Get("username"), req.PostForm.Get("password")
	case req.Method == http.MethodPost && grant == "refresh_token":
		user, password = tokenUser, req.PostForm.Get("refresh_token")
	case req.Method == http.MethodGet && r.cfg.AnonymousPull:
		return Principal{}, true
	case req.Method == http.MethodGet:
		r.challenge(w, req, host, nil, "", "authentication is required: log in with `docker login "+host+"` or `az acr login`")
		return Principal{}, false
	default:
		writeError(w, http.StatusBadRequest, codeUnsupported, fmt.Sprintf("grant_type %q is not one of password, refresh_token", grant))
		return Principal{}, false
	}
	who, err := r.login(req.Context(), host, user, password)
	if err != nil {
		r.loginFailed(w, req, host, nil, user, err)
		return Principal{}, false
	}
	return who, true
}

// exchange gives a refresh token for an access token of Entra.
func (r *Registry) exchange(w http.ResponseWriter, req *http.Request, host string) {
	if req.Method != http.MethodPost {
		writeError(w, http.StatusMethodNotAllowed, codeUnsupported, "POST a form with grant_type=access_token")
		return
	}
	if g := req.PostForm.Get("grant_type"); g != "access_token" || r.deps.Tokens == nil {
		writeError(w, http.StatusBadRequest, codeUnsupported, fmt.Sprintf("grant_type %q is not supported here; use access_token with a token of Microsoft Entra", g))
		return
	}
	subject, err := r.deps.Tokens.VerifyEntra(req.Context(), req.PostForm.Get("access_token"))
	switch {
	case errors.Is(err, ErrBadCredentials) || err == nil && subject == "":
		writeError(w, http.StatusUnauthorized, codeUnauthorized, "the access token is not a valid token of this tenant: run `az login` and `az acr login` again")
		return
	case err != nil:
		r.log.ErrorContext(req.Context(), "verify Entra token", "host", host, "err", err)
		writeError(w, http.StatusServiceUnavailable, codeUnknown, "the access token cannot be checked now; try again")
		return
	}
	token, err := r.keys.issue(subject, host, kindRefresh, nil, refreshLifetime)
	if err != nil {
		r.tokenFailed(w, req, err)
		return
	}
	writeJSON(w, map[string]any{"refresh_token": token})
}

func (r *Registry) tokenFailed(w http.ResponseWriter, req *http.Request, err error) {
	r.log.ErrorContext(req.Context(), "issue registry token", "err", err)
	writeError(w, http.StatusInternalServerError, codeUnknown, "no token could be issued; the log says why")
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // the client is gone; there is nobody to tell
}
