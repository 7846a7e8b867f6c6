package forge

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"
)

type checkOutputJSON struct {
	Title            *string `json:"title"`
	Summary          *string `json:"summary"`
	Text             *string `json:"text"`
	AnnotationsCount int     `json:"annotations_count"`
	AnnotationsURL   string  `json:"annotations_url"`
}

type checkJSON struct {
	ID          int64            `json:"id"`
	HeadSHA     string           `json:"head_sha"`
	NodeID      string           `json:"node_id"`
	ExternalID  string           `json:"external_id"`
	URL         string           `json:"url"`
	HTMLURL     string           `json:"html_url"`
	DetailsURL  string           `json:"details_url"`
	Status      string           `json:"status"`
	Conclusion  *string          `json:"conclusion"`
	StartedAt   *time.Time       `json:"started_at"`
	CompletedAt *time.Time       `json:"completed_at"`
	Output      checkOutputJSON  `json:"output"`
	Name        string           `json:"name"`
	Suite       any              `json:"check_suite"`
	App         map[string]any   `json:"app"`
	Pulls       []map[string]any `json:"pull_requests"`
}

// app describes who writes checks.
func (sc *scene) app(slug string) map[string]any {
	account := sc.account(slug)
	at := *moment(sc.repo.created)
	return map[string]any{
		"id": account.ID, "slug": slug, "node_id": nodeID("App", slug), "owner": sc.account(sc.f.cfg.User), "name": appName(slug), "description": "",
		"external_url": sc.f.cfg.URL, "html_url": sc.f.cfg.URL + "/apps/" + slug, "created_at": at, "updated_at": at,
		"permissions": map[string]string{"checks": "write"}, "events": []string{},
	}
}

func appName(slug string) string {
	if slug == "github-actions" {
		return "GitHub Actions"
	}
	return slug
}

func (sc *scene) check(c storedCheck, pulls []*issue) checkJSON {
	url := fmt.Sprintf("%s/check-runs/%d", sc.base(), c.ID)
	j := checkJSON{
		ID: c.ID, HeadSHA: c.Commit, NodeID: nodeID("K", sc.repo.full()+"#"+strconv.FormatInt(c.ID, 10)), ExternalID: c.External, URL: url,
		HTMLURL: fmt.Sprintf("%s/runs/%d", sc.page(), c.ID), DetailsURL: c.DetailsURL, Status: c.Status, Conclusion: optional(c.Conclusion),
		StartedAt: moment(c.Started), CompletedAt: moment(c.Completed), Name: c.Name, App: sc.app(c.App), Suite: map[string]int64{"id": c.suite},
		Output: checkOutputJSON{Title: optional(c.Title), Summary: optional(c.Summary), Text: optional(c.Text), AnnotationsCount: c.annotations, AnnotationsURL: url + "/annotations"},
		Pulls:  sc.pullsOf(pulls),
	}
	if j.DetailsURL == "" {
		j.DetailsURL = j.HTMLURL
	}
	return j
}

// pullsOf are pull requests as checks name them.
func (sc *scene) pullsOf(pulls []*issue) []map[string]any {
	list := []map[string]any{}
	for _, i := range pulls {
		side := func(ref, sha string) map[string]any {
			return map[string]any{"ref": ref, "sha": sha, "repo": map[string]any{"id": sc.repo.id, "name": sc.repo.name, "url": sc.base()}}
		}
		list = append(list, map[string]any{
			"id": i.id, "number": i.number, "url": sc.base() + "/pulls/" + strconv.Itoa(i.number),
			"head": side(i.Pull.Head, i.Pull.HeadSHA), "base": side(i.Pull.Base, i.Pull.BaseSHA),
		})
	}
	return list
}

// suiteFacts is a check suite and what its runs amount to.
type suiteFacts struct {
	id                 int64
	sha, app, branch   string
	created, updated   time.Time
	runs               int
	status, conclusion string
}

