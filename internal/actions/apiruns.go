package actions

import (
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/store"
)

func (a *Actions) runRoutes(r routes) {
	r.read("/runs", a.apiRuns)
	r.read("/runs/{id}", a.apiRun)
	r.write("DELETE", "/runs/{id}", a.apiDeleteRun)
	r.read("/runs/{id}/jobs", a.apiJobs)
	r.read("/runs/{id}/logs", a.apiRunLogs)
	r.write("DELETE", "/runs/{id}/logs", a.apiDeleteLogs)
	r.read("/runs/{id}/timing", a.apiTiming)
	r.read("/runs/{id}/attempts/{attempt}", a.apiRun)
	r.read("/runs/{id}/attempts/{attempt}/jobs", a.apiJobs)
	r.read("/runs/{id}/attempts/{attempt}/logs", a.apiRunLogs)
	r.read("/runs/{id}/approvals", a.apiApprovals)
	r.read("/runs/{id}/pending_deployments", a.apiPendingDeployments)
	r.write("POST", "/runs/{id}/pending_deployments", a.apiReview)
	r.write("POST", "/runs/{id}/cancel", a.apiCancel)
	r.write("POST", "/runs/{id}/force-cancel", a.apiCancel)
	r.write("POST", "/runs/{id}/rerun", a.apiRerun)
	r.write("POST", "/runs/{id}/rerun-failed-jobs", a.apiRerun)
	r.read("/jobs/{id}", a.apiJob)
	r.read("/jobs/{id}/logs", a.apiJobLogs)
	r.write("POST", "/jobs/{id}/rerun", a.apiRerunJob)
}

