package azure

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"context"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/golang-jwt/jwt/v5"
)

// signIn presents an assertion for a client id through the unmodified SDK.
func (w *world) signIn(clientID, assertion string) error {
	w.t.Helper()
	cred, err := azidentity.NewClientAssertionCredential(tenant, clientID, func(context.Context) (string, error) { return assertion, nil },
		&azidentity.ClientAssertionCredentialOptions{ClientOptions: w.options()})
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = cred.GetToken(w.t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	return err
}

func TestFederationMismatchesAreQuoted(t *testing.T) {
	w := newWorld(t)
	identity := w.storefront()
	client := prop(identity, "clientId")
	other := newWorld(t) // another cluster with keys of its own

	set := func(name string, value any) func(jwt.MapClaims) { return func(c jwt.MapClaims) { c[name] = value } }
	for _, tc := range []struct {
		name, client, assertion string
		want                    []string
	}{
		{"issuer", client, w.serviceAccountToken(set("iss", "https://elsewhere.example/")),
			[]string{"AADSTS700211", "assertion issuer 'https://elsewhere.example/'", "expects the issuer '" + issuer + "'"}},
		{"issuer without its slash", client, w.serviceAccountToken(set("iss", strings.TrimSuffix(issuer, "/"))), []string{"AADSTS700211"}},
		{"audience", client, w.serviceAccountToken(set("aud", "sts.example")),
			[]string{"AADSTS700212", "assertion audience 'sts.example'", "expects the audience '" + audience + "'"}},
		{"subject", client, w.serviceAccountToken(set("sub", "system:serviceaccount:storefront:default")),
			[]string{"AADSTS700213", "assertion subject 'system:serviceaccount:storefront:default'", "expects the subject 'system:serviceaccount:storefront:web'"}},
		{"expired", client, w.serviceAccountToken(set("exp", time.Now().Add(-time.Hour).Unix())), []string{"AADSTS700024"}},
		{"signed by another cluster", client, other.serviceAccountToken(nil), []string{"AADSTS700027", "invalid signature"}},
		{"unknown client", guid(9), w.serviceAccountToken(nil), []string{"AADSTS700016", guid(9)}},
		{"no token at all", client, "rubbish", []string{"AADSTS50027"}},
		{"client without credentials", w.azure.OwnerCredentials().ClientID, w.serviceAccountToken(nil), []string{"AADSTS700211", "lockstep-owner"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := w.signIn(tc.client, tc.assertion)
			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v\ndoes not say %q", err, want)
				}
			}
			if err != nil && len(tc.assertion) > 100 && strings.Contains(err.Error(), tc.assertion) {
				t.Error("the error quotes the token")
			}
		})
	}
	if err := w.signIn(client, w.serviceAccountToken(nil)); err != nil {
		t.Errorf("the right token: %v", err)
	}
	// "none" and other algorithms are no signatures.
	forged, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"iss": issuer, "sub": "system:serviceaccount:storefront:web", "aud": audience, "exp": time.Now().Add(time.Hour).Unix()}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.signIn(client, forged); err == nil || !strings.Contains(err.Error(), "AADSTS700027") {
		t.Errorf("an unsigned token: %v", err)
	}
	w.must(200, "DELETE", group+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/storefront-web/federatedIdentityCredentials/web", "2024-11-30", "")
	if err := w.signIn(client, w.serviceAccountToken(nil)); err == nil || !strings.Contains(err.Error(), "has none") {
		t.Errorf("without a credential: %v", err)
	}
}

