package forge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

func (f *Forge) commitRoutes(rt routes) {
	rt.handle("GET /repos/{owner}/{repo}/branches", scopeContents, f.apiBranches)
	rt.handle("GET /repos/{owner}/{repo}/branches/{branch...}", scopeContents, f.apiBranch)
	rt.handle("GET /repos/{owner}/{repo}/git/ref/{ref...}", scopeContents, f.apiRef)
	rt.handle("GET /repos/{owner}/{repo}/git/matching-refs/{ref...}", scopeContents, f.apiMatchingRefs)
	rt.handle("GET /repos/{owner}/{repo}/commits", scopeContents, f.apiCommits)
	rt.handle("GET /repos/{owner}/{repo}/commits/{ref...}", scopeContents+","+scopeStatuses+","+scopeChecks, f.apiCommitOrStatus)
	rt.handle("POST /repos/{owner}/{repo}/statuses/{sha}", scopeStatuses, f.apiCreateStatus)
}

type objectJSON struct {
	Type string `json:"type,omitempty"`
	SHA  string `json:"sha"`
	URL  string `json:"url"`
}

type signatureJSON struct {
	Name  string    `json:"name"`
	Email string    `json:"email"`
	Date  time.Time `json:"date"`
}

type commitJSON struct {
	SHA    string `json:"sha"`
	NodeID string `json:"node_id"`
	Commit struct {
		Author       signatureJSON `json:"author"`
		Committer    signatureJSON `json:"committer"`
		Message      string        `json:"message"`
		Tree         objectJSON    `json:"tree"`
		URL          string        `json:"url"`
		CommentCount int           `json:"comment_count"`
		Verification struct {
			Verified bool   `json:"verified"`
			Reason   string `json:"reason"`
		} `json:"verification"`
	} `json:"commit"`
	URL       string       `json:"url"`
	HTMLURL   string       `json:"html_url"`
	Author    *accountJSON `json:"author"` // addresses are not matched with logins
	Committer *accountJSON `json:"committer"`
	Parents   []objectJSON `json:"parents"`
	Stats     *statsJSON   `json:"stats,omitempty"`
	Files     []fileJSON   `json:"files,omitempty"`
}

type statsJSON struct {
	Additions int `json:"additions"`
	Deletions int `json:"deletions"`
	Total     int `json:"total"`
}

type fileJSON struct {
	SHA       string `json:"sha"`
	Filename  string `json:"filename"`
	Status    string `json:"status"`
	Additions int    `json:"additions"`
	Deletions int    `json:"deletions"`
	Changes   int    `json:"changes"`
}

func (f *Forge) commitJSON(r *http.Request, repo *repository, c git.Commit) commitJSON {
	base := apiBase(r) + "/repos/" + repo.full()
	j := commitJSON{
		SHA: c.ID, NodeID: nodeID("Commit", repo.full()+":"+c.ID), URL: base + "/commits/" + c.ID,
		HTMLURL: f.cfg.URL + "/" + repo.full() + "/commit/" + c.ID, Parents: []objectJSON{},
	}
	j.Commit.Author = signatureJSON{c.AuthorName, c.AuthorEmail, c.AuthorTime}
	j.Commit.Committer = signatureJSON{c.CommitterName, c.CommitterEmail, c.CommitterTime}
	j.Commit.Message, j.Commit.URL = c.Message, base+"/git/commits/"+c.ID
	j.Commit.Tree = objectJSON{SHA: c.Tree, URL: base + "/git/trees/" + c.Tree}
	j.Commit.Verification.Reason = "unsigned"
	for _, p := range c.Parents {
		j.Parents = append(j.Parents, objectJSON{SHA: p, URL: base + "/commits/" + p})
	}
	return j
}

