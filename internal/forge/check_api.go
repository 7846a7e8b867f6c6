package forge

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

func (f *Forge) checkRoutes(rt routes) {
	const repo = "/repos/{owner}/{repo}"
	rt.limited("POST "+repo+"/check-runs", scopeChecks, 4<<20, f.apiCreateCheck)
	rt.limited("PATCH "+repo+"/check-runs/{id}", scopeChecks, 4<<20, f.apiChangeCheck)
	rt.handle("GET "+repo+"/check-runs/{id}", scopeChecks, f.apiCheck)
	rt.handle("GET "+repo+"/check-runs/{id}/annotations", scopeChecks, f.apiAnnotations)
	rt.handle("POST "+repo+"/check-runs/{id}/rerequest", scopeChecks, f.apiRerequest)
	rt.handle("GET "+repo+"/check-suites/{id}", scopeChecks, f.apiSuite)
	rt.handle("GET "+repo+"/check-suites/{id}/check-runs", scopeChecks, f.apiSuiteChecks)
}

// checkRunInput is a check run as REST sends it; what is nil stays as it is.
type checkRunInput struct {
	Name        *string    `json:"name"`
	HeadSHA     string     `json:"head_sha"`
	DetailsURL  *string    `json:"details_url"`
	ExternalID  *string    `json:"external_id"`
	Status      *string    `json:"status"`
	Conclusion  *string    `json:"conclusion"`
	StartedAt   *time.Time `json:"started_at"`
	CompletedAt *time.Time `json:"completed_at"`
	Output      *struct {
		Title       string       `json:"title"`
		Summary     string       `json:"summary"`
		Text        string       `json:"text"`
		Annotations []Annotation `json:"annotations"`
	} `json:"output"`
}

func (in checkRunInput) apply(c *CheckRun) error {
	for _, field := range []struct {
		to   *string
		from *string
	}{{&c.Name, in.Name}, {&c.DetailsURL, in.DetailsURL}, {&c.External, in.ExternalID}, {&c.Status, in.Status}, {&c.Conclusion, in.Conclusion}} {
		if field.from != nil {
			*field.to = *field.from
		}
	}
	if in.Status != nil && *in.Status != "completed" && in.Conclusion == nil {
		c.Conclusion = "" // it runs again
	}
	if in.StartedAt != nil {
		c.Started = *in.StartedAt
	}
	if in.CompletedAt != nil {
		c.Completed = *in.CompletedAt
	}
	if o := in.Output; o != nil {
		c.Title, c.Summary, c.Text, c.Annotations = o.Title, o.Summary, o.Text, o.Annotations
		if len(o.Annotations) > 50 {
			return invalid("CheckRun", "invalid", "annotations", "at most 50 annotations in one request")
		}
	}
	return nil
}

// checkApp is the slug of the app whose checks an identity writes.
func checkApp(id Identity) string {
	const bot = "[bot]"
	if len(id.Actor) > len(bot) && id.Actor[len(id.Actor)-len(bot):] == bot {
		return id.Actor[:len(id.Actor)-len(bot)]
	}
	return "lockstep-api"
}

func (f *Forge) apiCreateCheck(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	var in checkRunInput
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	id := IdentityFrom(r.Context())
	c := CheckRun{Commit: in.HeadSHA, App: checkApp(id), Actor: id.Actor, Cause: id.Cause}
	if err := in.apply(&c); err != nil {
		return nil, err
	}
	c, err = f.saveCheckAs(r, repo, c)
	if err != nil {
		return nil, err
	}
	return f.answerCheck(w, r, repo, c.ID, http.StatusCreated)
}

// saveCheckAs stores a check run and answers as GitHub when it can't.
func (f *Forge) saveCheckAs(r *http.Request, repo *repository, c CheckRun) (CheckRun, error) {
	saved, err := f.saveCheck(r.Context(), repo, c)
	switch {
	case errors.Is(err, errInvalidCheck):
		return c, fail(http.StatusUnprocessableEntity, "Invalid request. %s", err)
	case errors.Is(err, git.ErrNotFound) && !errors.Is(err, ErrNotFound):
		return c, fail(http.StatusUnprocessableEntity, "No commit found for SHA: %.60s", c.Commit)
	}
	return saved, err
}