func TestTokenEndpointRefusals(t *testing.T) {
	w := newWorld(t)
	o := w.azure.OwnerCredentials()
	good := url.Values{"grant_type": {"client_credentials"}, "client_id": {o.ClientID}, "client_secret": {o.ClientSecret}, "scope": {"https://management.azure.com/.default"}}
	post := func(tenant, endpoint string, change func(url.Values)) (int, string) {
		form := url.Values{}
		for k, v := range good {
			form[k] = v
		}
		if change != nil {
			change(form)
		}
		resp, err := w.client.PostForm("https://login.microsoftonline.com/"+tenant+endpoint, form)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode, readAll(t, resp)
	}
	const v2 = "/oauth2/v2.0/token"
	for _, tc := range []struct {
		name, tenant, endpoint string
		change                 func(url.Values)
		status                 int
		want                   string
	}{
		{"good", tenant, v2, nil, 200, `"access_token"`},
		{"good, version 1", tenant, "/oauth2/token", func(f url.Values) { f.Set("resource", "https://management.azure.com/") }, 200, `"expires_on"`},
		{"upper case tenant", strings.ToUpper(tenant), v2, nil, 200, `"access_token"`},
		{"wrong secret", tenant, v2, func(f url.Values) { f.Set("client_secret", "wrong") }, 401, "AADSTS7000215"},
		{"no credentials", tenant, v2, func(f url.Values) { f.Del("client_secret") }, 401, "AADSTS7000216"},
		{"other tenant", guid(1), v2, nil, 400, "AADSTS90002"},
		{"no tenant", "common", v2, nil, 400, "AADSTS50059"},
		{"unknown client", tenant, v2, func(f url.Values) { f.Set("client_id", guid(2)) }, 400, "AADSTS700016"},
		{"person", tenant, v2, func(f url.Values) { f.Set("grant_type", "password") }, 400, "AADSTS70003"},
		{"no grant", tenant, v2, func(f url.Values) { f.Del("grant_type") }, 400, "AADSTS900144"},
		{"bad scope", tenant, v2, func(f url.Values) { f.Set("scope", "User.Read") }, 400, "AADSTS1002012"},
		{"two scopes", tenant, v2, func(f url.Values) {
			f.Set("scope", "https://vault.azure.net/.default https://management.azure.com/.default")
		}, 400, "AADSTS1002012"},
		{"unknown resource", tenant, v2, func(f url.Values) { f.Set("scope", "https://example.com/.default") }, 400, "AADSTS500011"},
		{"unknown endpoint", tenant, "/oauth2/v2.0/authorize", nil, 404, "AADSTS900561"},
		{"huge", tenant, v2, func(f url.Values) { f.Set("x", strings.Repeat("x", 100_000)) }, 400, "AADSTS900144"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, body := post(tc.tenant, tc.endpoint, tc.change)
			if status != tc.status || !strings.Contains(body, tc.want) {
				t.Errorf("%d %s", status, body)
			}
			if strings.Contains(body, o.ClientSecret) {
				t.Error("the answer holds the secret")
			}
		})
	}
}

func TestTokensAreWhatClientsExpect(t *testing.T) {
	w := newWorld(t)
	o := w.azure.OwnerCredentials()
	token := w.token(w.owner(), "https://graph.microsoft.com/.default")
	claims := jwt.MapClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(token, claims); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{"oid": o.ObjectID, "sub": o.ObjectID, "appid": o.ClientID, "tid": tenant, "ver": "1.0",
		"iss": "https://sts.windows.net/" + tenant + "/", "idtyp": "app", "appidacr": "1"} {
		if claims[name] != want {
			t.Errorf("%s = %v, want %v", name, claims[name], want)
		}
	}
	code, graph := w.send(token, "GET", "https://graph.microsoft.com/v1.0/servicePrincipals?$filter=appId%20eq%20'"+o.ClientID+"'", "")
	if list, _ := graph["value"].([]any); code != 200 || len(list) != 1 || list[0].(map[string]any)["id"] != o.ObjectID {
		t.Errorf("graph: %d %v", code, graph)
	}
	if code, _ := w.send(token, "GET", "https://management.azure.com/subscriptions?api-version=2022-12-01", ""); code != 401 {
		t.Errorf("a token for Graph got %d from the resource manager", code)
	}
	if code, _ := w.send(token+"x", "GET", "https://graph.microsoft.com/v1.0/servicePrincipals/"+o.ObjectID, ""); code != 401 {
		t.Errorf("a changed token got %d", code)
	}
	arm := w.token(w.owner(), "https://management.azure.com/.default")
	w.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	if code, out := w.armAs(arm, "GET", "/subscriptions", "2022-12-01", ""); code != 401 || !strings.Contains(errorText(out), "expired") {
		t.Errorf("an expired token: %d %v", code, out)
	}
}

