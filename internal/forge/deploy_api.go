package forge

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

func (f *Forge) deployRoutes(rt routes) {
	const base = "/repos/{owner}/{repo}/deployments"
	rt.handle("GET "+base, scopeDeployments, f.apiDeployments)
	rt.handle("POST "+base, scopeDeployments, f.apiCreateDeployment)
	rt.handle("GET "+base+"/{id}", scopeDeployments, f.apiDeployment)
	rt.handle("DELETE "+base+"/{id}", scopeDeployments, f.apiDeleteDeployment)
	rt.handle("GET "+base+"/{id}/statuses", scopeDeployments, f.apiDeploymentStatuses)
	rt.handle("POST "+base+"/{id}/statuses", scopeDeployments, f.apiCreateDeploymentStatus)
	rt.handle("GET "+base+"/{id}/statuses/{status}", scopeDeployments, f.apiDeploymentStatus)
	rt.handle("POST /repos/{owner}/{repo}/dispatches", scopeContents, f.apiDispatch)
}

func (f *Forge) deploymentJSON(r *http.Request, repo *repository, d *Deployment) map[string]any {
	base := apiBase(r) + "/repos/" + repo.full()
	url := base + "/deployments/" + strconv.FormatInt(d.ID, 10)
	return map[string]any{
		"id": d.ID, "node_id": nodeID("Deployment", strconv.FormatInt(d.ID, 10)), "sha": d.SHA, "ref": d.Ref, "task": d.Task, "payload": d.Payload,
		"environment": d.Environment, "original_environment": d.Environment, "description": d.Description, "creator": f.account(apiBase(r), d.Creator),
		"transient_environment": d.TransientEnvironment, "production_environment": d.ProductionEnvironment,
		"created_at": d.Created.Truncate(time.Second), "updated_at": d.Updated.Truncate(time.Second),
		"url": url, "statuses_url": url + "/statuses", "repository_url": base,
	}
}

func (f *Forge) deploymentStatusJSON(r *http.Request, repo *repository, d *Deployment, s DeploymentStatus) map[string]any {
	base := apiBase(r) + "/repos/" + repo.full()
	url := base + "/deployments/" + strconv.FormatInt(d.ID, 10)
	return map[string]any{
		"id": s.ID, "node_id": nodeID("DeploymentStatus", strconv.FormatInt(s.ID, 10)), "state": s.State, "description": s.Description, "environment": s.Environment,
		"creator": f.account(apiBase(r), s.Creator), "log_url": s.LogURL, "target_url": s.LogURL, "environment_url": s.EnvironmentURL,
		"created_at": s.Created.Truncate(time.Second), "updated_at": s.Created.Truncate(time.Second),
		"url": url + "/statuses/" + strconv.FormatInt(s.ID, 10), "deployment_url": url, "repository_url": base,
	}
}

func (f *Forge) apiDeployments(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	all, err := f.deployments(r.Context(), repo, `? in ('', 'none', sha) and ? in ('', 'none', ref) and ? in ('', 'none', task) and ? in ('', 'none', environment)`,
		q.Get("sha"), q.Get("ref"), q.Get("task"), q.Get("environment"))
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, d := range cutPage(w, r, all) {
		list = append(list, f.deploymentJSON(r, repo, d))
	}
	return list, nil
}

type deploymentInput struct {
	Ref              string          `json:"ref"`
	Task             string          `json:"task"`
	AutoMerge        *bool           `json:"auto_merge"`
	RequiredContexts *[]string       `json:"required_contexts"`
	Payload          json.RawMessage `json:"payload"`
	Environment      string          `json:"environment"`
	Description      *string         `json:"description"`
	Transient        bool            `json:"transient_environment"`
	Production       *bool           `json:"production_environment"`
}

func (f *Forge) apiCreateDeployment(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	var in deploymentInput
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	ctx, id := r.Context(), IdentityFrom(r.Context())
	if in.Ref == "" {
		return nil, invalid("Deployment", "missing_field", "ref", "")
	}
	sha, err := repo.git.Resolve(ctx, in.Ref)
	if errors.Is(err, git.ErrNotFound) {
		return nil, fail(http.StatusUnprocessableEntity, "No ref found for: %.200s", in.Ref)
	}
	if err != nil {
		return nil, err
	}
	if err := f.deployable(r, repo, sha, in.RequiredContexts); err != nil {
		return nil, err
	}
	d := Deployment{Ref: in.Ref, SHA: sha, Task: in.Task, Environment: in.Environment, Payload: in.Payload, Creator: id.Actor, Cause: id.Cause, TransientEnvironment: in.Transient}
	if in.Description != nil {
		d.Description = cut(*in.Description, 140)
	}
	d.ProductionEnvironment = in.Environment == "" || in.Environment == "production"
	if in.Production != nil {
		d.ProductionEnvironment = *in.Production
	}
	if err := f.addDeployment(ctx, repo, &d); err != nil {
		return nil, err
	}
	j := f.deploymentJSON(r, repo, &d)
	w.Header().Set("Location", fmt.Sprint(j["url"]))
	writeJSON(w, http.StatusCreated, j)
	return nil, nil
}

