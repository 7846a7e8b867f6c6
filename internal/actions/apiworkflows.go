package actions

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/expr"
	"github.com/lockstep-gitops/lockstep/internal/git"
)

func (a *Actions) workflowRoutes(r routes) {
	r.read("/workflows", a.apiWorkflows)
	r.read("/workflows/{file}", a.apiWorkflow)
	r.read("/workflows/{file}/runs", a.apiRuns)
	r.read("/workflows/{file}/timing", a.apiWorkflowTiming)
	r.write("POST", "/workflows/{file}/dispatches", a.apiDispatch)
	r.write("PUT", "/workflows/{file}/enable", a.apiEnable)
	r.write("PUT", "/workflows/{file}/disable", a.apiEnable)
}

// workflow is one file of the default branch.
type workflow struct {
	path, name, state string
	created           time.Time
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
	states, err := a.store.WorkflowStates(ctx, repoName)
	if err != nil {
		return nil, err
	}
	var at time.Time
	if c, err := repo.Commit(ctx, "HEAD"); err == nil {
		at = c.AuthorTime
	}
	out := make([]workflow, 0, len(files))
	for _, f := range files {
		w := workflow{path: f.path, name: f.path, state: "active", created: at}
		if parsed, _ := a.files.load(f.path, f.content); parsed != nil {
			w.name = parsed.Name
		}
		if states[f.path] != "" {
			w.state = states[f.path]
		}
		out = append(out, w)
	}
	return out, nil
}

func (a *Actions) workflowJSON(repo string, w workflow) map[string]any {
	id := workflowID(w.path)
	state := w.state
	if state == "" {
		state = "active"
	}
	return map[string]any{"id": id, "node_id": fmt.Sprintf("W_%d", id), "name": w.name, "path": w.path, "state": state,
		"created_at": stamp(w.created), "updated_at": stamp(w.created), "url": a.apiURL(repo, "/actions/workflows/%d", id),
		"html_url":  a.cfg.ServerURL + "/" + repo + "/blob/HEAD/" + w.path,
		"badge_url": a.cfg.ServerURL + "/" + repo + "/actions/workflows/" + path.Base(w.path) + "/badge.svg"}
}

func (a *Actions) apiWorkflows(c *call) (any, error) {
	list, err := a.workflows(c.Context(), c.repo)
	if err != nil {
		return nil, err
	}
	limit, offset := c.page()
	c.links(len(list), limit)
	items := []any{}
	for _, w := range cut(list, limit, offset) {
		items = append(items, a.workflowJSON(c.repo, w))
	}
	return map[string]any{"total_count": len(list), "workflows": items}, nil
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

func (a *Actions) apiWorkflowTiming(c *call) (any, error) {
	_, err := a.findWorkflow(c, c.PathValue("file"))
	return map[string]any{"billable": map[string]any{}}, err
}

func (a *Actions) apiEnable(c *call) (any, error) {
	w, err := a.findWorkflow(c, c.PathValue("file"))
	if err != nil {
		return nil, err
	}
	state := ""
	if path.Base(c.URL.Path) == "disable" {
		state = "disabled_manually"
	}
	return done(http.StatusNoContent), a.store.SetWorkflowState(c.Context(), c.repo, w.path, state)
}

func (a *Actions) apiDispatch(c *call) (any, error) {
	var body struct {
		Ref           string         `json:"ref"`
		Inputs        map[string]any `json:"inputs"`
		ReturnDetails bool           `json:"return_run_details"`
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
	r, err := a.Dispatch(c.Context(), c.repo, file, body.Ref, c.actor, inputs)
	if err != nil || !body.ReturnDetails {
		return done(http.StatusNoContent), err
	}
	return map[string]any{"workflow_run_id": r.ID, "run_url": a.apiURL(r.Repo, "/actions/runs/%d", r.ID),
		"html_url": fmt.Sprintf("%s/%s/actions/runs/%d", a.cfg.ServerURL, r.Repo, r.ID)}, nil
}
