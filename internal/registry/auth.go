package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// tokenUser is the user name that ACR gives to those who log in with a token
// in place of a password (`az acr login`).
const tokenUser = "00000000-0000-0000-0000-000000000000"

// authorize decides whether the request may go on and says who asks. When it
// may not, it has answered.
func (r *Registry) authorize(w http.ResponseWriter, req *http.Request, host string, t target, from audience) (Principal, bool) {
	need := t.actions(req.Method)
	switch from {
	case platform:
		return Principal{Name: "lockstep"}, true
	case node:
		if t.kind == catalog || !onlyPulls(need) {
			writeError(w, http.StatusForbidden, codeDenied, "the node may only pull; push with credentials through the front door")
			return Principal{}, false
		}
		return Principal{Name: "node"}, true
	}
	scheme, value, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	switch strings.ToLower(scheme) {
	case "":
		if r.cfg.AnonymousPull && t.kind != base && t.kind != catalog && onlyPulls(need) {
			return Principal{}, true
		}
		r.challenge(w, req, host, need, "", "authentication is required: log in with `docker login "+host+"` or `az acr login`")
		return Principal{}, false
	case "bearer":
		claims, err := r.keys.verify(value, host, kindAccess)
		if err != nil {
			r.challenge(w, req, host, need, "invalid_token", "the token is not valid for "+host+" (any more): log in again")
			return Principal{}, false
		}
		for _, a := range need {
			if !claims.allows(a) {
				r.challenge(w, req, host, need, "insufficient_scope", fmt.Sprintf("%s may not %s %s", orAnonymous(claims.Subject), a.action, name(host, a.repo)))
				return Principal{}, false
			}
		}
		return Principal{Name: claims.Subject}, true
	case "basic":
		user, password, ok := req.BasicAuth()
		if !ok {
			break
		}
		who, err := r.login(req.Context(), host, user, password)
		if err != nil {
			r.loginFailed(w, req, host, need, user, err)
			return Principal{}, false
		}
		for _, a := range need {
			if !r.deps.Authorizer.Allowed(req.Context(), who, host, a.repo, a.action) {
				writeError(w, http.StatusForbidden, codeDenied, fmt.Sprintf("%s may not %s %s", who.Name, a.action, name(host, a.repo)))
				return Principal{}, false
			}
		}
		return who, true
	}
	r.challenge(w, req, host, need, "invalid_request", "the Authorization header must be Basic or Bearer")
	return Principal{}, false
}

func onlyPulls(need []access) bool {
	for _, a := range need {
		if a.action != ActionPull {
			return false
		}
	}
	return true
}

func orAnonymous(subject string) string {
	if subject == "" {
		return "an anonymous client"
	}
	return subject
}

// name is how people write a repository of a host.
func name(host, repo string) string {
	if repo == "" {
		return host
	}
	return host + "/" + repo
}

// login finds out who user is. A password may be a refresh or access token of
// ours when the user name says so.
func (r *Registry) login(ctx context.Context, host, user, password string) (Principal, error) {
	if user == tokenUser {
		for _, kind := range []string{kindRefresh, kindAccess} {
			if claims, err := r.keys.verify(password, host, kind); err == nil && claims.Subject != "" {
				return Principal{Name: claims.Subject}, nil
			}
		}
		return Principal{}, ErrBadCredentials
	}
	return r.deps.Authorizer.Login(ctx, host, user, password)
}

// loginFailed answers a login that did not work.
func (r *Registry) loginFailed(w http.ResponseWriter, req *http.Request, host string, need []access, user string, err error) {
	if !errors.Is(err, ErrBadCredentials) {
		r.log.ErrorContext(req.Context(), "check registry credentials", "host", host, "user", user, "err", err)
		writeError(w, http.StatusServiceUnavailable, codeUnknown, "the credentials for "+host+" cannot be checked now; try again")
		return
	}
	message := fmt.Sprintf("the user name or password for %s is wrong (user %q)", host, user)
	if user == tokenUser {
		message = "the token for " + host + " is wrong or too old: run `az acr login` again"
	}
	r.challenge(w, req, host, need, "", message)
}

// challenge answers 401 and says where a token is to be had.
func (r *Registry) challenge(w http.ResponseWriter, req *http.Request, host string, need []access, reason, message string) {
	c := fmt.Sprintf("Bearer realm=%q,service=%q", realm(req, host), host)
	if scope := scopeOf(need); scope != "" {
		c += fmt.Sprintf(",scope=%q", scope)
	}
	if reason != "" {
		c += fmt.Sprintf(",error=%q", reason)
	}
	w.Header().Set("Www-Authenticate", c)
	writeError(w, http.StatusUnauthorized, codeUnauthorized, message)
}

// realm is the address of the token endpoint as this client can reach it. At a
// name of its own it is ACR's; beside other services it stays under /v2/.
func realm(req *http.Request, host string) string {
	scheme := "http"
	if req.TLS != nil || req.Header.Get("X-Forwarded-Proto") == "https" {
		scheme = "https"
	}
	at, err := parseHost(req.Host)
	if err != nil || at == DefaultHost {
		return scheme + "://" + req.Host + "/v2/oauth2/token"
	}
	if at == host {
		scheme = "https" // these names are only ever served over TLS
	}
	return scheme + "://" + req.Host + "/oauth2/token"
}

// scopeOf writes needs the way Docker does: "repository:web:pull,push".
func scopeOf(need []access) string {
	var repos []string
	actions := map[string][]string{}
	for _, a := range need {
		if a.action == ActionCatalog {
			return "registry:catalog:*"
		}
		if _, ok := actions[a.repo]; !ok {
			repos = append(repos, a.repo)
		}
		actions[a.repo] = append(actions[a.repo], a.action)
	}
	var scopes []string
	for _, repo := range repos {
		scopes = append(scopes, "repository:"+repo+":"+strings.Join(actions[repo], ","))
	}
	return strings.Join(scopes, " ")
}

// parseScopes reads scopes. What it does not know it leaves out: a token then
// does not grant it.
func parseScopes(scopes []string) []access {
	var out []access
	for _, s := range scopes {
		for _, one := range strings.Fields(s) {
			kind, rest, ok := strings.Cut(one, ":")
			i := strings.LastIndexByte(rest, ':')
			if !ok || i < 0 || len(out) >= maxScopes {
				continue
			}
			repo, actions := rest[:i], rest[i+1:]
			if kind == "registry" && repo == "catalog" {
				out = append(out, access{"", ActionCatalog})
				continue
			}
			if kind != "repository" && kind != "repository(plugin)" {
				continue
			}
			for _, action := range strings.Split(actions, ",") {
				switch action {
				case ActionPull, ActionPush, ActionDelete:
					out = append(out, access{repo, action})
				case "*":
					out = append(out, access{repo, ActionPull}, access{repo, ActionPush}, access{repo, ActionDelete})
				}
			}
		}
	}
	return out
}

// maxScopes bounds what one token can be about.
const maxScopes = 100
