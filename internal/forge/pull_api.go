package forge

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// pullRoutes registers what is about issues, pull requests, reviews, checks and
// comparisons.
func (f *Forge) pullRoutes(rt routes) {
	const repo = "/repos/{owner}/{repo}"
	numbered, comments := rt.fork(), rt.fork()
	for _, noun := range []string{"/pulls", "/issues"} {
		rt.mux.HandleFunc(repo+noun+"/{rest...}", func(w http.ResponseWriter, r *http.Request) {
			next := numbered
			if rest := r.PathValue("rest"); rest == "comments" || strings.HasPrefix(rest, "comments/") {
				next = comments
			}
			next.mux.ServeHTTP(w, r)
		})
	}
	f.numberedPullRoutes(numbered)
	f.reviewRoutes(numbered, comments)
	f.issueRoutes(rt, numbered, comments)
	f.labelRoutes(rt, numbered)
	rt.handle("GET "+repo+"/pulls", scopePulls, f.apiPulls)
	rt.handle("POST "+repo+"/pulls", scopePulls, f.apiCreatePull)
	rt.handle("POST "+repo+"/merges", scopeContents, f.apiMergeBranches)
	rt.handle("GET "+repo+"/compare/{basehead...}", scopeContents, f.apiCompare)
	f.checkRoutes(rt)
}

// fork makes routes that are looked up apart. ServeMux takes /pulls/comments/{id}
// and /pulls/{number}/files for ambiguous.
func (rt routes) fork() routes {
	forked := routes{f: rt.f, mux: http.NewServeMux()}
	forked.handle("/", "", rt.f.unsupported)
	return forked
}

func (f *Forge) numberedPullRoutes(rt routes) {
	const repo = "/repos/{owner}/{repo}"
	rt.handle("GET "+repo+"/pulls/{number}", scopePulls, f.apiPull)
	rt.handle("PATCH "+repo+"/pulls/{number}", scopePulls, f.apiChangePull)
	rt.handle("GET "+repo+"/pulls/{number}/commits", scopePulls, f.apiPullCommits)
	rt.handle("GET "+repo+"/pulls/{number}/files", scopePulls, f.apiPullFiles)
	rt.handle("GET "+repo+"/pulls/{number}/merge", scopePulls, f.apiIsMerged)
	rt.handle("PUT "+repo+"/pulls/{number}/merge", scopeContents, f.apiMergePull)
	rt.handle("PUT "+repo+"/pulls/{number}/update-branch", scopePulls, f.apiUpdateBranch)
	rt.handle("GET "+repo+"/pulls/{number}/requested_reviewers", scopePulls, f.apiReviewers)
	rt.handle("POST "+repo+"/pulls/{number}/requested_reviewers", scopePulls, f.apiRequestReview)
	rt.handle("DELETE "+repo+"/pulls/{number}/requested_reviewers", scopePulls, f.apiRequestReview)
}

// participant is the repository of a request by somebody who takes part in its
// discussions, which is anybody with a token who may see it.
func (f *Forge) participant(r *http.Request) (*repository, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	id := IdentityFrom(r.Context())
	switch {
	case id.Anonymous():
		return nil, errNoToken
	case !id.allows(scopeOf(r), "write"):
		return nil, errScope
	case id.Repo != "" && id.Repo != repo.key:
		return nil, fail(http.StatusForbidden, "Resource not accessible by this token: it is for %s", id.Repo)
	case repo.settings.Archived:
		return nil, fail(http.StatusForbidden, "Repository was archived so is read-only.")
	}
	return repo, nil
}

// pullRequest is the repository and the pull request of the request.
func (f *Forge) pullRequest(r *http.Request, find func(*http.Request) (*repository, error)) (*repository, *issue, error) {
	repo, err := find(r)
	if err != nil {
		return nil, nil, err
	}
	i, err := pullOf(r.Context(), f.db, repo.id, numberOf(r.PathValue("number")))
	return repo, i, err
}

func (f *Forge) apiPulls(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	condition, args := `i.repo = ? and i.is_pull`, []any{repo.id}
	switch q.Get("state") {
	case "", "open":
		condition += ` and i.open`
	case "closed":
		condition += ` and not i.open`
	case "all":
	default:
		return nil, invalid("PullRequest", "invalid", "state", "state must be open, closed or all")
	}
	if base := q.Get("base"); base != "" {
		condition, args = condition+` and i.base_ref = ?`, append(args, base)
	}
	if head := q.Get("head"); head != "" {
		owner, branch, ok := strings.Cut(head, ":")
		if !ok {
			owner, branch = repo.owner, head
		}
		condition, args = condition+` and i.head_ref = ? and i.head_repo in (select id from repository where lower(owner) = lower(?))`, append(args, branch, owner)
	}
	found, err := issuesWhere(r.Context(), f.db, condition+issueOrder(q.Get("sort"), q.Get("direction")), args...)
	if err != nil {
		return nil, err
	}
	found = cutPage(w, r, found)
	sc, err := f.scene(r, repo, found...)
	if err != nil {
		return nil, err
	}
	list := []pullJSON{}
	for _, i := range found {
		list = append(list, sc.pullShort(i))
	}
	return list, nil
}

