package scm

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// App is a GitHub App that is installed in an organization.
type App struct {
	ID, Installation string
	Key              []byte // PEM of an RSA key
}

// AppToken trades the app's key for a token of its installation, which is good
// for an hour.
func AppToken(ctx context.Context, client *http.Client, base string, app App, now time.Time) (string, error) {
	jwt, err := app.jwt(now)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, githubBase(base)+"/app/installations/"+escape(app.Installation)+"/access_tokens", nil)
	if err != nil {
		return "", fmt.Errorf("the address of the API: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+jwt)
	req.Header.Set("Accept", "application/vnd.github+json")
	var answer struct {
		Token string `json:"token"`
	}
	if _, err := do(client, req, &answer); err != nil {
		return "", fmt.Errorf("get a token for the GitHub App: %w", err)
	}
	return answer.Token, nil
}

func (a App) jwt(now time.Time) (string, error) {
	block, _ := pem.Decode(a.Key)
	if block == nil {
		return "", errors.New("the private key of the GitHub App is no PEM")
	}
	key, err := rsaKey(block.Bytes)
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{"iat": now.Add(-time.Minute).Unix(), "exp": now.Add(9 * time.Minute).Unix(), "iss": a.ID})
	if err != nil {
		return "", fmt.Errorf("encode the claims: %w", err)
	}
	enc := base64.RawURLEncoding
	text := enc.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + enc.EncodeToString(claims)
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("sign with the key of the GitHub App: %w", err)
	}
	return text + "." + enc.EncodeToString(sig), nil
}

func rsaKey(der []byte) (*rsa.PrivateKey, error) {
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("the private key of the GitHub App cannot be read")
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("the private key of the GitHub App is no RSA key")
	}
	return key, nil
}