// sumUp is the state of a suite's runs together, as GitHub gives it.
func sumUp(runs []storedCheck) (status, conclusion string) {
	if len(runs) == 0 {
		return "queued", ""
	}
	status = "completed"
	rank := []string{"skipped", "neutral", "success", "stale", "cancelled", "timed_out", "action_required", "startup_failure", "failure"}
	worst := -1
	for _, c := range runs {
		if c.Status != "completed" {
			status = c.Status
			if c.Status == "in_progress" {
				return status, ""
			}
			continue
		}
		for n, name := range rank {
			if c.Conclusion == name {
				worst = max(worst, n)
			}
		}
	}
	if status != "completed" || worst < 0 {
		return status, ""
	}
	return status, rank[worst]
}

func (f *Forge) suitesWhere(ctx context.Context, q querier, condition string, args ...any) ([]suiteFacts, error) {
	rows, err := q.QueryContext(ctx, `select id, sha, app, branch, created, updated from check_suite where `+condition+` order by id`, args...)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	var all []suiteFacts
	for rows.Next() {
		var s suiteFacts
		var created, updated int64
		if err := rows.Scan(&s.id, &s.sha, &s.app, &s.branch, &created, &updated); err != nil {
			_ = rows.Close()
			return nil, fmt.Errorf("forge state: %w", err)
		}
		s.created, s.updated = time.UnixMicro(created), time.UnixMicro(updated)
		all = append(all, s)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	if err := rows.Close(); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	for n := range all {
		runs, err := f.checksWhere(ctx, q, `suite = ?`, all[n].id)
		if err != nil {
			return nil, err
		}
		all[n].runs = len(runs)
		all[n].status, all[n].conclusion = sumUp(runs)
	}
	return all, nil
}

func (sc *scene) suite(s suiteFacts, pulls []*issue) map[string]any {
	return map[string]any{
		"id": s.id, "node_id": nodeID("S", sc.repo.full()+"#"+strconv.FormatInt(s.id, 10)), "head_branch": optional(s.branch), "head_sha": s.sha,
		"status": s.status, "conclusion": optional(s.conclusion), "url": fmt.Sprintf("%s/check-suites/%d", sc.base(), s.id),
		"check_runs_url": fmt.Sprintf("%s/check-suites/%d/check-runs", sc.base(), s.id), "before": nil, "after": s.sha,
		"pull_requests": sc.pullsOf(pulls), "app": sc.app(s.app), "repository": sc.json,
		"created_at": *moment(s.created), "updated_at": *moment(s.updated), "latest_check_runs_count": s.runs, "head_commit": nil,
	}
}

// tellCheck tells of a check run, and of its suite when that is complete.
func (sc *scene) tellCheck(ctx context.Context, tx *sql.Tx, out *outbox, c CheckRun, suite int64, created bool, pulls []*issue) error {
	suites, err := sc.f.suitesWhere(ctx, tx, `id = ?`, suite)
	if err != nil || len(suites) == 0 {
		return err
	}
	action := ""
	switch {
	case c.Status == "completed":
		action = "completed"
	case created:
		action = "created"
	default:
		return nil // GitHub doesn't tell either
	}
	j := sc.check(storedCheck{CheckRun: c, suite: suite}, pulls)
	j.Suite = sc.suite(suites[0], pulls)
	tell := func(name, action string, body map[string]any) error {
		payload, err := sc.f.payloadOf(sc.json, c.Actor, action, body)
		if err != nil {
			return err
		}
		return out.add(Event{Repo: sc.repo.full(), Name: name, Action: action, Ref: branchRef(c.Branch), Commit: c.Commit, Actor: c.Actor, Cause: c.Cause, Payload: payload})
	}
	if err := tell("check_run", action, map[string]any{"check_run": j}); err != nil {
		return err
	}
	if suites[0].status != "completed" {
		return nil
	}
	return tell("check_suite", "completed", map[string]any{"check_suite": j.Suite})
}

func branchRef(branch string) string {
	if branch == "" || strings.HasPrefix(branch, "refs/") {
		return branch
	}
	return "refs/heads/" + branch
}
