package generate

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// github is a forge with pull requests on two pages and an organization.
func github(t *testing.T) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	handle := func(pattern, answer string) {
		mux.HandleFunc("GET "+pattern, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer s3cret" {
				http.Error(w, "who are you", http.StatusUnauthorized)
				return
			}
			_, _ = io.WriteString(w, answer)
		})
	}
	mux.HandleFunc("GET /api/v3/repos/o/r/pulls", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer s3cret" {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		if r.URL.Query().Get("page") == "2" {
			_, _ = io.WriteString(w, `[{"number": 3, "title": "WIP: c", "head": {"ref": "c", "sha": "cccccccccccc"}, "base": {"ref": "main"}, "user": {"login": "cy"}, "labels": [{"name": "preview"}]}]`)
			return
		}
		w.Header().Set("Link", fmt.Sprintf(`<http://%s%s?page=2>; rel="next", <http://x/>; rel="last"`, r.Host, r.URL.Path))
		_, _ = io.WriteString(w, `[
{"number": 1, "title": "a", "head": {"ref": "Feature/One", "sha": "aaaaaaaaaaaa"}, "base": {"ref": "main"}, "user": {"login": "ada"}, "labels": [{"name": "preview"}, {"name": "x"}]},
{"number": 2, "title": "b", "head": {"ref": "b", "sha": "bbbb"}, "base": {"ref": "release"}, "user": {"login": "bob"}, "labels": []}]`)
	})
	handle("/api/v3/orgs/o/repos", `[
{"id": 7, "name": "web", "owner": {"login": "o"}, "default_branch": "main", "ssh_url": "git@x:o/web.git", "clone_url": "https://x/o/web.git", "topics": ["deploy", "go"]},
{"id": 8, "name": "docs", "owner": {"login": "o"}, "default_branch": "main", "ssh_url": "git@x:o/docs.git", "clone_url": "https://x/o/docs.git", "topics": []},
{"id": 9, "name": "empty", "owner": {"login": "o"}, "default_branch": "main", "clone_url": "https://x/o/empty.git", "topics": ["deploy"]}]`)
	handle("/api/v3/repos/o/web/branches/main", `{"name": "main", "commit": {"sha": "1234567890ab"}}`)
	handle("/api/v3/repos/o/web/branches", `[{"name": "main", "commit": {"sha": "1234567890ab"}}, {"name": "Rel_1", "commit": {"sha": "abcdef"}}]`)
	handle("/api/v3/repos/o/docs/branches/main", `{"name": "main", "commit": {"sha": "2234567890ab"}}`)
	handle("/api/v3/repos/o/web/contents/k8s", `[]`)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func generateWith(t *testing.T, spec string, objects fakeObjects, cfg Config) ([]*unstructured.Unstructured, error) {
	t.Helper()
	cfg.Namespace = "argocd"
	r, err := Run(t.Context(), cfg, Deps{HTTP: http.DefaultClient, Objects: objects, Clusters: clusters{}, Repositories: &repositories{}}, parse(t, spec))
	http.DefaultClient.CloseIdleConnections()
	if !r.Remote {
		t.Error("not marked as remote")
	}
	return r.Applications, err
}

const goSpec = `
  goTemplate: true
  goTemplateOptions: [missingkey=error]
  template:
    metadata: {name: '%s'}
    spec: {project: default, source: {repoURL: '%s'}, destination: {namespace: x}}
`

