package scm

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// GitLab is the API of gitlab.com or of another GitLab.
type GitLab struct {
	api *API
}

// NewGitLab returns the API at base, without "/api/v4"; "" means gitlab.com.
func NewGitLab(client *http.Client, base, token string) *GitLab {
	base = strings.TrimSuffix(strings.TrimSuffix(base, "/"), "/api/v4")
	if base == "" {
		base = "https://gitlab.com"
	}
	var sign func(*http.Request) error
	if token != "" {
		sign = func(r *http.Request) error { r.Header.Set("PRIVATE-TOKEN", token); return nil }
	}
	return &GitLab{&API{HTTP: client, Base: base + "/api/v4", Sign: sign}}
}

// MergeRequests lists those of a project (its number or path) in a state, ""
// for all, with all labels.
func (g *GitLab) MergeRequests(ctx context.Context, project string, labels []string, state string) ([]PullRequest, error) {
	type request struct {
		IID          int64                     `json:"iid"`
		Title        string                    `json:"title"`
		SourceBranch string                    `json:"source_branch"`
		TargetBranch string                    `json:"target_branch"`
		SHA          string                    `json:"sha"`
		Labels       []string                  `json:"labels"`
		Author       struct{ Username string } `json:"author"`
	}
	query := url.Values{"per_page": {perPage}}
	if state != "" {
		query.Set("state", state)
	}
	if len(labels) > 0 {
		query.Set("labels", strings.Join(labels, ","))
	}
	out := []PullRequest{}
	err := pages(ctx, g.api, "/projects/"+url.PathEscape(project)+"/merge_requests", query, func(r request) error {
		out = append(out, PullRequest{Number: r.IID, Title: r.Title, Author: r.Author.Username, Branch: r.SourceBranch, TargetBranch: r.TargetBranch, HeadSHA: r.SHA, Labels: r.Labels})
		return nil
	})
	return out, err
}

// Group lists what a group has.
func (g *GitLab) Group(name string, subgroups, shared bool, topic string, allBranches bool) Provider {
	return &gitlabGroup{g, name, subgroups, shared, topic, allBranches}
}

type gitlabGroup struct {
	*GitLab
	name        string
	subgroups   bool
	shared      bool
	topic       string
	allBranches bool
}

func (g *gitlabGroup) Repositories(ctx context.Context, protocol string) ([]Repository, error) {
	type project struct {
		ID            int64    `json:"id"`
		Path          string   `json:"path"`
		DefaultBranch string   `json:"default_branch"`
		SSHURL        string   `json:"ssh_url_to_repo"`
		HTTPURL       string   `json:"http_url_to_repo"`
		Topics        []string `json:"topics"`
		Namespace     struct {
			FullPath string `json:"full_path"`
		} `json:"namespace"`
	}
	query := url.Values{"per_page": {perPage}, "include_subgroups": {strconv.FormatBool(g.subgroups)}, "with_shared": {strconv.FormatBool(g.shared)}}
	if g.topic != "" {
		query.Set("topic", g.topic)
	}
	out := []Repository{}
	err := pages(ctx, g.api, "/groups/"+url.PathEscape(g.name)+"/projects", query, func(p project) error {
		address, err := protocolURL(protocol, p.SSHURL, p.HTTPURL)
		if err != nil {
			return err
		}
		out = append(out, Repository{Organization: p.Namespace.FullPath, Name: p.Path, ID: p.ID, URL: address, Branch: p.DefaultBranch, Labels: p.Topics})
		return nil
	})
	return out, err
}

type gitlabBranch struct {
	Name   string              `json:"name"`
	Commit struct{ ID string } `json:"commit"`
}

func (g *gitlabGroup) Branches(ctx context.Context, of Repository) ([]Repository, error) {
	path := "/projects/" + strconv.FormatInt(of.ID, 10) + "/repository/branches"
	out := []Repository{}
	add := func(b gitlabBranch) error {
		r := of
		r.Branch, r.SHA = b.Name, b.Commit.ID
		out = append(out, r)
		return nil
	}
	if g.allBranches {
		err := pages(ctx, g.api, path, url.Values{"per_page": {perPage}}, add)
		return out, err
	}
	var b gitlabBranch
	_, err := g.api.get(ctx, g.api.Base+path+"/"+url.PathEscape(of.Branch), &b)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_ = add(b)
	return out, nil
}

func (g *gitlabGroup) HasPath(ctx context.Context, in Repository, path string) (bool, error) {
	dir, name := "", strings.Trim(path, "/")
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		dir, name = name[:i], name[i+1:]
	}
	found := false
	err := pages(ctx, g.api, "/projects/"+strconv.FormatInt(in.ID, 10)+"/repository/tree", url.Values{"per_page": {perPage}, "ref": {in.Branch}, "path": {dir}}, func(e struct{ Name string }) error {
		found = found || e.Name == name
		return nil
	})
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return found, err
}
