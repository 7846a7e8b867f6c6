package forge

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

func (f *Forge) labelRoutes(rt, numbered routes) {
	const repo, either = "/repos/{owner}/{repo}", scopeIssues + "," + scopePulls
	rt.handle("GET "+repo+"/labels", either, f.apiLabels)
	rt.handle("POST "+repo+"/labels", either, f.apiCreateLabel)
	rt.handle("GET "+repo+"/labels/{name}", either, f.apiLabel)
	rt.handle("PATCH "+repo+"/labels/{name}", either, f.apiChangeLabel)
	rt.handle("DELETE "+repo+"/labels/{name}", either, f.apiDeleteLabel)
	numbered.handle("GET "+repo+"/issues/{number}/labels", either, f.apiIssueLabels)
	numbered.handle("POST "+repo+"/issues/{number}/labels", either, f.apiSetLabels)
	numbered.handle("PUT "+repo+"/issues/{number}/labels", either, f.apiSetLabels)
	numbered.handle("DELETE "+repo+"/issues/{number}/labels", either, f.apiSetLabels)
	numbered.handle("DELETE "+repo+"/issues/{number}/labels/{name}", either, f.apiSetLabels)
	rt.handle("GET "+repo+"/milestones", either, f.apiMilestones)
	rt.handle("POST "+repo+"/milestones", either, f.apiCreateMilestone)
	rt.handle("GET "+repo+"/assignees", "", f.apiAssignable)
}

func (f *Forge) apiLabels(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	sc, err := f.scene(r, repo)
	if err != nil {
		return nil, err
	}
	list := []labelJSON{}
	for _, l := range sc.labels {
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b labelJSON) int { return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) })
	return cutPage(w, r, list), nil
}

var labelColor = regexp.MustCompile(`^[0-9a-fA-F]{6}$`)

type labelInput struct {
	Name        string  `json:"name"`
	NewName     string  `json:"new_name"`
	Color       string  `json:"color"`
	Description *string `json:"description"`
}

func (in *labelInput) check() error {
	in.Color = strings.TrimPrefix(in.Color, "#")
	switch {
	case strings.TrimSpace(in.Name) == "" || len(in.Name) > 200:
		return invalid("Label", "missing_field", "name", "name is empty or too long")
	case in.Color != "" && !labelColor.MatchString(in.Color):
		return invalid("Label", "invalid", "color", "color is not like d73a4a")
	}
	return nil
}

func (f *Forge) apiCreateLabel(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	var in labelInput
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	if in.Color == "" {
		in.Color = "ededed"
	}
	description := ""
	if in.Description != nil {
		description = *in.Description
	}
	result, err := f.db.ExecContext(r.Context(), `insert into label (repo, key, name, color, description) values (?,?,?,?,?) on conflict do nothing`,
		repo.id, strings.ToLower(in.Name), in.Name, strings.ToLower(in.Color), description)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return nil, invalid("Label", "already_exists", "name", "")
	}
	sc, err := f.scene(r, repo)
	if err != nil {
		return nil, err
	}
	writeJSON(w, http.StatusCreated, sc.labels[strings.ToLower(in.Name)])
	return nil, nil
}

func (f *Forge) apiLabel(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	sc, err := f.scene(r, repo)
	if err != nil {
		return nil, err
	}
	l, ok := sc.labels[strings.ToLower(r.PathValue("name"))]
	if !ok {
		return nil, ErrNotFound
	}
	return l, nil
}

func (f *Forge) apiChangeLabel(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	var in labelInput
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	old := r.PathValue("name")
	if in.Name = in.NewName; in.Name == "" {
		in.Name = old
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	err = f.transact(r.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(r.Context(), `update label set key = ?1, name = ?2, color = coalesce(nullif(?3, ''), color), description = coalesce(?4, description) where repo = ?5 and key = ?6`,
			strings.ToLower(in.Name), in.Name, strings.ToLower(in.Color), in.Description, repo.id, strings.ToLower(old))
		if err != nil || strings.EqualFold(in.Name, old) {
			return err
		}
		return relabelAll(r, tx, repo.id, old, in.Name)
	})
	if err != nil {
		return nil, err
	}
	sc, err := f.scene(r, repo)
	if err != nil {
		return nil, err
	}
	l, ok := sc.labels[strings.ToLower(in.Name)]
	if !ok {
		return nil, ErrNotFound
	}
	return l, nil
}

