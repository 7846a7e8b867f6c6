package az

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
)

const vaultVersion = "api-version=7.4"

func vaultCommands() map[string]command {
	vaults := shim.Flags{shim.F("--name", "-n"), shim.F("--resource-group", "-g"), shim.F("--ids"), shim.F("--resource-type")}
	secret := shim.Flags{shim.F("--name", "-n"), shim.F("--vault-name"), shim.F("--id"), shim.F("--version", "-v"), shim.F("--value"), shim.F("--file", "-f"), shim.F("--encoding", "-e"),
		shim.M("--tags"), shim.F("--description", "--content-type"), shim.F("--expires"), shim.F("--not-before"), shim.F("--disabled"), shim.F("--maxresults"), shim.B("--overwrite")}
	return map[string]command{
		"keyvault list": {vaults, func(ctx context.Context, c *call) (any, error) {
			return c.listOf(ctx, "Microsoft.KeyVault/vaults", "2023-07-01", false)
		}},
		"keyvault show": {vaults, func(ctx context.Context, c *call) (any, error) {
			return c.show(ctx, "Microsoft.KeyVault/vaults", "2023-07-01", false)
		}},
		"keyvault secret list":     {secret, secretList},
		"keyvault secret show":     {secret, secretShow},
		"keyvault secret set":      {secret, secretSet},
		"keyvault secret delete":   {secret, func(ctx context.Context, c *call) (any, error) { return c.secret(ctx, http.MethodDelete, "", nil) }},
		"keyvault secret download": {secret, secretDownload},
	}
}

// vault calls a Key Vault. address is absolute.
func (c *call) vault(ctx context.Context, method, address string, body, out any) error {
	t, err := c.token(ctx, "https://vault.azure.net/.default")
	if err != nil {
		return err
	}
	_, err = c.Do(ctx, method, address, http.Header{"Authorization": {"Bearer " + t.Value}}, body, out)
	return err
}

// secretURL is the address of the secret that the options name.
func (c *call) secretURL() (string, error) {
	if id := c.Get("id"); id != "" {
		u, err := url.Parse(id)
		if err != nil || u.Scheme != "https" || !strings.HasPrefix(u.Path, "/secrets/") {
			return "", shim.Usagef("--id %q is no secret", id)
		}
		return "https://" + u.Host + strings.TrimSuffix(u.Path, "/"), nil
	}
	if err := c.need("name", "vault-name"); err != nil {
		return "", err
	}
	return "https://" + url.PathEscape(c.Get("vault-name")) + ".vault.azure.net/secrets/" + url.PathEscape(c.Get("name")), nil
}

func (c *call) secret(ctx context.Context, method, version string, body any) (resource, error) {
	address, err := c.secretURL()
	if err != nil {
		return nil, err
	}
	if version != "" {
		address += "/" + url.PathEscape(version)
	}
	var out resource
	if err := c.vault(ctx, method, address+"?"+vaultVersion, body, &out); err != nil {
		return nil, err
	}
	return shownSecret(out), nil
}

// shownSecret is a secret as az prints it: with its name, and times as text.
func shownSecret(s resource) resource {
	id, _ := s["id"].(string)
	if u, err := url.Parse(id); err == nil {
		parts := strings.Split(strings.TrimPrefix(u.Path, "/secrets/"), "/")
		s["name"] = parts[0]
	}
	if attributes, ok := s["attributes"].(map[string]any); ok {
		for from, to := range map[string]string{"created": "created", "updated": "updated", "exp": "expires", "nbf": "notBefore"} {
			value, found := attributes[from].(float64)
			delete(attributes, from)
			attributes[to] = nil
			if found {
				attributes[to] = time.Unix(int64(value), 0).UTC().Format("2006-01-02T15:04:05+00:00")
			}
		}
	}
	if _, ok := s["contentType"]; !ok {
		s["contentType"] = nil
	}
	return s
}

func secretShow(ctx context.Context, c *call) (any, error) {
	return c.secret(ctx, http.MethodGet, c.Get("version"), nil)
}

func secretList(ctx context.Context, c *call) (any, error) {
	if err := c.need("vault-name"); err != nil {
		return nil, err
	}
	all := []resource{}
	address := "https://" + url.PathEscape(c.Get("vault-name")) + ".vault.azure.net/secrets?" + vaultVersion
	for range maxPages {
		var page struct {
			Value    []resource `json:"value"`
			NextLink string     `json:"nextLink"`
		}
		if err := c.vault(ctx, http.MethodGet, address, nil, &page); err != nil {
			return nil, err
		}
		for _, s := range page.Value {
			all = append(all, shownSecret(s))
		}
		if address = page.NextLink; address == "" {
			return all, nil
		}
	}
	return nil, fmt.Errorf("the list has more than %d pages", maxPages)
}

func secretSet(ctx context.Context, c *call) (any, error) {
	value := c.Get("value")
	if f := c.Get("file"); f != "" {
		data, err := os.ReadFile(c.Path(f))
		if err != nil {
			return nil, err
		}
		switch c.Or("encoding", "utf-8") {
		case "base64":
			value = base64.StdEncoding.EncodeToString(data)
		case "utf-8", "ascii":
			value = string(data)
		default:
			return nil, shim.Usagef("--encoding %s is not known", c.Get("encoding"))
		}
	} else if !c.Has("value") {
		return nil, shim.Usagef("give --value or --file")
	}
	body := map[string]any{"value": value, "tags": tags(c.All("tags"))}
	if d := c.Get("description"); d != "" {
		body["contentType"] = d
	}
	attributes := map[string]any{}
	for option, field := range map[string]string{"expires": "exp", "not-before": "nbf"} {
		if v := c.Get(option); v != "" {
			at, err := time.Parse("2006-01-02T15:04:05Z", v)
			if err != nil {
				return nil, shim.Usagef("--%s %q is no time as 2030-01-31T00:00:00Z", option, v)
			}
			attributes[field] = at.Unix()
		}
	}
	if v := c.Get("disabled"); v != "" {
		attributes["enabled"] = v != "true"
	}
	if len(attributes) > 0 {
		body["attributes"] = attributes
	}
	return c.secret(ctx, http.MethodPut, "", body)
}

func secretDownload(ctx context.Context, c *call) (any, error) {
	if c.Get("file") == "" {
		return nil, shim.Usagef("the following arguments are required: --file")
	}
	s, err := c.secret(ctx, http.MethodGet, c.Get("version"), nil)
	if err != nil {
		return nil, err
	}
	text, _ := s["value"].(string)
	data := []byte(text)
	if c.Get("encoding") == "base64" {
		if data, err = base64.StdEncoding.DecodeString(text); err != nil {
			return nil, errors.New("the secret is not base64")
		}
	}
	f, err := os.OpenFile(c.Path(path.Clean(c.Get("file"))), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(data)
	return nil, errors.Join(err, f.Close())
}
