package service

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// Identity is what an ID token tells of a job beside its [Scope].
type Identity struct {
	RepositoryID  int64
	OwnerID       int64
	Visibility    string // "public", "private" (the default), "internal"
	Commit        string
	HeadRef       string // source branch of a pull request
	RefProtected  bool
	Actor         string
	ActorID       int64
	RunNumber     int64
	Event         string // "push"
	Workflow      string // its name
	WorkflowRef   string // "owner/name/.github/workflows/ci.yml@refs/heads/main"
	WorkflowSHA   string
	JobRef        string // of the file that defines the job: a reusable workflow's; WorkflowRef when empty
	JobSHA        string
	Environment   string
	EnvironmentID int64
	CheckRunID    int64
	// SubjectClaims replaces the default subject by these claims in order, as
	// `include_claim_keys` of GitHub's REST API does.
	SubjectClaims []string
	// Properties are the repository's custom properties, told as
	// repository_property_NAME.
	Properties map[string]string
}

// idTokenLife and idTokenSkew are GitHub's: valid from ten minutes before to
// five minutes after it was issued.
const (
	idTokenLife = 5 * time.Minute
	idTokenSkew = 10 * time.Minute
)

// maxAudience bounds an audience that a job asks for, in bytes.
const maxAudience = 1024

// IDToken makes a token for the job, signed by [Issuer]. An empty audience is
// the URL of the repository's owner. [ErrDenied] says that the job has no
// permission `id-token: write`.
func (s *Service) IDToken(scope Scope, audience string) (string, error) {
	if !scope.IDToken {
		return "", fmt.Errorf("an ID token: the job needs `permissions: id-token: write`: %w", ErrDenied)
	}
	if len(audience) > maxAudience {
		return "", fmt.Errorf("the audience has %d bytes, at most %d are allowed: %w", len(audience), maxAudience, ErrInvalid)
	}
	claims := scope.claims()
	if audience == "" {
		audience = s.cfg.OwnerURL + "/" + claims["repository_owner"]
	}
	now := s.now()
	all := jwt.MapClaims{"iss": Issuer, "aud": audience, "sub": scope.subject(claims), "jti": uuid.NewString(),
		"iat": now.Unix(), "nbf": now.Add(-idTokenSkew).Unix(), "exp": now.Add(idTokenLife).Unix()}
	for name, v := range claims {
		all[name] = v
	}
	return s.keys.sign(all)
}

// claims are GitHub's own claims: all are strings.
func (s Scope) claims() map[string]string {
	id := s.Identity
	owner, _, _ := strings.Cut(s.Repo, "/")
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	c := map[string]string{
		"repository": s.Repo, "repository_owner": owner, "repository_id": number(id.RepositoryID), "repository_owner_id": number(id.OwnerID),
		"repository_visibility": id.Visibility, "ref": s.Ref, "ref_type": refType(s.Ref), "ref_protected": strconv.FormatBool(id.RefProtected),
		"sha": id.Commit, "head_ref": id.HeadRef, "base_ref": strings.TrimPrefix(s.BaseRef, "refs/heads/"),
		"actor": id.Actor, "actor_id": number(id.ActorID), "event_name": id.Event,
		"run_id": number(s.Run), "run_number": number(id.RunNumber), "run_attempt": strconv.Itoa(max(s.Attempt, 1)), "runner_environment": "self-hosted",
		"workflow": id.Workflow, "workflow_ref": id.WorkflowRef, "workflow_sha": id.WorkflowSHA,
		"job_workflow_ref": id.JobRef, "job_workflow_sha": id.JobSHA,
	}
	for claim, fallback := range map[string]string{"repository_visibility": "private", "job_workflow_ref": id.WorkflowRef, "job_workflow_sha": id.WorkflowSHA, "workflow_sha": id.Commit} {
		if c[claim] == "" {
			c[claim] = fallback
		}
	}
	if c["job_workflow_sha"] == "" {
		c["job_workflow_sha"] = c["workflow_sha"]
	}
	if id.Environment != "" {
		c["environment"] = id.Environment
		c["environment_node_id"] = fmt.Sprintf("EN_%d", id.EnvironmentID)
	}
	if id.CheckRunID != 0 {
		c["check_run_id"] = number(id.CheckRunID)
	}
	for name, v := range id.Properties {
		c["repository_property_"+name] = v
	}
	return c
}

func refType(ref string) string {
	if strings.HasPrefix(ref, "refs/tags/") {
		return "tag"
	}
	return "branch"
}

// subject is what cloud providers match: an environment wins over a pull
// request, that over the ref. A colon in a value is written %3A.
func (s Scope) subject(claims map[string]string) string {
	escape := strings.NewReplacer(":", "%3A").Replace
	context := "ref:" + s.Ref
	switch {
	case s.Identity.Environment != "":
		context = "environment:" + escape(s.Identity.Environment)
	case strings.HasPrefix(s.Ref, "refs/pull/"):
		context = "pull_request"
	}
	if len(s.Identity.SubjectClaims) == 0 {
		return "repo:" + s.Repo + ":" + context
	}
	var parts []string
	for _, name := range s.Identity.SubjectClaims {
		switch name {
		case "repo":
			parts = append(parts, "repo:"+s.Repo)
		case "context":
			parts = append(parts, context)
		default:
			parts = append(parts, name+":"+escape(claims[name]))
		}
	}
	return strings.Join(parts, ":")
}

// serveIDToken answers ACTIONS_ID_TOKEN_REQUEST_URL.
func (s *Service) serveIDToken(w http.ResponseWriter, r *http.Request) {
	o, err := s.scopeOf(r, true)
	if err == nil && (r.PathValue("run") != o.runBackend() || r.PathValue("job") != o.jobBackend()) {
		err = &twirpError{"permission_denied", "the token is for another job: use ACTIONS_ID_TOKEN_REQUEST_URL as it is"}
	}
	var token string
	if err == nil {
		token, err = s.IDToken(o.Scope, r.URL.Query().Get("audience"))
	}
	if err != nil {
		t := asTwirp(err)
		if t == nil {
			s.log.Error("make ID token", "err", err)
			t = &twirpError{"internal", "the token could not be made: see the log of `lockstep`"}
		}
		writeJSON(w, twirpStatus(t.Code), map[string]string{"code": t.Code, "message": t.Msg})
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, map[string]string{"value": token})
}

// OIDC serves [IssuerHost]: the discovery document and the public keys.
func (s *Service) OIDC() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{
			"issuer": Issuer, "jwks_uri": Issuer + "/.well-known/jwks",
			"subject_types_supported":               []string{"public", "pairwise"},
			"response_types_supported":              []string{"id_token"},
			"claims_supported":                      supportedClaims(),
			"id_token_signing_alg_values_supported": []string{"RS256"},
			"scopes_supported":                      []string{"openid"},
		})
	})
	mux.HandleFunc("GET /.well-known/jwks", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, s.keys.public()) })
	return mux
}

func supportedClaims() []string {
	names := []string{"sub", "aud", "exp", "iat", "iss", "jti", "nbf", "environment", "environment_node_id", "check_run_id"}
	for name := range (Scope{}).claims() {
		names = append(names, name)
	}
	return sorted(names)
}