func TestIssuerHostServesTheClustersKeys(t *testing.T) {
	w := newWorld(t)
	code, doc := w.send("", "GET", issuer+".well-known/openid-configuration", "")
	if code != 200 || doc["issuer"] != issuer || doc["jwks_uri"] != issuer+"openid/v1/jwks" {
		t.Fatalf("%d %v", code, doc)
	}
	code, keys := w.send("", "GET", doc["jwks_uri"].(string), "")
	if list, _ := keys["keys"].([]any); code != 200 || len(list) != 1 {
		t.Errorf("%d %v", code, keys)
	}
	resp, err := w.client.Get("https://eastus.oic.prod-aks.azure.com/x/.well-known/openid-configuration")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body := readAll(t, resp); resp.StatusCode != http.StatusNotFound || !strings.Contains(body, issuer) {
		t.Errorf("another issuer: %d %s", resp.StatusCode, body)
	}
}

func TestRegistryLogins(t *testing.T) {
	w := newWorld(t)
	identity := w.storefront()
	const host = "storefront.azurecr.io"
	ctx := t.Context()
	if ok, err := w.azure.RegistryExists(ctx, "StoreFront.azurecr.io"); !ok || err != nil {
		t.Errorf("%v %v", ok, err)
	}
	if ok, _ := w.azure.RegistryExists(ctx, "other.azurecr.io"); ok {
		t.Error("a registry that nobody created exists")
	}
	admin := w.must(200, "POST", group+"/providers/Microsoft.ContainerRegistry/registries/storefront/listCredentials", "2025-11-01", "")
	password := admin["passwords"].([]any)[1].(map[string]any)["value"].(string)
	o := w.azure.OwnerCredentials()
	podToken := func() string {
		cred, err := azidentity.NewClientAssertionCredential(tenant, prop(identity, "clientId"), func(context.Context) (string, error) { return w.serviceAccountToken(nil), nil },
			&azidentity.ClientAssertionCredentialOptions{ClientOptions: w.options()})
		if err != nil {
			t.Fatal(err)
		}
		return w.token(cred, "https://containerregistry.azure.net/.default")
	}()
	refresh, err := w.azure.RegistryToken(ctx, host, podToken)
	if err != nil {
		t.Fatal(err)
	}
	const zero = "00000000-0000-0000-0000-000000000000"
	for _, tc := range []struct {
		name, user, password string
		pull, push           bool
	}{
		{"admin", "storefront", password, true, true},
		{"owner's secret", o.ClientID, o.ClientSecret, true, true},
		{"pod's refresh token", zero, refresh, true, false},
		{"pod's access token", zero, podToken, true, false},
	} {
		principal, err := w.azure.VerifyRegistryLogin(ctx, host, tc.user, tc.password)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		pull, _ := w.azure.AllowedRegistry(ctx, principal, host, "pull")
		push, _ := w.azure.AllowedRegistry(ctx, principal, host, "push")
		if pull != tc.pull || push != tc.push {
			t.Errorf("%s: pull %t push %t", tc.name, pull, push)
		}
	}
	for _, tc := range [][3]string{
		{host, "storefront", "wrong"}, {host, "nobody", password}, {host, o.ClientID, "wrong"}, {host, zero, "junk"},
		{host, zero, w.token(w.owner(), "https://vault.azure.net/.default")}, {"other.azurecr.io", "storefront", password},
	} {
		if _, err := w.azure.VerifyRegistryLogin(ctx, tc[0], tc[1], tc[2]); !errors.Is(err, ErrRegistryLogin) || strings.Contains(err.Error(), password) {
			t.Errorf("%s as %s: %v", tc[0], tc[1], err)
		}
	}
	w.must(200, "PATCH", group+"/providers/Microsoft.ContainerRegistry/registries/storefront", "2025-11-01", `{"properties":{"adminUserEnabled":false}}`)
	if _, err := w.azure.VerifyRegistryLogin(ctx, host, "storefront", password); !errors.Is(err, ErrRegistryLogin) {
		t.Errorf("a disabled admin user: %v", err)
	}
	if ok, _ := w.azure.AllowedRegistry(ctx, "admin:storefront", host, "push"); ok {
		t.Error("a disabled admin user may push")
	}
}
