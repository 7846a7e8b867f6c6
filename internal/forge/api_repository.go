package forge

import (
	"encoding/base64"
	"errors"
	"hash/fnv"
	"net/http"
	"slices"
	"strings"
	"time"
)

func (f *Forge) repositoryRoutes(rt routes) {
	rt.handle("GET /user", "", f.apiUser)
	rt.handle("GET /users/{login}", "", f.apiAccount)
	rt.handle("GET /orgs/{login}", "", f.apiAccount)
	rt.handle("GET /user/repos", "", f.apiRepositories)
	rt.handle("GET /users/{login}/repos", "", f.apiRepositories)
	rt.handle("GET /orgs/{login}/repos", "", f.apiRepositories)
	rt.handle("POST /user/repos", scopeAdmin, f.apiCreateRepository)
	rt.handle("POST /orgs/{login}/repos", scopeAdmin, f.apiCreateRepository)
	rt.handle("GET /repos/{owner}/{repo}", "", f.apiRepository)
	rt.handle("PATCH /repos/{owner}/{repo}", scopeAdmin, f.apiChangeRepository)
	rt.handle("DELETE /repos/{owner}/{repo}", scopeAdmin, f.apiDeleteRepository)
	rt.handle("GET /repos/{owner}/{repo}/topics", "", f.apiTopics)
	rt.handle("PUT /repos/{owner}/{repo}/topics", scopeAdmin, f.apiReplaceTopics)
}

type accountJSON struct {
	Login     string `json:"login"`
	ID        int64  `json:"id"`
	NodeID    string `json:"node_id"`
	AvatarURL string `json:"avatar_url"`
	URL       string `json:"url"`
	HTMLURL   string `json:"html_url"`
	ReposURL  string `json:"repos_url"`
	Type      string `json:"type"` // User, Organization, Bot
	SiteAdmin bool   `json:"site_admin"`
	Name      string `json:"name,omitempty"`
}

// account describes a login. All but the owner of this machine and bots are
// organizations: they exist by having repositories.
func (f *Forge) account(base, login string) accountJSON {
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(strings.ToLower(login)))
	a := accountJSON{Login: login, ID: int64(sum.Sum32()), Type: "Organization", HTMLURL: f.cfg.URL + "/" + login, URL: base + "/users/" + login}
	a.ReposURL = a.URL + "/repos"
	switch {
	case strings.EqualFold(login, f.cfg.User):
		a.Type = "User"
	case strings.HasSuffix(login, "[bot]"):
		a.Type = "Bot"
	}
	a.NodeID = nodeID(a.Type, login)
	return a
}

// nodeID is an opaque name that accountOfNode reads back.
func nodeID(kind, name string) string {
	return kind[:1] + "_" + base64.RawURLEncoding.EncodeToString([]byte(name))
}

// nameOfNode reads a nodeID of the kinds given by their first letters.
func nameOfNode(id, kinds string) (string, bool) {
	kind, rest, ok := strings.Cut(id, "_")
	name, err := base64.RawURLEncoding.DecodeString(rest)
	return string(name), ok && err == nil && len(kind) == 1 && strings.Contains(kinds, kind)
}

type permissionsJSON struct {
	Admin    bool `json:"admin"`
	Maintain bool `json:"maintain"`
	Push     bool `json:"push"`
	Triage   bool `json:"triage"`
	Pull     bool `json:"pull"`
}

