package gh

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/crypto/nacl/box"

	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
)

// place is where secrets or variables live: of the repository, or of an
// environment.
func (c *call) place(ctx context.Context, kind string) (string, error) {
	if c.Has("org") {
		return "", shim.Usagef("--org is not emulated")
	}
	if e := c.Get("env"); e != "" {
		return c.route(ctx, "/environments/%s/%s", url.PathEscape(e), kind)
	}
	return c.route(ctx, "/actions/%s", kind)
}

func (c *call) settings(ctx context.Context, kind string) error {
	route, err := c.place(ctx, kind)
	if err != nil {
		return err
	}
	var answer map[string]any
	if _, err := c.rest(ctx, http.MethodGet, route+"?per_page=100", nil, &answer); err != nil {
		return err
	}
	list, _ := answer[kind].([]any)
	return c.show(append([]any{}, list...), func() error {
		for _, item := range list {
			m, _ := item.(object)
			if err := c.printf("%v\t%s%v", m["name"], strings.TrimPrefix(text(m["value"])+"\t", "\t"), m["updated_at"]); err != nil {
				return err
			}
		}
		return nil
	})
}

// value is --body, or standard input.
func (c *call) value() (string, error) {
	if c.Has("body") {
		return c.Get("body"), nil
	}
	data, err := io.ReadAll(io.LimitReader(c.Stdin, 64<<10))
	return strings.TrimRight(string(data), "\r\n"), err
}

func secretSet(ctx context.Context, c *call) error {
	if len(c.Rest) != 1 {
		return shim.Usagef("a secret name is required")
	}
	value, err := c.value()
	if err != nil {
		return err
	}
	route, err := c.place(ctx, "secrets")
	if err != nil {
		return err
	}
	var key struct {
		ID  string `json:"key_id"`
		Key string `json:"key"`
	}
	if _, err := c.rest(ctx, http.MethodGet, route+"/public-key", nil, &key); err != nil {
		return err
	}
	raw, err := base64.StdEncoding.DecodeString(key.Key)
	if err != nil || len(raw) != 32 {
		return errors.New("the repository's public key is not valid")
	}
	sealed, err := box.SealAnonymous(nil, []byte(value), (*[32]byte)(raw), rand.Reader)
	if err != nil {
		return err
	}
	in := object{"encrypted_value": base64.StdEncoding.EncodeToString(sealed), "key_id": key.ID}
	if _, err := c.rest(ctx, http.MethodPut, route+"/"+url.PathEscape(c.Rest[0]), in, nil); err != nil {
		return err
	}
	return c.printf("✓ Set Actions secret %s", c.Rest[0])
}

func variableSet(ctx context.Context, c *call) error {
	if len(c.Rest) != 1 {
		return shim.Usagef("a variable name is required")
	}
	value, err := c.value()
	if err != nil {
		return err
	}
	route, err := c.place(ctx, "variables")
	if err != nil {
		return err
	}
	in := object{"name": c.Rest[0], "value": value}
	_, err = c.rest(ctx, http.MethodPost, route, in, nil)
	var status *shim.StatusError
	if errors.As(err, &status) && status.Status == http.StatusConflict {
		_, err = c.rest(ctx, http.MethodPatch, route+"/"+url.PathEscape(c.Rest[0]), in, nil)
	}
	if err != nil {
		return err
	}
	return c.printf("✓ Set variable %s", c.Rest[0])
}