func nullable(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (a *Actions) apiURL(repo, path string, args ...any) string {
	return a.cfg.APIURL + "/repos/" + repo + fmt.Sprintf(path, args...)
}

// userJSON is an account as far as the engine knows it.
func (a *Actions) userJSON(login string) map[string]any {
	kind := "User"
	if strings.HasSuffix(login, "[bot]") {
		kind = "Bot"
	}
	return map[string]any{"login": login, "id": accountID(login), "node_id": fmt.Sprintf("U_%d", accountID(login)), "type": kind, "site_admin": false,
		"url": a.cfg.APIURL + "/users/" + login, "html_url": a.cfg.ServerURL + "/" + login, "avatar_url": ""}
}

func (a *Actions) repositoryJSON(repo string) map[string]any {
	owner, name, _ := strings.Cut(repo, "/")
	return map[string]any{"id": accountID(repo), "node_id": fmt.Sprintf("R_%d", accountID(repo)), "name": name, "full_name": repo, "owner": a.userJSON(owner),
		"private": false, "fork": false, "url": a.apiURL(repo, ""), "html_url": a.cfg.ServerURL + "/" + repo}
}

// branch is what GitHub calls head_branch.
func branch(r Run) string {
	if r.HeadRef != "" {
		return r.HeadRef
	}
	_, short := shortRef(r.Ref)
	return short
}

func (a *Actions) runJSON(r Run) map[string]any {
	url := a.apiURL(r.Repo, "/actions/runs/%d", r.ID)
	updated := r.Created
	for _, t := range []time.Time{r.Started, r.Ended} {
		if t.After(updated) {
			updated = t
		}
	}
	started := r.Started
	if started.IsZero() {
		started = r.Created
	}
	pulls := []any{}
	if r.Pull > 0 && !r.Fork {
		repo := map[string]any{"id": accountID(r.Repo), "name": path.Base(r.Repo), "url": a.apiURL(r.Repo, "")}
		pulls = append(pulls, map[string]any{"id": r.Pull, "number": r.Pull, "url": a.apiURL(r.Repo, "/pulls/%d", r.Pull),
			"head": map[string]any{"ref": r.HeadRef, "sha": r.Head(), "repo": repo}, "base": map[string]any{"ref": r.BaseRef, "sha": "", "repo": repo}})
	}
	referenced := []any{}
	for _, u := range r.Referenced {
		_, ref, _ := strings.Cut(u.Ref, "@")
		referenced = append(referenced, map[string]any{"path": u.Ref, "sha": u.Commit, "ref": ref})
	}
	var previous any
	if r.Attempt > 1 {
		previous = fmt.Sprintf("%s/attempts/%d", url, r.Attempt-1)
	}
	out := map[string]any{
		"id": r.ID, "node_id": fmt.Sprintf("WFR_%d", r.ID), "name": r.Name, "path": r.File, "display_title": r.Title, "run_number": r.Number, "run_attempt": r.Attempt, "event": r.Event,
		"status": r.Status, "conclusion": nullable(r.Conclusion), "head_branch": branch(r), "head_sha": r.Head(),
		"workflow_id": workflowID(r.File), "created_at": stamp(r.Created), "updated_at": stamp(updated), "run_started_at": stamp(started),
		"url": url, "html_url": fmt.Sprintf("%s/%s/actions/runs/%d", a.cfg.ServerURL, r.Repo, r.ID), "check_suite_id": r.ID, "check_suite_node_id": fmt.Sprintf("CS_%d", r.ID),
		"check_suite_url": a.apiURL(r.Repo, "/check-suites/%d", r.ID), "workflow_url": a.apiURL(r.Repo, "/actions/workflows/%d", workflowID(r.File)),
		"jobs_url": url + "/jobs", "logs_url": url + "/logs", "cancel_url": url + "/cancel", "rerun_url": url + "/rerun", "artifacts_url": url + "/artifacts",
		"previous_attempt_url": previous, "actor": a.userJSON(r.Actor), "triggering_actor": a.userJSON(r.Triggerer()), "pull_requests": pulls, "referenced_workflows": referenced,
		"head_commit": map[string]any{"id": r.Head(), "tree_id": "", "message": r.Title, "timestamp": stamp(r.Created),
			"author": map[string]any{"name": r.Actor, "email": ""}, "committer": map[string]any{"name": r.Actor, "email": ""}},
		"repository": a.repositoryJSON(r.Repo), "head_repository": a.repositoryJSON(r.Repo),
	}
	if r.Problem != nil { // beyond GitHub: why
		out["problem"] = r.Problem
	}
	if r.Note != "" {
		out["note"] = r.Note
	}
	if len(r.Annotations) > 0 {
		out["annotations"] = r.Annotations
	}
	return out
}

// workflowID is a number that stands for a workflow file: its hash.
func workflowID(file string) int64 {
	var h int64 = 7
	for _, b := range []byte(file) {
		h = (h*31 + int64(b)) & 0x7fffffff
	}
	return h
}

func (a *Actions) apiRuns(c *call) (any, error) {
	q := c.URL.Query()
	limit, offset := c.page()
	f := Filter{Repo: c.repo, Commit: q.Get("head_sha"), Event: q.Get("event"), Status: q.Get("status"), Actor: q.Get("actor"), Branch: q.Get("branch"), Limit: limit, Offset: offset}
	var err error
	if f.After, f.Until, err = dates(q.Get("created")); err != nil {
		return nil, err
	}
	if file := c.PathValue("file"); file != "" {
		w, err := a.findWorkflow(c, file)
		if err != nil {
			return nil, err
		}
		f.File = w.path
	}
	runs, err := a.store.Runs(c.Context(), f)
	if err != nil {
		return nil, err
	}
	total, err := a.store.Count(c.Context(), f)
	if err != nil {
		return nil, err
	}
	c.links(total, limit)
	items := []any{}
	for _, r := range runs {
		items = append(items, a.runJSON(r))
	}
	return map[string]any{"total_count": total, "workflow_runs": items}, nil
}

// dates reads a range of GitHub's search syntax: ">=2026-01-01",
// "2026-01-01..2026-02-01", "2026-01-01".
func dates(text string) (from, to time.Time, err error) {
	day := func(s string, end bool) (time.Time, error) {
		for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02"} {
			t, err := time.Parse(layout, s)
			if err != nil {
				continue
			}
			if end && layout == "2006-01-02" {
				t = t.Add(24*time.Hour - time.Second)
			}
			return t, nil
		}
		return time.Time{}, refuse(http.StatusUnprocessableEntity, "created: %q is no date", s)
	}
	switch first, last, isRange := strings.Cut(text, ".."); {
	case text == "":
	case isRange:
		if first != "*" {
			if from, err = day(first, false); err != nil {
				return from, to, err
			}
		}
		if last != "*" {
			to, err = day(last, true)
		}
	case strings.HasPrefix(text, ">="), strings.HasPrefix(text, ">"):
		from, err = day(strings.TrimLeft(text, ">="), false)
		if err == nil && !strings.HasPrefix(text, ">=") {
			from = from.Add(time.Second)
		}
	case strings.HasPrefix(text, "<="), strings.HasPrefix(text, "<"):
		to, err = day(strings.TrimLeft(text, "<="), strings.HasPrefix(text, "<="))
		if err == nil && !strings.HasPrefix(text, "<=") {
			to = to.Add(-time.Second)
		}
	default:
		if from, err = day(text, false); err == nil {
			to, err = day(text, true)
		}
	}
	return from, to, err
}

