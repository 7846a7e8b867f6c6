package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxRequest bounds a twirp request, in bytes.
const maxRequest = 1 << 20

// twirpError is what clients show: a code of twirp's list and a message.
type twirpError struct {
	Code string `json:"code"`
	Msg  string `json:"msg"`
}

func (e *twirpError) Error() string { return e.Msg }

func twirpStatus(code string) int {
	switch code {
	case "invalid_argument", "malformed":
		return http.StatusBadRequest
	case "unauthenticated":
		return http.StatusUnauthorized
	case "permission_denied":
		return http.StatusForbidden
	case "not_found", "bad_route":
		return http.StatusNotFound
	case "already_exists":
		return http.StatusConflict
	case "unimplemented":
		return http.StatusNotImplemented
	}
	return http.StatusInternalServerError
}

// asTwirp names the code of an error. A full quota is permission_denied, not
// resource_exhausted: clients would repeat that for half a minute.
func asTwirp(err error) *twirpError {
	var t *twirpError
	switch {
	case errors.As(err, &t):
		return t
	case errors.Is(err, ErrInvalid):
		return &twirpError{"invalid_argument", err.Error()}
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrExpired):
		return &twirpError{"not_found", err.Error()}
	case errors.Is(err, ErrExists):
		return &twirpError{"already_exists", err.Error()}
	case errors.Is(err, ErrQuota), errors.Is(err, ErrDenied):
		return &twirpError{"permission_denied", err.Error()}
	}
	return nil
}

func writeTwirpError(w http.ResponseWriter, e *twirpError) { writeJSON(w, twirpStatus(e.Code), e) }

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that left needs no answer
}

// call is one method: the request's JSON with field names in snake_case.
type call func(ctx context.Context, o *opened, request []byte) (any, error)

func method[Q, A any](f func(context.Context, *opened, Q) (A, error)) call {
	return func(ctx context.Context, o *opened, request []byte) (any, error) {
		var q Q
		if err := json.Unmarshal(request, &q); err != nil {
			return nil, &twirpError{"malformed", "the request is not the JSON of this method: " + err.Error()}
		}
		return f(ctx, o, q)
	}
}

func (s *Service) serveTwirp(w http.ResponseWriter, r *http.Request) {
	answer, err := s.dispatch(w, r)
	if err == nil {
		writeJSON(w, http.StatusOK, answer)
		return
	}
	t := asTwirp(err)
	if t == nil {
		s.log.Error("runner service", "method", r.PathValue("method"), "err", err)
		t = &twirpError{"internal", "the service failed: see the log of `lockstep`"}
	}
	writeTwirpError(w, t)
}

func (s *Service) dispatch(w http.ResponseWriter, r *http.Request) (any, error) {
	name := r.PathValue("service") + "/" + r.PathValue("method")
	f, ok := map[string]call{
		artifactService + "/CreateArtifact":        method(s.twirpCreateArtifact),
		artifactService + "/FinalizeArtifact":      method(s.twirpFinalizeArtifact),
		artifactService + "/ListArtifacts":         method(s.twirpListArtifacts),
		artifactService + "/GetSignedArtifactURL":  method(s.twirpArtifactURL),
		artifactService + "/DeleteArtifact":        method(s.twirpDeleteArtifact),
		cacheService + "/CreateCacheEntry":         method(s.twirpCreateCache),
		cacheService + "/FinalizeCacheEntryUpload": method(s.twirpFinalizeCache),
		cacheService + "/GetCacheEntryDownloadURL": method(s.twirpCacheURL),
	}[name]
	if !ok || r.Method != http.MethodPost {
		return nil, &twirpError{"bad_route", fmt.Sprintf("%s %s is no method of the artifact or cache service", r.Method, name)}
	}
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); kind != "application/json" {
		return nil, &twirpError{"bad_route", fmt.Sprintf("the content type is %.60q: only application/json is spoken here", kind)}
	}
	o, err := s.scopeOf(r, false)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return nil, &twirpError{"malformed", "the request cannot be read: " + err.Error()}
	}
	if body, err = snakeCase(body); err != nil {
		return nil, err
	}
	return f(r.Context(), o, body)
}

const (
	artifactService = "github.actions.results.api.v1.ArtifactService"
	cacheService    = "github.actions.results.api.v1.CacheService"
)

// snakeCase renames the fields of an object: protobuf's JSON has both spellings.
func snakeCase(body []byte) ([]byte, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, &twirpError{"malformed", "the request is no JSON object: " + err.Error()}
	}
	renamed := make(map[string]json.RawMessage, len(fields))
	for name, v := range fields {
		var b strings.Builder
		for _, r := range name {
			if r >= 'A' && r <= 'Z' {
				b.WriteByte('_')
				r += 'a' - 'A'
			}
			b.WriteRune(r)
		}
		renamed[b.String()] = v
	}
	return json.Marshal(renamed)
}