func (f *Forge) answerCheck(w http.ResponseWriter, r *http.Request, repo *repository, id int64, status int) (any, error) {
	found, err := f.checksWhere(r.Context(), f.db, `repo = ? and id = ?`, repo.id, id)
	if err != nil || len(found) == 0 {
		return nil, orNotFound(err)
	}
	list, err := f.checksJSON(r, repo, found)
	if err != nil {
		return nil, err
	}
	if status == http.StatusOK {
		return list[0], nil
	}
	writeJSON(w, status, list[0])
	return nil, nil
}

func (f *Forge) checksJSON(r *http.Request, repo *repository, checks []storedCheck) ([]checkJSON, error) {
	sc, err := f.scene(r, repo)
	if err != nil {
		return nil, err
	}
	list := []checkJSON{}
	pulls := map[string][]*issue{}
	for _, c := range checks {
		if _, ok := pulls[c.Commit]; !ok {
			if pulls[c.Commit], err = f.pullsOfHead(r.Context(), repo, c.Commit); err != nil {
				return nil, err
			}
		}
		list = append(list, sc.check(c, pulls[c.Commit]))
	}
	return list, nil
}

func (f *Forge) checkTarget(r *http.Request, find func(*http.Request) (*repository, error)) (*repository, storedCheck, error) {
	repo, err := find(r)
	if err != nil {
		return nil, storedCheck{}, err
	}
	found, err := f.checksWhere(r.Context(), f.db, `repo = ? and id = ?`, repo.id, numberOf(r.PathValue("id")))
	if err != nil || len(found) == 0 {
		return nil, storedCheck{}, orNotFound(err)
	}
	return repo, found[0], nil
}

func (f *Forge) apiChangeCheck(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, stored, err := f.checkTarget(r, f.writable)
	if err != nil {
		return nil, err
	}
	var in checkRunInput
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	id, c := IdentityFrom(r.Context()), stored.CheckRun
	c.Actor, c.Cause = id.Actor, id.Cause
	if err := in.apply(&c); err != nil {
		return nil, err
	}
	if _, err := f.saveCheckAs(r, repo, c); err != nil {
		return nil, err
	}
	return f.answerCheck(w, r, repo, c.ID, http.StatusOK)
}

func (f *Forge) apiCheck(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, c, err := f.checkTarget(r, f.target)
	if err != nil {
		return nil, err
	}
	return f.answerCheck(w, r, repo, c.ID, http.StatusOK)
}

func (f *Forge) apiAnnotations(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, c, err := f.checkTarget(r, f.target)
	if err != nil {
		return nil, err
	}
	sc := &scene{f: f, r: r, repo: repo}
	list := []map[string]any{}
	err = sc.eachRow(func(rows *sql.Rows) error {
		var facts []byte
		if err := rows.Scan(&facts); err != nil {
			return err
		}
		var a Annotation
		if err := json.Unmarshal(facts, &a); err != nil {
			return err
		}
		j := map[string]any{
			"path": a.Path, "start_line": a.StartLine, "end_line": a.EndLine, "start_column": nil, "end_column": nil, "annotation_level": a.Level,
			"title": optional(a.Title), "message": a.Message, "raw_details": optional(a.RawDetails), "blob_href": sc.page() + "/blob/" + c.Commit + "/" + a.Path,
		}
		if a.StartColumn > 0 {
			j["start_column"], j["end_column"] = a.StartColumn, a.EndColumn
		}
		list = append(list, j)
		return nil
	}, `select facts from check_annotation where run = ? order by n`, c.ID)
	if err != nil {
		return nil, err
	}
	return cutPage(w, r, list), nil
}

// apiRerequest tells that somebody wants the check again.
func (f *Forge) apiRerequest(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, c, err := f.checkTarget(r, f.writable)
	if err != nil {
		return nil, err
	}
	sc, err := f.eventScene(r.Context(), repo)
	if err != nil {
		return nil, err
	}
	id := IdentityFrom(r.Context())
	payload, err := f.payloadOf(sc.json, id.Actor, "rerequested", map[string]any{"check_run": sc.check(c, nil)})
	if err != nil {
		return nil, err
	}
	err = f.publish(r.Context(), func(_ *sql.Tx, out *outbox) error {
		return out.add(Event{Repo: repo.full(), Name: "check_run", Action: "rerequested", Ref: branchRef(c.Branch), Commit: c.Commit, Actor: id.Actor, Cause: id.Cause, Payload: payload})
	})
	if err != nil {
		return nil, err
	}
	writeJSON(w, http.StatusCreated, map[string]any{})
	return nil, nil
}

