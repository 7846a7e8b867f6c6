package forge

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// apiURL is the root of the API for whoever has made no request: readers of
// events.
func (f *Forge) apiURL() string {
	u, err := url.Parse(f.cfg.URL)
	if err == nil && strings.HasSuffix(u.Hostname(), "github.localhost") {
		return u.Scheme + "://api." + u.Host
	}
	return f.cfg.URL + "/api/v3"
}

// asEvent is the request that the makers of JSON get for an event: it sees
// all that the owner of the machine sees.
func (f *Forge) asEvent(ctx context.Context) *http.Request {
	ctx = context.WithValue(ctx, apiBaseKey{}, f.apiURL())
	ctx = context.WithValue(ctx, identityKey{}, Identity{User: f.cfg.User, Actor: f.cfg.User, Write: true})
	return (&http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/"}, Header: http.Header{}}).WithContext(ctx)
}

// payload is the body of a webhook: what all events have, and extra.
func (f *Forge) payload(ctx context.Context, repo *repository, actor, action string, extra map[string]any) (json.RawMessage, error) {
	j, err := f.repositoryJSON(f.asEvent(ctx), repo)
	if err != nil {
		return nil, err
	}
	return f.payloadOf(j, actor, action, extra)
}

// payloadOf is payload for a repository whose JSON is at hand.
func (f *Forge) payloadOf(repo repositoryJSON, actor, action string, extra map[string]any) (json.RawMessage, error) {
	body := map[string]any{"repository": repo, "sender": f.account(f.apiURL(), actor)}
	if repo.Owner.Type == "Organization" {
		body["organization"] = repo.Owner
	}
	if action != "" {
		body["action"] = action
	}
	for k, v := range extra {
		body[k] = v
	}
	data, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	return data, nil
}
