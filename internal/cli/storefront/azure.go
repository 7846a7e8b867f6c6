package storefront

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/uuid"

	"github.com/lockstep-gitops/lockstep/internal/cli/environment"
)

// maxAnswer bounds an answer that is read into memory, in bytes.
const maxAnswer = 4 << 20

// azure speaks to Resource Manager and Key Vault as any client would.
type azure struct {
	sheet environment.Sheet
	http  *http.Client
}

// resources are what infra/main.tf declares, as far as the platform's Azure
// has them, in the order of their dependencies.
type resources struct {
	ClientID         string // of the workload's identity
	RegistryHost     string
	RegistryUser     string
	RegistryPassword string
}

const (
	group    = "storefront"
	registry = "storefront"
	vault    = "storefront-kv"
	secret   = "payment-key"
)

// provision creates the resources. Everything is a PUT, so that a second run
// changes nothing.
func (a azure) provision(ctx context.Context, note func(string)) (resources, error) {
	var out resources
	location := a.sheet.Region
	sub := "/subscriptions/" + a.sheet.SubscriptionID
	rg := sub + "/resourceGroups/" + group
	registryID := rg + "/providers/Microsoft.ContainerRegistry/registries/" + registry
	vaultID := rg + "/providers/Microsoft.KeyVault/vaults/" + vault
	identityID := rg + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/storefront"

	note("resource group " + group)
	if err := a.put(ctx, rg, "2023-07-01", m{"location": location}, nil); err != nil {
		return out, err
	}
	note("registry " + registry)
	var reg struct {
		Properties struct{ LoginServer string }
	}
	if err := a.put(ctx, registryID, "2025-11-01", m{"location": location, "sku": m{"name": "Basic"},
		"properties": m{"adminUserEnabled": true}}, &reg); err != nil {
		return out, err
	}
	out.RegistryHost = reg.Properties.LoginServer
	var credentials struct {
		Username  string
		Passwords []struct{ Value string }
	}
	if err := a.call(ctx, "POST", registryID+"/listCredentials", "2025-11-01", nil, &credentials); err != nil {
		return out, err
	}
	if len(credentials.Passwords) == 0 {
		return out, fmt.Errorf("registry %s: its credentials hold no password", registry)
	}
	out.RegistryUser, out.RegistryPassword = credentials.Username, credentials.Passwords[0].Value

	note("key vault " + vault)
	if err := a.put(ctx, vaultID, "2026-02-01", m{"location": location, "properties": m{
		"tenantId": a.sheet.TenantID, "sku": m{"family": "A", "name": "standard"}, "enableRbacAuthorization": true}}, nil); err != nil {
		return out, err
	}
	note("identity storefront")
	var identity struct {
		Properties struct{ ClientID, PrincipalID string }
	}
	if err := a.put(ctx, identityID, "2024-11-30", m{"location": location}, &identity); err != nil {
		return out, err
	}
	out.ClientID = identity.Properties.ClientID
	if err := a.put(ctx, identityID+"/federatedIdentityCredentials/storefront", "2024-11-30", m{"properties": m{
		"issuer": a.sheet.OIDCIssuer, "subject": "system:serviceaccount:storefront:storefront",
		"audiences": []string{"api://AzureADTokenExchange"}}}, nil); err != nil {
		return out, err
	}
	note("role assignments")
	if err := a.assign(ctx, vaultID, "Key Vault Secrets User", identity.Properties.PrincipalID); err != nil {
		return out, err
	}
	operator, err := a.self(ctx)
	if err != nil {
		return out, err
	}
	return out, a.assign(ctx, vaultID, "Key Vault Secrets Officer", operator)
}

// secretExists reports whether the vault holds the secret.
func (a azure) secretExists(ctx context.Context) (bool, error) {
	status, _, err := a.do(ctx, "GET", a.secretURL(), "https://vault.azure.net", nil)
	if err != nil {
		return false, err
	}
	return status == http.StatusOK, nil
}

func (a azure) setSecret(ctx context.Context, value string) error {
	status, body, err := a.do(ctx, "PUT", a.secretURL(), "https://vault.azure.net", m{"value": value})
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("set secret %s in vault %s: %s", secret, vault, explain(status, body))
	}
	return nil
}

func (a azure) secretURL() string {
	return "https://" + vault + ".vault.azure.net/secrets/" + secret + "?api-version=7.6"
}

// assign gives the principal a built-in role at the scope. The assignment's
// name follows from its content, so that a repetition is the same assignment.
func (a azure) assign(ctx context.Context, scope, role, principal string) error {
	var found struct{ Value []struct{ ID string } }
	filter := "&$filter=" + url.QueryEscape("roleName eq '"+role+"'")
	if err := a.call(ctx, "GET", scope+"/providers/Microsoft.Authorization/roleDefinitions", "2022-04-01"+filter, nil, &found); err != nil {
		return err
	}
	if len(found.Value) != 1 {
		return fmt.Errorf("role %q: found %d definitions, want one", role, len(found.Value))
	}
	name := uuid.NewSHA1(uuid.NameSpaceURL, []byte(strings.ToLower(scope+"|"+role+"|"+principal))).String()
	return a.put(ctx, scope+"/providers/Microsoft.Authorization/roleAssignments/"+name, "2022-04-01", m{"properties": m{
		"roleDefinitionId": found.Value[0].ID, "principalId": principal, "principalType": "ServicePrincipal"}}, nil)
}

// self returns the object id of the principal that this client signs in as.
func (a azure) self(ctx context.Context) (string, error) {
	token, err := a.token(ctx, "https://management.azure.com")
	if err != nil {
		return "", err
	}
	var claims struct {
		OID string `json:"oid"`
	}
	if err := decodeClaims(token, &claims); err != nil {
		return "", fmt.Errorf("the sign-in token: %w", err)
	}
	if claims.OID == "" {
		return "", errors.New("the sign-in token names no object id")
	}
	return claims.OID, nil
}

type m = map[string]any

func (a azure) put(ctx context.Context, id, version string, body, into any) error {
	return a.call(ctx, "PUT", id, version, body, into)
}

// call is one request to Resource Manager; version may carry more query parts.
func (a azure) call(ctx context.Context, method, id, version string, body, into any) error {
	status, answer, err := a.do(ctx, method, "https://management.azure.com"+id+"?api-version="+version, "https://management.azure.com", body)
	if err != nil {
		return err
	}
	if status/100 != 2 {
		return fmt.Errorf("%s %s: %s", method, id, explain(status, answer))
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("%s %s: unexpected answer: %w", method, id, err)
	}
	return nil
}

// do sends one request with a token for the audience.
func (a azure) do(ctx context.Context, method, address, audience string, body any) (int, []byte, error) {
	token, err := a.token(ctx, audience)
	if err != nil {
		return 0, nil, err
	}
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, content)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	return send(a.http, req)
}

func (a azure) token(ctx context.Context, audience string) (string, error) {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {a.sheet.ClientID},
		"client_secret": {a.sheet.ClientSecret}, "scope": {audience + "/.default"}}
	address := "https://login.microsoftonline.com/" + a.sheet.TenantID + "/oauth2/v2.0/token"
	req, err := http.NewRequestWithContext(ctx, "POST", address, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	status, body, err := send(a.http, req)
	if err != nil {
		return "", err
	}
	var answer struct {
		AccessToken      string `json:"access_token"`
		ErrorDescription string `json:"error_description"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.AccessToken == "" {
		return "", fmt.Errorf("sign in to the local Azure: status %d: %s", status, answer.ErrorDescription)
	}
	return answer.AccessToken, nil
}
