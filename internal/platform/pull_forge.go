package platform

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/forge"
	"github.com/lockstep-gitops/lockstep/internal/gitops/preview"
)

// pullForge reads pull requests and writes comments over GitHub's REST API, as
// any other program would.
type pullForge struct {
	forge  *forge.Forge
	client *http.Client
	api    string // "http://api.github.localhost"
}

// errNoPull says that there is no such pull request any more.
var errNoPull = errors.New("no such pull request")

const (
	maxAnswer       = 32 << 20 // bytes of one answer
	maxCommentPages = 50
	tokenLife       = 10 * time.Minute
)

// get returns the pull request as it is now.
func (f pullForge) get(ctx context.Context, key pullKey) (pullState, error) {
	token, done, err := f.token(ctx, key.repo, "", map[string]string{"pull-requests": "read"})
	if err != nil {
		return pullState{}, err
	}
	defer done()
	var body struct {
		State string `json:"state"`
		Merge string `json:"merge_commit_sha"`
		Head  struct {
			SHA string `json:"sha"`
		} `json:"head"`
		Base struct {
			Ref string `json:"ref"`
		} `json:"base"`
	}
	if err := f.call(ctx, http.MethodGet, token, fmt.Sprintf("/repos/%s/pulls/%d", key.repo, key.number), nil, &body); err != nil {
		return pullState{}, err
	}
	s := pullState{open: body.State == "open", branch: body.Base.Ref, head: body.Head.SHA}
	if !s.open {
		return s, nil
	}
	repo, err := f.forge.Repository(ctx, key.repo)
	if errors.Is(err, forge.ErrNotFound) {
		return s, errNoPull
	}
	if err != nil {
		return s, err
	}
	return sidesOf(ctx, repo, s, body.Merge)
}

// comment replaces the comment of the preview; where there is none, it makes
// one if it is wanted.
func (f pullForge) comment(ctx context.Context, key pullKey, s pullState, body string, wanted bool) error {
	token, done, err := f.token(ctx, key.repo, s.head, map[string]string{"issues": "write", "pull-requests": "write"})
	if err != nil {
		return err
	}
	defer done()
	type comment struct {
		ID   int64  `json:"id,omitempty"`
		Body string `json:"body"`
		User struct {
			Login string `json:"login"`
		} `json:"user"`
	}
	at := fmt.Sprintf("/repos/%s/issues/%d/comments", key.repo, key.number)
	for page := 1; page <= maxCommentPages; page++ {
		var list []comment
		if err := f.call(ctx, http.MethodGet, token, fmt.Sprintf("%s?per_page=100&page=%d", at, page), nil, &list); err != nil {
			return err
		}
		for _, c := range list {
			if c.User.Login != previewBot || !strings.HasPrefix(c.Body, strings.TrimSpace(previewMark)) {
				continue
			}
			if c.Body == body {
				return nil
			}
			return f.call(ctx, http.MethodPatch, token, fmt.Sprintf("/repos/%s/issues/comments/%d", key.repo, c.ID), map[string]string{"body": body}, nil)
		}
		if len(list) < 100 {
			break
		}
	}
	if !wanted {
		return nil
	}
	return f.call(ctx, http.MethodPost, token, at, map[string]string{"body": body}, nil)
}

// check writes the check run. One event gives one: a repetition of it changes
// nothing.
func (f pullForge) check(ctx context.Context, key pullKey, s pullState, event int64, r preview.Report) error {
	name := fmt.Sprintf("%s/%d/%d", previewCheck, key.number, event)
	token, done, err := f.token(ctx, key.repo, s.head, map[string]string{"checks": "read"})
	if err != nil {
		return err
	}
	defer done()
	var have struct {
		Runs []struct {
			ExternalID string `json:"external_id"`
			Status     string `json:"status"`
		} `json:"check_runs"`
	}
	if err := f.call(ctx, http.MethodGet, token, fmt.Sprintf("/repos/%s/commits/%s/check-runs?check_name=%s&filter=all&per_page=100", key.repo, s.head, previewCheck), nil, &have); err != nil {
		return err
	}
	for _, run := range have.Runs {
		if run.ExternalID == name && run.Status == "completed" {
			return nil
		}
	}
	c := forge.CheckRun{
		Commit: s.head, Name: previewCheck, ExternalID: name, App: previewApp, Actor: previewBot, Cause: s.head,
		Status: "completed", Conclusion: "success", Title: r.Summary(), Summary: r.Markdown(preview.Limit - 1024), Annotations: remarks(r),
	}
	switch {
	case r.Broken():
		c.Conclusion = "failure"
	case r.Faults():
		c.Conclusion = "neutral"
	}
	_, err = f.forge.SetCheckRun(ctx, key.repo, c)
	return err
}

// remarks are the problems that have a place.
func remarks(r preview.Report) []forge.Annotation {
	var out []forge.Annotation
	for _, o := range r.Outcomes {
		for _, p := range o.Problems {
			if p.File == "" || len(out) >= maxRemarks {
				continue
			}
			level, line := "failure", max(p.Line, 1)
			if p.Old || p.Fault {
				level = "warning"
			}
			message := p.Message
			if p.Hint != "" {
				message += "\n" + p.Hint
			}
			out = append(out, forge.Annotation{Path: p.File, StartLine: line, EndLine: line, Level: level, Title: "application " + o.Name, Message: message[:min(len(message), 32<<10)]})
		}
	}
	return out
}

// token is one of the preview's own. What is done with a cause starts no
// workflow.
func (f pullForge) token(ctx context.Context, repo, cause string, scopes map[string]string) (token string, done func(), err error) {
	token, revoke, err := f.forge.IssueToken(ctx, forge.TokenSpec{
		User: previewBot, Actor: previewBot, Repo: repo, Write: true, Scopes: scopes, Cause: cause, Expires: time.Now().Add(tokenLife),
	})
	if err != nil {
		return "", nil, err
	}
	return token, func() { _ = revoke(context.WithoutCancel(ctx)) }, nil // it expires anyway
}

// call makes one request. 404 is errNoPull.
func (f pullForge) call(ctx context.Context, method, token, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, f.api+path, body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/vnd.github+json")
	res, err := f.client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the forge: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: %w", method, path, err)
	case res.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s %s: %w", method, path, errNoPull)
	case res.StatusCode >= 300:
		return fmt.Errorf("%s %s: the forge answers %s: %.200s", method, path, res.Status, data)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}
