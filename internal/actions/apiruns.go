package actions

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
	"github.com/lockstep-gitops/lockstep/internal/git"
)

// named finds one entry of a list by the name in the path.
func named(c *call, list func(context.Context, string) ([]store.Named, error), show func(store.Named) any) (any, error) {
	all, err := list(c.Context(), c.repo)
	if err != nil {
		return nil, err
	}
	for _, n := range all {
		if strings.EqualFold(n.Name, c.PathValue("name")) {
			return show(n), nil
		}
	}
	return nil, fmt.Errorf("%s: %w", c.PathValue("name"), ErrNotFound)
}

func nullable(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (a *Actions) runJSON(r Run) map[string]any {
	api := a.cfg.APIURL + "/repos/" + r.Repo + "/actions/runs/" + strconv.FormatInt(r.ID, 10)
	branch := strings.TrimPrefix(strings.TrimPrefix(r.Ref, "refs/heads/"), "refs/tags/")
	updated := r.Created
	if r.Started.After(updated) {
		updated = r.Started
	}
	if r.Ended.After(updated) {
		updated = r.Ended
	}
	actor := map[string]string{"login": r.Actor}
	out := map[string]any{
		"id": r.ID, "name": r.Name, "path": r.File, "display_title": r.Title, "run_number": r.Number, "run_attempt": r.Attempt, "event": r.Event,
		"status": r.Status, "conclusion": nullable(r.Conclusion), "head_branch": branch, "head_sha": r.Commit,
		"workflow_id": workflowID(r.File), "created_at": stamp(r.Created), "updated_at": stamp(updated), "run_started_at": stamp(r.Started),
		"url": api, "html_url": a.cfg.ServerURL + "/" + r.Repo + "/actions/runs/" + strconv.FormatInt(r.ID, 10),
		"jobs_url": api + "/jobs", "logs_url": api + "/logs", "cancel_url": api + "/cancel", "rerun_url": api + "/rerun",
		"actor": actor, "triggering_actor": actor, "head_commit": map[string]any{"id": r.Commit, "message": r.Title},
		"repository": map[string]any{"full_name": r.Repo, "name": path.Base(r.Repo)},
	}
	if r.Problem != nil { // beyond GitHub: why
		out["problem"] = r.Problem
	}
	if r.Note != "" {
		out["note"] = r.Note
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
	f := Filter{Repo: c.repo, Commit: q.Get("head_sha"), Event: q.Get("event"), Status: q.Get("status"), Limit: limit, Offset: offset}
	if b := q.Get("branch"); b != "" {
		f.Ref = "refs/heads/" + b
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
	items := []any{}
	for _, r := range runs {
		items = append(items, a.runJSON(r))
	}
	return map[string]any{"total_count": total, "workflow_runs": items}, nil
}

// theRun is the run in the path, of the repository in the path.
func (a *Actions) theRun(c *call) (Run, error) {
	id, err := c.id()
	if err != nil {
		return Run{}, err
	}
	r, err := a.store.Run(c.Context(), id)
	if err == nil && !strings.EqualFold(r.Repo, c.repo) {
		err = fmt.Errorf("run %d of %s: %w", id, c.repo, ErrNotFound)
	}
	return r, err
}

func (a *Actions) apiRun(c *call) (any, error) {
	r, err := a.theRun(c)
	if err != nil {
		return nil, err
	}
	return a.runJSON(r), nil
}

func (a *Actions) jobJSON(r Run, j Job) map[string]any {
	steps := []any{}
	for _, s := range j.Steps {
		steps = append(steps, map[string]any{"number": s.Number, "name": s.Name, "status": s.Status, "conclusion": nullable(s.Conclusion),
			"started_at": stamp(s.Started), "completed_at": stamp(s.Ended)})
	}
	id := strconv.FormatInt(j.ID, 10)
	out := map[string]any{
		"id": j.ID, "run_id": j.RunID, "run_attempt": j.Attempt, "name": j.Name, "workflow_name": r.Name, "head_sha": r.Commit,
		"head_branch": strings.TrimPrefix(strings.TrimPrefix(r.Ref, "refs/heads/"), "refs/tags/"),
		"status":      j.Status, "conclusion": nullable(j.Conclusion), "started_at": stamp(j.Started), "completed_at": stamp(j.Ended),
		"steps": steps, "labels": []string{}, "runner_name": "lockstep",
		"url":      a.cfg.APIURL + "/repos/" + r.Repo + "/actions/jobs/" + id,
		"html_url": a.cfg.ServerURL + "/" + r.Repo + "/actions/runs/" + strconv.FormatInt(r.ID, 10) + "/job/" + id,
	}
	if j.Problem != nil {
		out["problem"] = j.Problem
	}
	if len(j.Annotations) > 0 {
		out["annotations"] = j.Annotations
	}
	if j.Summary != "" {
		out["summary"] = j.Summary
	}
	return out
}

func (a *Actions) apiJobs(c *call) (any, error) {
	r, err := a.theRun(c)
	if err != nil {
		return nil, err
	}
	if n, err := strconv.Atoi(c.PathValue("attempt")); err == nil {
		if r.Jobs, err = a.store.Jobs(c.Context(), r.ID, n); err != nil {
			return nil, err
		}
	}
	limit, offset := c.page()
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

// apiJobLogs is the logs of all steps of a job, one after the other.
func (a *Actions) apiJobLogs(c *call) (any, error) {
	r, j, err := a.theJob(c)
	if err != nil {
		return nil, err
	}
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	return nil, a.copyLogs(c.Context(), c.w, r, j, func(Step) bool { return true }, false)
}

// copyLogs writes the logs of the wanted steps, in order.
func (a *Actions) copyLogs(ctx context.Context, w io.Writer, r Run, j Job, want func(Step) bool, follow bool) error {
	for _, s := range j.Steps {
		if !want(s) {
			continue
		}
		log, err := a.Logs(ctx, r.ID, j.ID, s.Number, follow)
		if errors.Is(err, ErrNotFound) {
			continue // skipped steps have none
		}
		if err != nil {
			return err
		}
		_, err = bufio.NewReader(log).WriteTo(w)
		if err = errors.Join(err, log.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (a *Actions) apiCancel(c *call) (any, error) {
	r, err := a.theRun(c)
	if err != nil {
		return nil, err
	}
	return done(http.StatusAccepted), a.Cancel(c.Context(), r.ID)
}

func (a *Actions) apiRerun(c *call) (any, error) {
	r, err := a.theRun(c)
	if err != nil {
		return nil, err
	}
	_, err = a.Rerun(c.Context(), r.ID, strings.HasSuffix(c.URL.Path, "/rerun-failed-jobs"))
	return done(http.StatusCreated), err
}

// workflow is one file of the default branch.
type workflow struct {
	path, name string
}

func (a *Actions) workflows(ctx context.Context, repoName string) ([]workflow, error) {
	repo, err := a.deps.Repositories.Repository(ctx, repoName)
	if err != nil {
		return nil, err
	}
	files, err := workflowFiles(ctx, repo, "HEAD")
	if errors.Is(err, git.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := make([]workflow, 0, len(files))
	for _, f := range files {
		name := f.path
		if w, _ := syntax.Load(f.path, f.content); w != nil {
			name = w.Name
		}
		out = append(out, workflow{path: f.path, name: name})
	}
	return out, nil
}

func (a *Actions) workflowJSON(repo string, w workflow) map[string]any {
	id := workflowID(w.path)
	return map[string]any{"id": id, "name": w.name, "path": w.path, "state": "active",
		"url":      a.cfg.APIURL + "/repos/" + repo + "/actions/workflows/" + strconv.FormatInt(id, 10),
		"html_url": a.cfg.ServerURL + "/" + repo + "/actions/workflows/" + path.Base(w.path)}
}

func (a *Actions) apiWorkflows(c *call) (any, error) {
	list, err := a.workflows(c.Context(), c.repo)
	if err != nil {
		return nil, err
	}
	items := []any{}
	for _, w := range list {
		items = append(items, a.workflowJSON(c.repo, w))
	}
	return map[string]any{"total_count": len(items), "workflows": items}, nil
}

// findWorkflow takes a file name or an id.
func (a *Actions) findWorkflow(c *call, which string) (workflow, error) {
	list, err := a.workflows(c.Context(), c.repo)
	if err != nil {
		return workflow{}, err
	}
	for _, w := range list {
		if path.Base(w.path) == path.Base(which) || strconv.FormatInt(workflowID(w.path), 10) == which {
			return w, nil
		}
	}
	return workflow{}, fmt.Errorf("workflow %s: %w", which, ErrNotFound)
}

func (a *Actions) apiWorkflow(c *call) (any, error) {
	w, err := a.findWorkflow(c, c.PathValue("file"))
	if err != nil {
		return nil, err
	}
	return a.workflowJSON(c.repo, w), nil
}

func (a *Actions) apiDispatch(c *call) (any, error) {
	var body struct {
		Ref    string         `json:"ref"`
		Inputs map[string]any `json:"inputs"`
	}
	if err := c.decode(&body); err != nil {
		return nil, err
	}
	if body.Ref == "" {
		return nil, refuse(http.StatusUnprocessableEntity, "ref is needed")
	}
	file := c.PathValue("file")
	if _, err := strconv.ParseInt(file, 10, 64); err == nil {
		w, err := a.findWorkflow(c, file)
		if err != nil {
			return nil, err
		}
		file = w.path
	}
	inputs := map[string]string{}
	for k, v := range body.Inputs {
		inputs[k] = expr.Text(expr.FromAny(v))
	}
	_, err := a.Dispatch(c.Context(), c.repo, file, body.Ref, c.actor, inputs)
	return done(http.StatusNoContent), err
}