// theRun is the run in the path, of the repository in the path, at the attempt
// in the path.
func (a *Actions) theRun(c *call) (Run, error) {
	id, err := c.id()
	if err != nil {
		return Run{}, err
	}
	var r Run
	if text := c.PathValue("attempt"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			return Run{}, fmt.Errorf("attempt %q: %w", text, ErrNotFound)
		}
		r, err = a.store.Attempt(c.Context(), id, n)
		if err != nil {
			return Run{}, err
		}
	} else if r, err = a.store.Run(c.Context(), id); err != nil {
		return Run{}, err
	}
	if !strings.EqualFold(r.Repo, c.repo) {
		return Run{}, fmt.Errorf("run %d of %s: %w", id, c.repo, ErrNotFound)
	}
	return r, nil
}

func (a *Actions) apiRun(c *call) (any, error) {
	r, err := a.theRun(c)
	if err != nil {
		return nil, err
	}
	return a.runJSON(r), nil
}

func (a *Actions) apiDeleteRun(c *call) (any, error) {
	r, err := a.theRun(c)
	if err != nil {
		return nil, err
	}
	if r.Status != store.Completed {
		return nil, refuse(http.StatusForbidden, "run %d has not ended: cancel it first", r.ID)
	}
	if a.deps.Services != nil {
		if err := a.deps.Services.DeleteRun(c.Context(), r.ID); err != nil {
			return nil, err
		}
	}
	if err := a.store.DeleteRun(c.Context(), r.ID); err != nil {
		return nil, err
	}
	return done(http.StatusNoContent), a.logs.Remove(r.ID)
}

func (a *Actions) jobJSON(r Run, j Job) map[string]any {
	steps := []any{}
	for _, s := range j.Steps {
		steps = append(steps, map[string]any{"number": s.Number, "name": s.Name, "status": s.Status, "conclusion": nullable(s.Conclusion),
			"started_at": stamp(s.Started), "completed_at": stamp(s.Ended)})
	}
	labels := j.Labels
	if labels == nil {
		labels = []string{}
	}
	created, started := j.Created, j.Started
	if created.IsZero() {
		created = r.Created
	}
	if started.IsZero() { // as on GitHub: never null
		started = created
	}
	out := map[string]any{
		"id": j.ID, "run_id": j.RunID, "node_id": fmt.Sprintf("CR_%d", j.ID), "run_attempt": j.Attempt, "name": j.Name, "workflow_name": r.Name, "head_sha": r.Head(),
		"head_branch": branch(r), "run_url": a.apiURL(r.Repo, "/actions/runs/%d", r.ID), "check_run_url": a.apiURL(r.Repo, "/check-runs/%d", j.ID),
		"status": j.Status, "conclusion": nullable(j.Conclusion), "created_at": stamp(created), "started_at": stamp(started), "completed_at": stamp(j.Ended),
		"steps": steps, "labels": labels, "runner_id": 1, "runner_name": "lockstep", "runner_group_id": 1, "runner_group_name": "Default",
		"url": a.apiURL(r.Repo, "/actions/jobs/%d", j.ID), "html_url": fmt.Sprintf("%s/%s/actions/runs/%d/job/%d", a.cfg.ServerURL, r.Repo, r.ID, j.ID),
	}
	// Beyond GitHub: why, what it waits for, and what was used.
	if j.Problem != nil {
		out["problem"] = j.Problem
	}
	if j.Note != "" {
		out["note"] = j.Note
	}
	if len(j.Annotations) > 0 {
		out["annotations"] = j.Annotations
	}
	if j.Summary != "" {
		out["summary"] = j.Summary
	}
	if len(j.Uses) > 0 {
		out["uses"] = j.Uses
	}
	if j.Gate != nil {
		out["environment"] = map[string]any{"name": j.Gate.Environment, "url": j.Gate.URL}
	}
	return out
}

