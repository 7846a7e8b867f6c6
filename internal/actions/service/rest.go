package service

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// REST serves GitHub's REST API for artifacts and caches:
//
//	/repos/{owner}/{repo}/actions/artifacts/**
//	/repos/{owner}/{repo}/actions/runs/{run}/artifacts
//	/repos/{owner}/{repo}/actions/caches/** and /actions/cache/usage
//
// The caller has authenticated the request and sets X-Lockstep-Write to "true"
// when it may write.
func (s *Service) REST() http.Handler {
	mux := http.NewServeMux()
	handle := func(method, pattern string, f restCall) {
		mux.HandleFunc(method+" /repos/{owner}/{repo}/actions"+pattern, func(w http.ResponseWriter, r *http.Request) { s.serveREST(w, r, f) })
	}
	handle("GET", "/artifacts", s.restArtifacts)
	handle("GET", "/runs/{run}/artifacts", s.restArtifacts)
	handle("GET", "/artifacts/{id}", s.restArtifact)
	handle("GET", "/artifacts/{id}/{format}", s.restDownload)
	handle("DELETE", "/artifacts/{id}", s.restDeleteArtifact)
	handle("GET", "/caches", s.restCaches)
	handle("DELETE", "/caches", s.restDeleteCaches)
	handle("DELETE", "/caches/{id}", s.restDeleteCache)
	handle("GET", "/cache/usage", s.restCacheUsage)
	return mux
}

// restCall answers with a body, or with a status that has none.
type restCall func(w http.ResponseWriter, r *http.Request, repo string) (status int, body any, err error)

func (s *Service) serveREST(w http.ResponseWriter, r *http.Request, f restCall) {
	repo := r.PathValue("owner") + "/" + r.PathValue("repo")
	if r.Method != http.MethodGet && r.Header.Get("X-Lockstep-Write") != "true" {
		writeJSON(w, http.StatusForbidden, map[string]string{"message": "Resource not accessible: write access to the Actions of " + repo + " is needed"})
		return
	}
	status, body, err := f(w, r, repo)
	switch {
	case errors.Is(err, ErrNotFound):
		status, body = http.StatusNotFound, map[string]string{"message": "Not Found: " + err.Error()}
	case errors.Is(err, ErrExpired):
		status, body = http.StatusGone, map[string]string{"message": "Artifact has expired: " + err.Error()}
	case errors.Is(err, ErrInvalid):
		status, body = http.StatusUnprocessableEntity, map[string]string{"message": err.Error()}
	case err != nil && r.Context().Err() != nil:
		return // nobody listens any more
	case err != nil:
		s.log.Error("artifacts and caches API", "method", r.Method, "path", r.URL.Path, "err", err)
		status, body = http.StatusInternalServerError, map[string]string{"message": "internal error; see Lockstep's log"}
	}
	if body == nil {
		w.WriteHeader(status)
		return
	}
	writeJSON(w, status, body)
}

// page reads per_page and page: at most 100 a page, 30 when not said.
func page(r *http.Request) (offset, limit int) {
	limit, _ = strconv.Atoi(r.URL.Query().Get("per_page"))
	if limit < 1 {
		limit = 30
	}
	limit = min(limit, 100)
	n, _ := strconv.Atoi(r.URL.Query().Get("page"))
	return min(max(n-1, 0), 1<<20) * limit, limit
}

// link writes the header that clients page by.
func link(w http.ResponseWriter, r *http.Request, base string, offset, limit, total int) {
	at := func(page int) string {
		q := r.URL.Query()
		q.Set("page", strconv.Itoa(page))
		q.Set("per_page", strconv.Itoa(limit))
		return "<" + base + r.URL.Path + "?" + q.Encode() + ">"
	}
	now, last := offset/limit+1, max((total+limit-1)/limit, 1)
	text := ""
	if now > 1 {
		text += at(now-1) + `; rel="prev", ` + at(1) + `; rel="first", `
	}
	if now < last {
		text += at(now+1) + `; rel="next", ` + at(last) + `; rel="last", `
	}
	if text != "" {
		w.Header().Set("Link", text[:len(text)-2])
	}
}

func number(r *http.Request, name string) (int64, error) {
	n, err := strconv.ParseInt(r.PathValue(name), 10, 64)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%.40q is no ID: %w", r.PathValue(name), ErrNotFound)
	}
	return n, nil
}

