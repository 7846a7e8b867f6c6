package gh

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/nacl/box"

	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
)

// forge answers as GitHub's REST API does, and remembers what was asked.
type forge struct {
	*httptest.Server
	asked  []string
	bodies []string
	sealed string
}

func newForge(t *testing.T) (*forge, *[32]byte, *[32]byte) {
	t.Helper()
	public, private, err := box.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &forge{}
	answers := map[string]string{
		"GET /repos/o/r": `{"full_name":"o/r","default_branch":"main","name":"r"}`, "POST /repos/o/r/pulls": `{"number":7,"html_url":"http://x/o/r/pull/7"}`,
		"GET /repos/o/r/pulls":              `[{"number":7,"title":"T","state":"open","head":{"ref":"f","sha":"abc"},"base":{"ref":"main"},"labels":[{"name":"deploy"}]},{"number":8,"title":"U","state":"open","head":{"ref":"g","sha":"d"},"base":{"ref":"main"},"labels":[]}]`,
		"GET /repos/o/r/pulls/7":            `{"number":7,"title":"T","state":"closed","merged_at":"2026","html_url":"http://x/o/r/pull/7","head":{"ref":"f","sha":"abc"},"base":{"ref":"main"},"user":{"login":"ann"},"body":"B"}`,
		"POST /repos/o/r/issues/7/comments": `{"html_url":"http://x/o/r/pull/7#c"}`, "POST /repos/o/r/issues/7/labels": `[]`, "PUT /repos/o/r/pulls/7/merge": `{"merged":true}`,
		"DELETE /repos/o/r/git/refs/heads/f":                  ``,
		"GET /repos/o/r/commits/abc/check-runs":               `{"check_runs":[{"name":"ci","status":"completed","conclusion":"failure"},{"name":"lint","status":"in_progress"}]}`,
		"GET /repos/o/r/actions/runs":                         `{"workflow_runs":[{"id":5,"status":"completed","conclusion":"failure","name":"ci","run_number":3}]}`,
		"GET /repos/o/r/actions/runs/5":                       `{"id":5,"status":"completed","conclusion":"failure","name":"ci"}`,
		"GET /repos/o/r/actions/runs/5/jobs":                  `{"jobs":[{"id":9,"name":"build","status":"completed","conclusion":"failure"}]}`,
		"GET /repos/o/r/actions/jobs/9/logs":                  "line one\nline two\n",
		"POST /repos/o/r/actions/workflows/ci.yml/dispatches": ``, "POST /repos/o/r/releases": `{"id":3,"html_url":"http://x/rel","upload_url":"UPLOAD/repos/o/r/releases/3/assets{?name,label}"}`,
		"POST /repos/o/r/releases/3/assets": `{}`, "GET /repos/o/r/releases/tags/v1": `{"id":3,"tag_name":"v1","assets":[{"id":4,"name":"a.tgz"}]}`, "GET /repos/o/r/releases/assets/4": `data`,
		"GET /repos/o/r/actions/secrets/public-key": `{"key_id":"1","key":"` + base64.StdEncoding.EncodeToString(public[:]) + `"}`, "PUT /repos/o/r/actions/secrets/S": ``,
		"GET /repos/o/r/actions/secrets": `{"secrets":[{"name":"S","updated_at":"2026"}]}`, "GET /rate_limit": `{}`, "POST /repos/o/r/issues": `{"number":9,"html_url":"http://x/o/r/issues/9"}`,
		"POST /repos/o/r/dispatches": ``,
	}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "token tok" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"message":"Bad credentials"}`)
			return
		}
		body, _ := io.ReadAll(r.Body)
		key := r.Method + " " + r.URL.Path
		f.asked, f.bodies = append(f.asked, key), append(f.bodies, string(body))
		if key == "GET /list" {
			if r.URL.Query().Get("page") == "" {
				w.Header().Set("Link", `<`+f.URL+`/list?page=2>; rel="next"`)
				_, _ = io.WriteString(w, `[{"n":1}]`)
				return
			}
			_, _ = io.WriteString(w, `[{"n":2}]`)
			return
		}
		answer, ok := answers[key]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = `{"message":"Not Found"}`
		}
		if strings.HasPrefix(key, "PUT /repos/o/r/actions/secrets/") {
			var in struct {
				Value string `json:"encrypted_value"`
			}
			_ = json.Unmarshal(body, &in)
			f.sealed = in.Value
		}
		_, _ = io.WriteString(w, strings.ReplaceAll(answer, "UPLOAD", f.URL))
	}))
	t.Cleanup(f.Close)
	return f, public, private
}

// gh runs one command in dir.
func (f *forge) gh(t *testing.T, dir, token string, args ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	p := &shim.Process{Args: args, Env: []string{"GH_TOKEN=" + token, "GITHUB_API_URL=" + f.URL, "GITHUB_REPOSITORY=o/r", "PATH=" + os.Getenv("PATH"), "RUNNER_TEMP=" + dir}, Dir: dir,
		Stdin: strings.NewReader("from stdin"), Stdout: &out, Stderr: &out, Transport: http.DefaultTransport}
	code := Main(t.Context(), p)
	return out.String(), code
}

func TestCommands(t *testing.T) {
	f, public, private := newForge(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.tgz"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		line, want, asked string
		code              int
	}{
		{"pr create --title T --body B --head f --label deploy", "http://x/o/r/pull/7", "POST /repos/o/r/issues/7/labels", 0},
		{"pr create --head f", "must provide", "", 2}, {"pr list --label deploy --json number,headRefName --jq .[].headRefName", "f\n", "", 0}, {"pr list", "7\tT\tf\tOPEN", "", 0},
		{"pr view 7 --json state,author,title --jq .state", "MERGED\n", "", 0}, {"pr view 7 --json nothing", "unknown JSON field", "", 2}, {"pr view 99", "Not Found (HTTP 404)", "", 1},
		{"pr comment 7 --body-file -", "#c", "POST /repos/o/r/issues/7/comments", 0}, {"pr merge 7 --squash --delete-branch", "", "DELETE /repos/o/r/git/refs/heads/f", 0}, {"pr merge 7", "required when", "", 2},
		{"pr checks 7", "some checks were not successful", "", 1}, {"run list --json databaseId,conclusion --jq .[0].databaseId", "5\n", "", 0}, {"run view 5", "X build (ID 9)", "", 0},
		{"run view 5 --log", "build\tline one", "", 0}, {"run view 5 --exit-status", "completed with 'failure'", "", 1}, {"run watch 5 --exit-status", "completed with", "", 1},
		{"workflow run ci.yml -f env=prod", "Created workflow_dispatch", "POST /repos/o/r/actions/workflows/ci.yml/dispatches", 0}, {"release create v1 a.tgz --notes N", "http://x/rel", "POST /repos/o/r/releases/3/assets", 0},
		{"release download v1 -p *.tgz -D got", "", "GET /repos/o/r/releases/assets/4", 0}, {"release download v1 -p *.zip", "no assets match", "", 1}, {"api /list --paginate --jq .[].n", "1\n2\n", "", 0},
		{"api /list --paginate --slurp", `[[{"n":1}],[{"n":2}]]`, "", 0}, {"api repos/{owner}/{repo} --jq .default_branch", "main\n", "", 0}, {"api none", "Not Found", "", 1},
		{"api repos/{owner}/{repo}/dispatches -f event_type=x -F client_payload[n]=1 -f client_payload[l][]=a", "", "POST /repos/o/r/dispatches", 0}, {"secret set S --body hush", "Set Actions secret", "", 0},
		{"secret list", "S\t2026", "", 0}, {"auth status", "Logged in", "", 0}, {"issue create --title T --body B", "issues/9", "", 0}, {"repo view --json nameWithOwner --jq .nameWithOwner", "o/r\n", "", 0},
		{"codespace list", "does not know this command", "", 2}, {"pr list --frob", "unknown option --frob", "", 2}, {"--version", "gh version", "", 0}, {"api http://elsewhere.example/x", "is not the host", "", 1},
	} {
		out, code := f.gh(t, dir, "tok", strings.Fields(c.line)...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("gh %s: %d\n%s", c.line, code, out)
		}
		if c.asked != "" && !strings.Contains(strings.Join(f.asked, "\n"), c.asked) {
			t.Errorf("gh %s did not ask %s: %v", c.line, c.asked, f.asked)
		}
	}
	if all := strings.Join(f.bodies, "\n"); !strings.Contains(all, `"client_payload":{"l":["a"],"n":1}`) || !strings.Contains(all, "from stdin") || !strings.Contains(all, `"inputs":{"env":"prod"}`) {
		t.Errorf("bodies %s", all)
	}
	sealed, err := base64.StdEncoding.DecodeString(f.sealed)
	if plain, ok := box.OpenAnonymous(nil, sealed, public, private); err != nil || !ok || string(plain) != "hush" {
		t.Errorf("secret %q %v", plain, err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "got/a.tgz")); err != nil || string(data) != "data" {
		t.Errorf("%q %v", data, err)
	}
	if _, code := f.gh(t, dir, "", "pr", "list"); code != exitAuth {
		t.Errorf("without a token: %d", code)
	}
	if _, code := f.gh(t, dir, "wrong", "pr", "list"); code != exitAuth {
		t.Errorf("with a wrong token: %d", code)
	}
}