func (f *Forge) apiCommits(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	q, p := r.URL.Query(), pageOf(r)
	rev := q.Get("sha")
	if rev == "" {
		rev = "HEAD"
	}
	start, err := repo.git.Resolve(r.Context(), rev)
	if errors.Is(err, git.ErrNotFound) && rev == "HEAD" {
		return nil, fail(http.StatusConflict, "Git Repository is empty.")
	}
	if err != nil {
		return nil, revisionErrorAs(err, http.StatusNotFound, "Not Found")
	}
	args := []string{"rev-list", fmt.Sprintf("--max-count=%d", p.size+1), fmt.Sprintf("--skip=%d", p.skip())}
	for _, name := range []string{"since", "until"} {
		if text := q.Get(name); text != "" {
			at, err := time.Parse(time.RFC3339, text)
			if err != nil {
				return nil, fail(http.StatusUnprocessableEntity, "%s: %q is not a time like 2026-01-31T12:00:00Z", name, text)
			}
			args = append(args, "--"+name+"="+strconv.FormatInt(at.Unix(), 10))
		}
	}
	for _, name := range []string{"author", "committer"} {
		if text := q.Get(name); text != "" {
			// A login is part of the address that it commits with here.
			args = append(args, "--fixed-strings", "--regexp-ignore-case", "--"+name+"="+text)
		}
	}
	args = append(args, start, "--")
	if file := q.Get("path"); file != "" {
		args = append(args, ":(top,literal)"+file)
	}
	out, err := repo.git.Run(r.Context(), args...)
	if err != nil {
		return nil, err
	}
	ids := strings.Fields(string(out))
	p.link(w, r, len(ids) > p.size)
	list := []commitJSON{}
	for _, id := range ids[:min(len(ids), p.size)] {
		c, err := repo.git.Commit(r.Context(), id)
		if err != nil {
			return nil, err
		}
		list = append(list, f.commitJSON(r, repo, c))
	}
	return list, nil
}

func revisionErrorAs(err error, status int, message string) error {
	if errors.Is(err, git.ErrNotFound) {
		return fail(status, "%s", message)
	}
	return err
}

// apiCommitOrStatus serves /commits/{ref}, /commits/{ref}/status and
// /commits/{ref}/statuses, where ref may have slashes.
func (f *Forge) apiCommitOrStatus(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	ref := r.PathValue("ref")
	for _, part := range []string{"check-runs", "check-suites", "comments", "pulls"} {
		if rev, ok := strings.CutSuffix(ref, "/"+part); ok {
			return f.apiCommitPart(w, r, repo, rev, part)
		}
	}
	ref, one := strings.CutSuffix(ref, "/status")
	ref, many := strings.CutSuffix(ref, "/statuses")
	c, err := repo.git.Commit(r.Context(), ref)
	if err != nil {
		return nil, revisionError(err, ref)
	}
	switch {
	case one:
		return f.combinedStatusJSON(w, r, repo, c.ID)
	case many:
		all, err := f.statuses(r.Context(), repo, c.ID, false)
		return f.statusesJSON(r, repo, c.ID, cutPage(w, r, all)), err
	}
	j := f.commitJSON(r, repo, c)
	j.Files, err = changedFiles(r.Context(), repo, c)
	if err != nil {
		return nil, err
	}
	j.Stats = &statsJSON{}
	for _, file := range j.Files {
		j.Stats.Additions += file.Additions
		j.Stats.Deletions += file.Deletions
		j.Stats.Total += file.Changes
	}
	j.Files = j.Files[:min(len(j.Files), 300)] // as many as GitHub shows
	return j, nil
}