func (f *Forge) apiSuite(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	found, err := f.suitesWhere(r.Context(), f.db, `repo = ? and id = ?`, repo.id, numberOf(r.PathValue("id")))
	if err != nil || len(found) == 0 {
		return nil, orNotFound(err)
	}
	list, err := f.suitesJSON(r, repo, found)
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

func (f *Forge) suitesJSON(r *http.Request, repo *repository, suites []suiteFacts) ([]map[string]any, error) {
	sc, err := f.scene(r, repo)
	if err != nil {
		return nil, err
	}
	list := []map[string]any{}
	for _, s := range suites {
		pulls, err := f.pullsOfHead(r.Context(), repo, s.sha)
		if err != nil {
			return nil, err
		}
		list = append(list, sc.suite(s, pulls))
	}
	return list, nil
}

func (f *Forge) apiSuiteChecks(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	found, err := f.checksWhere(r.Context(), f.db, `repo = ? and suite = ?`, repo.id, numberOf(r.PathValue("id")))
	if err != nil {
		return nil, err
	}
	return f.answerChecks(w, r, repo, found)
}

// answerChecks filters check runs as the query says and pages them.
func (f *Forge) answerChecks(w http.ResponseWriter, r *http.Request, repo *repository, all []storedCheck) (any, error) {
	q := r.URL.Query()
	all = slices.DeleteFunc(all, func(c storedCheck) bool {
		return q.Get("check_name") != "" && c.Name != q.Get("check_name") || q.Get("status") != "" && c.Status != q.Get("status") ||
			q.Get("app_id") != "" && strconv.FormatInt(f.account("", c.App).ID, 10) != q.Get("app_id")
	})
	list, err := f.checksJSON(r, repo, cutPage(w, r, all))
	if err != nil {
		return nil, err
	}
	return map[string]any{"total_count": len(all), "check_runs": list}, nil
}

// apiCommitPart serves what hangs on a commit: check-runs, check-suites,
// comments and pulls.
func (f *Forge) apiCommitPart(w http.ResponseWriter, r *http.Request, repo *repository, rev, part string) (any, error) {
	sha, err := repo.git.Resolve(r.Context(), rev)
	if err != nil {
		return nil, revisionError(err, rev)
	}
	switch part {
	case "check-runs":
		all, err := f.checks(r.Context(), repo, sha, r.URL.Query().Get("filter") != "all")
		if err != nil {
			return nil, err
		}
		return f.answerChecks(w, r, repo, all)
	case "check-suites":
		all, err := f.suitesWhere(r.Context(), f.db, `repo = ? and sha = ?`, repo.id, sha)
		if err != nil {
			return nil, err
		}
		list, err := f.suitesJSON(r, repo, cutPage(w, r, all))
		return map[string]any{"total_count": len(all), "check_suites": list}, err
	case "comments":
		return f.commitComments(w, r, repo, sha)
	case "pulls":
		found, err := f.pullsWithCommit(r, repo, sha)
		if err != nil {
			return nil, err
		}
		sc, err := f.scene(r, repo, found...)
		if err != nil {
			return nil, err
		}
		list := []pullJSON{}
		for _, i := range cutPage(w, r, found) {
			list = append(list, sc.pullShort(i))
		}
		return list, nil
	}
	return nil, fmt.Errorf("commits/%s: %w", part, ErrNotFound)
}

func (f *Forge) commitComments(w http.ResponseWriter, r *http.Request, repo *repository, sha string) (any, error) {
	found, err := f.commentsWhere(r.Context(), f.db, `kind = 'commit' and repo = ? and sha = ?`, repo.id, sha)
	if err != nil {
		return nil, err
	}
	sc, err := f.scene(r, repo)
	if err != nil {
		return nil, err
	}
	list := []map[string]any{}
	for _, c := range cutPage(w, r, found) {
		list = append(list, sc.commitComment(c))
	}
	return list, nil
}
