// Package scm lists pull requests, repositories and branches of GitHub, GitLab
// and Gitea over their REST APIs.
//
// Input: an API address, a token, names. Output: [PullRequest] and
// [Repository] values.
//
// Invariants: every answer is bounded in size and pages; tokens are in headers
// only and never in errors; [ErrNotFound] stands for 404.
//
// Start reading at [GitHub].
package scm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// ErrNotFound says that there is no such thing, or no right to see it.
var ErrNotFound = errors.New("not found (404): it is not there, or the token may not see it")

const (
	maxBody  = 16 << 20 // bytes of one answer
	maxPages = 200
	perPage  = "100"
)

// PullRequest is an open pull or merge request.
type PullRequest struct {
	Number               int64
	Title, Author        string
	Branch, TargetBranch string
	HeadSHA              string
	Labels               []string
}

// Repository is a repository at a branch; SHA is "" until the branch is read.
type Repository struct {
	Organization, Name string
	ID                 int64
	URL                string
	Branch, SHA        string
	Labels             []string
}

// Provider lists what an organization, group or owner has.
type Provider interface {
	// Repositories lists them with their default branch and without SHA;
	// protocol is "ssh" or "https".
	Repositories(ctx context.Context, protocol string) ([]Repository, error)
	// Branches returns the default branch, or all, each as a Repository.
	Branches(ctx context.Context, of Repository) ([]Repository, error)
	// HasPath reports whether a file or directory is there.
	HasPath(ctx context.Context, in Repository, path string) (bool, error)
}

// API is an address with the way to sign requests.
type API struct {
	HTTP *http.Client
	Base string                    // without "/" at the end
	Sign func(*http.Request) error // nil for anonymous requests
}

// Bearer signs with a token; "" signs nothing.
func Bearer(token string) func(*http.Request) error {
	if token == "" {
		return nil
	}
	return func(r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+token)
		return nil
	}
}

// get reads one answer and returns its headers.
func (a *API) get(ctx context.Context, address string, into any) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("the address %q: %w", address, err)
	}
	req.Header.Set("Accept", "application/json")
	if a.Sign != nil {
		if err := a.Sign(req); err != nil {
			return nil, err
		}
	}
	return do(a.HTTP, req, into)
}

func do(client *http.Client, req *http.Request, into any) (http.Header, error) {
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", req.URL.Host, withoutURL(err))
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	at := req.URL.Host + req.URL.Path
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the answer of %s: %w", at, err)
	case len(body) > maxBody:
		return nil, fmt.Errorf("the answer of %s is longer than %d MiB", at, maxBody>>20)
	case res.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("%s: %w", at, ErrNotFound)
	case res.StatusCode == http.StatusUnauthorized:
		return nil, fmt.Errorf("%s: 401: the token is missing or not valid; see tokenRef", at)
	case res.StatusCode/100 != 2:
		return nil, fmt.Errorf("%s: status %d: %.200s", at, res.StatusCode, strings.ToValidUTF8(string(body), "?"))
	}
	if err := json.Unmarshal(body, into); err != nil {
		return nil, fmt.Errorf("the answer of %s is not as expected: %w", at, err)
	}
	return res.Header, nil
}

// withoutURL drops the address that net/http puts into its errors: it may hold
// a secret.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// pages reads a list page by page.
func pages[T any](ctx context.Context, a *API, path string, query url.Values, each func(T) error) error {
	address := a.Base + path + "?" + query.Encode()
	for n := 0; address != ""; n++ {
		if n == maxPages {
			return fmt.Errorf("%s has more than %d pages", a.Base+path, maxPages)
		}
		var items []T
		header, err := a.get(ctx, address, &items)
		if err != nil {
			return err
		}
		for _, item := range items {
			if err := each(item); err != nil {
				return err
			}
		}
		if address, err = a.following(header, address); err != nil {
			return err
		}
	}
	return nil
}

var nextLink = regexp.MustCompile(`<([^>]*)>\s*;[^,]*rel="?next"?`)

// following is the next page by the Link header. It must be on the same host:
// the request carries the token.
func (a *API) following(header http.Header, current string) (string, error) {
	m := nextLink.FindStringSubmatch(header.Get("Link"))
	if m == nil {
		return "", nil
	}
	at, err := url.Parse(current)
	if err != nil {
		return "", fmt.Errorf("the address %q: %w", current, err)
	}
	next, err := at.Parse(m[1])
	if err != nil {
		return "", fmt.Errorf("the address of the next page: %w", err)
	}
	if next.Host != at.Host || next.Scheme != at.Scheme {
		return "", fmt.Errorf("the next page of %s is at another host, %s", at.Host, next.Host)
	}
	return next.String(), nil
}

func escape(p string) string {
	parts := strings.Split(strings.Trim(p, "/"), "/")
	for i, s := range parts {
		parts[i] = url.PathEscape(s)
	}
	return strings.Join(parts, "/")
}

func hasAll(have, want []string) bool {
	for _, w := range want {
		if !has(have, w) {
			return false
		}
	}
	return true
}

func has(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func protocolURL(protocol, ssh, https string) (string, error) {
	switch protocol {
	case "", "ssh":
		return ssh, nil
	case "https":
		return https, nil
	}
	return "", fmt.Errorf("cloneProtocol %q is not known; ssh and https are", protocol)
}
