package forge

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-github/v92/github"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// client is GitHub's API client for the house, with a token ("" for none).
func (h *house) client(token string) *github.Client {
	h.t.Helper()
	options := []github.ClientOptionsFunc{github.WithEnterpriseURLs(h.server.URL, h.server.URL), github.WithHTTPClient(h.server.Client())}
	if token != "" {
		options = append(options, github.WithAuthToken(token))
	}
	c, err := github.NewClient(options...)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// wantAPIError fails unless err is an answer with the status and text.
func wantAPIError(t *testing.T, err error, status int, text string) {
	t.Helper()
	var answer *github.ErrorResponse
	if !errors.As(err, &answer) || answer.Response.StatusCode != status || !strings.Contains(answer.Message, text) || answer.DocumentationURL == "" {
		t.Errorf("got %v; want %d %q", err, status, text)
	}
}

func TestAPIRepositories(t *testing.T) {
	h := newHouse(t)
	ctx, c, anonymous := t.Context(), h.client(h.token), h.client("")
	user, res, err := c.Users.Get(ctx, "")
	if err != nil || user.GetLogin() != "developer" || user.GetType() != "User" {
		t.Errorf("user: %v, %v", user, err)
	}
	for _, name := range []string{"X-Github-Request-Id", "X-Oauth-Scopes", "X-Ratelimit-Limit", "X-Ratelimit-Reset"} {
		if res.Header.Get(name) == "" {
			t.Errorf("header %s is missing", name)
		}
	}
	if limits, _, err := c.RateLimit.Get(ctx); err != nil || limits.Core.Remaining == 0 {
		t.Errorf("rate limit: %v, %v", limits, err)
	}
	repo, res, err := c.Repositories.Create(ctx, "contoso", &github.Repository{Name: new("storefront"), Description: new("Shop")})
	if err != nil || res.StatusCode != 201 || repo.GetFullName() != "contoso/storefront" || repo.GetPrivate() || repo.GetDefaultBranch() != "main" ||
		repo.GetOwner().GetType() != "Organization" || repo.GetCloneURL() != "http://github.localhost/contoso/storefront.git" || !repo.GetPermissions().GetPush() {
		t.Errorf("create: %+v, %v", repo, err)
	}
	if repo, _, err = c.Repositories.Create(ctx, "", &github.Repository{Name: new("secret"), Private: new(true)}); err != nil || repo.GetFullName() != "developer/secret" {
		t.Errorf("create of one's own: %v, %v", repo, err)
	}
	_, _, err = c.Repositories.Create(ctx, "contoso", &github.Repository{Name: new("Storefront")})
	wantAPIError(t, err, 422, "name already exists")
	_, _, err = c.Repositories.Create(ctx, "contoso", &github.Repository{Name: new("a b")})
	wantAPIError(t, err, 422, "letters, digits")
	_, _, err = c.Repositories.Create(ctx, "contoso", &github.Repository{Name: new("x"), AutoInit: new(true)})
	wantAPIError(t, err, 422, "push a first commit")
	_, _, err = anonymous.Repositories.Create(ctx, "contoso", &github.Repository{Name: new("x")})
	wantAPIError(t, err, 401, "lockstep env")
	_, _, err = h.client(h.issue(TokenSpec{User: "r"})).Repositories.Create(ctx, "contoso", &github.Repository{Name: new("x")})
	wantAPIError(t, err, 403, "may not create")

	if repo, _, err = anonymous.Repositories.Get(ctx, "Contoso", "STOREFRONT"); err != nil || repo.GetDescription() != "Shop" || repo.GetPermissions().GetPush() {
		t.Errorf("get: %+v, %v", repo, err)
	}
	_, _, err = anonymous.Repositories.Get(ctx, "developer", "secret")
	wantAPIError(t, err, 404, "Not Found")
	_, _, err = h.client("wrong").Repositories.Get(ctx, "contoso", "storefront")
	wantAPIError(t, err, 401, "Bad credentials")

	all, res, err := c.Repositories.ListByAuthenticatedUser(ctx, &github.RepositoryListByAuthenticatedUserOptions{ListOptions: github.ListOptions{PerPage: 1}})
	if err != nil || len(all) != 1 || all[0].GetFullName() != "contoso/storefront" || res.NextPage != 2 {
		t.Errorf("first page: %v, next %d, %v", all, res.NextPage, err)
	}
	all, res, err = c.Repositories.ListByAuthenticatedUser(ctx, &github.RepositoryListByAuthenticatedUserOptions{ListOptions: github.ListOptions{PerPage: 1, Page: 2}})
	if err != nil || len(all) != 1 || all[0].GetFullName() != "developer/secret" || res.NextPage != 0 {
		t.Errorf("second page: %v, next %d, %v", all, res.NextPage, err)
	}
	if all, _, err = anonymous.Repositories.ListByUser(ctx, "developer", nil); err != nil || len(all) != 0 {
		t.Errorf("an anonymous client sees private repositories: %v, %v", all, err)
	}
	if all, _, err = anonymous.Repositories.ListByOrg(ctx, "contoso", nil); err != nil || len(all) != 1 {
		t.Errorf("of an organization: %v, %v", all, err)
	}
	_, err = h.client(h.issue(TokenSpec{User: "job", Repo: "contoso/storefront", Write: true})).Repositories.Delete(ctx, "contoso", "storefront")
	wantAPIError(t, err, 403, "admin")
	if _, err := c.Repositories.Delete(ctx, "contoso", "storefront"); err != nil {
		t.Error(err)
	}
	_, _, err = c.Repositories.Get(ctx, "contoso", "storefront")
	wantAPIError(t, err, 404, "Not Found")
	_, _, err = c.Gists.List(ctx, "", nil)
	wantAPIError(t, err, 404, "doesn't support GET /gists")
}

func TestAPICommitsAndContents(t *testing.T) {
	h := newHouse(t)
	ctx, c := t.Context(), h.client("")
	dir := h.work("a/b", h.token)
	if _, _, err := h.client(h.token).Repositories.Create(ctx, "a", &github.Repository{Name: new("b")}); err != nil {
		t.Fatal(err)
	}
	_, _, err := c.Repositories.ListCommits(ctx, "a", "b", nil)
	wantAPIError(t, err, 409, "empty")
	first := h.git(dir, "rev-parse", "HEAD")
	second := h.commit(dir, "deploy/über web.yaml", "a: 1\nb: 2\n", "Deploy\n\nWith a body.")
	h.git(dir, "tag", "-a", "-m", "r", "v1")
	h.git(dir, "push", "-q", "origin", "main", "main:feature/x", "v1")

	commits, res, err := c.Repositories.ListCommits(ctx, "a", "b", &github.CommitsListOptions{ListOptions: github.ListOptions{PerPage: 1}})
	if err != nil || len(commits) != 1 || commits[0].GetSHA() != second || res.NextPage != 2 || commits[0].GetCommit().GetMessage() != "Deploy\n\nWith a body." ||
		commits[0].GetCommit().GetAuthor().GetName() != "Ada" || commits[0].Parents[0].GetSHA() != first {
		t.Errorf("commits: %v, %v", commits, err)
	}
	if commits, _, err = c.Repositories.ListCommits(ctx, "a", "b", &github.CommitsListOptions{Path: "README.md", SHA: "feature/x"}); err != nil || len(commits) != 1 || commits[0].GetSHA() != first {
		t.Errorf("commits of a file: %v, %v", commits, err)
	}
	for _, ref := range []string{second, second[:10], "main", "feature/x", "v1", "heads/main"} {
		commit, _, err := c.Repositories.GetCommit(ctx, "a", "b", ref, nil)
		if err != nil || commit.GetSHA() != second || len(commit.Files) != 1 || commit.Files[0].GetFilename() != "deploy/über web.yaml" ||
			commit.Files[0].GetStatus() != "added" || commit.GetStats().GetAdditions() != 2 {
			t.Errorf("commit %s: %v, %v", ref, commit, err)
		}
	}
	if commit, _, err := c.Repositories.GetCommit(ctx, "a", "b", first, nil); err != nil || len(commit.Files) != 1 {
		t.Errorf("root commit: %v, %v", commit, err)
	}
	_, _, err = c.Repositories.GetCommit(ctx, "a", "b", strings.Repeat("1", 40), nil)
	wantAPIError(t, err, 422, "No commit found for SHA")

	branches, _, err := c.Repositories.ListBranches(ctx, "a", "b", nil)
	if err != nil || len(branches) != 2 || branches[0].GetName() != "feature/x" || branches[0].GetCommit().GetSHA() != second {
		t.Errorf("branches: %v, %v", branches, err)
	}
	if branch, _, err := c.Repositories.GetBranch(ctx, "a", "b", "feature/x", 0); err != nil || branch.GetName() != "feature/x" || branch.GetCommit().GetSHA() != second {
		t.Errorf("branch: %v, %v", branch, err)
	}
	if _, res, err := c.Repositories.GetBranch(ctx, "a", "b", "none", 0); err == nil || res.StatusCode != 404 {
		t.Errorf("missing branch: %v", err)
	}
	ref, _, err := c.Git.GetRef(ctx, "a", "b", "heads/feature/x")
	if err != nil || ref.GetRef() != "refs/heads/feature/x" || ref.GetObject().GetSHA() != second || ref.GetObject().GetType() != "commit" {
		t.Errorf("ref: %v, %v", ref, err)
	}
	if ref, _, err = c.Git.GetRef(ctx, "a", "b", "tags/v1"); err != nil || ref.GetObject().GetType() != "tag" {
		t.Errorf("tag: %v, %v", ref, err)
	}
	_, _, err = c.Git.GetRef(ctx, "a", "b", "heads/feature")
	wantAPIError(t, err, 404, "Not Found")
	if refs, _, err := c.Git.ListMatchingRefs(ctx, "a", "b", "heads/"); err != nil || len(refs) != 2 {
		t.Errorf("matching refs: %v, %v", refs, err)
	}

	file, _, _, err := c.Repositories.GetContents(ctx, "a", "b", "deploy/über web.yaml", &github.RepositoryContentGetOptions{Ref: "feature/x"})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := file.GetContent(); err != nil || text != "a: 1\nb: 2\n" || file.GetSize() != 10 || file.GetType() != "file" {
		t.Errorf("file: %q, %v, %v", text, file, err)
	}
	_, list, _, err := c.Repositories.GetContents(ctx, "a", "b", "", nil)
	if err != nil || len(list) != 2 || list[1].GetType() != "dir" || list[0].GetSize() != 6 {
		t.Errorf("directory: %v, %v", list, err)
	}
	for _, missing := range []string{"none", "README.md/x", "deploy/none"} {
		_, _, _, err = c.Repositories.GetContents(ctx, "a", "b", missing, nil)
		wantAPIError(t, err, 404, "Not Found")
	}
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, h.server.URL+"/api/v3/repos/a/b/contents/README.md", nil)
	req.Header.Set("Accept", "application/vnd.github.raw+json")
	raw, err := h.server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Body.Close() }()
	if text, _ := io.ReadAll(raw.Body); string(text) != "hello\n" {
		t.Errorf("raw: %q", text)
	}
}