// relabelAll renames a label on all issues, or takes it off ("").
func relabelAll(r *http.Request, tx *sql.Tx, repo int64, old, name string) error {
	all, err := issuesWhere(r.Context(), tx, `i.repo = ?`, repo)
	if err != nil {
		return err
	}
	for _, i := range all {
		left := without(i.Labels, []string{old})
		if len(left) == len(i.Labels) {
			continue
		}
		i.Labels = distinct(append(left, name))
		if err := i.save(r.Context(), tx); err != nil {
			return err
		}
	}
	return nil
}

func (f *Forge) apiDeleteLabel(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	err = f.transact(r.Context(), func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(r.Context(), `delete from label where repo = ? and key = ?`, repo.id, strings.ToLower(name)); err != nil {
			return err
		}
		return relabelAll(r, tx, repo.id, name, "")
	})
	if err != nil {
		return nil, err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil, nil
}

func (f *Forge) apiIssueLabels(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, i, err := f.issueTarget(r, f.target)
	if err != nil {
		return nil, err
	}
	sc, err := f.scene(r, repo, i)
	if err != nil {
		return nil, err
	}
	return cutPage(w, r, sc.labelsOf(i)), nil
}

// readLabelNames reads {"labels": […]} or […].
func readLabelNames(r *http.Request) ([]string, error) {
	var raw json.RawMessage
	if err := readJSON(r, &raw); err != nil {
		return nil, err
	}
	var list []any
	if json.Unmarshal(raw, &list) == nil {
		return labelNames(list), nil
	}
	var in struct {
		Labels []any `json:"labels"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return nil, fail(http.StatusBadRequest, "Problems parsing JSON: %s", err)
	}
	return labelNames(in.Labels), nil
}

// apiSetLabels adds (POST), replaces (PUT) or takes off (DELETE) labels.
func (f *Forge) apiSetLabels(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, i, err := f.issueTarget(r, f.writable)
	if err != nil {
		return nil, err
	}
	var names []string
	switch {
	case r.Method == http.MethodDelete && r.PathValue("name") != "":
		if names = without(i.Labels, []string{r.PathValue("name")}); len(names) == len(i.Labels) {
			return nil, fail(http.StatusNotFound, "Label does not exist")
		}
	case r.Method == http.MethodDelete:
	default:
		if names, err = readLabelNames(r); err != nil {
			return nil, err
		}
		if r.Method == http.MethodPost {
			names = distinct(append(slices.Clone(i.Labels), names...))
		}
	}
	list := make([]any, len(names))
	for n, name := range names {
		list[n] = name
	}
	if i, err = f.editIssue(r.Context(), repo, i, IdentityFrom(r.Context()), issueChange{Labels: &list}); err != nil {
		return nil, err
	}
	sc, err := f.scene(r, repo, i)
	if err != nil {
		return nil, err
	}
	return sc.labelsOf(i), nil
}

func (f *Forge) apiMilestones(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	sc, err := f.scene(r, repo)
	if err != nil {
		return nil, err
	}
	state := r.URL.Query().Get("state")
	list := []milestoneJSON{}
	for _, m := range sc.milestones {
		if state == "all" || m.State == state || state == "" && m.State == "open" {
			list = append(list, m)
		}
	}
	slices.SortFunc(list, func(a, b milestoneJSON) int { return a.Number - b.Number })
	return cutPage(w, r, list), nil
}

func (f *Forge) apiCreateMilestone(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Title       string    `json:"title"`
		Description string    `json:"description"`
		State       string    `json:"state"`
		DueOn       time.Time `json:"due_on"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if err := checkTexts("Milestone", in.Title, in.Description); err != nil {
		return nil, err
	}
	var number int
	now := f.deps.Now().UnixMicro()
	err = f.transact(r.Context(), func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(r.Context(), `select coalesce(max(number), 0) + 1 from milestone where repo = ?`, repo.id).Scan(&number); err != nil {
			return err
		}
		_, err := tx.ExecContext(r.Context(), `insert into milestone (repo, number, title, description, open, due, author, created, updated) values (?,?,?,?,?,?,?,?,?)`,
			repo.id, number, in.Title, in.Description, in.State != "closed", micro(in.DueOn), IdentityFrom(r.Context()).Actor, now, now)
		return err
	})
	if err != nil {
		return nil, err
	}
	sc, err := f.scene(r, repo)
	if err != nil {
		return nil, err
	}
	writeJSON(w, http.StatusCreated, sc.milestones[number])
	return nil, nil
}

// apiAssignable lists who can be assigned: here, the owner of the machine.
func (f *Forge) apiAssignable(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := f.target(r); err != nil {
		return nil, err
	}
	return []accountJSON{f.account(apiBase(r), f.cfg.User)}, nil
}
