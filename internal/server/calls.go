package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/journal/trace"
)

// Bounds of requests and answers.
const (
	maxBody   = 64 << 10
	maxSecret = 25 << 10 // what Key Vault allows a value
	maxPage   = 100
)

// Status is the answer of GET /status.
type Status struct {
	Platform
	UptimeSeconds float64     `json:"uptimeSeconds"`
	Components    []Component `json:"components,omitempty"`
	LastEvent     int64       `json:"lastEvent"`
}

func (s *Server) status(r *http.Request) (any, error) {
	out := Status{Platform: s.deps.Platform()}
	if !out.Started.IsZero() {
		out.UptimeSeconds = s.deps.Now().Sub(out.Started).Round(time.Millisecond).Seconds()
	}
	var err error
	if out.LastEvent, err = s.deps.Journal.Last(r.Context()); err != nil {
		return nil, err
	}
	if s.deps.Components != nil {
		out.Components, err = s.deps.Components.List(r.Context())
	}
	return out, err
}

// AppList is the answer of GET /apps.
type AppList struct {
	Items  []App          `json:"items"`
	Total  int            `json:"total"`
	Sync   map[string]int `json:"sync"`   // applications by sync status
	Health map[string]int `json:"health"` // applications by health
	Next   int            `json:"next,omitempty"`
}