func TestPullRequests(t *testing.T) {
	s := github(t)
	token := fakeObjects{"Secret argocd/token": {"token": "s3cret\n"}}
	pulls := func(more string) string {
		return "spec:\n  generators: [{pullRequest: {github: {api: '" + s.URL + "', owner: o, repo: r, tokenRef: {secretName: token, key: token}" + more + "}}]" +
			fmt.Sprintf(goSpec, "{{.number}}", "{{.branch_slug}} {{.head_short_sha}} {{.head_short_sha_7}} {{.target_branch}} {{.author}} {{.title}} {{.labels | join \"+\"}}")
	}
	for _, c := range []struct{ name, more, want string }{
		{"all", "}", "feature-one aaaaaaaa aaaaaaa main ada a preview+x|b bbbb bbbb release bob b |c cccccccc ccccccc main cy WIP: c preview"},
		{"labels", ", labels: [preview]}", "feature-one aaaaaaaa aaaaaaa main ada a preview+x|c cccccccc ccccccc main cy WIP: c preview"},
		{"filters", "}, filters: [{branchMatch: '^b$'}, {targetBranchMatch: main, titleMatch: '^[^W]'}]", "feature-one aaaaaaaa aaaaaaa main ada a preview+x|b bbbb bbbb release bob b "},
	} {
		apps, err := generateWith(t, pulls(c.more), token, Config{})
		if err != nil {
			t.Fatal(c.name, err)
		}
		var got []string
		for _, a := range apps {
			u, _, _ := unstructured.NestedString(a.Object, "spec", "source", "repoURL")
			got = append(got, u)
		}
		if strings.Join(got, "|") != c.want {
			t.Errorf("%s: %s", c.name, strings.Join(got, "|"))
		}
	}
	for _, c := range []struct {
		name, spec, want string
		objects          fakeObjects
		cfg              Config
	}{
		{"no token", pulls("}"), "there is no Secret argocd/token", nil, Config{}},
		{"a wrong token", pulls("}"), "401: the token is missing or not valid", fakeObjects{"Secret argocd/token": {"token": "wrong"}}, Config{}},
		{"a missing key", pulls("}"), `has no key "token"`, fakeObjects{"Secret argocd/token": {}}, Config{}},
		{"a bad filter", pulls("}, filters: [{branchMatch: '['}]"), "filters[0].branchMatch", token, Config{}},
		{"no repository", strings.Replace(pulls("}"), "repo: r", "repo: none", 1), "404", token, Config{}},
		{"an API that is not allowed", pulls("}"), "is not among the allowed ones", token, Config{AllowedSCMProviders: []string{"https://git.example.com"}}},
	} {
		apps, err := generateWithAny(t, c.spec, c.objects, c.cfg)
		if err == nil || !strings.Contains(err.Error(), c.want) || len(apps) > 0 {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if err != nil && (strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "wrong")) {
			t.Errorf("%s: the error holds a token: %v", c.name, err)
		}
	}
	apps, err := generateWith(t, strings.Replace(pulls("}, continueOnRepoNotFoundError: true"), "repo: r", "repo: none", 1), token, Config{})
	if err != nil || len(apps) != 0 {
		t.Errorf("continueOnRepoNotFoundError: %v, %v", apps, err)
	}
}

func generateWithAny(t *testing.T, spec string, objects fakeObjects, cfg Config) ([]*unstructured.Unstructured, error) {
	t.Helper()
	cfg.Namespace = "argocd"
	r, err := Run(t.Context(), cfg, Deps{HTTP: http.DefaultClient, Objects: objects, Clusters: clusters{}, Repositories: &repositories{}}, parse(t, spec))
	http.DefaultClient.CloseIdleConnections()
	return r.Applications, err
}

func TestSCMProvider(t *testing.T) {
	s := github(t)
	token := fakeObjects{"Secret argocd/token": {"token": "s3cret"}}
	for _, c := range []struct{ name, more, want string }{
		{"default branches", "}", "git@x:o/web.git main 12345678 deploy,go 7|git@x:o/docs.git main 22345678  8"},
		{"all branches, by https", ", allBranches: true}, cloneProtocol: https, filters: [{repositoryMatch: web, branchMatch: '^R'}]", "https://x/o/web.git rel-1 abcdef deploy,go 7"},
		{"labels and paths", "}, filters: [{labelMatch: dep, pathsExist: [k8s/], pathsDoNotExist: [none]}]", "git@x:o/web.git main 12345678 deploy,go 7"},
	} {
		spec := "spec:\n  generators: [{scmProvider: {github: {api: '" + s.URL + "/', organization: o, tokenRef: {secretName: token, key: token}" + c.more + "}}]" +
			fmt.Sprintf(goSpec, "{{.repository}}", "{{.url}} {{.branchNormalized}} {{.short_sha}} {{.labels}} {{.repository_id}}")
		apps, err := generateWith(t, spec, token, Config{})
		if err != nil {
			t.Fatal(c.name, err)
		}
		var got []string
		for _, a := range apps {
			u, _, _ := unstructured.NestedString(a.Object, "spec", "source", "repoURL")
			got = append(got, u)
		}
		if strings.Join(got, "|") != c.want {
			t.Errorf("%s: %s", c.name, strings.Join(got, "|"))
		}
	}
}