// int64JSON is protobuf's 64-bit integer: a string, or a number.
type int64JSON int64

func (n *int64JSON) UnmarshalJSON(b []byte) error {
	text := strings.Trim(string(b), `"`)
	if text == "" || text == "null" {
		return nil
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if f, ferr := strconv.ParseFloat(text, 64); err != nil && ferr == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		v, err = int64(f), nil
	}
	*n = int64JSON(v)
	return err
}

func (n int64JSON) MarshalJSON() ([]byte, error) {
	return []byte(strconv.Quote(strconv.FormatInt(int64(n), 10))), nil
}

type backends struct {
	Run string `json:"workflow_run_backend_id"`
	Job string `json:"workflow_job_run_backend_id"`
}

// check lets a job reach its own run only.
func (b backends) check(o *opened) error {
	if b.Run != o.runBackend() {
		return &twirpError{"permission_denied", "the token is for another workflow run: artifacts of other runs are read by the REST API with a token that has `actions: read`"}
	}
	return nil
}

type createArtifact struct {
	backends
	Name     string    `json:"name"`
	Expires  time.Time `json:"expires_at"`
	Version  int       `json:"version"`
	MIMEType string    `json:"mime_type"`
}

type created struct {
	OK        bool   `json:"ok"`
	UploadURL string `json:"signed_upload_url,omitempty"`
	Message   string `json:"message,omitempty"`
}

func (s *Service) twirpCreateArtifact(ctx context.Context, o *opened, q createArtifact) (created, error) {
	if err := q.check(o); err != nil {
		return created{}, err
	}
	s.mu.Lock()
	full := o.created >= s.cfg.ArtifactsPerJob
	s.mu.Unlock()
	if full {
		return created{}, fmt.Errorf("the job made %d artifacts already, which is the most a job may make: put more files into each: %w", s.cfg.ArtifactsPerJob, ErrQuota)
	}
	u, err := s.newArtifact(ctx, o.id, o.Scope, q.Name, q.MIMEType, q.Expires)
	if err != nil {
		return created{}, err
	}
	s.mu.Lock()
	o.created++
	s.mu.Unlock()
	return created{OK: true, UploadURL: s.uploadURL(u)}, nil
}

// uploadOf finds the unfinished upload of a job.
func (s *Service) uploadOf(o *opened, kind, name, version string) (*upload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.uploads {
		if u.owner == o.id && u.kind == kind && u.name == name && u.version == version {
			return u, nil
		}
	}
	return nil, fmt.Errorf("no upload of %s %q was begun by this job: %w", kind, name, ErrNotFound)
}

type finalizeArtifact struct {
	backends
	Name string     `json:"name"`
	Size *int64JSON `json:"size"`
	Hash string     `json:"hash"`
}

type artifactDone struct {
	OK bool      `json:"ok"`
	ID int64JSON `json:"artifact_id"`
}

func (s *Service) twirpFinalizeArtifact(ctx context.Context, o *opened, q finalizeArtifact) (artifactDone, error) {
	if err := q.check(o); err != nil {
		return artifactDone{}, err
	}
	u, err := s.uploadOf(o, kindArtifact, q.Name, "")
	if errors.Is(err, ErrNotFound) { // a repeated request, whose answer was lost
		if a, again := s.named(ctx, o.Scope, q.Name, o.jobBackend()); again == nil && a.jobBackend() == o.jobBackend() && (q.Hash == "" || strings.EqualFold(q.Hash, a.Digest)) {
			return artifactDone{true, int64JSON(a.ID)}, nil
		}
	}
	if err != nil {
		return artifactDone{}, err
	}
	size := int64(-1)
	if q.Size != nil {
		size = int64(*q.Size)
	}
	a, err := s.finalizeArtifact(ctx, u, size, q.Hash)
	return artifactDone{err == nil, int64JSON(a.ID)}, err
}

type listArtifacts struct {
	backends
	Name *string    `json:"name_filter"`
	ID   *int64JSON `json:"id_filter"`
}

// timestamp is a time in the JSON of protobuf: its fraction has 0, 3, 6 or 9
// digits, and clients read no other.
type timestamp time.Time

// MarshalJSON implements json.Marshaler.
func (t timestamp) MarshalJSON() ([]byte, error) {
	return []byte(time.Time(t).UTC().Format(`"2006-01-02T15:04:05.000Z"`)), nil
}

