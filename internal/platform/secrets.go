package platform

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/server"
)

// secrets manages Key Vault secrets through the vaults' own wire, as the
// platform's owner, and the secrets of workflows. It never reads a value.
type secrets struct{ s *system }

// vaultBundle is a Key Vault answer without the value.
type vaultBundle struct {
	ID         string `json:"id"`
	Attributes struct {
		Enabled bool  `json:"enabled"`
		Updated int64 `json:"updated"`
	} `json:"attributes"`
}

// List implements server.Secrets.
func (v secrets) List(ctx context.Context) ([]server.Secret, error) {
	vaults, err := v.vaults(ctx)
	if err != nil {
		return nil, err
	}
	var list []server.Secret
	for _, vault := range vaults {
		bundles, err := v.pages(ctx, vaultURL(vault)+"/secrets?api-version=7.6")
		if err != nil {
			return nil, fmt.Errorf("secrets of vault %s: %w", vault, err)
		}
		for _, b := range bundles {
			secret, err := v.describe(ctx, vault, path.Base(b.ID))
			if err != nil {
				return nil, err
			}
			list = append(list, secret)
		}
	}
	names, err := v.s.actions.ListSecrets(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, s := range names {
		list = append(list, server.Secret{Repo: s.Repo, Name: s.Name, Updated: s.Updated, Enabled: true})
	}
	return list, nil
}

// describe reads the versions of one secret; their bodies have no values.
func (v secrets) describe(ctx context.Context, vault, name string) (server.Secret, error) {
	versions, err := v.pages(ctx, vaultURL(vault)+"/secrets/"+url.PathEscape(name)+"/versions?api-version=7.6")
	if err != nil {
		return server.Secret{}, fmt.Errorf("versions of %s/%s: %w", vault, name, err)
	}
	secret := server.Secret{Vault: vault, Name: name, Versions: len(versions)}
	for _, b := range versions {
		if updated := time.Unix(b.Attributes.Updated, 0).UTC(); !updated.Before(secret.Updated) {
			secret.Updated, secret.Version, secret.Enabled = updated, path.Base(b.ID), b.Attributes.Enabled
		}
	}
	return secret, nil
}

// Set implements server.Secrets.
func (v secrets) Set(ctx context.Context, vault, name string, value []byte) (string, error) {
	body, err := json.Marshal(map[string]string{"value": string(value)})
	if err != nil {
		return "", err
	}
	var made vaultBundle
	if err := v.call(ctx, "PUT", vaultURL(vault)+"/secrets/"+url.PathEscape(name)+"?api-version=7.6", body, &made); err != nil {
		return "", fmt.Errorf("set %s/%s: %w", vault, name, err)
	}
	return path.Base(made.ID), nil
}

// SetRepo implements server.Secrets.
func (v secrets) SetRepo(ctx context.Context, repo, name string, value []byte) error {
	if _, err := v.s.forge.Repository(ctx, repo); err != nil {
		return fmt.Errorf("%w: repository %s", server.ErrNotFound, repo)
	}
	return v.s.actions.SetSecret(ctx, repo, name, value)
}

func vaultURL(vault string) string { return "https://" + vault + ".vault.azure.net" }

// vaults lists the names of all vaults of the subscription.
func (v secrets) vaults(ctx context.Context) ([]string, error) {
	var answer struct{ Value []struct{ Name string } }
	address := "https://management.azure.com/subscriptions/" + SubscriptionID + "/providers/Microsoft.KeyVault/vaults?api-version=2026-02-01"
	if err := v.call(ctx, "GET", address, nil, &answer); err != nil {
		return nil, fmt.Errorf("list vaults: %w", err)
	}
	var names []string
	for _, vault := range answer.Value {
		names = append(names, vault.Name)
	}
	return names, nil
}

// maxPages bounds a listing.
const maxPages = 200

func (v secrets) pages(ctx context.Context, address string) ([]vaultBundle, error) {
	var all []vaultBundle
	for range maxPages {
		var page struct {
			Value    []vaultBundle
			NextLink string
		}
		if err := v.call(ctx, "GET", address, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Value...)
		if page.NextLink == "" {
			break
		}
		address = page.NextLink
	}
	return all, nil
}

// call is one request as the owner's service principal.
func (v secrets) call(ctx context.Context, method, address string, body []byte, into any) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	audience := "https://management.azure.com"
	if strings.HasSuffix(u.Hostname(), ".vault.azure.net") {
		audience = "https://vault.azure.net"
	}
	token, err := v.token(ctx, audience)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	return v.send(req, into)
}

func (v secrets) token(ctx context.Context, audience string) (string, error) {
	owner := v.s.azure.OwnerCredentials()
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {owner.ClientID}, "client_secret": {owner.ClientSecret}, "scope": {audience + "/.default"}}
	req, err := http.NewRequestWithContext(ctx, "POST", "https://login.microsoftonline.com/"+TenantID+"/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	err = v.send(req, &answer)
	return answer.AccessToken, err
}

// send makes the request inside this process and decodes its answer; an error
// answer becomes an error for people.
func (v secrets) send(req *http.Request, into any) error {
	resp, err := v.s.gateway.Transport().RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 == 2 {
		return json.Unmarshal(data, into)
	}
	var problem struct {
		Error struct{ Code, Message string }
	}
	if json.Unmarshal(data, &problem) != nil || problem.Error.Message == "" {
		return errors.New(resp.Status)
	}
	status := http.StatusBadRequest
	if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusForbidden {
		status = resp.StatusCode
	}
	return &server.Problem{Status: status, Title: problem.Error.Code, Detail: problem.Error.Message}
}
