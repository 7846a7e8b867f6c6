package scm

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// GitHub is the API of github.com, of a GitHub Enterprise, or of a forge that
// speaks the same.
type GitHub struct {
	api *API
}

// NewGitHub returns the API at base; "" means github.com. As GitHub's own
// libraries do it, "/api/v3" is added where base does not look like an API.
func NewGitHub(client *http.Client, base string, sign func(*http.Request) error) *GitHub {
	return &GitHub{&API{HTTP: client, Base: githubBase(base), Sign: sign}}
}

func githubBase(base string) string {
	base = strings.TrimSuffix(base, "/")
	if base == "" {
		return "https://api.github.com"
	}
	host := base
	if u, err := url.Parse(base); err == nil {
		host = u.Host
	}
	if strings.HasSuffix(base, "/api/v3") || strings.HasPrefix(host, "api.") || strings.Contains(host, ".api.") {
		return base
	}
	return base + "/api/v3"
}

type githubRef struct {
	Ref string `json:"ref"`
	SHA string `json:"sha"`
}

// PullRequests lists those that are open and have all labels and none of
// without.
func (g *GitHub) PullRequests(ctx context.Context, owner, repo string, labels, without []string) ([]PullRequest, error) {
	type pull struct {
		Number int64                   `json:"number"`
		Title  string                  `json:"title"`
		Head   githubRef               `json:"head"`
		Base   githubRef               `json:"base"`
		User   struct{ Login string }  `json:"user"`
		Labels []struct{ Name string } `json:"labels"`
	}
	out := []PullRequest{}
	err := pages(ctx, g.api, "/repos/"+escape(owner)+"/"+escape(repo)+"/pulls", url.Values{"state": {"open"}, "per_page": {perPage}}, func(p pull) error {
		names := []string{}
		for _, l := range p.Labels {
			names = append(names, l.Name)
		}
		for _, w := range without {
			if has(names, w) {
				return nil
			}
		}
		if hasAll(names, labels) {
			out = append(out, PullRequest{Number: p.Number, Title: p.Title, Author: p.User.Login, Branch: p.Head.Ref, TargetBranch: p.Base.Ref, HeadSHA: p.Head.SHA, Labels: names})
		}
		return nil
	})
	return out, err
}

// Organization lists what an organization has.
func (g *GitHub) Organization(name string, allBranches bool) Provider {
	return &githubOrganization{g, name, allBranches}
}

type githubOrganization struct {
	*GitHub
	name        string
	allBranches bool
}

func (o *githubOrganization) Repositories(ctx context.Context, protocol string) ([]Repository, error) {
	type repository struct {
		ID            int64                  `json:"id"`
		Name          string                 `json:"name"`
		Owner         struct{ Login string } `json:"owner"`
		DefaultBranch string                 `json:"default_branch"`
		SSHURL        string                 `json:"ssh_url"`
		CloneURL      string                 `json:"clone_url"`
		Topics        []string               `json:"topics"`
	}
	out := []Repository{}
	err := pages(ctx, o.api, "/orgs/"+escape(o.name)+"/repos", url.Values{"per_page": {perPage}}, func(r repository) error {
		address, err := protocolURL(protocol, r.SSHURL, r.CloneURL)
		if err != nil {
			return err
		}
		out = append(out, Repository{Organization: r.Owner.Login, Name: r.Name, ID: r.ID, URL: address, Branch: r.DefaultBranch, Labels: r.Topics})
		return nil
	})
	return out, err
}

type githubBranch struct {
	Name   string    `json:"name"`
	Commit githubRef `json:"commit"`
}

func (o *githubOrganization) Branches(ctx context.Context, of Repository) ([]Repository, error) {
	path := "/repos/" + escape(of.Organization) + "/" + escape(of.Name) + "/branches"
	out := []Repository{}
	add := func(b githubBranch) error {
		r := of
		r.Branch, r.SHA = b.Name, b.Commit.SHA
		out = append(out, r)
		return nil
	}
	if o.allBranches {
		err := pages(ctx, o.api, path, url.Values{"per_page": {perPage}}, add)
		return out, err
	}
	var b githubBranch
	_, err := o.api.get(ctx, o.api.Base+path+"/"+escape(of.Branch), &b)
	if errors.Is(err, ErrNotFound) { // an empty repository
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_ = add(b)
	return out, nil
}

func (o *githubOrganization) HasPath(ctx context.Context, in Repository, path string) (bool, error) {
	var ignored any
	_, err := o.api.get(ctx, o.api.Base+"/repos/"+escape(in.Organization)+"/"+escape(in.Name)+"/contents/"+escape(path)+"?ref="+url.QueryEscape(in.Branch), &ignored)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}
