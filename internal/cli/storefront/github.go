package storefront

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"golang.org/x/crypto/nacl/box"

	"github.com/lockstep-gitops/lockstep/internal/cli/environment"
)

// github speaks GitHub's REST API to the forge.
type github struct {
	sheet environment.Sheet
	http  *http.Client
}

// ensureRepository creates the repository unless it is there.
func (g github) ensureRepository(ctx context.Context, owner, name string) error {
	status, body, err := g.do(ctx, "GET", "/repos/"+owner+"/"+name, nil)
	if err != nil || status == http.StatusOK {
		return err
	}
	if status == http.StatusNotFound {
		status, body, err = g.do(ctx, "POST", "/orgs/"+owner+"/repos", m{"name": name, "description": "A small shop in the shape of a real one"})
		if err != nil || status == http.StatusCreated {
			return err
		}
	}
	return fmt.Errorf("create repository %s/%s: %s", owner, name, explain(status, body))
}

// setVariable creates or changes a variable of the repository's workflows.
func (g github) setVariable(ctx context.Context, repo, name, value string) error {
	path := "/repos/" + repo + "/actions/variables"
	status, body, err := g.do(ctx, "PATCH", path+"/"+name, m{"name": name, "value": value})
	if err == nil && status == http.StatusNotFound {
		status, body, err = g.do(ctx, "POST", path, m{"name": name, "value": value})
	}
	if err != nil {
		return err
	}
	if status/100 != 2 {
		return fmt.Errorf("set variable %s of %s: %s", name, repo, explain(status, body))
	}
	return nil
}

// setSecret seals the value for the repository's key, as GitHub's API asks
// ("Encrypting secrets for the REST API"), and stores it.
func (g github) setSecret(ctx context.Context, repo, name, value string) error {
	path := "/repos/" + repo + "/actions/secrets"
	status, body, err := g.do(ctx, "GET", path+"/public-key", nil)
	if err != nil {
		return err
	}
	var key struct {
		KeyID string `json:"key_id"`
		Key   string `json:"key"`
	}
	if status != http.StatusOK || json.Unmarshal(body, &key) != nil {
		return fmt.Errorf("read the key for secrets of %s: %s", repo, explain(status, body))
	}
	raw, err := base64.StdEncoding.DecodeString(key.Key)
	if err != nil || len(raw) != 32 {
		return fmt.Errorf("read the key for secrets of %s: %w", repo, errors.Join(err, errors.New("not 32 bytes in base64")))
	}
	sealed, err := box.SealAnonymous(nil, []byte(value), (*[32]byte)(raw), rand.Reader)
	if err != nil {
		return fmt.Errorf("seal secret %s: %w", name, err)
	}
	status, body, err = g.do(ctx, "PUT", path+"/"+name, m{"encrypted_value": base64.StdEncoding.EncodeToString(sealed), "key_id": key.KeyID})
	if err != nil {
		return err
	}
	if status/100 != 2 {
		return fmt.Errorf("set secret %s of %s: %s", name, repo, explain(status, body))
	}
	return nil
}

func (g github) do(ctx context.Context, method, path string, body any) (int, []byte, error) {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, g.sheet.ForgeAPI+path, content)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+g.sheet.ForgeToken)
	req.Header.Set("Accept", "application/vnd.github+json")
	return send(g.http, req)
}