func TestAPIStatuses(t *testing.T) {
	h := newHouse(t)
	ctx, c := t.Context(), h.client(h.token)
	dir := h.work("a/b", h.token)
	h.git(dir, "push", "-q", "origin", "main")
	sha := h.git(dir, "rev-parse", "HEAD")
	if all, _, err := c.Repositories.GetCombinedStatus(ctx, "a", "b", "main", nil); err != nil || all.GetState() != "pending" || all.GetTotalCount() != 0 {
		t.Errorf("without statuses: %v, %v", all, err)
	}
	created, _, err := c.Repositories.CreateStatus(ctx, "a", "b", sha, github.RepoStatus{State: new("pending"), Context: new("ci/build"), TargetURL: new("http://localhost/run/1")})
	if err != nil || created.GetState() != "pending" || created.GetCreator().GetLogin() != "developer" || created.GetID() == 0 {
		t.Errorf("create: %v, %v", created, err)
	}
	if err := h.SetStatus(ctx, "a/b", sha, Status{Context: "ci/build", State: "success", Description: "Built", Creator: "github-actions[bot]"}); err != nil {
		t.Fatal(err)
	}
	if err := h.SetStatus(ctx, "a/b", "main", Status{Context: "lockstep/storefront", State: "failure"}); err != nil {
		t.Fatal(err)
	}
	all, _, err := c.Repositories.GetCombinedStatus(ctx, "a", "b", sha, nil)
	if err != nil || all.GetState() != "failure" || all.GetTotalCount() != 2 || all.GetSHA() != sha || all.Statuses[1].GetState() != "success" || all.Statuses[1].GetDescription() != "Built" {
		t.Errorf("combined: %v, %v", all, err)
	}
	if list, _, err := c.Repositories.ListStatuses(ctx, "a", "b", "main", nil); err != nil || len(list) != 3 || list[2].GetTargetURL() != "http://localhost/run/1" {
		t.Errorf("all: %v, %v", list, err)
	}
	if latest, err := h.Statuses(ctx, "a/b", sha); err != nil || len(latest) != 2 || latest[0].Context != "lockstep/storefront" {
		t.Errorf("Statuses: %v, %v", latest, err)
	}
	for want, s := range map[string]github.RepoStatus{
		"is not error":    {State: new("fine")},
		"must begin with": {State: new("success"), TargetURL: new("javascript:alert(1)")},
		"too long":        {State: new("success"), Description: new(strings.Repeat("x", 1001))},
	} {
		_, _, err := c.Repositories.CreateStatus(ctx, "a", "b", sha, s)
		wantAPIError(t, err, 422, want)
	}
	_, _, err = c.Repositories.CreateStatus(ctx, "a", "b", strings.Repeat("1", 40), github.RepoStatus{State: new("success")})
	wantAPIError(t, err, 422, "No commit found for SHA")
	_, _, err = h.client(h.issue(TokenSpec{User: "r"})).Repositories.CreateStatus(ctx, "a", "b", sha, github.RepoStatus{State: new("success")})
	wantAPIError(t, err, 403, "may not write")
	_, _, err = h.client("").Repositories.CreateStatus(ctx, "a", "b", sha, github.RepoStatus{State: new("success")})
	wantAPIError(t, err, 401, "Requires authentication")
	if err := h.SetStatus(ctx, "a/none", sha, Status{State: "success"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such repository: %v", err)
	}
	if err := h.SetStatus(ctx, "a/b", strings.Repeat("1", 40), Status{State: "success"}); !errors.Is(err, git.ErrNotFound) {
		t.Errorf("no such commit: %v", err)
	}
}

func TestAPIActionsGoToTheFallback(t *testing.T) {
	type seen struct{ path, actor, write, user string }
	var got seen
	h := newHouse(t, func(_ *Config, d *Deps) {
		d.Fallback = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = seen{r.URL.Path, r.Header.Get(HeaderActor), r.Header.Get(HeaderWrite), IdentityFrom(r.Context()).User}
			_, _ = io.WriteString(w, `{}`)
		})
	})
	for _, spec := range []RepositorySpec{{Name: "Contoso/b"}, {Name: "a/private", Private: true}} {
		if err := h.CreateRepository(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
	}
	job := h.issue(TokenSpec{User: "job", Actor: "github-actions[bot]", Repo: "a/private", Write: true})
	for _, c := range []struct {
		path, token string
		status      int
		want        seen
	}{
		{"/repos/contoso/B/actions/secrets/NAME", h.token, 200, seen{"/repos/Contoso/b/actions/secrets/NAME", "developer", "true", "developer"}},
		{"/repos/contoso/b/actions/runs", "", 200, seen{"/repos/Contoso/b/actions/runs", "", "false", ""}},
		{"/repos/contoso/b/actions/runs", job, 200, seen{"/repos/Contoso/b/actions/runs", "github-actions[bot]", "false", "job"}},
		{"/repos/a/private/actions/runs", job, 200, seen{"/repos/a/private/actions/runs", "github-actions[bot]", "true", "job"}},
		{"/repos/a/private/actions/runs", "", 404, seen{}},
		{"/repos/a/none/actions/runs", h.token, 404, seen{}},
	} {
		got = seen{}
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, h.server.URL+"/api/v3"+c.path, nil)
		req.Header.Set(HeaderActor, "root") // must not get through
		req.Header.Set(HeaderWrite, "true")
		if c.token != "" {
			req.Header.Set("Authorization", "token "+c.token)
		}
		res, err := h.server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != c.status || got != c.want {
			t.Errorf("%s: %d %+v; want %d %+v", c.path, res.StatusCode, got, c.status, c.want)
		}
	}
	without := newHouse(t)
	if err := without.CreateRepository(t.Context(), RepositorySpec{Name: "a/b"}); err != nil {
		t.Fatal(err)
	}
	if got := without.status(http.MethodGet, "/api/v3/repos/a/b/actions/runs", without.token); got != 404 {
		t.Errorf("without a fallback: %d", got)
	}
}

