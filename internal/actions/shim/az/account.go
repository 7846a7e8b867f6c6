package az

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
)

// Azure's addresses.
const (
	loginURL = "https://login.microsoftonline.com"
	armURL   = "https://management.azure.com"
)

// profile is what a login leaves for the calls after it.
type profile struct {
	Cloud         string                 `json:"cloud"`
	ClientID      string                 `json:"clientId"`
	TenantID      string                 `json:"tenantId"`
	Secret        string                 `json:"secret,omitempty"`
	Assertion     string                 `json:"assertion,omitempty"`
	Subscriptions []subscription         `json:"subscriptions"`
	Default       string                 `json:"default"`
	Tokens        map[string]cachedToken `json:"tokens"`

	file string
}

type subscription struct {
	ID       string `json:"subscriptionId"`
	Name     string `json:"displayName"`
	State    string `json:"state"`
	TenantID string `json:"tenantId"`
}

type cachedToken struct {
	Value   string    `json:"value"`
	Expires time.Time `json:"expires"`
}

func readProfile(p *shim.Process) (*profile, error) {
	dir := p.Getenv("AZURE_CONFIG_DIR")
	if dir == "" {
		dir = filepath.Join(p.Getenv("HOME"), ".azure")
	}
	out := &profile{Cloud: "AzureCloud", file: filepath.Join(p.Path(dir), "lockstep.json"), Tokens: map[string]cachedToken{}}
	data, err := os.ReadFile(out.file)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err == nil {
		err = json.Unmarshal(data, out)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", out.file, err)
	}
	if out.Tokens == nil {
		out.Tokens = map[string]cachedToken{}
	}
	return out, nil
}

func (p *profile) write() error {
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p.file), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(p.file), ".lockstep-") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), p.file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

func accountCommands() map[string]command {
	return map[string]command{
		"login": {shim.Flags{shim.B("--service-principal"), shim.F("--username", "-u"), shim.F("--password", "-p"), shim.F("--tenant", "-t"),
			shim.F("--federated-token"), shim.B("--allow-no-subscriptions"), shim.B("--identity", "-i"), shim.B("--use-device-code"), shim.F("--scope")}, login},
		"logout":        {shim.Flags{shim.F("--username")}, forget},
		"account clear": {nil, forget},
		"account show":  {shim.Flags{shim.F("--name", "-n", "-s")}, func(_ context.Context, c *call) (any, error) { return c.account(c.Get("name")) }},
		"account list": {shim.Flags{shim.B("--all"), shim.B("--refresh")}, func(_ context.Context, c *call) (any, error) {
			list := []any{}
			for _, s := range c.profile.Subscriptions {
				list = append(list, c.accountOf(s))
			}
			return list, nil
		}},
		"account set": {shim.Flags{shim.F("--name", "-n", "-s")}, func(_ context.Context, c *call) (any, error) {
			wanted := orElse(c.Get("name"), c.Get("subscription"))
			s, err := c.find(wanted)
			if err != nil {
				return nil, err
			}
			c.profile.Default = s.ID
			return nil, c.profile.write()
		}},
		"account get-access-token": {shim.Flags{shim.F("--resource"), shim.M("--scope"), shim.F("--resource-type"), shim.F("--tenant", "-t"), shim.F("--name", "-n", "-s")}, getAccessToken},
		"cloud set": {shim.Flags{shim.F("--name", "-n"), shim.F("--profile")}, func(_ context.Context, c *call) (any, error) {
			if !strings.EqualFold(c.Get("name"), "AzureCloud") {
				return nil, fmt.Errorf("the cloud %q is not emulated: only AzureCloud is", c.Get("name"))
			}
			return nil, nil
		}},
		"cloud show": {shim.Flags{shim.F("--name", "-n")}, func(context.Context, *call) (any, error) {
			return map[string]any{"name": "AzureCloud", "isActive": true, "endpoints": map[string]string{"resourceManager": armURL, "activeDirectory": loginURL}}, nil
		}},
		"configure":  {shim.Flags{shim.M("--defaults", "-d")}, func(context.Context, *call) (any, error) { return nil, nil }},
		"config set": {nil, func(context.Context, *call) (any, error) { return nil, nil }},
		"extension add": {shim.Flags{shim.F("--name", "-n"), shim.B("--upgrade", "-U"), shim.B("--yes", "-y"), shim.F("--version"), shim.B("--allow-preview")}, func(_ context.Context, c *call) (any, error) {
			_, err := fmt.Fprintf(c.Stderr, "WARNING: extension %s: the emulated az has no extensions\n", c.Get("name"))
			return nil, err
		}},
		"version": {nil, func(context.Context, *call) (any, error) {
			return map[string]any{"azure-cli": "2.70.0", "azure-cli-core": "2.70.0", "extensions": map[string]any{}, "lockstep": "emulated"}, nil
		}},
	}
}