func (s *Service) artifactJSON(a Artifact) map[string]any {
	base := fmt.Sprintf("%s/repos/%s/actions/artifacts/%d", s.cfg.APIURL, a.Repo, a.ID)
	return map[string]any{
		"id": a.ID, "node_id": fmt.Sprintf("A_%d", a.ID), "name": a.Name, "size_in_bytes": a.Size, "digest": a.Digest,
		"url": base, "archive_download_url": base + "/zip", "expired": a.Expired(s.now()),
		"created_at": a.Created.Format(time.RFC3339), "updated_at": a.Created.Format(time.RFC3339), "expires_at": a.Expires.Format(time.RFC3339),
		"workflow_run": map[string]any{"id": a.Run, "repository_id": a.RepositoryID, "head_repository_id": a.RepositoryID, "head_branch": a.Branch, "head_sha": a.Commit},
	}
}

func (s *Service) restArtifacts(w http.ResponseWriter, r *http.Request, repo string) (int, any, error) {
	f := ArtifactFilter{Repo: repo, Name: r.URL.Query().Get("name")}
	f.Offset, f.Limit = page(r)
	if r.PathValue("run") != "" {
		var err error
		if f.Run, err = number(r, "run"); err != nil {
			return 0, nil, err
		}
	}
	list, total, err := s.Artifacts(r.Context(), f)
	if err != nil {
		return 0, nil, err
	}
	link(w, r, s.cfg.APIURL, f.Offset, f.Limit, total)
	rows := []any{}
	for _, a := range list {
		rows = append(rows, s.artifactJSON(a))
	}
	return http.StatusOK, map[string]any{"total_count": total, "artifacts": rows}, nil
}

func (s *Service) restArtifact(_ http.ResponseWriter, r *http.Request, repo string) (int, any, error) {
	id, err := number(r, "id")
	if err != nil {
		return 0, nil, err
	}
	a, err := s.Artifact(r.Context(), repo, id)
	if errors.Is(err, ErrExpired) { // is shown as expired
		err = nil
	}
	return http.StatusOK, s.artifactJSON(a), err
}

// restDownload sends the client to a signed URL, as GitHub does.
func (s *Service) restDownload(w http.ResponseWriter, r *http.Request, repo string) (int, any, error) {
	id, err := number(r, "id")
	if err == nil && r.PathValue("format") != "zip" {
		err = fmt.Errorf("artifacts are served as zip only, not as %.20q: %w", r.PathValue("format"), ErrNotFound)
	}
	if err != nil {
		return 0, nil, err
	}
	to, err := s.ArtifactURL(r.Context(), repo, id)
	if err != nil {
		return 0, nil, err
	}
	w.Header().Set("Location", to)
	return http.StatusFound, nil, nil
}

func (s *Service) restDeleteArtifact(_ http.ResponseWriter, r *http.Request, repo string) (int, any, error) {
	id, err := number(r, "id")
	if err == nil {
		err = s.DeleteArtifact(r.Context(), repo, id)
	}
	return http.StatusNoContent, nil, err
}

func cacheRows(list []Cache) []any {
	rows := []any{}
	for _, c := range list {
		rows = append(rows, map[string]any{"id": c.ID, "ref": c.Ref, "key": c.Key, "version": c.Version, "size_in_bytes": c.Size,
			"created_at": c.Created.Format(time.RFC3339Nano), "last_accessed_at": c.Accessed.Format(time.RFC3339Nano)})
	}
	return rows
}

func (s *Service) restCaches(w http.ResponseWriter, r *http.Request, repo string) (int, any, error) {
	q := r.URL.Query()
	f := CacheFilter{Repo: repo, Ref: q.Get("ref"), Key: q.Get("key"), Sort: q.Get("sort"), Asc: q.Get("direction") == "asc"}
	f.Offset, f.Limit = page(r)
	list, total, err := s.Caches(r.Context(), f)
	if err != nil {
		return 0, nil, err
	}
	link(w, r, s.cfg.APIURL, f.Offset, f.Limit, total)
	return http.StatusOK, map[string]any{"total_count": total, "actions_caches": cacheRows(list)}, nil
}

func (s *Service) restDeleteCaches(_ http.ResponseWriter, r *http.Request, repo string) (int, any, error) {
	list, err := s.DeleteCaches(r.Context(), repo, r.URL.Query().Get("key"), r.URL.Query().Get("ref"))
	return http.StatusOK, map[string]any{"total_count": len(list), "actions_caches": cacheRows(list)}, err
}

func (s *Service) restDeleteCache(_ http.ResponseWriter, r *http.Request, repo string) (int, any, error) {
	id, err := number(r, "id")
	if err == nil {
		err = s.DeleteCache(r.Context(), repo, id)
	}
	return http.StatusNoContent, nil, err
}

func (s *Service) restCacheUsage(_ http.ResponseWriter, r *http.Request, repo string) (int, any, error) {
	n, size, err := s.CacheUsage(r.Context(), repo)
	return http.StatusOK, map[string]any{"full_name": repo, "active_caches_count": n, "active_caches_size_in_bytes": size}, err
}
