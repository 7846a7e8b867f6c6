package actions

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/crypto/nacl/box"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// ask sends one request to the API, as a user who may write or not.
func (w *world) ask(write bool, method, path, body string) (int, map[string]any, string) {
	w.t.Helper()
	if write {
		return w.askAs("ann", method, "/repos/o/r/actions"+path, body)
	}
	return w.askAs("", method, "/repos/o/r/actions"+path, body)
}

// askAs sends one request as somebody who may write, or as nobody.
func (w *world) askAs(user, method, path, body string) (int, map[string]any, string) {
	w.t.Helper()
	r := httptest.NewRequestWithContext(w.t.Context(), method, path, strings.NewReader(body))
	r.Header.Set("X-Lockstep-Actor", user)
	r.Header.Set("X-Lockstep-Write", fmt.Sprint(user != ""))
	rec := httptest.NewRecorder()
	w.engine.Handler().ServeHTTP(rec, r)
	var out map[string]any
	_ = json.Unmarshal(rec.Body.Bytes(), &out)
	return rec.Code, out, rec.Body.String()
}

func TestSecretsAndVariablesAPI(t *testing.T) {
	w := newWorld(t)
	_, key, _ := w.ask(true, "GET", "/secrets/public-key", "")
	raw, err := base64.StdEncoding.DecodeString(fmt.Sprint(key["key"]))
	if err != nil || len(raw) != 32 {
		t.Fatal(key)
	}
	sealed, err := box.SealAnonymous(nil, []byte("from-the-api"), (*[32]byte)(raw), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf(`{"encrypted_value":%q,"key_id":%q}`, base64.StdEncoding.EncodeToString(sealed), key["key_id"])
	for i, c := range []struct {
		write              bool
		method, path, body string
		status             int
	}{
		{false, "PUT", "/secrets/TOKEN", body, 403}, {false, "GET", "/secrets", "", 403},
		{true, "PUT", "/secrets/TOKEN", body, 201}, {true, "PUT", "/secrets/TOKEN", body, 204}, {true, "GET", "/secrets/token", "", 200},
		{true, "PUT", "/secrets/GITHUB_X", body, 422}, {true, "PUT", "/secrets/X", `{"encrypted_value":"aGk="}`, 422}, {true, "PUT", "/secrets/X", `{`, 400},
		{true, "PUT", "/secrets/X", strings.Repeat(" ", maxBody+1), 413},
		{true, "GET", "/secrets/NONE", "", 404}, {true, "DELETE", "/secrets/NONE", "", 404},
		{false, "POST", "/variables", `{"name":"A","value":"1"}`, 403}, {true, "POST", "/variables", `{"name":"A","value":"1"}`, 201},
		{true, "POST", "/variables", `{"name":"a","value":"1"}`, 409}, {true, "POST", "/variables", `{"name":"1a","value":"1"}`, 422},
		{true, "PATCH", "/variables/A", `{"value":"2"}`, 204}, {true, "PATCH", "/variables/B", `{"value":"2"}`, 404},
		{false, "GET", "/variables/A", "", 200}, {true, "GET", "/nothing", "", 404}, {true, "GET", "/runs/77", "", 404}, {true, "GET", "/runs/x", "", 404},
		{true, "POST", "/runs/77/cancel", "", 404}, {true, "GET", "/jobs/77/logs", "", 404},
		{true, "POST", "/workflows/none.yml/dispatches", `{"ref":"main"}`, 404}, {true, "POST", "/workflows/none.yml/dispatches", `{}`, 422},
	} {
		if status, _, text := w.ask(c.write, c.method, c.path, c.body); status != c.status {
			t.Errorf("%d %s %s: %d instead of %d: %s", i, c.method, c.path, status, c.status, text)
		}
	}
	if values, err := w.engine.store.Secrets(t.Context(), "o/r"); err != nil || values["TOKEN"] != "from-the-api" {
		t.Errorf("%v %v", values, err)
	}
	if _, _, text := w.ask(true, "GET", "/secrets", ""); strings.Contains(text, "from-the-api") || !strings.Contains(text, `"total_count":1`) {
		t.Errorf("list %s", text)
	}
	if _, v, _ := w.ask(false, "GET", "/variables/a", ""); v["value"] != "2" {
		t.Errorf("variable %v", v)
	}
}

func TestDispatchAndRunsAPI(t *testing.T) {
	w := newWorld(t)
	commit := w.push("first", map[string]string{".github/workflows/manual.yml": `name: manual
on:
  workflow_dispatch:
    inputs:
      level: {type: choice, options: [low, high], required: true}
      dry: {type: boolean, default: true}
permissions: {contents: read}
jobs:
  a:
    runs-on: x
    steps:
      - run: echo "level ${{ inputs.level }} ${{ github.event.inputs.level }} dry=${{ inputs.dry && 'yes' || 'no' }} by ${{ github.actor }}"
`})
	if status, _, text := w.ask(true, "POST", "/workflows/manual.yml/dispatches", `{"ref":"main","inputs":{"level":"mid"}}`); status != 422 || !strings.Contains(text, "low, high") {
		t.Errorf("bad input: %d %s", status, text)
	}
	if status, _, _ := w.ask(false, "POST", "/workflows/manual.yml/dispatches", `{"ref":"main"}`); status != 403 {
		t.Errorf("without write: %d", status)
	}
	if status, _, text := w.ask(true, "POST", "/workflows/manual.yml/dispatches", `{"ref":"main","inputs":{"level":"high","dry":false}}`); status != 204 {
		t.Fatalf("dispatch: %d %s", status, text)
	}
	r := w.ended(commit, "manual.yml")
	if log := w.log(r, "a"); r.Conclusion != "success" || !strings.Contains(log, "\nlevel high high dry=no by ann\n") {
		t.Errorf("%+v\n%s", r.Problem, log)
	}
	if len(w.tokens) != 1 || w.tokens[0].Write("contents") {
		t.Errorf("tokens %+v", w.tokens)
	}
	_, list, _ := w.ask(false, "GET", "/runs?branch=main&status=success", "")
	runs, _ := list["workflow_runs"].([]any)
	if list["total_count"] != 1.0 || len(runs) != 1 {
		t.Fatalf("runs %v", list)
	}
	run, _ := runs[0].(map[string]any)
	if run["conclusion"] != "success" || run["status"] != "completed" || run["event"] != "workflow_dispatch" || run["head_sha"] != commit || run["name"] != "manual" {
		t.Errorf("run %v", run)
	}
	_, jobs, _ := w.ask(false, "GET", fmt.Sprintf("/runs/%.0f/jobs", run["id"]), "")
	job, _ := jobs["jobs"].([]any)[0].(map[string]any)
	if steps, _ := job["steps"].([]any); job["name"] != "a" || len(steps) != 3 {
		t.Errorf("job %v", job)
	}
	if status, _, text := w.ask(false, "GET", fmt.Sprintf("/jobs/%.0f/logs?download=1", job["id"]), ""); status != 200 || !strings.Contains(text, "Z level high") {
		t.Errorf("logs %d %s", status, text)
	}
	if _, list, _ = w.ask(false, "GET", "/workflows", ""); list["total_count"] != 1.0 {
		t.Errorf("workflows %v", list)
	}
	if _, list, _ = w.ask(false, "GET", "/workflows/manual.yml/runs", ""); list["total_count"] != 1.0 {
		t.Errorf("runs of a workflow %v", list)
	}
	last, _ := w.journal.Last(t.Context())
	if status, _, _ := w.ask(true, "POST", fmt.Sprintf("/runs/%.0f/rerun", run["id"]), ""); status != http.StatusCreated {
		t.Errorf("rerun %d", status)
	}
	w.event(last, func(e journal.Event) bool { return e.Subject == "manual.yml" && e.Status.Closes() })
	if _, run, _ := w.ask(false, "GET", fmt.Sprintf("/runs/%.0f", run["id"]), ""); run["run_attempt"] != 2.0 {
		t.Errorf("run after a re-run %v", run)
	}
}