// api asks as gh does, by host name.
func (h *house) api(host, method, path, token, body string) (int, map[string]any) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), method, h.server.URL+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Host = host
	if token != "" {
		req.Header.Set("Authorization", "token "+token)
	}
	res, err := h.server.Client().Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var answer map[string]any
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	return res.StatusCode, answer
}

// TestGH sends what gh sends for auth status, repo create and repo view.
func TestGH(t *testing.T) {
	h := newHouse(t)
	graphql := func(token, query string, variables map[string]any) (int, string) {
		body, _ := json.Marshal(map[string]any{"query": query, "variables": variables})
		status, answer := h.api("api.github.localhost", "POST", "/graphql", token, string(body))
		text, _ := json.Marshal(answer)
		return status, string(text)
	}
	if status, answer := h.api("api.github.localhost:8080", "GET", "/", h.token, ""); status != 200 || !strings.HasPrefix(answer["current_user_url"].(string), "http://api.github.localhost:8080/user") {
		t.Errorf("root: %d %v", status, answer)
	}
	if _, got := graphql(h.token, `query UserCurrent{viewer{login}}`, nil); got != `{"data":{"viewer":{"login":"developer"}}}` {
		t.Errorf("viewer: %s", got)
	}
	_, owner := h.api("api.github.localhost", "GET", "/users/contoso", h.token, "")
	if owner["type"] != "Organization" {
		t.Errorf("owner: %v", owner)
	}
	const create = `
	mutation RepositoryCreate($input: CreateRepositoryInput!) {
		createRepository(input: $input) {
			repository { id name owner { login } url }
		}
	}`
	input := map[string]any{"input": map[string]any{
		"name": "storefront", "description": "Shop", "visibility": "PUBLIC", "ownerId": owner["node_id"], "hasIssuesEnabled": true, "hasWikiEnabled": true,
	}}
	if _, got := graphql(h.token, create, input); !strings.Contains(got, `"name":"storefront","owner":{"login":"contoso"},"url":"http://github.localhost/contoso/storefront"`) {
		t.Errorf("create: %s", got)
	}
	if _, got := graphql(h.token, create, input); !strings.Contains(got, "name already exists on this account") || !strings.Contains(got, `"errors"`) {
		t.Errorf("second create: %s", got)
	}
	if _, got := graphql(h.token, `mutation { createRepository(input: {name: "mine", visibility: PRIVATE}) { repository { nameWithOwner, isPrivate } } }`, nil); !strings.Contains(got, `{"isPrivate":true,"nameWithOwner":"developer/mine"}`) {
		t.Errorf("create of one's own: %s", got)
	}
	if _, got := graphql(h.issue(TokenSpec{User: "r"}), create, input); !strings.Contains(got, "may not create") {
		t.Errorf("create with a token for reading: %s", got)
	}
	if err := h.CreateRepository(t.Context(), RepositorySpec{Name: "contoso/web"}); err != nil {
		t.Fatal(err)
	}
	const list = `query($after: String) { repositoryOwner(login: "contoso") { login repositories(first: 1, after: $after, privacy: PUBLIC) {
		totalCount nodes { nameWithOwner } pageInfo { hasNextPage endCursor } } } }`
	if _, got := graphql(h.token, list, nil); !strings.Contains(got, `"nodes":[{"nameWithOwner":"contoso/storefront"}],"pageInfo":{"endCursor":"contoso/storefront","hasNextPage":true},"totalCount":2`) {
		t.Errorf("list: %s", got)
	}
	if _, got := graphql(h.token, list, map[string]any{"after": "contoso/storefront"}); !strings.Contains(got, `"nodes":[{"nameWithOwner":"contoso/web"}]`) || !strings.Contains(got, `"hasNextPage":false`) {
		t.Errorf("second page: %s", got)
	}
	const view = `
	fragment repo on Repository { id name owner { login } viewerPermission defaultBranchRef { name target { oid } } }
	query RepositoryInfo($owner: String!, $name: String! = "x") {
		here: repository(owner: $owner, name: $name) { ...repo parent { ...repo } ... on Node { __typename } }
	}`
	if _, got := graphql(h.token, view, map[string]any{"owner": "Contoso", "name": "storefront"}); !strings.Contains(got, `"here":{"__typename":"Repository","defaultBranchRef":null`) ||
		!strings.Contains(got, `"viewerPermission":"ADMIN"`) {
		t.Errorf("view: %s", got)
	}
	dir := h.work("contoso/storefront", h.token)
	h.git(dir, "push", "-q", "origin", "main")
	if _, got := graphql(h.token, view, map[string]any{"owner": "contoso", "name": "storefront"}); !strings.Contains(got, `"target":{"oid":"`+h.git(dir, "rev-parse", "HEAD")+`"}`) {
		t.Errorf("view after a push: %s", got)
	}
	if _, got := graphql(h.token, view, map[string]any{"owner": "contoso"}); !strings.Contains(got, `"type":"NOT_FOUND"`) || !strings.Contains(got, `"here":null`) {
		t.Errorf("view of none: %s", got)
	}
	if status, _ := graphql("", view, nil); status != 401 {
		t.Errorf("anonymous: %d", status)
	}
	for query, want := range map[string]string{
		`{ viewer { login, gists { totalCount } } }`: "doesn't support the field 'gists' of 'User'",
		`mutation { addStar(input: {}) { id } }`:     "doesn't support the field 'addStar' of 'Mutation'",
		`{ viewer }`:                                 "must have a selection",
		`{ viewer { ...none } }`:                     "not defined",
		`query {`:                                    "Parse error",
		`subscription { x }`:                         "Parse error",
		`{ a """block""" }`:                          "Parse error",
		strings.Repeat("{a", 100):                    "too deeply",
		`fragment f on User { ...f ...f } { viewer { ...f } }`:                                "nested too deeply",
		`{ organization(login: "developer") { id } }`:                                         "Could not resolve",
		`mutation { createRepository(input: {name: "x", ownerId: "zzz"}) { repository{id} }}`: "global id",
	} {
		if status, got := graphql(h.token, query, nil); status != 200 || !strings.Contains(got, want) {
			t.Errorf("%.60s: %d %.300s; want %q", query, status, got, want)
		}
	}
	if status, answer := h.api("github.localhost", "POST", "/api/graphql", h.token, "{"); status != 400 || !strings.Contains(answer["message"].(string), "parsing JSON") {
		t.Errorf("bad JSON: %d %v", status, answer)
	}
	big := `{"query":"` + strings.Repeat(" ", maxBody) + `"}`
	if status, _ := h.api("api.github.localhost", "POST", "/graphql", h.token, big); status != 413 {
		t.Errorf("large body: %d", status)
	}
}

func TestPageLinks(t *testing.T) {
	h := newHouse(t)
	for _, name := range []string{"a/one", "a/two", "a/three"} {
		if err := h.CreateRepository(t.Context(), RepositorySpec{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	res, err := h.server.Client().Get(h.server.URL + "/api/v3/users/a/repos?per_page=1&page=2&sort=x%26y")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	link := res.Header.Get("Link")
	next, _, _ := strings.Cut(link[strings.LastIndex(link, "<")+1:], ">")
	u, err := url.Parse(next)
	if err != nil || u.Path != "/api/v3/users/a/repos" || u.Query().Get("page") != "3" || u.Query().Get("sort") != "x&y" {
		t.Errorf("link: %s", link)
	}
}