// issueOrder is the order that a list asks for, newest first by default.
func issueOrder(sort, direction string) string {
	column := "i.created"
	switch sort {
	case "updated", "long-running", "popularity":
		column = "i.updated"
	case "comments":
		column = "10"
	}
	if direction == "asc" || sort != "" && sort != "created" && sort != "updated" && direction == "" {
		return ` order by ` + column + `, i.number`
	}
	return ` order by ` + column + ` desc, i.number desc`
}

func (f *Forge) apiCreatePull(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.participant(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Title      string `json:"title"`
		Body       string `json:"body"`
		Head       string `json:"head"`
		HeadRepo   string `json:"head_repo"`
		Base       string `json:"base"`
		Draft      bool   `json:"draft"`
		Issue      int    `json:"issue"`
		Maintained *bool  `json:"maintainer_can_modify"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	s := pullSpec{title: in.Title, body: in.Body, head: in.Head, headRepo: in.HeadRepo, base: in.Base, draft: in.Draft, maintained: in.Maintained == nil || *in.Maintained}
	if in.Issue != 0 {
		if s.from, err = issueOf(r.Context(), f.db, repo.id, in.Issue); err != nil || s.from.Pull != nil || !s.from.open {
			return nil, invalid("PullRequest", "invalid", "issue", "there is no such open issue")
		}
		s.title = s.from.title
	}
	if err := checkTexts("PullRequest", s.title, s.body); err != nil {
		return nil, err
	}
	if in.Head == "" || in.Base == "" {
		return nil, invalid("PullRequest", "missing_field", "head", "head and base are needed")
	}
	i, err := f.createPull(r.Context(), repo, IdentityFrom(r.Context()), s)
	if err != nil {
		return nil, err
	}
	return f.answerPull(w, r, repo, i, http.StatusCreated)
}

// answerPull sends one pull request with all that is known of it.
func (f *Forge) answerPull(w http.ResponseWriter, r *http.Request, repo *repository, i *issue, status int) (any, error) {
	j, err := f.pullFull(r, repo, i)
	if err != nil {
		return nil, err
	}
	if status == http.StatusOK {
		return j, nil
	}
	w.Header().Set("Location", j.URL)
	writeJSON(w, status, j)
	return nil, nil
}

func (f *Forge) pullFull(r *http.Request, repo *repository, i *issue) (pullJSON, error) {
	ctx := r.Context()
	i, err := f.fresh(ctx, repo, i)
	if err != nil {
		return pullJSON{}, err
	}
	state, err := f.mergeState(ctx, repo, i)
	if err != nil {
		return pullJSON{}, err
	}
	var comments int
	if err := f.db.QueryRowContext(ctx, `select count(*) from comment where kind = 'review' and repo = ? and issue = ?`, repo.id, i.id).Scan(&comments); err != nil {
		return pullJSON{}, fmt.Errorf("forge state: %w", err)
	}
	sc, err := f.scene(r, repo, i)
	if err != nil {
		return pullJSON{}, err
	}
	return sc.pullWith(i, state, comments), nil
}

func (f *Forge) apiPull(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, i, err := f.pullRequest(r, f.target)
	if err != nil {
		return nil, err
	}
	base := i.Pull.Test.MergeBase
	if base == "" {
		base = i.Pull.Test.Base
	}
	if sent, err := f.serveDiff(w, r, repo, base, i.Pull.Test.Base, i.Pull.HeadSHA); sent || err != nil {
		return nil, err
	}
	return f.answerPull(w, r, repo, i, http.StatusOK)
}

func (f *Forge) apiChangePull(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, i, err := f.pullRequest(r, f.participant)
	if err != nil {
		return nil, err
	}
	var in pullChange
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if i, err = f.changePull(r.Context(), repo, i, IdentityFrom(r.Context()), in); err != nil {
		return nil, err
	}
	return f.answerPull(w, r, repo, i, http.StatusOK)
}

func (f *Forge) apiPullCommits(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, i, err := f.pullRequest(r, f.target)
	if err != nil {
		return nil, err
	}
	commits, err := commitsBetween(r.Context(), repo, i.Pull.Test.Base, i.Pull.HeadSHA, maxPullCommits)
	if err != nil {
		return nil, err
	}
	list := []commitJSON{}
	for _, c := range cutPage(w, r, commits) {
		list = append(list, f.commitJSON(r, repo, c))
	}
	return list, nil
}

// pullChanges are the files that a pull request changes.
func (f *Forge) pullChanges(r *http.Request, repo *repository, i *issue) ([]changeJSON, error) {
	from := i.Pull.Test.MergeBase
	if from == "" {
		from = i.Pull.Test.Base
	}
	files, err := compareFiles(r.Context(), repo, from, i.Pull.HeadSHA)
	if err != nil {
		return nil, err
	}
	return f.describeChanges(r, repo, i.Pull.HeadSHA, files[:min(len(files), maxCompareFiles)]), nil
}

func (f *Forge) apiPullFiles(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, i, err := f.pullRequest(r, f.target)
	if err != nil {
		return nil, err
	}
	files, err := f.pullChanges(r, repo, i)
	if err != nil {
		return nil, err
	}
	return cutPage(w, r, files), nil
}

func (f *Forge) apiIsMerged(w http.ResponseWriter, r *http.Request) (any, error) {
	_, i, err := f.pullRequest(r, f.target)
	if err != nil || i.Pull.Merged.IsZero() {
		return nil, orNotFound(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil, nil
}

func orNotFound(err error) error {
	if err == nil {
		return ErrNotFound
	}
	return err
}

func (f *Forge) apiMergePull(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, i, err := f.pullRequest(r, f.writable)
	if err != nil {
		return nil, err
	}
	var in struct {
		Title   string  `json:"commit_title"`
		Message *string `json:"commit_message"`
		SHA     string  `json:"sha"`
		Method  string  `json:"merge_method"`
	}
	if r.ContentLength != 0 {
		if err := readJSON(r, &in); err != nil {
			return nil, err
		}
	}
	if in.Method == "" {
		in.Method = "merge"
	}
	i, err = f.mergePull(r.Context(), repo, i.number, IdentityFrom(r.Context()), mergeSpec{Method: in.Method, Title: in.Title, Message: in.Message, SHA: in.SHA})
	if err != nil {
		return nil, err
	}
	return map[string]any{"sha": i.Pull.MergeSHA, "merged": true, "message": "Pull Request successfully merged"}, nil
}

func (f *Forge) apiUpdateBranch(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, i, err := f.pullRequest(r, f.participant)
	if err != nil {
		return nil, err
	}
	var in struct {
		Expected string `json:"expected_head_sha"`
	}
	if r.ContentLength != 0 {
		if err := readJSON(r, &in); err != nil {
			return nil, err
		}
	}
	if err := f.updatePull(r.Context(), repo, i.number, IdentityFrom(r.Context()), in.Expected, false); err != nil {
		return nil, err
	}
	writeJSON(w, http.StatusAccepted, map[string]string{"message": "Updating pull request branch.", "url": f.cfg.URL + "/" + repo.full() + "/pull/" + r.PathValue("number")})
	return nil, nil
}

func (f *Forge) apiReviewers(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, i, err := f.pullRequest(r, f.target)
	if err != nil {
		return nil, err
	}
	sc, err := f.scene(r, repo, i)
	if err != nil {
		return nil, err
	}
	j := sc.pullShort(i)
	return map[string]any{"users": j.RequestedReviewers, "teams": j.RequestedTeams}, nil
}

func (f *Forge) apiRequestReview(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, i, err := f.pullRequest(r, f.participant)
	if err != nil {
		return nil, err
	}
	var in struct {
		Reviewers []string `json:"reviewers"`
		Teams     []string `json:"team_reviewers"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	var change reviewersChange
	if r.Method == http.MethodDelete {
		change = reviewersChange{remove: in.Reviewers, removeTeams: in.Teams}
	} else {
		change = reviewersChange{add: in.Reviewers, addTeams: in.Teams}
	}
	if i, err = f.changeReviewers(r.Context(), repo, i, IdentityFrom(r.Context()), change); err != nil {
		return nil, err
	}
	sc, err := f.scene(r, repo, i)
	if err != nil {
		return nil, err
	}
	if r.Method == http.MethodPost {
		writeJSON(w, http.StatusCreated, sc.pullShort(i))
		return nil, nil
	}
	return sc.pullShort(i), nil
}

// nullable tells apart a field that is null from one that is not there.
type nullable[T any] struct {
	set   bool
	value *T
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *nullable[T]) UnmarshalJSON(data []byte) error {
	n.set = true
	return json.Unmarshal(data, &n.value)
}

// pullsWithCommit are the pull requests that a commit is part of.
func (f *Forge) pullsWithCommit(r *http.Request, repo *repository, sha string) ([]*issue, error) {
	out, err := repo.git.Run(r.Context(), "for-each-ref", "--contains="+sha, "--format=%(refname)", "refs/pull/*/head")
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, ref := range strings.Fields(string(out)) {
		numbers = append(numbers, numberOf(strings.TrimSuffix(strings.TrimPrefix(ref, "refs/pull/"), "/head")))
	}
	all, err := issuesWhere(r.Context(), f.db, `i.repo = ? and i.is_pull order by i.number`, repo.id)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(i *issue) bool {
		if i.Pull.MergeSHA == sha {
			return false
		}
		if !slices.Contains(numbers, i.number) {
			return true
		}
		base, err := repo.git.Run(r.Context(), "rev-list", "--count", sha, "^"+i.Pull.Test.Base)
		return err != nil || strings.TrimSpace(string(base)) == "0"
	}), nil
}
