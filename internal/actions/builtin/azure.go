package builtin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

func azureLogin() Action {
	return Action{
		Name: "azure/login",
		Inputs: map[string]string{"creds": "", "client-id": "", "tenant-id": "", "subscription-id": "", "enable-azpssession": "false",
			"environment": "azurecloud", "allow-no-subscriptions": "false", "audience": "api://AzureADTokenExchange", "auth-type": "SERVICE_PRINCIPAL"},
		Run: runAzureLogin, Post: postAzureLogin,
	}
}

// azureIdentity is who signs in.
type azureIdentity struct {
	ClientID       string `json:"clientId"`
	ClientSecret   string `json:"clientSecret"`
	TenantID       string `json:"tenantId"`
	SubscriptionID string `json:"subscriptionId"`
}

func runAzureLogin(ctx context.Context, c *Call) error {
	if err := c.unsupported(map[string]string{"enable-azpssession": "there is no Azure PowerShell here: use az in the steps, and leave the input out"}); err != nil {
		return err
	}
	id, err := azureIdentityOf(c)
	if err != nil {
		return err
	}
	none, err := c.flag("allow-no-subscriptions")
	if err != nil {
		return err
	}
	if id.SubscriptionID == "" && !none {
		return c.errorf("set the input subscription-id, or allow-no-subscriptions: true", "azure/login needs a subscription-id, and it is empty")
	}
	args := []string{"az", "login", "--service-principal", "--username", id.ClientID, "--tenant", id.TenantID}
	if id.ClientSecret != "" {
		c.Job.Mask(id.ClientSecret)
		args = append(args, "--password="+id.ClientSecret)
	} else {
		token, err := c.idToken(ctx, c.With["audience"])
		if err != nil {
			return err
		}
		c.Logf("Federated token details:\n issuer - %s\n subject claim - %s\n audience - %s", claim(token, "iss"), claim(token, "sub"), c.With["audience"])
		args = append(args, "--federated-token", token)
	}
	if none {
		args = append(args, "--allow-no-subscriptions")
	}
	steps := [][]string{{"az", "cloud", "set", "-n", strings.ToLower(c.With["environment"])}, append(args, "--output", "none")}
	if id.SubscriptionID != "" {
		steps = append(steps, []string{"az", "account", "set", "--subscription", id.SubscriptionID})
	}
	for _, step := range steps {
		if err := c.run(ctx, c.Job.Workspace, step...); err != nil {
			return c.errorf("the lines above say what Azure answered; for AADSTS70021 compare the subject claim with the federated credential's",
				"Azure login failed: %s", strings.Join(step[:2], " "))
		}
	}
	c.State["login"] = "true"
	c.Logf("Azure CLI login succeeds by using %s.", map[bool]string{true: "a client secret", false: "OIDC"}[id.ClientSecret != ""])
	return nil
}

// azureIdentityOf reads the single inputs, and creds for those that are empty.
func azureIdentityOf(c *Call) (azureIdentity, error) {
	id := azureIdentity{}
	if t := c.With["auth-type"]; !strings.EqualFold(t, "SERVICE_PRINCIPAL") {
		return id, c.errorf("use a service principal or a federated credential", "input auth-type %q is not supported: this machine has no managed identity", t)
	}
	if creds := strings.TrimSpace(c.With["creds"]); creds != "" && c.With["client-id"] == "" && c.With["tenant-id"] == "" {
		if err := json.Unmarshal([]byte(creds), &id); err != nil {
			// The text of the error may hold a part of the secret.
			return id, c.errorf(`write {"clientId":…,"clientSecret":…,"subscriptionId":…,"tenantId":…}`, "input creds is not JSON")
		}
		c.Job.Mask(id.ClientSecret)
		if id.ClientSecret == "" {
			return id, c.errorf("add clientSecret, or use client-id, tenant-id and subscription-id with OIDC", "input creds has no clientSecret")
		}
	}
	id.ClientID, id.TenantID = cmp.Or(c.With["client-id"], id.ClientID), cmp.Or(c.With["tenant-id"], id.TenantID)
	id.SubscriptionID = cmp.Or(c.With["subscription-id"], id.SubscriptionID)
	if id.ClientID == "" || id.TenantID == "" {
		return id, c.errorf("set the secrets or variables that the workflow takes them from",
			"azure/login needs client-id and tenant-id (or creds); empty: %s", strings.Join(empty(map[string]string{"client-id": id.ClientID, "tenant-id": id.TenantID}), ", "))
	}
	return id, nil
}

func empty(values map[string]string) []string {
	var out []string
	for _, k := range sorted(values) {
		if values[k] == "" {
			out = append(out, k)
		}
	}
	return out
}

// idToken asks the runner's service for an OIDC token of the job.
func (c *Call) idToken(ctx context.Context, audience string) (string, error) {
	address, bearer := c.env("ACTIONS_ID_TOKEN_REQUEST_URL"), c.env("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
	if address == "" || bearer == "" {
		return "", c.errorf("add `permissions:` with `id-token: write` (and `contents: read`) to the job or the workflow", "the job may not have an OIDC token")
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", c.errorf("", "ACTIONS_ID_TOKEN_REQUEST_URL is no address: %w", err)
	}
	q := u.Query()
	q.Set("audience", audience)
	u.RawQuery = q.Encode()
	var answer struct{ Value string }
	if err := c.request(ctx, http.MethodGet, u.String(), map[string]string{"Authorization": "Bearer " + bearer}, nil, &answer); err != nil {
		return "", c.errorf("", "ask for an OIDC token: %w", err)
	}
	if answer.Value == "" {
		return "", c.errorf("", "the answer to the OIDC request holds no token")
	}
	c.Job.Mask(answer.Value)
	return answer.Value, nil
}

func postAzureLogin(ctx context.Context, c *Call) error {
	if c.State["login"] == "" || c.env("AZURE_LOGIN_POST_CLEANUP") == "false" {
		return nil
	}
	return c.run(ctx, c.Job.Workspace, "az", "account", "clear")
}

func azureCLI() Action {
	return Action{
		Name:   "azure/cli",
		Inputs: map[string]string{"inlinescript": "", "azcliversion": "agentazcliversion"},
		Run: func(ctx context.Context, c *Call) error {
			script := c.With["inlinescript"]
			if strings.TrimSpace(script) == "" {
				return c.errorf("write the commands into inlineScript", "input inlineScript is empty")
			}
			if v := c.With["azcliversion"]; v != "" && v != "agentazcliversion" && v != "latest" {
				c.Logf("az %s is asked for; the az of this job is used.", v)
			}
			name := "azure-cli-" + fmt.Sprint(c.Line) + ".sh"
			if err := c.Job.Temp.WriteFile(name, []byte(strings.ReplaceAll(script, "\r\n", "\n")), 0o644); err != nil {
				return fmt.Errorf("write the script: %w", err)
			}
			defer func() { _ = c.Job.Temp.Remove(name) }()
			if err := c.run(ctx, c.Job.Workspace, "bash", "--noprofile", "--norc", "-e", c.Job.TempPath+"/"+name); err != nil {
				return c.errorf("", "the script failed: %w", err)
			}
			return nil
		},
	}
}
