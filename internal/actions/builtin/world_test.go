package builtin

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// service records requests and answers from a table of "METHOD path".
func service(t *testing.T, answers map[string]string) (*httptest.Server, *[]string) {
	t.Helper()
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Authorization")+" "+string(body))
		answer, ok := answers[r.Method+" "+r.URL.Path]
		w.Header().Set("Content-Type", "application/json")
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = `{"message":"Not Found"}`
		}
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	return s, &asked
}

func TestAzureLogin(t *testing.T) {
	const jwt = "e30.eyJpc3MiOiJodHRwczovL2kiLCJzdWIiOiJyZXBvOm8vcjpyZWY6cmVmcy9oZWFkcy9tYWluIn0.c2ln"
	s, asked := service(t, map[string]string{"GET /token": `{"value":"` + jwt + `"}`})
	oidc := []string{"ACTIONS_ID_TOKEN_REQUEST_URL=" + s.URL + "/token?api-version=2", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=bearer"}
	for _, c := range []struct {
		with map[string]string
		env  []string
		want string // what az was called with, or the error
		fail bool
	}{
		{map[string]string{"client-id": "c", "tenant-id": "t", "subscription-id": "s"}, oidc, "login --service-principal --username c --tenant t --federated-token " + jwt, false},
		{map[string]string{"creds": `{"clientId":"c","clientSecret":"hush","tenantId":"t","subscriptionId":"s"}`}, nil, "--password=hush", false},
		{map[string]string{"client-id": "c", "tenant-id": "t", "allow-no-subscriptions": "true"}, oidc, "--allow-no-subscriptions", false},
		{map[string]string{"client-id": "c", "tenant-id": "t", "subscription-id": "s"}, nil, "may not have an OIDC token", true},
		{map[string]string{"client-id": "c", "tenant-id": "t"}, oidc, "needs a subscription-id", true},
		{map[string]string{"client-id": "", "tenant-id": "t"}, oidc, "empty: client-id", true},
		{map[string]string{"creds": `{"clientSecret":"hush`}, nil, "is not JSON", true},
		{map[string]string{"client-id": "c", "tenant-id": "t", "enable-azpssession": "true"}, oidc, "enable-azpssession", true},
	} {
		call, a, _, log := call(t, "azure/login@v2", c.with)
		onHost(t, call)
		program(t, call, "az", `echo "$@" >>"$HOME/az.log"`)
		call.Env, call.Job.HTTP = append(call.Env, c.env...), http.DefaultTransport
		err := a.Run(t.Context(), call)
		said, _ := call.Job.Home.ReadFile("az.log")
		got := string(said)
		if c.fail {
			got = ""
			if err != nil {
				got = err.Error()
			}
		}
		if (err != nil) != c.fail || !strings.Contains(got, c.want) || strings.Contains(log.String(), "hush") {
			t.Errorf("%v: %v\n%s\n%s", c.with, err, got, log)
		}
	}
	if !strings.Contains((*asked)[0], "audience=api%3A%2F%2FAzureADTokenExchange") || !strings.Contains((*asked)[0], "Bearer bearer") {
		t.Errorf("token request %s", (*asked)[0])
	}
}

func TestPathsFilter(t *testing.T) {
	s, _ := service(t, map[string]string{"GET /repos/o/r/pulls/7/files": `[{"filename":"src/a.go","status":"modified"},{"filename":"docs/x.md","status":"added"},{"filename":"new.tf","previous_filename":"old.tf","status":"renamed"}]`})
	c, a, out, log := call(t, "dorny/paths-filter@v3", map[string]string{"list-files": "json",
		"filters": "code: &code\n  - 'src/**'\ndocs: ['**/*.md']\nnone: 'web/**'\nadded:\n  - added: '**'\nboth:\n  - *code\n  - '*.tf'\n"})
	onHost(t, c)
	c.Env, c.Job.HTTP = append(c.Env, "GITHUB_API_URL="+s.URL), http.DefaultTransport
	write(t, filepath.Join(c.Job.TempPath, "_github_workflow/event.json"), `{"pull_request":{"number":7}}`)
	if err := a.Run(t.Context(), c); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	for k, want := range map[string]string{"code": "true", "docs": "true", "none": "false", "none_count": "0", "added_files": `["docs/x.md","new.tf"]`, "both_count": "3", "changes": `["code","docs","added","both"]`} {
		if out[k] != want {
			t.Errorf("%s = %q, want %q", k, out[k], want)
		}
	}
	// A push compares with the commit before.
	c, a, out, log = call(t, "dorny/paths-filter@v3", map[string]string{"filters": "f: ['b/**']\ng: ['a/**']"})
	onHost(t, c)
	dir := c.Job.Workspace
	git(t, dir, "init", "--quiet", "-b", "main")
	write(t, dir+"/a/1", "1")
	git(t, dir, "add", ".")
	git(t, dir, "commit", "--quiet", "-m", "1")
	before := git(t, dir, "rev-parse", "HEAD")
	write(t, dir+"/b/2", "2")
	git(t, dir, "add", ".")
	git(t, dir, "commit", "--quiet", "-m", "2")
	write(t, filepath.Join(c.Job.TempPath, "_github_workflow/event.json"), `{"before":"`+before+`","repository":{"default_branch":"main"}}`)
	if err := a.Run(t.Context(), c); err != nil || out["f"] != "true" || out["g"] != "false" {
		t.Errorf("%v %v\n%s", out, err, log)
	}
}

func TestGithubScript(t *testing.T) {
	s, asked := service(t, map[string]string{"POST /repos/o/r/issues/7/comments": `{"id":1}`, "GET /repos/o/r/pulls": `[{"number":1},{"number":2}]`, "POST /graphql": `{"data":{"viewer":{"login":"bot"}}}`})
	run := func(script string, with map[string]string) (map[string]string, string, error) {
		if with == nil {
			with = map[string]string{}
		}
		with["script"] = script
		c, a, out, log := call(t, "actions/github-script@v7", with)
		onHost(t, c)
		c.Job.Token = "tok"
		c.Env = append(c.Env, "GITHUB_API_URL="+s.URL, "GITHUB_REPOSITORY=o/r", "GITHUB_EVENT_PATH="+filepath.Join(c.Job.TempPath, "event.json"))
		write(t, filepath.Join(c.Job.TempPath, "event.json"), `{"pull_request":{"number":7}}`)
		write(t, filepath.Join(c.Job.Workspace, "lib.js"), `module.exports = ({core}) => { core.setOutput('lib', 'yes') }`)
		c.SetEnv = func(k, v string) { out["env."+k] = v }
		c.Summary = func(text string) { out["summary"] = text }
		err := a.Run(t.Context(), c)
		return out, log.String(), err
	}
	out, log, err := run(`
		const r = await github.rest.issues.createComment({...context.repo, issue_number: context.issue.number, body: 'hi'})
		const all = await github.paginate(github.rest.pulls.list, {...context.repo, state: 'open'})
		const { viewer } = await github.graphql('query { viewer { login } }')
		core.setOutput('n', all.length); core.exportVariable('E', viewer.login); core.warning('careful')
		await core.summary.addHeading('H').addRaw('text').write()
		require('./lib.js')({core})
		const { stdout } = await exec.getExecOutput('echo', ['a b'], {silent: true})
		return { id: r.data.id, stdout: stdout.trim() }`, nil)
	if err != nil || out["n"] != "2" || out["env.E"] != "bot" || out["lib"] != "yes" || out["result"] != `{"id":1,"stdout":"a b"}` || !strings.Contains(out["summary"], "<h1>H</h1>") || !strings.Contains(log, "::warning::careful") {
		t.Errorf("%v %v\n%s", out, err, log)
	}
	if all := strings.Join(*asked, "\n"); !strings.Contains(all, `token tok {"body":"hi"}`) {
		t.Errorf("asked %s", all)
	}
	if out, _, err := run(`return "text"`, map[string]string{"result-encoding": "string"}); err != nil || out["result"] != "text" {
		t.Errorf("%v %v", out, err)
	}
	for script, want := range map[string]string{`core.setFailed('no good')`: "no good", `throw new Error('boom')`: "boom", `await github.rest.codespaces.list()`: "github.rest.codespaces.list is not part",
		`await github.rest.issues.get({...context.repo, issue_number: 1})`: "Not Found", `not javascript`: "SyntaxError"} {
		if _, log, err := run(script, nil); err == nil || !strings.Contains(log, want) {
			t.Errorf("%s: %v\n%s", script, err, log)
		}
	}
}

func TestCreatePullRequest(t *testing.T) {
	dir, server := gitServer(t)
	published(t, dir, server.URL)
	git(t, filepath.Join(dir, "o/r"), "config", "http.receivepack", "true")
	s, asked := service(t, map[string]string{"GET /repos/o/r/pulls": `[]`, "POST /repos/o/r/pulls": `{"number":3,"html_url":"http://x/3"}`, "POST /repos/o/r/issues/3/labels": `[]`})
	c, a, out, log := call(t, "peter-evans/create-pull-request@v7", map[string]string{"branch": "auto/x", "title": "T", "labels": "a,b", "commit-message": "Change it", "signoff": "true"})
	onHost(t, c)
	git(t, c.Job.Workspace, "-c", "http.extraheader=AUTHORIZATION: basic "+basicAuth("x", "tok"), "clone", "--quiet", server.URL+"/o/r", ".")
	write(t, c.Job.Workspace+"/changed.txt", "new")
	c.Env, c.Job.HTTP, c.Job.ServerURL, c.Job.Token = append(c.Env, "GITHUB_API_URL="+s.URL, "GITHUB_ACTOR=ann"), http.DefaultTransport, server.URL, "tok"
	if err := a.Run(t.Context(), c); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	pushed := git(t, filepath.Join(dir, "o/r"), "log", "-1", "--format=%s|%an|%b", "auto/x")
	if out["pull-request-number"] != "3" || out["pull-request-operation"] != "created" || !strings.HasPrefix(pushed, "Change it|ann|Signed-off-by: github-actions[bot]") {
		t.Errorf("%v\n%s\n%s", out, pushed, log)
	}
	if all := strings.Join(*asked, "\n"); !strings.Contains(all, `"head":"auto/x"`) || !strings.Contains(all, `{"labels":["a","b"]}`) {
		t.Errorf("%s", all)
	}
	if branch := git(t, c.Job.Workspace, "rev-parse", "--abbrev-ref", "HEAD"); branch != "main" {
		t.Errorf("left on %s", branch)
	}
	n, a, out, log := call(t, "peter-evans/create-pull-request@v7", map[string]string{"branch": "auto/y"})
	onHost(t, n)
	git(t, n.Job.Workspace, "-c", "http.extraheader=AUTHORIZATION: basic "+basicAuth("x", "tok"), "clone", "--quiet", server.URL+"/o/r", ".")
	n.Env, n.Job.HTTP, n.Job.ServerURL, n.Job.Token = append(n.Env, "GITHUB_API_URL="+s.URL), http.DefaultTransport, server.URL, "tok"
	if err := a.Run(t.Context(), n); err != nil || out["pull-request-operation"] != "none" {
		t.Errorf("%v %v\n%s", out, err, log)
	}
}

// scans keeps reports.
type scans struct{ got []Scan }

func (s *scans) SaveScan(_ context.Context, r Scan) (string, error) {
	s.got = append(s.got, r)
	return "id-1", nil
}

func TestScans(t *testing.T) {
	c, a, out, log := call(t, "github/codeql-action/upload-sarif@v3", map[string]string{"sarif_file": "r.sarif", "category": "iac"})
	onHost(t, c)
	store := &scans{}
	c.Job.Scans = store
	write(t, c.Job.Workspace+"/r.sarif", `{"runs":[{"tool":{"driver":{"name":"trivy","rules":[{"id":"R1","defaultConfiguration":{"level":"error"}}]}},"results":[{"ruleId":"R1","message":{"text":"open port"},"locations":[{"physicalLocation":{"artifactLocation":{"uri":"main.tf"},"region":{"startLine":4}}}]}]}]}`)
	if err := a.Run(t.Context(), c); err != nil || out["sarif-id"] != "id-1" || len(store.got) != 1 || store.got[0].Tool != "trivy" || !strings.Contains(log.String(), "error 4 open port") {
		t.Errorf("%v %v\n%s", out, err, log)
	}
	n, scan, _, log := call(t, "aquasecurity/trivy-action@0.28.0", map[string]string{"scan-type": "config"})
	onHost(t, n)
	if err := scan.Run(t.Context(), n); err != nil || !strings.Contains(log.String(), "not scanned") {
		t.Errorf("%v\n%s", err, log)
	}
	n.With = map[string]string{"sarif_file": "none.sarif"}
	if err := a.Run(t.Context(), n); err != nil || !strings.Contains(log.String(), "no report to upload") {
		t.Errorf("after no scan: %v\n%s", err, log)
	}
	c.With["sarif_file"] = "none.sarif"
	if err := a.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "Path does not exist") {
		t.Errorf("missing: %v", err)
	}
}