type repositoryJSON struct {
	ID            int64       `json:"id"`
	NodeID        string      `json:"node_id"`
	Name          string      `json:"name"`
	FullName      string      `json:"full_name"`
	Owner         accountJSON `json:"owner"`
	Private       bool        `json:"private"`
	Visibility    string      `json:"visibility"`
	Description   *string     `json:"description"`
	Fork          bool        `json:"fork"`
	Archived      bool        `json:"archived"`
	Disabled      bool        `json:"disabled"`
	HasIssues     bool        `json:"has_issues"`
	HasWiki       bool        `json:"has_wiki"`
	HasProjects   bool        `json:"has_projects"`
	URL           string      `json:"url"`
	HTMLURL       string      `json:"html_url"`
	CloneURL      string      `json:"clone_url"`
	StatusesURL   string      `json:"statuses_url"`
	ContentsURL   string      `json:"contents_url"`
	CommitsURL    string      `json:"commits_url"`
	BranchesURL   string      `json:"branches_url"`
	DefaultBranch string      `json:"default_branch"`
	Homepage      string      `json:"homepage"`
	Topics        []string    `json:"topics"`
	Size          int64       `json:"size"`
	Language      *string     `json:"language"`
	License       *struct{}   `json:"license"` // licenses are not looked for
	IsTemplate    bool        `json:"is_template"`
	OpenIssues    int         `json:"open_issues_count"`
	Forks         int         `json:"forks_count"`

	AllowMergeCommit    bool `json:"allow_merge_commit"`
	AllowSquashMerge    bool `json:"allow_squash_merge"`
	AllowRebaseMerge    bool `json:"allow_rebase_merge"`
	AllowAutoMerge      bool `json:"allow_auto_merge"`
	AllowUpdateBranch   bool `json:"allow_update_branch"`
	AllowForking        bool `json:"allow_forking"`
	DeleteBranchOnMerge bool `json:"delete_branch_on_merge"`

	HooksURL       string `json:"hooks_url"`
	GitURL         string `json:"git_url"`
	SSHURL         string `json:"ssh_url"` // there is no SSH server: the URL is the same as CloneURL
	ArchiveURL     string `json:"archive_url"`
	CompareURL     string `json:"compare_url"`
	ReleasesURL    string `json:"releases_url"`
	DeploymentsURL string `json:"deployments_url"`
	PullsURL       string `json:"pulls_url"`
	IssuesURL      string `json:"issues_url"`
	TagsURL        string `json:"tags_url"`
	TreesURL       string `json:"trees_url"`
	BlobsURL       string `json:"blobs_url"`

	Parent      *repositoryJSON `json:"parent,omitempty"`
	Source      *repositoryJSON `json:"source,omitempty"`
	Security    any             `json:"security_and_analysis,omitempty"`
	CreatedAt   time.Time       `json:"created_at"`
	UpdatedAt   time.Time       `json:"updated_at"`
	PushedAt    *time.Time      `json:"pushed_at"`
	Permissions permissionsJSON `json:"permissions"`
}

func (f *Forge) repositoryJSON(r *http.Request, repo *repository) (repositoryJSON, error) {
	head, err := f.head(r.Context(), repo)
	if err != nil {
		return repositoryJSON{}, err
	}
	base := apiBase(r) + "/repos/" + repo.full()
	write := IdentityFrom(r.Context()).mayWrite(repo.key)
	admin := IdentityFrom(r.Context()).mayAdminister(repo.key)
	j := repositoryJSON{
		ID: repo.id, NodeID: nodeID("Repository", repo.full()), Name: repo.name, FullName: repo.full(),
		Owner: f.account(apiBase(r), repo.owner), Private: repo.private, Visibility: visibility(repo),
		URL: base, HTMLURL: f.cfg.URL + "/" + repo.full(), CloneURL: f.cfg.URL + "/" + repo.full() + ".git",
		StatusesURL: base + "/statuses/{sha}", ContentsURL: base + "/contents/{+path}",
		CommitsURL: base + "/commits{/sha}", BranchesURL: base + "/branches{/branch}",
		DefaultBranch: head, CreatedAt: repo.created.Truncate(time.Second), UpdatedAt: repo.created.Truncate(time.Second),
		Permissions: permissionsJSON{Admin: admin, Maintain: admin, Push: write, Triage: write, Pull: true},
	}
	f.describeSettings(&j, repo, base)
	if repo.description != "" {
		j.Description = &repo.description
	}
	if !repo.pushed.IsZero() {
		at := repo.pushed.Truncate(time.Second)
		j.PushedAt, j.UpdatedAt = &at, at
	}
	return j, nil
}

func visibility(repo *repository) string {
	if repo.private {
		return "private"
	}
	return "public"
}

func (f *Forge) apiRoot(_ http.ResponseWriter, r *http.Request) (any, error) {
	base := apiBase(r)
	return map[string]string{
		"current_user_url":              base + "/user",
		"repository_url":                base + "/repos/{owner}/{repo}",
		"user_repositories_url":         base + "/users/{user}/repos{?page,per_page}",
		"organization_url":              base + "/orgs/{org}",
		"rate_limit_url":                base + "/rate_limit",
		"user_url":                      base + "/users/{user}",
		"current_user_repositories_url": base + "/user/repos{?page,per_page}",
	}, nil
}

// apiMeta says that this is no GitHub Enterprise Server, which has
// installed_version.
func (f *Forge) apiMeta(http.ResponseWriter, *http.Request) (any, error) {
	return map[string]any{"verifiable_password_authentication": false}, nil
}

