package service

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
)

// verify reads a token with the keys that the issuer shows.
func verify(t *testing.T, s *Service, token string, now time.Time) jwt.MapClaims {
	t.Helper()
	rec := httptest.NewRecorder()
	s.OIDC().ServeHTTP(rec, httptest.NewRequest("GET", Issuer+"/.well-known/jwks", nil))
	var set jwkSet
	if err := json.Unmarshal(rec.Body.Bytes(), &set); err != nil {
		t.Fatal(err)
	}
	claims := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(token, claims, func(tok *jwt.Token) (any, error) {
		for _, k := range set.Keys {
			if k.Kid != tok.Header["kid"] {
				continue
			}
			n, nerr := base64.RawURLEncoding.DecodeString(k.N)
			e, eerr := base64.RawURLEncoding.DecodeString(k.E)
			return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}, errors.Join(nerr, eerr)
		}
		return nil, errors.New("no such key")
	}, jwt.WithValidMethods([]string{"RS256"}), jwt.WithIssuer(Issuer), jwt.WithTimeFunc(func() time.Time { return now }))
	if err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestClaims(t *testing.T) {
	s := serve(t, nil)
	sc := scope(30433642, 77)
	sc.IDToken = true
	sc.Identity = Identity{RepositoryID: 74, OwnerID: 65, Commit: "deadbeef", Actor: "ada", ActorID: 12, RunNumber: 10, Event: "workflow_dispatch", Workflow: "deploy",
		WorkflowRef: "acme/app/.github/workflows/deploy.yml@refs/heads/main", WorkflowSHA: "deadbeef", JobRef: "acme/shared/.github/workflows/aks.yml@refs/tags/v1", JobSHA: "cafe",
		Environment: "prod", EnvironmentID: 3, RefProtected: true, Properties: map[string]string{"tier": "gold"}}
	token, err := s.IDToken(sc, "")
	if err != nil {
		t.Fatal(err)
	}
	now := s.clock.Now()
	got := verify(t, s.Service, token, now)
	if got["jti"] == "" {
		t.Error("no jti")
	}
	delete(got, "jti")
	want := jwt.MapClaims{
		"iss": Issuer, "aud": "https://github.com/acme", "sub": "repo:acme/app:environment:prod",
		"iat": float64(now.Unix()), "nbf": float64(now.Unix() - 600), "exp": float64(now.Unix() + 300),
		"repository": "acme/app", "repository_owner": "acme", "repository_id": "74", "repository_owner_id": "65", "repository_visibility": "private",
		"ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "true", "sha": "deadbeef", "head_ref": "", "base_ref": "",
		"actor": "ada", "actor_id": "12", "event_name": "workflow_dispatch", "run_id": "30433642", "run_number": "10", "run_attempt": "1", "runner_environment": "self-hosted",
		"workflow": "deploy", "workflow_ref": "acme/app/.github/workflows/deploy.yml@refs/heads/main", "workflow_sha": "deadbeef",
		"job_workflow_ref": "acme/shared/.github/workflows/aks.yml@refs/tags/v1", "job_workflow_sha": "cafe",
		"environment": "prod", "environment_node_id": "EN_3", "repository_property_tier": "gold",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, name := range supportedClaims() {
		if _, ok := want[name]; !ok && name != "jti" && name != "check_run_id" {
			t.Errorf("%s is said to be supported", name)
		}
	}
}

func TestSubject(t *testing.T) {
	for want, sc := range map[string]Scope{
		"repo:a/b:ref:refs/heads/x/y":                  {Ref: "refs/heads/x/y"},
		"repo:a/b:ref:refs/tags/v1":                    {Ref: "refs/tags/v1"},
		"repo:a/b:pull_request":                        {Ref: "refs/pull/7/merge"},
		"repo:a/b:environment:pr%3Aod":                 {Ref: "refs/pull/7/merge", Identity: Identity{Environment: "pr:od"}},
		"repo:a/b:ref:refs/heads/main:actor:ada":       {Ref: "refs/heads/main", Identity: Identity{Actor: "ada", SubjectClaims: []string{"repo", "context", "actor"}}},
		"repository_owner:a:job_workflow_ref:a/b/w@r":  {Ref: "refs/heads/main", Identity: Identity{JobRef: "a/b/w@r", SubjectClaims: []string{"repository_owner", "job_workflow_ref"}}},
		"repo:a/b:pull_request:event_name:pull%3Afake": {Ref: "refs/pull/1/merge", Identity: Identity{Event: "pull:fake", SubjectClaims: []string{"repo", "context", "event_name"}}},
	} {
		sc.Repo = "a/b"
		if got := sc.subject(sc.claims()); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestIDTokenRequests(t *testing.T) {
	s := serve(t, nil)
	sc := scope(1, 1)
	plain, _ := s.Open(sc)
	if plain["ACTIONS_ID_TOKEN_REQUEST_URL"] != "" || plain["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] != "" {
		t.Error("a job without id-token: write can request ID tokens")
	}
	if _, err := s.IDToken(sc, ""); !errors.Is(err, ErrDenied) {
		t.Error(err)
	}
	sc.IDToken = true
	env, closing := s.Open(sc)
	other, _ := s.Open(scope(1, 2))
	url, token := env["ACTIONS_ID_TOKEN_REQUEST_URL"], env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]
	get := func(url, token string) (int, string) {
		status, body, _ := s.do("GET", url, "", "Authorization", "bearer "+token)
		return status, body
	}
	if status, body := get(url+"&audience=api%3A%2F%2Fx", token); status != 200 || !strings.HasPrefix(body, `{"value":"eyJ`) {
		t.Errorf("%d %s", status, body)
	}
	for name, c := range map[string]struct{ url, token string }{
		"runtime token": {url, env["ACTIONS_RUNTIME_TOKEN"]}, "of another job": {url, other["ACTIONS_RUNTIME_TOKEN"]}, "none": {url, ""},
		"other place":   {strings.Replace(url, sc.jobBackend(), scope(1, 2).jobBackend(), 1), token},
		"long audience": {url + "&audience=" + strings.Repeat("x", maxAudience+1), token},
	} {
		if status, body := get(c.url, c.token); status < 400 || strings.Contains(body, "eyJ") {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	if status, _ := s.twirp(map[string]string{"ACTIONS_RUNTIME_TOKEN": token}, "ArtifactService/ListArtifacts", "{}"); status != 401 {
		t.Errorf("the request token opens the artifact service: %d", status)
	}
	closing()
	if status, _ := get(url, token); status != 401 {
		t.Errorf("after the job: %d", status)
	}
}

func TestKeys(t *testing.T) {
	s := serve(t, nil)
	sc := scope(1, 1)
	sc.IDToken = true
	token := func(s *Service) string {
		t.Helper()
		tok, err := s.IDToken(sc, "")
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	before := token(s.Service)
	if err := s.RotateKeys(); err != nil {
		t.Fatal(err)
	}
	after := token(s.Service)
	again, err := New(Config{Dir: s.cfg.Dir}, Deps{Now: s.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	for _, tok := range []string{before, after, token(again)} { // all are still valid, after a restart too
		verify(t, again, tok, s.clock.Now())
	}
	if n := len(again.keys.public().Keys); n != 2 {
		t.Errorf("%d keys after one rotation", n)
	}
	s.clock.add(time.Hour)
	if err := again.RotateKeys(); err != nil {
		t.Fatal(err)
	}
	if n := len(again.keys.public().Keys); n != 2 {
		t.Errorf("%d keys an hour later: the oldest signed nothing that is valid", n)
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openKeyring(path, time.Now); err == nil || !strings.Contains(err.Error(), "delete it") {
		t.Errorf("broken file: %v", err)
	}
}