func TestDeployAndBake(t *testing.T) {
	c, a, _, log := call(t, "azure/k8s-deploy@v5", map[string]string{"manifests": "k8s", "images": "shop.azurecr.io/web@sha256:abc", "namespace": "prod"})
	onHost(t, c)
	program(t, c, "kubectl", `echo "$@" >>"$HOME/kubectl.log"; for f in "$@"; do case $f in *web.yaml) cat "$f" >>"$HOME/applied";; esac; done; [ "$1" = apply ] && echo deployment.apps/web; exit 0`)
	write(t, c.Job.Workspace+"/k8s/web.yaml", "spec:\n  - name: web\n    image: shop.azurecr.io/web:old # c\n  - image: other/x:1\n")
	if err := a.Run(t.Context(), c); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	applied, _ := os.ReadFile(c.Job.HomePath + "/applied")
	said, _ := os.ReadFile(c.Job.HomePath + "/kubectl.log")
	if !strings.Contains(string(applied), "image: shop.azurecr.io/web@sha256:abc # c") || !strings.Contains(string(applied), "other/x:1") || !strings.Contains(string(said), "rollout status deployment.apps/web --timeout 10m --namespace prod") {
		t.Errorf("%s\n%s", applied, said)
	}
	c.With["strategy"] = "canary"
	if err := a.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "canary is not supported") {
		t.Errorf("%v", err)
	}
	b, a, out, log := call(t, "azure/k8s-bake@v3", map[string]string{"renderengine": "kustomize", "kustomizationpath": "over lay"})
	onHost(t, b)
	program(t, b, "kustomize", `echo "$1 $2"`)
	if err := a.Run(t.Context(), b); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	if data, err := os.ReadFile(out["manifestsBundle"]); err != nil || string(data) != "build over lay\n" {
		t.Errorf("%q %v", data, err)
	}
}

func TestEveryActionNamesItsInputs(t *testing.T) {
	for _, a := range actions() {
		for name := range a.Inputs {
			if name != strings.ToLower(name) {
				t.Errorf("%s: input %s is not in lower case", a.Name, name)
			}
			if _, both := a.NoEffect[name]; both {
				t.Errorf("%s: input %s has and has no effect", a.Name, name)
			}
		}
	}
	if err := Refusal("Azure/webapps-deploy@v3"); err == nil {
		t.Error("webapps-deploy is not refused")
	}
	if !json.Valid(scriptRoutes) {
		t.Error("routes.json is not JSON")
	}
}
