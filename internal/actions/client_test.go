package actions

import (
	"archive/zip"
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-github/v92/github"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// client is GitHub's own Go client for an engine, as somebody who may write.
func (w *world) client(user string) *github.Client {
	w.t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		r.Header.Set("X-Lockstep-Actor", user)
		r.Header.Set("X-Lockstep-Write", "true")
		w.engine.Handler().ServeHTTP(rw, r)
	}))
	w.t.Cleanup(server.Close)
	w.engine.cfg.APIURL = server.URL
	c, err := github.NewClient(github.WithURLs(github.Ptr(server.URL+"/"), nil))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func get(t *testing.T, u *url.URL) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v", u, res.Status, err)
	}
	return data
}

func TestGoGitHub(t *testing.T) {
	w := newWorld(t)
	c := w.client("ann")
	ctx := t.Context()
	commit := w.push("x", map[string]string{".github/workflows/ci.yml": "name: CI\non: [push, workflow_dispatch]\njobs:\n  build/it:\n    runs-on: x\n    steps: []\n"})
	bad := w.ended(commit, "ci.yml") // a job id cannot have a slash
	if bad.Conclusion != "failure" || len(bad.Annotations) == 0 {
		t.Errorf("%+v", bad)
	}
	commit = w.push("y", map[string]string{".github/workflows/ci.yml": "name: CI\non: [push, workflow_dispatch]\njobs:\n  build:\n    name: 'build: it / all'\n    runs-on: [self-hosted, big]\n    steps:\n      - name: Say hi\n        run: echo hi; echo \"### Sum\" >> $GITHUB_STEP_SUMMARY\n      - run: exit 3\n"})
	r := w.ended(commit, "ci.yml")
	runs, _, err := c.Actions.ListRepositoryWorkflowRuns(ctx, "o", "r", &github.ListWorkflowRunsOptions{Branch: "main", Status: "failure", HeadSHA: commit, Created: ">=2020-01-01"})
	if err != nil || runs.GetTotalCount() != 1 || runs.WorkflowRuns[0].GetID() != r.ID || runs.WorkflowRuns[0].GetConclusion() != "failure" || runs.WorkflowRuns[0].GetActor().GetLogin() != "ann" {
		t.Fatalf("%v %v", runs, err)
	}
	jobs, _, err := c.Actions.ListWorkflowJobs(ctx, "o", "r", r.ID, &github.ListWorkflowJobsOptions{Filter: "latest"})
	if err != nil || len(jobs.Jobs) != 1 || jobs.Jobs[0].GetName() != "build: it / all" || len(jobs.Jobs[0].Labels) != 2 || len(jobs.Jobs[0].Steps) < 3 {
		t.Fatalf("%v %v", jobs, err)
	}
	u, _, err := c.Actions.GetWorkflowJobLogs(ctx, "o", "r", jobs.Jobs[0].GetID(), 3)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(get(t, u)); !strings.Contains(text, "Z hi\n") {
		t.Errorf("log %s", text)
	}
	if u, _, err = c.Actions.GetWorkflowRunLogs(ctx, "o", "r", r.ID, 3); err != nil {
		t.Fatal(err)
	}
	data := get(t, u)
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
	}
	if all := strings.Join(names, "\n"); !strings.Contains(all, "0_build it  all.txt") || !strings.Contains(all, "build it  all/2_Say hi.txt") {
		t.Errorf("archive\n%s", all)
	}
	usage, _, err := c.Actions.GetWorkflowRunUsageByID(ctx, "o", "r", r.ID)
	if err != nil || usage.GetRunDurationMS() <= 0 {
		t.Errorf("%v %v", usage, err)
	}
	if _, err := c.Actions.RerunFailedJobsByID(ctx, "o", "r", r.ID); err != nil {
		t.Errorf("rerun: %v", err)
	}
	for r, _ = w.engine.GetRun(ctx, r.ID); r.Status != "completed"; r, _ = w.engine.GetRun(ctx, r.ID) {
		w.event(0, func(e journal.Event) bool { return e.Data["attempt"] == "2" && e.Status.Closes() })
	}
	attempt, _, err := c.Actions.GetWorkflowRunAttempt(ctx, "o", "r", r.ID, 1, nil)
	if err != nil || attempt.GetRunAttempt() != 1 || attempt.GetConclusion() != "failure" {
		t.Errorf("%v %v", attempt, err)
	}
	again, _, err := c.Actions.GetWorkflowRunByID(ctx, "o", "r", r.ID)
	if err != nil || again.GetRunAttempt() != 2 || again.GetPreviousAttemptURL() == "" || again.GetTriggeringActor().GetLogin() != "ann" {
		t.Errorf("%v %v", again, err)
	}
	workflows, _, err := c.Actions.ListWorkflows(ctx, "o", "r", nil)
	if err != nil || workflows.GetTotalCount() != 1 || workflows.Workflows[0].GetName() != "CI" || workflows.Workflows[0].GetState() != "active" {
		t.Fatalf("%v %v", workflows, err)
	}
	id := workflows.Workflows[0].GetID()
	if _, err := c.Actions.DisableWorkflowByID(ctx, "o", "r", id); err != nil {
		t.Fatal(err)
	}
	if one, _, err := c.Actions.GetWorkflowByFileName(ctx, "o", "r", "ci.yml"); err != nil || one.GetState() != "disabled_manually" {
		t.Errorf("%v %v", one, err)
	}
	dispatch := github.CreateWorkflowDispatchEventRequest{Ref: "main"}
	if _, _, err := c.Actions.CreateWorkflowDispatchEventByID(ctx, "o", "r", id, dispatch); err == nil {
		t.Error("a disabled workflow was dispatched")
	}
	w.push("z", map[string]string{"z": "1"})
	w.consumed()
	if _, err := c.Actions.EnableWorkflowByID(ctx, "o", "r", id); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Actions.CreateWorkflowDispatchEventByID(ctx, "o", "r", id, dispatch); err != nil {
		t.Fatal(err)
	}
	if last := w.newest("ci.yml", 3); last.Event != "workflow_dispatch" {
		t.Errorf("%+v", last)
	}
	if _, err := c.Actions.DeleteWorkflowRun(ctx, "o", "r", r.ID); err != nil {
		t.Error(err)
	}
	if _, res, err := c.Actions.GetWorkflowRunByID(ctx, "o", "r", r.ID); err == nil || res.StatusCode != 404 {
		t.Errorf("a deleted run is there: %v", err)
	}
	env, _, err := c.Repositories.CreateUpdateEnvironment(ctx, "o", "r", "prod", &github.CreateUpdateEnvironment{WaitTimer: github.Ptr(0), CanAdminsBypass: github.Ptr(true),
		Reviewers: []*github.EnvReviewers{{Type: github.Ptr("User"), ID: github.Ptr(accountID("ann"))}}})
	if err != nil || env.GetName() != "prod" || len(env.ProtectionRules) != 1 {
		t.Errorf("%v %v", env, err)
	}
	if list, _, err := c.Repositories.ListEnvironments(ctx, "o", "r", nil); err != nil || list.GetTotalCount() != 1 {
		t.Errorf("%v %v", list, err)
	}
}