// deployable holds the statuses of a commit against what a deployment requires: all of
// them when required is nil.
func (f *Forge) deployable(r *http.Request, repo *repository, sha string, required *[]string) error {
	states, err := f.contextStates(r.Context(), repo, sha)
	if err != nil {
		return err
	}
	var names []string
	if required != nil {
		names = *required
	} else {
		names = sortedKeys(states)
	}
	for _, name := range names {
		if state := states[name]; state != "success" && state != "neutral" && state != "skipped" {
			return fail(http.StatusConflict, "Conflict: Commit status checks failed for %s.", sha[:7])
		}
	}
	return nil
}

// deploymentOf is the deployment that a request names.
func (f *Forge) deploymentOf(r *http.Request, repo *repository) (*Deployment, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return nil, ErrNotFound
	}
	d, err := f.deployment(r.Context(), repo, id)
	return d, revisionErrorAs(err, http.StatusNotFound, "Not Found")
}

func (f *Forge) apiDeployment(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	d, err := f.deploymentOf(r, repo)
	if err != nil {
		return nil, err
	}
	return f.deploymentJSON(r, repo, d), nil
}

func (f *Forge) apiDeleteDeployment(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	d, err := f.deploymentOf(r, repo)
	if err != nil {
		return nil, err
	}
	statuses, err := f.deploymentStatuses(r.Context(), d.ID)
	if err != nil {
		return nil, err
	}
	if len(statuses) > 0 && statuses[0].State != "inactive" {
		return nil, fail(http.StatusUnprocessableEntity, "We cannot delete an active deployment unless it is the only deployment in a given environment.")
	}
	err = f.transact(r.Context(), func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(r.Context(), `delete from deployment_status where deployment = ?`, d.ID); err != nil {
			return err
		}
		_, err := tx.ExecContext(r.Context(), `delete from deployment where id = ?`, d.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil, nil
}

func (f *Forge) apiDeploymentStatuses(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	d, err := f.deploymentOf(r, repo)
	if err != nil {
		return nil, err
	}
	all, err := f.deploymentStatuses(r.Context(), d.ID)
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, s := range cutPage(w, r, all) {
		list = append(list, f.deploymentStatusJSON(r, repo, d, s))
	}
	return list, nil
}

func (f *Forge) apiDeploymentStatus(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	d, err := f.deploymentOf(r, repo)
	if err != nil {
		return nil, err
	}
	all, err := f.deploymentStatuses(r.Context(), d.ID)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if strconv.FormatInt(s.ID, 10) == r.PathValue("status") {
			return f.deploymentStatusJSON(r, repo, d, s), nil
		}
	}
	return nil, ErrNotFound
}

func (f *Forge) apiCreateDeploymentStatus(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	d, err := f.deploymentOf(r, repo)
	if err != nil {
		return nil, err
	}
	var in struct {
		State          string `json:"state"`
		TargetURL      string `json:"target_url"`
		LogURL         string `json:"log_url"`
		Description    string `json:"description"`
		Environment    string `json:"environment"`
		EnvironmentURL string `json:"environment_url"`
		AutoInactive   *bool  `json:"auto_inactive"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if in.LogURL == "" {
		in.LogURL = in.TargetURL
	}
	id := IdentityFrom(r.Context())
	s := DeploymentStatus{State: in.State, Description: cut(in.Description, 140), Environment: in.Environment, LogURL: in.LogURL, EnvironmentURL: in.EnvironmentURL, Creator: id.Actor, Cause: id.Cause}
	err = f.addDeploymentStatus(r.Context(), repo, d.ID, &s, in.AutoInactive == nil || *in.AutoInactive)
	if errors.Is(err, errInvalidState) {
		return nil, invalid("DeploymentStatus", "custom", "state", err.Error())
	}
	if err != nil {
		return nil, err
	}
	writeJSON(w, http.StatusCreated, f.deploymentStatusJSON(r, repo, d, s))
	return nil, nil
}

// apiDispatch puts an event of the caller's own into the outbox.
func (f *Forge) apiDispatch(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		EventType     string                     `json:"event_type"`
		ClientPayload map[string]json.RawMessage `json:"client_payload"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if in.EventType == "" || len(in.EventType) > 100 {
		return nil, fail(http.StatusUnprocessableEntity, "Invalid request.\n\n\"event_type\" must be supplied and have no more than 100 characters.")
	}
	if len(in.ClientPayload) > 10 {
		return nil, fail(http.StatusUnprocessableEntity, "Invalid request.\n\nNo more than 10 properties are allowed; %d were supplied.", len(in.ClientPayload))
	}
	ctx, id := r.Context(), IdentityFrom(r.Context())
	head, err := f.head(ctx, repo)
	if err != nil {
		return nil, err
	}
	commit, err := repo.git.Resolve(ctx, "HEAD")
	if err != nil && !errors.Is(err, git.ErrNotFound) {
		return nil, err
	}
	payload, err := f.payload(ctx, repo, id.Actor, in.EventType, map[string]any{"branch": head, "client_payload": in.ClientPayload})
	if err != nil {
		return nil, err
	}
	err = f.publish(ctx, func(_ *sql.Tx, out *outbox) error {
		return out.add(Event{Repo: repo.full(), Name: "repository_dispatch", Action: in.EventType, Ref: "refs/heads/" + head, Commit: commit, Actor: id.Actor, Cause: id.Cause, Payload: payload})
	})
	if err != nil {
		return nil, err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil, nil
}
