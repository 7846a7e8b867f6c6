package forge

import (
	"errors"
	"net/http"
	"time"
)

type statusJSON struct {
	ID          int64        `json:"id"`
	NodeID      string       `json:"node_id"`
	URL         string       `json:"url"`
	State       string       `json:"state"`
	Context     string       `json:"context"`
	Description *string      `json:"description"`
	TargetURL   *string      `json:"target_url"`
	Creator     *accountJSON `json:"creator,omitempty"`
	CreatedAt   time.Time    `json:"created_at"`
	UpdatedAt   time.Time    `json:"updated_at"`
}

func (f *Forge) statusJSON(r *http.Request, repo *repository, sha string, s Status) statusJSON {
	creator := f.account(apiBase(r), s.Creator)
	j := statusJSON{
		ID: s.ID, NodeID: nodeID("StatusContext", repo.full()+":"+sha+":"+s.Context), URL: apiBase(r) + "/repos/" + repo.full() + "/statuses/" + sha,
		State: s.State, Context: s.Context, Creator: &creator,
		CreatedAt: s.Created.Truncate(time.Second), UpdatedAt: s.Created.Truncate(time.Second),
	}
	if s.Description != "" {
		j.Description = &s.Description
	}
	if s.TargetURL != "" {
		j.TargetURL = &s.TargetURL
	}
	return j
}

func (f *Forge) statusesJSON(r *http.Request, repo *repository, sha string, all []Status) []statusJSON {
	list := []statusJSON{}
	for _, s := range all {
		list = append(list, f.statusJSON(r, repo, sha, s))
	}
	return list
}

func (f *Forge) apiCreateStatus(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		State       string `json:"state"`
		TargetURL   string `json:"target_url"`
		Description string `json:"description"`
		Context     string `json:"context"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	sha := r.PathValue("sha")
	if !objectID.MatchString(sha) {
		return nil, fail(http.StatusUnprocessableEntity, "No commit found for SHA: %s", sha)
	}
	s, err := f.addStatus(r.Context(), repo, sha, Status{
		Context: in.Context, State: in.State, Description: in.Description, TargetURL: in.TargetURL,
		Creator: IdentityFrom(r.Context()).Actor,
	})
	if errors.Is(err, errInvalidStatus) {
		return nil, fail(http.StatusUnprocessableEntity, "Validation Failed: %s", err)
	}
	if err != nil {
		return nil, revisionError(err, sha)
	}
	writeJSON(w, http.StatusCreated, f.statusJSON(r, repo, sha, s))
	return nil, nil
}

func (f *Forge) combinedStatusJSON(w http.ResponseWriter, r *http.Request, repo *repository, sha string) (any, error) {
	latest, err := f.statuses(r.Context(), repo, sha, true)
	if err != nil {
		return nil, err
	}
	j, err := f.repositoryJSON(r, repo)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"state": combined(latest), "sha": sha, "total_count": len(latest), "repository": j,
		"statuses":   f.statusesJSON(r, repo, sha, cutPage(w, r, latest)),
		"commit_url": j.URL + "/commits/" + sha, "url": j.URL + "/commits/" + sha + "/status",
	}, nil
}