// changedFiles compares a commit with its first parent.
func changedFiles(ctx context.Context, repo *repository, c git.Commit) ([]fileJSON, error) {
	args := []string{"diff-tree", "-r", "-z", "--root", "--no-commit-id", "--no-renames", "--raw", "--numstat", c.ID}
	if len(c.Parents) > 0 {
		args = append(args[:len(args)-1], c.Parents[0], c.ID)
	}
	out, err := repo.git.Run(ctx, args...)
	if err != nil {
		return nil, err
	}
	var files []fileJSON
	index := map[string]int{}
	fields := strings.Split(string(out), "\x00")
	for i := 0; i < len(fields); i++ {
		if raw, ok := strings.CutPrefix(fields[i], ":"); ok && i+1 < len(fields) {
			// oldmode newmode old new status, then the path
			f := strings.Fields(raw)
			if len(f) < 5 {
				return nil, fmt.Errorf("git diff-tree %s: unexpected answer %q", c.ID, raw)
			}
			status := map[string]string{"A": "added", "D": "removed"}[f[4]]
			if status == "" {
				status = "modified"
			}
			i++
			index[fields[i]] = len(files)
			files = append(files, fileJSON{SHA: f[3], Filename: fields[i], Status: status})
			continue
		}
		counts := strings.SplitN(fields[i], "\t", 3)
		if len(counts) != 3 {
			continue
		}
		if at, ok := index[counts[2]]; ok { // "-" of a binary file counts as 0
			files[at].Additions, _ = strconv.Atoi(counts[0])
			files[at].Deletions, _ = strconv.Atoi(counts[1])
			files[at].Changes = files[at].Additions + files[at].Deletions
		}
	}
	return files, nil
}

type branchJSON struct {
	Name      string `json:"name"`
	Commit    any    `json:"commit"`
	Protected bool   `json:"protected"`
}

func (f *Forge) apiBranches(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	refs, err := repo.git.Refs(r.Context(), "refs/heads/")
	if err != nil {
		return nil, err
	}
	protected, err := f.protectedBranches(r.Context(), repo)
	if err != nil {
		return nil, err
	}
	list := []branchJSON{}
	for _, ref := range cutPage(w, r, sortedKeys(refs)) {
		commit := objectJSON{SHA: refs[ref], URL: apiBase(r) + "/repos/" + repo.full() + "/commits/" + refs[ref]}
		name := strings.TrimPrefix(ref, "refs/heads/")
		list = append(list, branchJSON{Name: name, Commit: commit, Protected: protected[name]})
	}
	return list, nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func (f *Forge) apiBranch(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	branch := r.PathValue("branch")
	c, err := repo.git.Commit(r.Context(), "refs/heads/"+branch)
	if err != nil {
		return nil, revisionErrorAs(err, http.StatusNotFound, "Branch not found")
	}
	rules, err := f.rulesFor(r.Context(), repo, "refs/heads/"+branch)
	return branchJSON{Name: branch, Commit: f.commitJSON(r, repo, c), Protected: rules != nil}, err
}

type refJSON struct {
	Ref    string     `json:"ref"`
	NodeID string     `json:"node_id"`
	URL    string     `json:"url"`
	Object objectJSON `json:"object"`
}

func (f *Forge) refJSON(r *http.Request, repo *repository, ref, id string) (refJSON, error) {
	_, kind, _, err := repo.git.Stat(r.Context(), id)
	if err != nil {
		return refJSON{}, err
	}
	base := apiBase(r) + "/repos/" + repo.full() + "/git/"
	return refJSON{
		Ref: ref, NodeID: nodeID("Fullref", repo.full()+":"+ref), URL: base + ref,
		Object: objectJSON{Type: string(kind), SHA: id, URL: base + string(kind) + "s/" + id},
	}, nil
}

func (f *Forge) apiRef(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	ref := "refs/" + r.PathValue("ref")
	refs, err := repo.git.Refs(r.Context())
	if err != nil {
		return nil, err
	}
	id, ok := refs[ref]
	if !ok {
		return nil, ErrNotFound
	}
	return f.refJSON(r, repo, ref, id)
}

func (f *Forge) apiMatchingRefs(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	refs, err := repo.git.Refs(r.Context())
	if err != nil {
		return nil, err
	}
	names := slices.DeleteFunc(sortedKeys(refs), func(ref string) bool { return !strings.HasPrefix(ref, "refs/"+r.PathValue("ref")) })
	list := []refJSON{}
	for _, ref := range cutPage(w, r, names) {
		j, err := f.refJSON(r, repo, ref, refs[ref])
		if err != nil {
			return nil, err
		}
		list = append(list, j)
	}
	return list, nil
}
