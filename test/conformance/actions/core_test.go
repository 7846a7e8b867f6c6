package actions_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/lockstep-gitops/lockstep/internal/actions/command"
	"github.com/lockstep-gitops/lockstep/internal/actions/mask"
	"github.com/lockstep-gitops/lockstep/internal/actions/service"
)

func TestIDToken(t *testing.T) {
	w := newWorld(t, nil)
	j := w.job(t, service.Scope{Run: 9, Attempt: 2, Job: 1, IDToken: true, Identity: service.Identity{Environment: "prod:eu", Actor: "ada", Commit: "abc"}})
	for audience, want := range map[string]string{"": "https://github.com/acme", "api://AzureADTokenExchange": "api://AzureADTokenExchange"} {
		var token string
		j.ok(&token, "idToken", obj{"audience": audience})
		claims := jwt.MapClaims{}
		if _, _, err := jwt.NewParser().ParseUnverified(token, claims); err != nil {
			t.Fatal(err)
		}
		if claims["aud"] != want || claims["sub"] != "repo:acme/app:environment:prod%3Aeu" || claims["run_attempt"] != "2" || claims["iss"] != service.Issuer {
			t.Errorf("%v", claims)
		}
	}
	without := w.job(t, service.Scope{Run: 9, Attempt: 2, Job: 2})
	if r := without.call("idToken", obj{}); !strings.Contains(r.Error, "ACTIONS_ID_TOKEN_REQUEST_URL") {
		t.Errorf("without the permission: %+v", r)
	}
	discovery := httptest.NewRecorder()
	w.service.OIDC().ServeHTTP(discovery, httptest.NewRequest("GET", "/.well-known/openid-configuration", nil))
	if !strings.Contains(discovery.Body.String(), service.Issuer+"/.well-known/jwks") {
		t.Errorf("%s", discovery.Body)
	}
}

func TestContext(t *testing.T) {
	w := newWorld(t, nil)
	j := w.job(t, service.Scope{Run: 9, Attempt: 1, Job: 1})
	event := j.write("event.json", `{"action":"opened"}`)
	r := j.call("context", obj{}, "GITHUB_EVENT_PATH="+event, "GITHUB_RUN_ID=9")
	if want := `{"repo":{"owner":"acme","repo":"app"},"ref":"refs/heads/main","action":"opened","runId":9}`; string(r.OK) != want {
		t.Errorf("%s", r.OK)
	}
}

// TestCommands reads what @actions/core writes with the packages that steps use.
func TestCommands(t *testing.T) {
	w := newWorld(t, nil)
	j := w.job(t, service.Scope{Run: 9, Attempt: 1, Job: 1})
	files := map[string]string{}
	var env []string
	for _, name := range []string{"GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STATE", "GITHUB_PATH"} {
		files[name] = j.write(filepath.Join("cmd", name), "")
		env = append(env, name+"="+files[name])
	}
	log := j.call("commands", obj{}, env...).Log
	m := &mask.Masker{}
	var seen []string
	out := &mask.Writer{Masker: m, Out: func(line string) { seen = append(seen, "text "+line) }, Raw: func(line string) bool {
		c, ok := command.Parse(line)
		if !ok {
			return true
		}
		if c.Name == "add-mask" {
			m.Add(c.Data)
		}
		if a, ok := c.Annotation(); ok {
			text, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			seen = append(seen, string(text))
			return false
		}
		seen = append(seen, c.Name+" "+m.Text(c.Data))
		return false
	}}
	_, _ = fmt.Fprint(out, log)
	out.Flush()
	want := []string{
		"add-mask ***\n***",
		`{"level":"notice","message":"100% sure,\nreally","title":"a:b,c","file":"x/y.go","line":3,"end_line":4}`, // columns of several lines are dropped, as by the runner
		`{"level":"warning","message":"careful"}`, "group inside", "text ***", "endgroup ",
	}
	if strings.Join(seen, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(seen, "\n"), strings.Join(want, "\n"))
	}
	for name, want := range map[string]command.Pair{"GITHUB_OUTPUT": {Name: "answer", Value: `{"a":[1,2]}`}, "GITHUB_ENV": {Name: "NAME", Value: "two\nlines"}, "GITHUB_STATE": {Name: "kept", Value: "yes"}} {
		content, err := os.ReadFile(files[name])
		if err != nil {
			t.Fatal(err)
		}
		if pairs, err := command.ParseFile(string(content)); err != nil || len(pairs) != 1 || pairs[0] != want {
			t.Errorf("%s: %v, %v", name, pairs, err)
		}
	}
	if dirs := command.ParsePath(read(t, files["GITHUB_PATH"])); len(dirs) != 1 || dirs[0] != "/opt/tool/bin" {
		t.Errorf("GITHUB_PATH: %v", dirs)
	}
}