// listApps answers with at most ?limit applications from ?offset on whose name
// contains ?q, worst first, and counts of all.
func (s *Server) listApps(r *http.Request) (any, error) {
	if s.deps.Apps == nil {
		return nil, missing("the GitOps engine")
	}
	limit, offset, err := pageOf(r, "offset")
	if err != nil {
		return nil, err
	}
	apps, err := s.deps.Apps.List(r.Context())
	if err != nil {
		return nil, err
	}
	q := strings.ToLower(r.URL.Query().Get("q"))
	out := AppList{Items: []App{}, Sync: map[string]int{}, Health: map[string]int{}}
	apps = slices.DeleteFunc(apps, func(a App) bool {
		return !strings.Contains(strings.ToLower(a.Namespace+"/"+a.Name), q)
	})
	for _, a := range apps {
		out.Sync[a.Sync]++
		out.Health[a.Health]++
	}
	slices.SortStableFunc(apps, func(a, b App) int {
		if d := severity(a) - severity(b); d != 0 {
			return d
		}
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	out.Total = len(apps)
	start := min(int(offset), len(apps))
	end := min(start+limit, len(apps))
	out.Items = append(out.Items, apps[start:end]...)
	if end < len(apps) {
		out.Next = end
	}
	return out, nil
}

// severity orders applications by how much they need a look.
func severity(a App) int {
	switch {
	case a.Health == "Degraded" || a.Health == "Missing":
		return 0
	case a.Sync != "Synced":
		return 1
	case a.Health != "Healthy":
		return 2
	}
	return 3
}

func (s *Server) getApp(r *http.Request) (any, error) {
	if s.deps.Apps == nil {
		return nil, missing("the GitOps engine")
	}
	return s.deps.Apps.Get(r.Context(), r.PathValue("namespace"), r.PathValue("name"))
}

// Diff is the answer of GET /apps/{namespace}/{name}/diff.
type Diff struct {
	Changes []Change `json:"changes"`
}

func (s *Server) diffApp(r *http.Request) (any, error) {
	if s.deps.Apps == nil {
		return nil, missing("the GitOps engine")
	}
	changes, err := s.deps.Apps.Diff(r.Context(), r.PathValue("namespace"), r.PathValue("name"))
	if changes == nil {
		changes = []Change{}
	}
	return Diff{changes}, err
}

func (s *Server) syncApp(r *http.Request) (any, error) {
	if s.deps.Apps == nil {
		return nil, missing("the GitOps engine")
	}
	var options SyncOptions
	if err := decode(r, &options); err != nil {
		return nil, err
	}
	return nil, s.deps.Apps.Sync(r.Context(), r.PathValue("namespace"), r.PathValue("name"), options)
}

func (s *Server) refreshApp(r *http.Request) (any, error) {
	if s.deps.Apps == nil {
		return nil, missing("the GitOps engine")
	}
	return nil, s.deps.Apps.Refresh(r.Context(), r.PathValue("namespace"), r.PathValue("name"), r.URL.Query().Get("hard") == "1")
}

// RunList is the answer of GET /runs.
type RunList struct {
	Items []Run `json:"items"`
	Next  int64 `json:"next,omitempty"` // ?before of the following page
}

func (s *Server) listRuns(r *http.Request) (any, error) {
	if s.deps.Runs == nil {
		return nil, missing("the Actions engine")
	}
	limit, before, err := pageOf(r, "before")
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	runs, err := s.deps.Runs.List(r.Context(), RunQuery{Repo: q.Get("repo"), Commit: q.Get("commit"), Before: before, Limit: limit})
	out := RunList{Items: append([]Run{}, runs...)}
	if len(runs) == limit {
		out.Next = runs[len(runs)-1].ID
	}
	return out, err
}

// runID reads the path's run.
func (s *Server) runID(r *http.Request) (int64, error) {
	if s.deps.Runs == nil {
		return 0, missing("the Actions engine")
	}
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || id < 1 {
		return 0, problemf(http.StatusBadRequest, "see `lockstep run list`", "%q is no run: a run is a number", bounded(r.PathValue("id")))
	}
	return id, nil
}

func (s *Server) getRun(r *http.Request) (any, error) {
	id, err := s.runID(r)
	if err != nil {
		return nil, err
	}
	return s.deps.Runs.Get(r.Context(), id)
}

// TraceList is the answer of GET /traces.
type TraceList struct {
	Items []trace.Trace `json:"items"`
	Next  int64         `json:"next,omitempty"` // ?before of the following page
}

func (s *Server) listTraces(r *http.Request) (any, error) {
	limit, before, err := pageOf(r, "before")
	if err != nil {
		return nil, err
	}
	items, next, err := trace.Recent(r.Context(), s.deps.Journal, r.URL.Query().Get("repo"), before, limit, s.deps.Now())
	return TraceList{append([]trace.Trace{}, items...), next}, err
}

func (s *Server) getTrace(r *http.Request) (any, error) {
	return trace.LoadAt(r.Context(), s.deps.Journal, r.PathValue("sha"), s.deps.Now())
}

// SecretList is the answer of GET /secrets.
type SecretList struct {
	Items []Secret `json:"items"`
}

func (s *Server) listSecrets(r *http.Request) (any, error) {
	if s.deps.Secrets == nil {
		return nil, missing("secrets")
	}
	list, err := s.deps.Secrets.List(r.Context())
	return SecretList{append([]Secret{}, list...)}, err
}

// SetSecret is the body of both PUTs of secrets.
type SetSecret struct {
	Value []byte `json:"value"` // base64 in JSON
}

// SetSecretResult is the answer of PUT /secrets/{vault}/{name}.
type SetSecretResult struct {
	Version string `json:"version"`
}

var (
	vaultName  = regexp.MustCompile(`^[A-Za-z][0-9A-Za-z-]{1,22}[0-9A-Za-z]$`)
	secretName = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)
	actionName = regexp.MustCompile(`^[A-Za-z_][0-9A-Za-z_]{0,127}$`)
)

func (s *Server) setSecret(r *http.Request) (any, error) {
	vault, name := r.PathValue("vault"), r.PathValue("name")
	if !vaultName.MatchString(vault) {
		return nil, problemf(http.StatusBadRequest, "use 3 to 24 letters, digits and '-', first a letter", "%q cannot be the name of a vault", bounded(vault))
	}
	if !secretName.MatchString(name) {
		return nil, problemf(http.StatusBadRequest, "use 1 to 127 letters, digits and '-'", "%q cannot be the name of a Key Vault secret", bounded(name))
	}
	value, err := s.secretValue(r)
	if err != nil {
		return nil, err
	}
	version, err := s.deps.Secrets.Set(r.Context(), vault, name, value)
	return SetSecretResult{version}, err
}

func (s *Server) setRepoSecret(r *http.Request) (any, error) {
	name := r.PathValue("name")
	if !actionName.MatchString(name) || strings.HasPrefix(strings.ToUpper(name), "GITHUB_") {
		return nil, problemf(http.StatusBadRequest, "use letters, digits and '_', not first a digit and not first GITHUB_", "%q cannot be the name of an Actions secret", bounded(name))
	}
	value, err := s.secretValue(r)
	if err != nil {
		return nil, err
	}
	return nil, s.deps.Secrets.SetRepo(r.Context(), r.PathValue("owner")+"/"+r.PathValue("repo"), name, value)
}

func (s *Server) secretValue(r *http.Request) ([]byte, error) {
	if s.deps.Secrets == nil {
		return nil, missing("secrets")
	}
	var body SetSecret
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	switch {
	case len(body.Value) == 0:
		return nil, problemf(http.StatusBadRequest, "", "the value is empty")
	case len(body.Value) > maxSecret:
		return nil, problemf(http.StatusRequestEntityTooLarge, "", "the value has %d bytes, a secret holds at most %d", len(body.Value), maxSecret)
	}
	return body.Value, nil
}

// ComponentList is the answer of GET /components.
type ComponentList struct {
	Items []Component `json:"items"`
}

func (s *Server) listComponents(r *http.Request) (any, error) {
	if s.deps.Components == nil {
		return nil, missing("components")
	}
	list, err := s.deps.Components.List(r.Context())
	return ComponentList{append([]Component{}, list...)}, err
}

func (s *Server) shutdown(*http.Request) (any, error) {
	if s.deps.Shutdown == nil {
		return nil, missing("a way to end it from here")
	}
	s.deps.Shutdown()
	return nil, nil
}

// decode reads a JSON body. No body leaves v as it is. The error does not quote
// the body, which may hold a secret.
func decode(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	var large *http.MaxBytesError
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return nil
	case errors.As(err, &large):
		return err
	}
	return problemf(http.StatusBadRequest, "send JSON with the fields that the API names", "the body does not fit this call")
}

// pageOf reads ?limit (1 to 100, default 50) and the cursor.
func pageOf(r *http.Request, cursor string) (limit int, from int64, err error) {
	limit = 50
	if text := r.URL.Query().Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxPage {
			return 0, 0, problemf(http.StatusBadRequest, fmt.Sprintf("use 1 to %d", maxPage), "limit %q does not fit", bounded(text))
		}
	}
	if text := r.URL.Query().Get(cursor); text != "" {
		if from, err = strconv.ParseInt(text, 10, 64); err != nil || from < 0 {
			return 0, 0, problemf(http.StatusBadRequest, "use the \"next\" of the page before", "%s %q does not fit", cursor, bounded(text))
		}
	}
	return limit, from, nil
}
