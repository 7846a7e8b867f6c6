package storefront

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/cli/environment"
)

func TestGithubCreatesWhatIsMissing(t *testing.T) {
	repos, variables := map[string]bool{}, map[string]string{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /repos/{owner}/{name}", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer token" {
			http.Error(w, `{"message":"Bad credentials"}`, http.StatusUnauthorized)
		} else if !repos[r.PathValue("name")] {
			http.NotFound(w, r)
		}
	})
	mux.HandleFunc("POST /orgs/{owner}/repos", func(w http.ResponseWriter, _ *http.Request) {
		repos["storefront"] = true
		w.WriteHeader(http.StatusCreated)
	})
	mux.HandleFunc("PATCH /repos/contoso/storefront/actions/variables/{name}", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := variables[r.PathValue("name")]; !ok {
			http.NotFound(w, r)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /repos/contoso/storefront/actions/variables", func(w http.ResponseWriter, r *http.Request) {
		var v struct{ Name, Value string }
		if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
			t.Error(err)
		}
		variables[v.Name] = v.Value
		w.WriteHeader(http.StatusCreated)
	})
	mux.HandleFunc("GET /repos/contoso/storefront/actions/secrets/public-key", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"key_id":"1","key":"c2hvcnQ="}`)
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	g := github{environment.Sheet{ForgeAPI: s.URL, ForgeToken: "token"}, s.Client()}
	for range 2 {
		if err := g.ensureRepository(t.Context(), owner, name); err != nil {
			t.Fatal(err)
		}
		if err := g.setVariable(t.Context(), repo, "REGISTRY", "x"); err != nil || variables["REGISTRY"] != "x" {
			t.Fatalf("%v, %v", variables, err)
		}
	}
	if err := g.setSecret(t.Context(), repo, "PASSWORD", "hidden"); err == nil || !strings.Contains(err.Error(), "32 bytes") || strings.Contains(err.Error(), "hidden") {
		t.Errorf("a key that is none: %v", err)
	}
	g.sheet.ForgeToken = "wrong"
	if err := g.ensureRepository(t.Context(), owner, name); err == nil || !strings.Contains(err.Error(), "Bad credentials") {
		t.Errorf("wrong token: %v", err)
	}
}

func TestExplain(t *testing.T) {
	for body, want := range map[string]string{
		`{"error":{"code":"Forbidden","message":"no right"}}`: "status 403: Forbidden: no right",
		`{"message":"Not Found"}`:                             "status 403: Not Found",
		" plain\n":                                            "status 403: plain",
	} {
		if got := explain(http.StatusForbidden, []byte(body)); got != want {
			t.Errorf("%s: %q", body, got)
		}
	}
	if got := explain(http.StatusForbidden, []byte(strings.Repeat("x", 9000))); len(got) > 500 {
		t.Errorf("%d bytes", len(got))
	}
	for _, token := range []string{"", "a.b", "a.!.c"} {
		if decodeClaims(token, nil) == nil {
			t.Errorf("%q is no token", token)
		}
	}
}