func login(ctx context.Context, c *call) (any, error) {
	switch {
	case c.On("identity"):
		return nil, errors.New("this machine has no managed identity: use --service-principal with --federated-token or --password")
	case !c.On("service-principal"):
		return nil, errors.New("there is nobody to sign in by a browser: use --service-principal with --federated-token or --password")
	}
	if err := c.need("username", "tenant"); err != nil {
		return nil, err
	}
	p := c.profile
	p.ClientID, p.TenantID, p.Secret, p.Assertion = c.Get("username"), c.Get("tenant"), c.Get("password"), c.Get("federated-token")
	p.Subscriptions, p.Default, p.Tokens = nil, "", map[string]cachedToken{}
	if (p.Secret == "") == (p.Assertion == "") {
		return nil, shim.Usagef("give either --password or --federated-token")
	}
	var answer struct{ Value []subscription }
	if err := c.arm(ctx, http.MethodGet, "/subscriptions?api-version=2022-12-01", nil, &answer); err != nil {
		return nil, err
	}
	p.Subscriptions = answer.Value
	if len(p.Subscriptions) == 0 {
		if !c.On("allow-no-subscriptions") {
			return nil, fmt.Errorf("No subscriptions found for %s.", p.ClientID) //nolint:staticcheck // the text of az
		}
		// As az does: an account at the level of the tenant.
		p.Subscriptions = []subscription{{ID: p.TenantID, Name: "N/A(tenant level account)", State: "Enabled", TenantID: p.TenantID}}
	}
	p.Default = p.Subscriptions[0].ID
	if err := p.write(); err != nil {
		return nil, err
	}
	list := []any{}
	for _, s := range p.Subscriptions {
		list = append(list, c.accountOf(s))
	}
	return list, nil
}

func forget(_ context.Context, c *call) (any, error) {
	err := os.Remove(c.profile.file)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return nil, err
}

var errLogin = errors.New("Please run 'az login' to setup account.") //nolint:staticcheck // the text of az

// find is a subscription by id or name; "" is the default one.
func (c *call) find(wanted string) (subscription, error) {
	if c.profile.ClientID == "" {
		return subscription{}, errLogin
	}
	wanted = orElse(wanted, c.profile.Default)
	for _, s := range c.profile.Subscriptions {
		if strings.EqualFold(s.ID, wanted) || strings.EqualFold(s.Name, wanted) {
			return s, nil
		}
	}
	return subscription{}, fmt.Errorf("The subscription of '%s' doesn't exist in cloud 'AzureCloud'.", wanted) //nolint:staticcheck // the text of az
}

func (c *call) account(wanted string) (any, error) {
	s, err := c.find(orElse(wanted, c.Get("subscription")))
	if err != nil {
		return nil, err
	}
	return c.accountOf(s), nil
}

func (c *call) accountOf(s subscription) any {
	return map[string]any{"environmentName": "AzureCloud", "homeTenantId": c.profile.TenantID, "id": s.ID, "isDefault": s.ID == c.profile.Default, "managedByTenants": []any{},
		"name": s.Name, "state": orElse(s.State, "Enabled"), "tenantId": c.profile.TenantID, "user": map[string]string{"name": c.profile.ClientID, "type": "servicePrincipal"}}
}

// token is an access token for a resource such as https://vault.azure.net.
func (c *call) token(ctx context.Context, scope string) (cachedToken, error) {
	p := c.profile
	if p.ClientID == "" {
		return cachedToken{}, errLogin
	}
	if t := p.Tokens[scope]; time.Until(t.Expires) > time.Minute {
		return t, nil
	}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {p.ClientID}, "scope": {scope}}
	if p.Assertion != "" {
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", p.Assertion)
	} else {
		form.Set("client_secret", p.Secret)
	}
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
	}
	if _, err := c.Do(ctx, http.MethodPost, loginURL+"/"+url.PathEscape(p.TenantID)+"/oauth2/v2.0/token", nil, form, &answer); err != nil {
		return cachedToken{}, err
	}
	t := cachedToken{answer.AccessToken, time.Now().Add(time.Duration(answer.ExpiresIn) * time.Second)}
	p.Tokens[scope] = t
	return t, p.write()
}

func getAccessToken(ctx context.Context, c *call) (any, error) {
	scope := armURL + "/.default"
	kinds := map[string]string{"arm": armURL, "ms-graph": "https://graph.microsoft.com", "oss-rdbms": "https://ossrdbms-aad.database.windows.net"}
	switch {
	case c.Has("scope"):
		scope = c.Get("scope")
	case c.Has("resource"):
		scope = strings.TrimSuffix(c.Get("resource"), "/") + "/.default"
	case c.Has("resource-type"):
		resource, ok := kinds[c.Get("resource-type")]
		if !ok {
			return nil, shim.Usagef("the resource type %q is not known", c.Get("resource-type"))
		}
		scope = resource + "/.default"
	}
	t, err := c.token(ctx, scope)
	if err != nil {
		return nil, err
	}
	return map[string]any{"accessToken": t.Value, "expiresOn": t.Expires.Local().Format("2006-01-02 15:04:05.000000"), "expires_on": t.Expires.Unix(),
		"subscription": c.profile.Default, "tenant": c.profile.TenantID, "tokenType": "Bearer"}, nil
}

// arm calls Resource Manager.
func (c *call) arm(ctx context.Context, method, route string, body, out any) error {
	t, err := c.token(ctx, armURL+"/.default")
	if err != nil {
		return err
	}
	_, err = c.Do(ctx, method, armURL+route, http.Header{"Authorization": {"Bearer " + t.Value}}, body, out)
	return err
}

// scope is the path of the subscription that a command is about.
func (c *call) scope() (string, error) {
	s, err := c.find(c.Get("subscription"))
	return "/subscriptions/" + s.ID, err
}