func TestGitHubApp(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost && r.URL.Path == "/api/v3/app/installations/42/access_tokens" && strings.Count(r.Header.Get("Authorization"), ".") == 2:
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"token": "of-app"}`)
		case r.URL.Path == "/api/v3/repos/o/r/pulls" && r.Header.Get("Authorization") == "Bearer of-app":
			_, _ = io.WriteString(w, `[{"number": 5, "head": {"sha": ""}}]`)
		default:
			http.Error(w, "no", http.StatusForbidden)
		}
	}))
	defer s.Close()
	objects := fakeObjects{"Secret argocd/app": {"githubAppID": "1", "githubAppInstallationID": "42",
		"githubAppPrivateKey": string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))}}
	spec := "spec:\n  generators: [{pullRequest: {github: {api: '" + s.URL + "', owner: o, repo: r, appSecretName: app}}}]" + fmt.Sprintf(goSpec, "pr-{{.number}}", "x")
	apps, err := generateWith(t, spec, objects, Config{})
	if err != nil || len(apps) != 1 || apps[0].GetName() != "pr-5" {
		t.Errorf("%v, %v", apps, err)
	}
}

func TestGitLabAndGitea(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.EscapedPath() == "/api/v4/projects/g%2Fp/merge_requests" && r.URL.Query().Get("state") == "opened" && r.Header.Get("PRIVATE-TOKEN") == "s3cret":
			_, _ = io.WriteString(w, `[{"iid": 4, "title": "t", "source_branch": "f", "target_branch": "main", "sha": "abc", "labels": ["l"], "author": {"username": "u"}}]`)
		case r.URL.Path == "/api/v1/repos/o/r/pulls" && r.Header.Get("Authorization") == "token s3cret":
			_, _ = io.WriteString(w, `[{"number": 6, "head": {"ref": "f", "sha": "abc"}, "base": {"ref": "main"}, "user": {"login": "u"}}]`)
		case r.URL.EscapedPath() == "/api/v4/groups/g/projects":
			_, _ = io.WriteString(w, `[{"id": 3, "path": "p", "default_branch": "main", "http_url_to_repo": "https://x/g/p.git", "namespace": {"full_path": "g"}, "topics": ["t"]}]`)
		case r.URL.Path == "/api/v4/projects/3/repository/branches/main":
			_, _ = io.WriteString(w, `{"name": "main", "commit": {"id": "abc"}}`)
		case r.URL.Path == "/api/v4/projects/3/repository/tree" && r.URL.Query().Get("path") == "a":
			_, _ = io.WriteString(w, `[{"name": "b"}]`)
		case r.URL.Path == "/api/v1/orgs/g/repos":
			_, _ = io.WriteString(w, `[{"id": 3, "name": "p", "owner": {"login": "g"}, "default_branch": "main", "clone_url": "https://x/g/p.git"}]`)
		case r.URL.Path == "/api/v1/repos/g/p/branches":
			_, _ = io.WriteString(w, `[{"name": "main", "commit": {"id": "abc"}}]`)
		case r.URL.Path == "/api/v1/repos/g/p/contents/a/b":
			_, _ = io.WriteString(w, `[]`)
		default:
			http.Error(w, "no", http.StatusForbidden)
		}
	}))
	defer s.Close()
	objects := fakeObjects{"Secret argocd/token": {"token": "s3cret"},
		"ConfigMap argocd/ca": {"ca": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))}}
	for want, generator := range map[string]string{
		"a4 f":   "pullRequest: {gitlab: {api: '" + s.URL + "', project: g/p, pullRequestState: opened, tokenRef: {secretName: token, key: token}, caRef: {configMapName: ca, key: ca}}}",
		"a6 f":   "pullRequest: {gitea: {api: '" + s.URL + "/', owner: o, repo: r, insecure: true, tokenRef: {secretName: token, key: token}}}",
		"p main": "scmProvider: {cloneProtocol: https, filters: [{pathsExist: [a/b]}], gitlab: {api: '" + s.URL + "', group: g, insecure: true}}",
		"g main": "scmProvider: {cloneProtocol: https, filters: [{pathsExist: [a/b]}], gitea: {api: '" + s.URL + "', owner: g, insecure: true, allBranches: true}}",
	} {
		name := map[byte]string{'a': "a{{.number}}", 'p': "{{.repository}}", 'g': "{{.organization}}"}[want[0]]
		apps, err := generateWith(t, "spec:\n  generators: [{"+generator+"}]"+fmt.Sprintf(goSpec, name, "{{.branch}}"), objects, Config{})
		if err != nil || len(apps) != 1 {
			t.Errorf("%s: %v, %v", want, apps, err)
			continue
		}
		u, _, _ := unstructured.NestedString(apps[0].Object, "spec", "source", "repoURL")
		if got := apps[0].GetName() + " " + u; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestPlugin(t *testing.T) {
	answer := `{"output": {"parameters": [{"key": "one", "nested": {"n": 5}}, {"key": "two", "nested": {"n": 6}}]}}`
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			ApplicationSetName string
			Input              struct{ Parameters map[string]any }
		}
		if r.Method != http.MethodPost || r.URL.Path != "/base/api/v1/getparams.execute" || r.Header.Get("Authorization") != "Bearer s3cret" ||
			json.NewDecoder(r.Body).Decode(&body) != nil || body.ApplicationSetName != "set" || body.Input.Parameters["in"] != "x" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, answer)
	}))
	defer s.Close()
	objects := fakeObjects{"ConfigMap argocd/plugin": {"baseUrl": s.URL + "/base/", "token": "$plugin-secret:key"}, "Secret argocd/plugin-secret": {"key": "s3cret"}}
	generator := "spec:\n  generators: [{plugin: {configMapRef: {name: plugin}, input: {parameters: {in: x}}, values: {v: 'v-%s'}}}]"
	for _, c := range []struct{ spec, want string }{
		{fmt.Sprintf(generator, "{{.key}}") + fmt.Sprintf(goSpec, "{{.key}}", "{{.nested.n}} {{.generator.input.parameters.in}} {{.values.v}}"), "one: 5 x v-one|two: 6 x v-two"},
		{fmt.Sprintf(generator, "{{key}}") + "\n  template: {metadata: {name: '{{key}}'}, spec: {project: default, source: {repoURL: '{{nested.n}} {{values.v}}'}, destination: {namespace: x}}}", "one: 5 v-one|two: 6 v-two"},
	} {
		apps, err := generateWith(t, c.spec, objects, Config{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range apps {
			u, _, _ := unstructured.NestedString(a.Object, "spec", "source", "repoURL")
			got = append(got, a.GetName()+": "+u)
		}
		if strings.Join(got, "|") != c.want {
			t.Errorf("%v", got)
		}
	}
	spec := fmt.Sprintf(generator, "x") + fmt.Sprintf(goSpec, "x", "x")
	for _, c := range []struct {
		want    string
		objects fakeObjects
		answer  string
	}{
		{"there is no ConfigMap argocd/plugin", nil, ""},
		{"must name a key of a Secret", fakeObjects{"ConfigMap argocd/plugin": {"baseUrl": s.URL, "token": "plain"}}, ""},
		{"has no baseUrl", fakeObjects{"ConfigMap argocd/plugin": {}}, ""},
		{"status 403", fakeObjects{"ConfigMap argocd/plugin": {"baseUrl": s.URL, "token": "$argo-key"}, "Secret argocd/argocd-secret": {"argo-key": "x"}}, ""},
		{"is not as expected", objects, "<html>"},
		{"has no output.parameters", objects, "{}"},
	} {
		if answer = c.answer; answer == "" {
			answer = "{}"
		}
		apps, err := generateWithAny(t, spec, c.objects, Config{})
		if err == nil || !strings.Contains(err.Error(), c.want) || len(apps) > 0 {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

func TestReadsAreKnownAlsoAfterAFailure(t *testing.T) {
	set := parse(t, "spec:\n  generators: [{git: {repoURL: r, revision: main, files: [{path: a.yaml}]}}]\n  template: {metadata: {name: x}, spec: {project: p, destination: {namespace: x}}}")
	for _, repos := range []*repositories{{err: errors.New("away")}, {files: memory{"a.yaml": "["}}, {files: memory{"b.yaml": "a: b"}}} {
		r, err := Run(t.Context(), Config{}, Deps{Repositories: repos}, set)
		if len(r.Reads) != 1 || r.Reads[0].RepoURL != "r" || r.Reads[0].Project != "p" || r.Requeue.Minutes() != 3 {
			t.Errorf("%+v, %v", r, err)
		}
		if repos.err == nil {
			if _, affected := r.Reads[0].Inputs.Affected([]string{"a.yaml"}); !affected {
				t.Errorf("a.yaml is no input: %v", r.Reads[0].Inputs)
			}
			if _, affected := r.Reads[0].Inputs.Affected([]string{"other/b.yaml"}); affected {
				t.Errorf("everything is an input: %v", r.Reads[0].Inputs)
			}
		}
	}
}

func TestWalkIsBoundedAndLeavesLinksOut(t *testing.T) {
	files := memory{"a/loop": "-> ../a", "a/b/x.yaml": "k: v", "a/l.yaml": "-> b/x.yaml"}
	tr := &tree{Tree: source.NewTreeOf(files, "c"), files: map[string][]string{}}
	got, err := tr.match(t.Context(), "*.yaml", false)
	if err != nil || !slices.Equal(got, []string{"a/b/x.yaml", "a/l.yaml"}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{":(glob)x", "/etc", "[", `x\`} {
		if _, err := tr.match(t.Context(), bad, false); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}

}

func TestWildmatch(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"a/*.yaml", "a/b/c.yaml", true}, {"a/**/c.yaml", "a/b/c.yaml", true}, {"a/?.yaml", "a/b.yaml", true}, {"a/[bc].yaml", "a/b.yaml", true},
		{"a/[!bc].yaml", "a/b.yaml", false}, {"a/[a-c]", "a/b", true}, {"a/[]]x", "a/]x", true}, {`a\*`, "a*", true}, {`a\*`, "ab", false}, {"a.b*", "axb", false},
	} {
		re, err := wildmatch(c.pattern)
		if err != nil || re.MatchString(c.name) != c.want {
			t.Errorf("%s %s: %v", c.pattern, c.name, err)
		}
	}
}

// FuzzWildmatch looks for panics.
func FuzzWildmatch(f *testing.F) {
	for _, s := range []string{"a/*", "[", "[]", "[!", `\`, "[a-", "[]-a]"} {
		f.Add(s, "x")
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if re, err := wildmatch(pattern); err == nil {
			re.MatchString(name)
		}
	})
}

// FuzzObjects looks for panics in what files of repositories hold.
func FuzzObjects(f *testing.F) {
	f.Add([]byte("a: [1, {b: c}]"), true)
	f.Add([]byte("- null\n- {}"), false)
	f.Fuzz(func(t *testing.T, data []byte, goTemplate bool) {
		set := parse(t, fmt.Sprintf("spec:\n  goTemplate: %v\n  generators: [{git: {repoURL: r, files: [{path: a}]}}]\n  template: {metadata: {name: '{{a}}'}, spec: {}}", goTemplate))
		if goTemplate {
			set.Spec.Template["metadata"] = map[string]any{"name": "{{.a}}"}
		}
		_, _ = Run(t.Context(), Config{}, Deps{Repositories: &repositories{files: memory{"a": string(data)}}}, set)
	})
}
