package server

import "net/http"

// What people ask of workflow runs.

func (s *Server) cancelRun(r *http.Request) (any, error) {
	id, err := s.runID(r)
	if err != nil {
		return nil, err
	}
	if r.URL.Query().Get("force") == "1" {
		return nil, s.deps.Runs.ForceCancel(r.Context(), id)
	}
	return nil, s.deps.Runs.Cancel(r.Context(), id)
}

// Rerun is the answer of POST /runs/{id}/rerun.
type Rerun struct {
	ID int64 `json:"id"`
}

func (s *Server) rerunRun(r *http.Request) (any, error) {
	id, err := s.runID(r)
	if err != nil {
		return nil, err
	}
	id, err = s.deps.Runs.Rerun(r.Context(), id, r.URL.Query().Get("failed") == "1")
	return Rerun{id}, err
}

func (s *Server) reviewRun(r *http.Request) (any, error) {
	id, err := s.runID(r)
	if err != nil {
		return nil, err
	}
	var body RunReview
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	jobs, err := s.deps.Runs.Review(r.Context(), id, body)
	return ReviewedRun{append([]string{}, jobs...)}, err
}

func (s *Server) dispatchRun(r *http.Request) (any, error) {
	if s.deps.Runs == nil {
		return nil, missing("workflows")
	}
	var body RunDispatch
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if body.Repo == "" || body.Workflow == "" {
		return nil, problemf(http.StatusBadRequest, "lockstep run dispatch OWNER/NAME WORKFLOW.yaml", "a repository and a workflow are needed")
	}
	id, err := s.deps.Runs.Dispatch(r.Context(), body)
	return Rerun{id}, err
}