func (a *Actions) apiJobs(c *call) (any, error) {
	r, err := a.theRun(c)
	if err != nil {
		return nil, err
	}
	if c.URL.Query().Get("filter") == "all" && c.PathValue("attempt") == "" {
		if r.Jobs, err = a.store.AllJobs(c.Context(), r.ID); err != nil {
			return nil, err
		}
	}
	limit, offset := c.page()
	c.links(len(r.Jobs), limit)
	items := []any{}
	for _, j := range cut(r.Jobs, limit, offset) {
		items = append(items, a.jobJSON(r, j))
	}
	return map[string]any{"total_count": len(r.Jobs), "jobs": items}, nil
}

func (a *Actions) theJob(c *call) (Run, Job, error) {
	id, err := c.id()
	if err != nil {
		return Run{}, Job{}, err
	}
	j, err := a.store.Job(c.Context(), id)
	if err != nil {
		return Run{}, Job{}, err
	}
	r, err := a.store.Run(c.Context(), j.RunID)
	if err == nil && !strings.EqualFold(r.Repo, c.repo) {
		err = fmt.Errorf("job %d of %s: %w", id, c.repo, ErrNotFound)
	}
	return r, j, err
}

func (a *Actions) apiJob(c *call) (any, error) {
	r, j, err := a.theJob(c)
	if err != nil {
		return nil, err
	}
	return a.jobJSON(r, j), nil
}

func (a *Actions) apiCancel(c *call) (any, error) {
	r, err := a.theRun(c)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(c.URL.Path, "/force-cancel") {
		return done(http.StatusAccepted), a.ForceCancel(c.Context(), r.ID)
	}
	return done(http.StatusAccepted), a.Cancel(c.Context(), r.ID)
}

func (a *Actions) apiRerun(c *call) (any, error) {
	r, err := a.theRun(c)
	if err != nil {
		return nil, err
	}
	o := RerunOptions{OnlyFailed: strings.HasSuffix(c.URL.Path, "/rerun-failed-jobs"), Actor: c.actor}
	return created{map[string]any{}}, a.RerunWith(c.Context(), r.ID, o)
}

func (a *Actions) apiRerunJob(c *call) (any, error) {
	r, j, err := a.theJob(c)
	if err != nil {
		return nil, err
	}
	return created{map[string]any{}}, a.RerunWith(c.Context(), r.ID, RerunOptions{Job: j.ID, Actor: c.actor})
}

func (a *Actions) apiTiming(c *call) (any, error) {
	r, err := a.theRun(c)
	if err != nil {
		return nil, err
	}
	end := r.Ended
	if end.IsZero() {
		end = a.deps.Now()
	}
	took := int64(0)
	if !r.Started.IsZero() {
		took = end.Sub(r.Started).Milliseconds()
	}
	jobs := []any{}
	for _, j := range r.Jobs {
		if !j.Started.IsZero() && !j.Ended.IsZero() {
			jobs = append(jobs, map[string]any{"job_id": j.ID, "duration_ms": j.Ended.Sub(j.Started).Milliseconds()})
		}
	}
	return map[string]any{"billable": map[string]any{"UBUNTU": map[string]any{"total_ms": 0, "jobs": len(jobs), "job_runs": jobs}}, "run_duration_ms": took}, nil
}
