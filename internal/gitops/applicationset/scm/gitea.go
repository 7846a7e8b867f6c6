package scm

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// Gitea is the API of a Gitea or Forgejo.
type Gitea struct {
	api *API
}

// NewGitea returns the API of the server at base.
func NewGitea(client *http.Client, base, token string) *Gitea {
	base = strings.TrimSuffix(strings.TrimSuffix(base, "/"), "/api/v1")
	var sign func(*http.Request) error
	if token != "" {
		sign = func(r *http.Request) error { r.Header.Set("Authorization", "token "+token); return nil }
	}
	return &Gitea{&API{HTTP: client, Base: base + "/api/v1", Sign: sign}}
}

// PullRequests lists those that are open and have all labels.
func (g *Gitea) PullRequests(ctx context.Context, owner, repo string, labels []string) ([]PullRequest, error) {
	type pull struct {
		Number int64                   `json:"number"`
		Title  string                  `json:"title"`
		Head   githubRef               `json:"head"`
		Base   githubRef               `json:"base"`
		User   struct{ Login string }  `json:"user"`
		Labels []struct{ Name string } `json:"labels"`
	}
	out := []PullRequest{}
	err := pages(ctx, g.api, "/repos/"+escape(owner)+"/"+escape(repo)+"/pulls", url.Values{"state": {"open"}, "limit": {"50"}}, func(p pull) error {
		names := []string{}
		for _, l := range p.Labels {
			names = append(names, l.Name)
		}
		if hasAll(names, labels) {
			out = append(out, PullRequest{Number: p.Number, Title: p.Title, Author: p.User.Login, Branch: p.Head.Ref, TargetBranch: p.Base.Ref, HeadSHA: p.Head.SHA, Labels: names})
		}
		return nil
	})
	return out, err
}

// Owner lists what an organization has.
func (g *Gitea) Owner(name string, allBranches bool) Provider {
	return &giteaOwner{g, name, allBranches}
}

type giteaOwner struct {
	*Gitea
	name        string
	allBranches bool
}

func (o *giteaOwner) Repositories(ctx context.Context, protocol string) ([]Repository, error) {
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
	err := pages(ctx, o.api, "/orgs/"+escape(o.name)+"/repos", url.Values{"limit": {"50"}}, func(r repository) error {
		address, err := protocolURL(protocol, r.SSHURL, r.CloneURL)
		if err != nil {
			return err
		}
		out = append(out, Repository{Organization: r.Owner.Login, Name: r.Name, ID: r.ID, URL: address, Branch: r.DefaultBranch, Labels: r.Topics})
		return nil
	})
	return out, err
}

func (o *giteaOwner) Branches(ctx context.Context, of Repository) ([]Repository, error) {
	path := "/repos/" + escape(of.Organization) + "/" + escape(of.Name) + "/branches"
	out := []Repository{}
	add := func(b gitlabBranch) error {
		r := of
		r.Branch, r.SHA = b.Name, b.Commit.ID
		out = append(out, r)
		return nil
	}
	if o.allBranches {
		err := pages(ctx, o.api, path, url.Values{"limit": {"50"}}, add)
		return out, err
	}
	var b gitlabBranch
	_, err := o.api.get(ctx, o.api.Base+path+"/"+escape(of.Branch), &b)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_ = add(b)
	return out, nil
}

func (o *giteaOwner) HasPath(ctx context.Context, in Repository, path string) (bool, error) {
	var ignored any
	_, err := o.api.get(ctx, o.api.Base+"/repos/"+escape(in.Organization)+"/"+escape(in.Name)+"/contents/"+escape(path)+"?ref="+url.QueryEscape(in.Branch), &ignored)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}
