package credential

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sync/singleflight"
)

const (
	appTokenUser   = "x-access-token"
	appTokenMargin = 5 * time.Minute // a token is renewed this long before it ends
	appTimeout     = 30 * time.Second
	maxAppAnswer   = 1 << 20
	maxAppTokens   = 1024
)

// Tokens trades GitHub Apps for installation tokens and keeps them until
// shortly before they end. See [NewTokens].
type Tokens struct {
	clients *Clients
	now     func() time.Time

	flight singleflight.Group
	mu     sync.Mutex
	kept   map[string]appToken // by fingerprint of the credential
}

type appToken struct {
	token string
	until time.Time
}

// NewTokens returns an empty set. now is the clock; nil is the real one.
func NewTokens(clients *Clients, now func() time.Time) *Tokens {
	if now == nil {
		now = time.Now
	}
	return &Tokens{clients: clients, now: now, kept: map[string]appToken{}}
}

// Sign completes a credential for use: a GitHub App becomes a user name and an
// installation token. Others are returned as they are.
func (t *Tokens) Sign(ctx context.Context, c Credential, repoURL string) (Credential, error) {
	if c.App.PrivateKey == "" || c.Password != "" || c.BearerToken != "" {
		return c, nil
	}
	key := c.Fingerprint()
	if c.App.Installation == 0 { // is looked up by the owner
		l, err := Parse(repoURL)
		if err != nil {
			return c, err
		}
		owner, _, _ := strings.Cut(l.Path, "/")
		key += "/" + owner
	}
	t.mu.Lock()
	kept, ok := t.kept[key]
	t.mu.Unlock()
	if !ok || !t.now().Before(kept.until) {
		got, err, _ := t.flight.Do(key, func() (any, error) { return t.fetch(context.WithoutCancel(ctx), c, repoURL) })
		if err != nil {
			return c, fmt.Errorf("Secret %s: token of GitHub App %d: %w", c.Secret, c.App.ID, err)
		}
		kept = got.(appToken)
		t.mu.Lock()
		if len(t.kept) >= maxAppTokens {
			clear(t.kept)
		}
		t.kept[key] = kept
		t.mu.Unlock()
	}
	c.Username, c.Password = appTokenUser, kept.token
	return c, nil
}

// Forget drops the tokens, after one was refused.
func (t *Tokens) Forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.kept)
}

func (t *Tokens) fetch(ctx context.Context, c Credential, repoURL string) (appToken, error) {
	ctx, cancel := context.WithTimeout(ctx, appTimeout)
	defer cancel()
	key, err := jwt.ParseRSAPrivateKeyFromPEM([]byte(c.App.PrivateKey))
	if err != nil {
		return appToken{}, fmt.Errorf("githubAppPrivateKey is no RSA key in PEM")
	}
	now := t.now()
	signed, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.RegisteredClaims{
		Issuer: fmt.Sprint(c.App.ID), IssuedAt: jwt.NewNumericDate(now.Add(-time.Minute)), ExpiresAt: jwt.NewNumericDate(now.Add(9 * time.Minute)),
	}).SignedString(key)
	if err != nil {
		return appToken{}, fmt.Errorf("sign: %w", err)
	}
	installation := c.App.Installation
	if installation == 0 {
		if installation, err = t.installation(ctx, c, signed, repoURL); err != nil {
			return appToken{}, err
		}
	}
	var got struct {
		Token     string    `json:"token"`
		ExpiresAt time.Time `json:"expires_at"`
	}
	if err := t.call(ctx, c, http.MethodPost, fmt.Sprintf("/app/installations/%d/access_tokens", installation), signed, &got); err != nil {
		return appToken{}, err
	}
	if got.Token == "" {
		return appToken{}, fmt.Errorf("the answer has no token")
	}
	return appToken{token: got.Token, until: got.ExpiresAt.Add(-appTokenMargin)}, nil
}

// installation finds where the owner of the repository installed the App.
func (t *Tokens) installation(ctx context.Context, c Credential, signed, repoURL string) (int64, error) {
	l, err := Parse(repoURL)
	if err != nil {
		return 0, err
	}
	owner, _, _ := strings.Cut(l.Path, "/")
	var got struct {
		ID int64 `json:"id"`
	}
	err = t.call(ctx, c, http.MethodGet, "/orgs/"+url.PathEscape(owner)+"/installation", signed, &got)
	if err != nil {
		err = t.call(ctx, c, http.MethodGet, "/users/"+url.PathEscape(owner)+"/installation", signed, &got)
	}
	if err != nil {
		return 0, fmt.Errorf("githubAppInstallationID is not set, and %s has no installation that is found: %w", owner, err)
	}
	return got.ID, nil
}

func (t *Tokens) call(ctx context.Context, c Credential, method, path, signed string, into any) error {
	base := strings.TrimSuffix(c.App.BaseURL, "/")
	if base == "" {
		base = "https://api.github.com"
	}
	req, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(nil))
	if err != nil {
		return fmt.Errorf("githubAppEnterpriseBaseUrl: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+signed)
	req.Header.Set("Accept", "application/vnd.github+json")
	client, err := t.clients.For(c)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAppAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("%s %s: the answer is no JSON", method, path)
	}
	return nil
}