func (f *Forge) apiRateLimit(http.ResponseWriter, *http.Request) (any, error) {
	limit := map[string]int64{"limit": rateLimit, "remaining": rateLimit, "used": 0, "reset": f.deps.Now().Add(time.Hour).Unix()}
	return map[string]any{"resources": map[string]any{"core": limit, "search": limit, "graphql": limit}, "rate": limit}, nil
}

func (f *Forge) apiUser(_ http.ResponseWriter, r *http.Request) (any, error) {
	id := IdentityFrom(r.Context())
	if id.Anonymous() {
		return nil, errNoToken
	}
	return f.account(apiBase(r), id.User), nil
}

func (f *Forge) apiAccount(_ http.ResponseWriter, r *http.Request) (any, error) {
	login := r.PathValue("login")
	if !ownerName.MatchString(login) {
		return nil, ErrNotFound
	}
	return f.account(apiBase(r), login), nil
}

func (f *Forge) apiRepositories(w http.ResponseWriter, r *http.Request) (any, error) {
	id, login := IdentityFrom(r.Context()), r.PathValue("login")
	if login == "" && id.Anonymous() {
		return nil, errNoToken
	}
	// The machine's owner is a member of every organization: /user/repos has all.
	all, err := f.list(r.Context(), login)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(repo *repository) bool { return !id.mayRead(repo) })
	list := []repositoryJSON{}
	for _, repo := range cutPage(w, r, all) {
		j, err := f.repositoryJSON(r, repo)
		if err != nil {
			return nil, err
		}
		list = append(list, j)
	}
	return list, nil
}

func (f *Forge) apiCreateRepository(w http.ResponseWriter, r *http.Request) (any, error) {
	var in struct {
		Name              string `json:"name"`
		Description       string `json:"description"`
		Private           bool   `json:"private"`
		Visibility        string `json:"visibility"`
		AutoInit          bool   `json:"auto_init"`
		GitignoreTemplate string `json:"gitignore_template"`
		LicenseTemplate   string `json:"license_template"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if in.AutoInit || in.GitignoreTemplate != "" || in.LicenseTemplate != "" {
		return nil, fail(http.StatusUnprocessableEntity, "Lockstep's forge makes empty repositories: leave out auto_init, gitignore_template and license_template and push a first commit")
	}
	owner := r.PathValue("login")
	if owner == "" {
		owner = IdentityFrom(r.Context()).User
	}
	private := in.Private || in.Visibility == "private" || in.Visibility == "internal"
	repo, err := f.createFor(r, RepositorySpec{Name: owner + "/" + in.Name, Description: in.Description, Private: private})
	if err != nil {
		return nil, err
	}
	j, err := f.repositoryJSON(r, repo)
	if err != nil {
		return nil, err
	}
	w.Header().Set("Location", j.URL)
	writeJSON(w, http.StatusCreated, j)
	return nil, nil
}

// createFor creates a repository if the request's identity may.
func (f *Forge) createFor(r *http.Request, spec RepositorySpec) (*repository, error) {
	id := IdentityFrom(r.Context())
	if id.Anonymous() {
		return nil, errNoToken
	}
	if !id.mayCreate() {
		return nil, fail(http.StatusForbidden, "Resource not accessible by this token: it may not create repositories")
	}
	if _, _, err := splitName(spec.Name); err != nil {
		return nil, fail(http.StatusUnprocessableEntity, "Repository creation failed: %s", err)
	}
	if len(spec.Description) > 350 {
		return nil, fail(http.StatusUnprocessableEntity, "Repository creation failed: description has more than 350 characters")
	}
	repo, err := f.createRepository(r.Context(), spec)
	if errors.Is(err, ErrExists) {
		return nil, fail(http.StatusUnprocessableEntity, "Repository creation failed: name already exists on this account")
	}
	return repo, err
}

func (f *Forge) apiRepository(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	j, err := f.repositoryJSON(r, repo)
	if err != nil || repo.parent == 0 {
		return j, err
	}
	parent, err := f.findID(r.Context(), repo.parent)
	if errors.Is(err, ErrNotFound) || err == nil && !IdentityFrom(r.Context()).mayRead(parent) {
		return j, nil
	}
	if err != nil {
		return nil, err
	}
	of, err := f.repositoryJSON(r, parent)
	j.Parent, j.Source = &of, &of
	return j, err
}

func (f *Forge) apiDeleteRepository(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	if IdentityFrom(r.Context()).Repo != "" {
		return nil, fail(http.StatusForbidden, "Must have admin rights to Repository.")
	}
	if err := f.DeleteRepository(r.Context(), repo.full()); err != nil {
		return nil, err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil, nil
}