type artifactJSON struct {
	Run     string    `json:"workflow_run_backend_id"`
	Job     string    `json:"workflow_job_run_backend_id"`
	ID      int64JSON `json:"database_id"`
	Name    string    `json:"name"`
	Size    int64JSON `json:"size"`
	Created timestamp `json:"created_at"`
	Digest  string    `json:"digest"`
}

type artifactList struct {
	Artifacts []artifactJSON `json:"artifacts"`
}

func (s *Service) twirpListArtifacts(ctx context.Context, o *opened, q listArtifacts) (artifactList, error) {
	if err := q.check(o); err != nil {
		return artifactList{}, err
	}
	f := ArtifactFilter{Repo: o.Repo, Run: o.Run}
	if q.Name != nil {
		f.Name = *q.Name
	}
	all, _, err := s.Artifacts(ctx, f)
	if err != nil {
		return artifactList{}, err
	}
	list := artifactList{Artifacts: []artifactJSON{}}
	for _, a := range all {
		if q.ID != nil && int64(*q.ID) != a.ID {
			continue
		}
		list.Artifacts = append(list.Artifacts, artifactJSON{Run: o.runBackend(), Job: a.jobBackend(), ID: int64JSON(a.ID),
			Name: a.Name, Size: int64JSON(a.Size), Created: timestamp(a.Created), Digest: a.Digest})
	}
	return list, nil
}

type namedArtifact struct {
	backends
	Name string `json:"name"`
}

type signedURL struct {
	URL string `json:"signed_url"`
}

func (s *Service) twirpArtifactURL(ctx context.Context, o *opened, q namedArtifact) (signedURL, error) {
	if err := q.check(o); err != nil {
		return signedURL{}, err
	}
	a, err := s.named(ctx, o.Scope, q.Name, q.Job)
	if err != nil {
		return signedURL{}, err
	}
	return signedURL{s.downloadURL(kindArtifact, a.ID, a.FileName())}, nil
}

func (s *Service) twirpDeleteArtifact(ctx context.Context, o *opened, q namedArtifact) (artifactDone, error) {
	if err := q.check(o); err != nil {
		return artifactDone{}, err
	}
	a, err := s.named(ctx, o.Scope, q.Name, q.Job)
	if err == nil {
		err = s.DeleteArtifact(ctx, o.Repo, a.ID)
	}
	return artifactDone{err == nil, int64JSON(a.ID)}, err
}

type cacheRequest struct {
	Key     string     `json:"key"`
	Version string     `json:"version"`
	Restore []string   `json:"restore_keys"`
	Size    *int64JSON `json:"size_bytes"`
}

func (s *Service) twirpCreateCache(ctx context.Context, o *opened, q cacheRequest) (created, error) {
	u, err := s.newCache(ctx, o.id, o.Scope, q.Key, q.Version)
	if errors.Is(err, ErrDenied) {
		return created{Message: err.Error()}, nil // clients look for the text "cache write denied:"
	}
	if err != nil {
		return created{}, err
	}
	return created{OK: true, UploadURL: s.uploadURL(u)}, nil
}

type cacheDone struct {
	OK      bool      `json:"ok"`
	ID      int64JSON `json:"entry_id"`
	Message string    `json:"message,omitempty"`
}

func (s *Service) twirpFinalizeCache(ctx context.Context, o *opened, q cacheRequest) (cacheDone, error) {
	u, err := s.uploadOf(o, kindCache, q.Key, q.Version)
	if errors.Is(err, ErrNotFound) { // a repeated request, whose answer was lost
		again, _, lerr := s.Caches(ctx, CacheFilter{Repo: o.Repo, Ref: o.Ref, Key: q.Key, Exact: true})
		for _, c := range again {
			if lerr == nil && c.Version == q.Version {
				return cacheDone{OK: true, ID: int64JSON(c.ID)}, nil
			}
		}
	}
	if err != nil {
		return cacheDone{}, err
	}
	size := int64(-1)
	if q.Size != nil {
		size = int64(*q.Size)
	}
	c, err := s.finalizeCache(ctx, u, size)
	return cacheDone{OK: err == nil, ID: int64JSON(c.ID)}, err
}

type cacheURL struct {
	OK  bool   `json:"ok"`
	URL string `json:"signed_download_url,omitempty"`
	Key string `json:"matched_key,omitempty"`
}

func (s *Service) twirpCacheURL(ctx context.Context, o *opened, q cacheRequest) (cacheURL, error) {
	c, found, err := s.FindCache(ctx, o.Scope, q.Key, q.Restore, q.Version)
	if err != nil || !found {
		return cacheURL{}, err
	}
	return cacheURL{true, s.downloadURL(kindCache, c.ID, "cache.tar"), c.Key}, nil
}
