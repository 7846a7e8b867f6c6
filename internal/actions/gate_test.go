package actions

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/nacl/box"

	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

const deployWorkflow = `on: push
jobs:
  build:
    runs-on: x
    steps: [{run: echo built}]
  deploy:
    needs: build
    runs-on: x
    environment:
      name: prod
      url: https://${{ steps.u.outputs.host }}
    steps:
      - id: u
        run: |
          echo "host=shop.example" >> $GITHUB_OUTPUT
          echo "secret '${{ secrets.KEY }}' region ${{ vars.REGION }}"
`

// environments asks the environments API.
func (w *world) environments(as, method, path, body string) (int, map[string]any, string) {
	w.t.Helper()
	return w.askAs(as, method, "/repos/o/r/environments"+path, body)
}

// waiting waits until a job of a run waits, and returns the run.
func (w *world) waiting(commit, subject string) Run {
	w.t.Helper()
	e := w.event(0, func(e journal.Event) bool {
		return e.Commit == commit && e.Subject == subject && e.Status == journal.StatusWaiting
	})
	var id int64
	_, _ = fmt.Sscan(e.Data["run_id"], &id)
	r, err := w.engine.GetRun(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func TestEnvironmentsWaitForReviewers(t *testing.T) {
	w := newWorld(t)
	if status, _, text := w.environments("ann", "PUT", "/prod", `{"reviewers":[{"type":"User","login":"bob"},{"type":"User","login":"ann"}],"prevent_self_review":true,"deployment_branch_policy":{"protected_branches":false,"custom_branch_policies":true}}`); status != 200 {
		t.Fatal(status, text)
	}
	_, key, _ := w.environments("ann", "GET", "/prod/secrets/public-key", "")
	raw, _ := base64.StdEncoding.DecodeString(fmt.Sprint(key["key"]))
	sealed, err := box.SealAnonymous(nil, []byte("of-the-environment"), (*[32]byte)(raw), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if status, _, text := w.environments("ann", "PUT", "/prod/secrets/KEY", fmt.Sprintf(`{"encrypted_value":%q,"key_id":%q}`, base64.StdEncoding.EncodeToString(sealed), key["key_id"])); status != 201 {
		t.Fatal(status, text)
	}
	if status, _, text := w.environments("ann", "POST", "/prod/variables", `{"name":"REGION","value":"north"}`); status != 201 {
		t.Fatal(status, text)
	}
	// The branch policy names nothing yet.
	commit := w.push("refused", map[string]string{".github/workflows/d.yml": deployWorkflow})
	r := w.ended(commit, "d.yml")
	if p := w.job(r, "deploy").Problem; p == nil || !strings.Contains(p.Message, `Branch "main" is not allowed to deploy to prod`) || p.Line == 0 || p.Hint == "" {
		t.Errorf("%+v", p)
	}
	if status, _, text := w.environments("ann", "POST", "/prod/deployment-branch-policies", `{"name":"ma*"}`); status != 200 {
		t.Fatal(status, text)
	}
	commit = w.push("waits", map[string]string{"x": "1"})
	r = w.waiting(commit, "d.yml/deploy")
	if j := w.job(r, "deploy"); j.Note != "waits for a review by bob or ann to deploy to prod" || j.Status != store.Waiting {
		t.Errorf("%+v", j)
	}
	// It waits on after a restart.
	w.stop()
	w.start()
	deadline := time.Now().Add(10 * time.Second)
	for r, _ = w.engine.GetRun(t.Context(), r.ID); r.Status != store.Waiting; r, _ = w.engine.GetRun(t.Context(), r.ID) {
		if time.Now().After(deadline) {
			t.Fatalf("run %+v", r)
		}
		time.Sleep(5 * time.Millisecond)
	}
	path := fmt.Sprintf("/runs/%d/pending_deployments", r.ID)
	_, _, text := w.askAs("bob", "GET", "/repos/o/r/actions"+path, "")
	if !strings.Contains(text, `"current_user_can_approve":true`) || !strings.Contains(text, `"login":"bob"`) {
		t.Errorf("pending %s", text)
	}
	environment := w.job(r, "deploy").Gate.EnvironmentID
	approve := fmt.Sprintf(`{"environment_ids":[%d],"state":"approved","comment":"go"}`, environment)
	for user, want := range map[string]int{"eve": 403, "ann": 403} {
		if status, _, text := w.askAs(user, "POST", "/repos/o/r/actions"+path, approve); status != want {
			t.Errorf("%s: %d %s", user, status, text)
		}
	}
	if status, _, text := w.askAs("bob", "POST", "/repos/o/r/actions"+path, approve); status != 200 {
		t.Fatal(status, text)
	}
	r = w.ended(commit, "d.yml")
	if log := w.log(r, "deploy"); r.Conclusion != "success" || r.Attempt != 1 || !strings.Contains(log, "secret '***' region north\n") {
		t.Errorf("%+v\n%s", r, log)
	}
	if len(r.Jobs) != 2 || w.job(r, "deploy").Gate.URL != "https://shop.example" {
		t.Errorf("%+v", r.Jobs)
	}
	if _, _, text := w.askAs("bob", "GET", fmt.Sprintf("/repos/o/r/actions/runs/%d/approvals", r.ID), ""); !strings.Contains(text, `"comment":"go"`) || !strings.Contains(text, `"state":"approved"`) {
		t.Errorf("approvals %s", text)
	}
	w.mu.Lock()
	if got := strings.Join(w.deployments, ", "); got != "create prod refs/heads/main ann, waiting, waiting, in_progress, success https://shop.example" {
		t.Errorf("deployments %s", got)
	}
	w.mu.Unlock()
	// A rejection ends the job.
	commit = w.push("rejected", map[string]string{"x": "2"})
	r = w.waiting(commit, "d.yml/deploy")
	if _, err := w.engine.Review(t.Context(), r.ID, ReviewOptions{User: "bob"}); err != nil {
		t.Fatal(err)
	}
	if r = w.ended(commit, "d.yml"); r.Conclusion != "failure" || !strings.Contains(r.Problem.Message, "the deployment to prod was rejected by bob") {
		t.Errorf("%+v", r)
	}
}

func TestWaitTimers(t *testing.T) {
	w := newWorldWith(t, &world{prepare: func(a *Actions) { a.minute = 150 * time.Millisecond }})
	if status, _, text := w.environments("ann", "PUT", "/prod", `{"wait_timer":2}`); status != 200 {
		t.Fatal(status, text)
	}
	r := w.ended(w.push("x", map[string]string{".github/workflows/d.yml": deployWorkflow}), "d.yml")
	j := w.job(r, "deploy")
	if waited := j.Started.Sub(j.Gate.Since); r.Conclusion != "success" || waited < 300*time.Millisecond || waited > 5*time.Second {
		t.Errorf("waited %v: %+v", waited, r.Problem)
	}
}

func TestEnvironmentsAPI(t *testing.T) {
	w := newWorld(t)
	for i, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/none", "", 404, ""}, {"PUT", "/a%2Fb", "", 200, `"name":"a/b"`}, {"PUT", "/bad'name", "", 422, ""},
		{"PUT", "/prod", `{"wait_timer":50000}`, 422, "wait_timer"}, {"PUT", "/prod", `{"deployment_branch_policy":{"protected_branches":true,"custom_branch_policies":true}}`, 422, "same value"},
		{"PUT", "/prod", `{"reviewers":[{"type":"Team","id":1}]}`, 422, "Team"}, {"PUT", "/prod", `{"reviewers":[{"type":"User","id":1}]}`, 422, "no user"},
		{"PUT", "/prod", fmt.Sprintf(`{"wait_timer":5,"reviewers":[{"type":"User","id":%d}]}`, accountID("ann")), 200, `"wait_timer":5`},
		{"GET", "/prod", "", 200, `"type":"required_reviewers"`}, {"GET", "", "", 200, `"total_count":2`},
		{"POST", "/prod/deployment-branch-policies", `{"name":"main"}`, 404, "custom"},
		{"PUT", "/prod", `{"deployment_branch_policy":{"protected_branches":false,"custom_branch_policies":true}}`, 200, `"custom_branch_policies":true`},
		{"POST", "/prod/deployment-branch-policies", `{"name":"v*","type":"tag"}`, 200, `"type":"tag"`}, {"POST", "/prod/deployment-branch-policies", `{}`, 422, ""},
		{"GET", "/prod/deployment-branch-policies", "", 200, `"total_count":1`}, {"DELETE", "/prod/deployment-branch-policies/9", "", 404, ""},
		{"GET", "/none/secrets", "", 404, ""}, {"POST", "/prod/variables", `{"name":"A","value":"1"}`, 201, ""}, {"GET", "/prod/variables/A", "", 200, `"value":"1"`},
		{"DELETE", "/prod", "", 204, ""}, {"PUT", "/prod", "", 200, ""}, {"GET", "/prod/variables/A", "", 404, ""},
	} {
		if status, _, text := w.environments("ann", c.method, c.path, c.body); status != c.status || !strings.Contains(text, c.want) {
			t.Errorf("%d %s %s: %d instead of %d: %s", i, c.method, c.path, status, c.status, text)
		}
	}
	if values, _ := w.engine.store.Variables(t.Context(), "o/r"); len(values) != 0 {
		t.Errorf("variables of the repository %v", values)
	}
	if list, err := w.engine.ListSecrets(t.Context(), ""); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
}

func TestQueuesOfConcurrencyGroups(t *testing.T) {
	w := newWorld(t)
	workflow := func(n int) string {
		return fmt.Sprintf("on: push\nconcurrency: {group: all, queue: max}\njobs:\n  a:\n    runs-on: x\n    steps: [{run: sleep 0.%d}]\n", n)
	}
	var commits []string
	for i := range 4 {
		commits = append(commits, w.push(fmt.Sprint(i), map[string]string{".github/workflows/ci.yml": workflow(5 - i)}))
	}
	var ends []time.Time
	for _, c := range commits {
		r := w.ended(c, "ci.yml")
		if r.Conclusion != "success" {
			t.Errorf("%+v", r)
		}
		ends = append(ends, r.Ended)
		if len(ends) > 1 && !ends[len(ends)-1].After(ends[len(ends)-2]) {
			t.Errorf("not in order: %v", ends)
		}
	}
}

func TestReruns(t *testing.T) {
	w := newWorld(t)
	commit := w.push("x", map[string]string{".github/workflows/ci.yml": `on: push
jobs:
  good:
    runs-on: x
    outputs: {v: "${{ github.run_attempt }}"}
    steps: [{run: echo}]
  m:
    runs-on: x
    strategy: {fail-fast: false, matrix: {n: [1, 2]}}
    steps: [{run: "test ${{ matrix.n }}$GITHUB_RUN_ATTEMPT != 21"}]
  after:
    needs: [good, m]
    runs-on: x
    steps: [{run: "echo from ${{ needs.good.outputs.v }} by $GITHUB_TRIGGERING_ACTOR of $GITHUB_ACTOR"}]
`})
	r := w.ended(commit, "ci.yml")
	if r.Conclusion != "failure" || w.job(r, "after").Conclusion != "skipped" {
		t.Fatalf("%+v", r)
	}
	again := func(o RerunOptions) Run {
		t.Helper()
		last, _ := w.journal.Last(t.Context())
		if err := w.engine.RerunWith(t.Context(), r.ID, o); err != nil {
			t.Fatal(err)
		}
		w.event(last, func(e journal.Event) bool { return e.Subject == "ci.yml" && e.Status.Closes() })
		r, _ := w.engine.GetRun(t.Context(), r.ID)
		return r
	}
	took := func(r Run, name string) bool { return strings.Contains(w.job(r, name).Note, "taken over") }
	// One job of a matrix: what failed before and is not asked for stays.
	if r = again(RerunOptions{Job: w.job(r, "m (1)").ID, Actor: "bob"}); r.Conclusion != "failure" || took(r, "m (1)") || !took(r, "m (2)") || !took(r, "good") {
		t.Errorf("one job: %+v", r.Jobs)
	}
	r = again(RerunOptions{OnlyFailed: true, Actor: "bob"})
	if r.Conclusion != "success" || !took(r, "m (1)") || took(r, "m (2)") || !took(r, "good") || took(r, "after") || !strings.Contains(w.log(r, "after"), "from 1 by bob of ann\n") {
		t.Errorf("failed ones: %+v\n%s", r, w.log(r, "after"))
	}
	// A job that others need: they run again too.
	r = again(RerunOptions{Job: w.job(r, "good").ID})
	if r.Conclusion != "success" || took(r, "good") || took(r, "after") || !took(r, "m (1)") || r.Attempt != 4 || !strings.Contains(w.log(r, "after"), "from 4 by ann") {
		t.Errorf("needed: %+v", r)
	}
	first, err := w.engine.store.Attempt(t.Context(), r.ID, 1)
	if err != nil || first.Conclusion != "failure" || len(first.Jobs) != 4 || w.job(first, "m (2)").Conclusion != "failure" {
		t.Errorf("%+v %v", first, err)
	}
	if err := w.engine.RerunWith(t.Context(), r.ID, RerunOptions{Job: first.Jobs[0].ID}); err == nil {
		t.Error("a job of an old attempt was run again")
	}
}

func TestForcedCancel(t *testing.T) {
	w := newWorld(t)
	commit := w.push("x", map[string]string{".github/workflows/ci.yml": "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: sleep 4242\n      - if: always()\n        run: sleep 4242\n  b:\n    if: always()\n    needs: a\n    runs-on: x\n    steps: [{run: sleep 4242}]\n"})
	deadline := time.Now().Add(20 * time.Second)
	for sleepers(t) == nil && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	runs, _ := w.engine.Runs(t.Context(), Filter{Commit: commit})
	if len(runs) != 1 {
		t.Fatal(runs)
	}
	started := time.Now()
	if status, _, text := w.ask(true, "POST", fmt.Sprintf("/runs/%d/force-cancel", runs[0].ID), ""); status != 202 {
		t.Fatal(status, text)
	}
	r := w.ended(commit, "ci.yml")
	if r.Conclusion != "cancelled" || w.job(r, "b").Conclusion != "cancelled" || time.Since(started) > 5*time.Second || len(sleepers(t)) > 0 {
		t.Errorf("%+v after %v, left %v", r, time.Since(started), sleepers(t))
	}
}
