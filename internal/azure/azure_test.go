package azure

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"github.com/lockstep-gitops/lockstep/internal/gateway"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}

const (
	tenant       = "11111111-2222-4333-8444-555555555555"
	subscription = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
	issuer       = "https://westeurope.oic.prod-aks.azure.com/" + tenant + "/0f0f0f0f-0000-4000-8000-000000000001/"
	group        = "/subscriptions/" + subscription + "/resourceGroups/storefront"
	audience     = "api://AzureADTokenExchange"
)

// world is an Azure behind its gateway, and a client of it.
type world struct {
	t       *testing.T
	dir     string
	azure   *Azure
	journal *journal.Journal
	proxy   string
	ca      *gateway.CA
	caDir   string
	client  *http.Client
	saKey   *rsa.PrivateKey
	now     func() time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: filepath.Join(t.TempDir(), "azure"), caDir: t.TempDir(), now: time.Now}
	var err error
	if w.saKey, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if w.ca, err = gateway.OpenCA(gateway.CAConfig{Dir: w.caDir}); err != nil {
		t.Fatal(err)
	}
	if w.journal, err = journal.Open(t.Context(), filepath.Join(t.TempDir(), "journal.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.journal.Close() })
	w.start()
	return w
}

// start opens the Azure in w.dir and serves it through a proxy.
func (w *world) start() {
	w.t.Helper()
	var err error
	w.azure, err = New(Config{Dir: w.dir, TenantID: tenant, SubscriptionID: subscription}, Deps{
		Journal: w.journal, Now: func() time.Time { return w.now() }, ServiceAccountIssuer: issuer,
		ServiceAccountJWKS: func(context.Context) ([]byte, error) { return w.jwks(), nil },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{StopTimeout: time.Second}, gateway.Deps{CA: w.ca})
	if err != nil {
		w.t.Fatal(err)
	}
	for pattern, h := range w.azure.Hosts() {
		if err := g.Route([]string{pattern}, h); err != nil {
			w.t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, l, gateway.Options{Proxy: true}) }()
	w.proxy = "http://" + l.Addr().String()
	proxy, _ := url.Parse(w.proxy)
	tr := &http.Transport{Proxy: http.ProxyURL(proxy), ForceAttemptHTTP2: true}
	tr.TLSClientConfig = &tls.Config{RootCAs: w.ca.Pool(), MinVersion: tls.VersionTLS12}
	w.client = &http.Client{Transport: tr, Timeout: 20 * time.Second}
	azure := w.azure
	w.t.Cleanup(func() {
		tr.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		_ = azure.Close()
	})
}

func (w *world) options() azcore.ClientOptions {
	return azcore.ClientOptions{Transport: w.client, Retry: policy.RetryOptions{MaxRetries: -1}}
}

func (w *world) jwks() []byte {
	doc, _ := json.Marshal(map[string]any{"keys": []any{map[string]any{
		"kty": "RSA", "kid": "sa", "alg": "RS256", "use": "sig",
		"n": base64.RawURLEncoding.EncodeToString(w.saKey.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(w.saKey.E)).Bytes()),
	}}})
	return doc
}

// serviceAccountToken signs a token as the cluster would.
func (w *world) serviceAccountToken(change func(jwt.MapClaims)) string {
	claims := jwt.MapClaims{"iss": issuer, "sub": "system:serviceaccount:storefront:web", "aud": []string{audience},
		"exp": w.now().Add(time.Hour).Unix(), "iat": w.now().Unix(), "nbf": w.now().Unix()}
	if change != nil {
		change(claims)
	}
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	token.Header["kid"] = "sa"
	signed, err := token.SignedString(w.saKey)
	if err != nil {
		w.t.Fatal(err)
	}
	return signed
}

// owner is the platform's credential, by the unmodified client.
func (w *world) owner() azcore.TokenCredential {
	w.t.Helper()
	o := w.azure.OwnerCredentials()
	cred, err := azidentity.NewClientSecretCredential(o.TenantID, o.ClientID, o.ClientSecret, &azidentity.ClientSecretCredentialOptions{ClientOptions: w.options()})
	if err != nil {
		w.t.Fatal(err)
	}
	return cred
}

func (w *world) token(cred azcore.TokenCredential, scope string) string {
	w.t.Helper()
	token, err := cred.GetToken(w.t.Context(), policy.TokenRequestOptions{Scopes: []string{scope}})
	if err != nil {
		w.t.Fatal(err)
	}
	return token.Token
}

// arm sends one request to the resource manager as the owner.
func (w *world) arm(method, path, version, body string) (int, map[string]any) {
	w.t.Helper()
	return w.armAs(w.token(w.owner(), "https://management.azure.com/.default"), method, path, version, body)
}

func (w *world) armAs(token, method, path, version, body string) (int, map[string]any) {
	w.t.Helper()
	target := "https://management.azure.com" + path
	if version != "" {
		sep := "?"
		if strings.Contains(path, "?") {
			sep = "&"
		}
		target += sep + "api-version=" + version
	}
	return w.send(token, method, target, body)
}

func (w *world) send(token, method, target, body string) (int, map[string]any) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	var out map[string]any
	if len(text) > 0 {
		if err := json.Unmarshal(text, &out); err != nil {
			w.t.Fatalf("%s %s: %d %s", method, target, resp.StatusCode, text)
		}
	}
	return resp.StatusCode, out
}

// must sends a request that has to succeed with the status.
func (w *world) must(status int, method, path, version, body string) map[string]any {
	w.t.Helper()
	code, out := w.arm(method, path, version, body)
	if code != status {
		w.t.Fatalf("%s %s: %d %v, want %d", method, path, code, out, status)
	}
	return out
}

func (w *world) secrets(vault string, cred azcore.TokenCredential) *azsecrets.Client {
	w.t.Helper()
	c, err := azsecrets.NewClient("https://"+vault+".vault.azure.net", cred, &azsecrets.ClientOptions{ClientOptions: w.options()})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func prop(r map[string]any, name string) string {
	props, _ := r["properties"].(map[string]any)
	return fmt.Sprint(props[name])
}

// guid makes a valid name of a role assignment.
func guid(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

const (
	secretsOfficer = "b86a8fe4-44ce-4948-aee5-eccb2c155cd7"
	secretsUser    = "4633458b-17de-408a-b874-0445c86b69e6"
	acrPull        = "7f951dda-4ed3-4680-a7ca-43fe172d538d"
	acrPush        = "8311e382-0749-4cb8-b61a-304f252e45ec"
	reader         = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
)

func (w *world) assign(n int, scope, principal, role string) {
	w.t.Helper()
	w.must(201, "PUT", scope+"/providers/Microsoft.Authorization/roleAssignments/"+guid(n), "2022-04-01", fmt.Sprintf(
		`{"properties":{"roleDefinitionId":"/subscriptions/%s/providers/Microsoft.Authorization/roleDefinitions/%s","principalId":"%s","principalType":"ServicePrincipal"}}`,
		subscription, role, principal))
}

// storefront creates the resources of the example repository. These are the calls
// that whoever sets the example up has to make, in this order.
func (w *world) storefront() (identity map[string]any) {
	w.t.Helper()
	w.must(201, "PUT", group, "2023-07-01", `{"location":"West Europe","tags":{"app":"storefront"}}`)
	w.must(201, "PUT", group+"/providers/Microsoft.ContainerRegistry/registries/storefront", "2025-11-01",
		`{"location":"westeurope","sku":{"name":"Standard"},"properties":{"adminUserEnabled":true}}`)
	w.must(201, "PUT", group+"/providers/Microsoft.KeyVault/vaults/storefront-kv", "2026-02-01",
		`{"location":"westeurope","properties":{"tenantId":"`+tenant+`","sku":{"family":"A","name":"standard"},"enableRbacAuthorization":true,"accessPolicies":[]}}`)
	identity = w.must(201, "PUT", group+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/storefront-web", "2024-11-30", `{"location":"westeurope"}`)
	w.must(201, "PUT", group+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/storefront-web/federatedIdentityCredentials/web", "2024-11-30",
		`{"properties":{"issuer":"`+issuer+`","subject":"system:serviceaccount:storefront:web","audiences":["`+audience+`"]}}`)
	vault := group + "/providers/Microsoft.KeyVault/vaults/storefront-kv"
	w.assign(1, vault, w.azure.OwnerCredentials().ObjectID, secretsOfficer)
	w.assign(2, vault, prop(identity, "principalId"), secretsUser)
	w.assign(3, group+"/providers/Microsoft.ContainerRegistry/registries/storefront", prop(identity, "principalId"), acrPull)
	return identity
}

func TestAPodReadsItsSecretWithWorkloadIdentity(t *testing.T) {
	w := newWorld(t)
	identity := w.storefront()
	changes := make(chan SecretChange, 4)
	defer w.azure.OnSecretChange(func(c SecretChange) { changes <- c })()

	value := "s3cr3t-Wörd-" + strings.Repeat("x", 100)
	set, err := w.secrets("storefront-kv", w.owner()).SetSecret(t.Context(), "db-password", azsecrets.SetSecretParameters{Value: &value}, nil)
	if err != nil {
		t.Fatal(err)
	}

	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte(w.serviceAccountToken(nil)), 0o600); err != nil {
		t.Fatal(err)
	}
	pod, err := azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
		ClientOptions: w.options(), ClientID: prop(identity, "clientId"), TenantID: tenant, TokenFilePath: tokenFile})
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.secrets("storefront-kv", pod).GetSecret(t.Context(), "db-password", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if *got.Value != value || *got.ID != *set.ID || got.ID.Version() == "" {
		t.Errorf("got %v %v", *got.Value, *got.ID)
	}
	if _, err := w.secrets("storefront-kv", pod).SetSecret(t.Context(), "db-password", azsecrets.SetSecretParameters{Value: &value}, nil); !refusedWith(err, 403, "ForbiddenByRbac", "Action: 'Microsoft.KeyVault/vaults/secrets/setSecret/action'") {
		t.Errorf("a reader could write: %v", err)
	}

	if c := <-changes; c.Action != "set" || c.Vault != "storefront-kv" || c.Name != "db-password" || c.Version != set.ID.Version() {
		t.Errorf("change %+v", c)
	}
	events, err := w.journal.Events(t.Context(), journal.Query{Stages: []journal.Stage{journal.StageSecret}})
	if err != nil || len(events) != 1 || events[0].Subject != "storefront-kv/db-password" || events[0].Data["action"] != "set" {
		t.Errorf("events %+v %v", events, err)
	}
	if text, _ := json.Marshal(events); bytes.Contains(text, []byte("s3cr3t")) {
		t.Error("the journal holds the value")
	}
}

// refusedWith reports whether err is a response with the status, an error code
// (or inner code) and a part of the message.
func refusedWith(err error, status int, code, part string) bool {
	var re *azcore.ResponseError
	if !errors.As(err, &re) || re.StatusCode != status {
		return false
	}
	return strings.Contains(re.Error(), code) && strings.Contains(strings.ReplaceAll(re.Error(), `\r\n`, "\n"), part)
}

func TestStateSurvivesAndHoldsNoPlaintext(t *testing.T) {
	w := newWorld(t)
	w.storefront()
	value := "plaintext-marker-0123456789"
	if _, err := w.secrets("storefront-kv", w.owner()).SetSecret(t.Context(), "marker", azsecrets.SetSecretParameters{Value: &value}, nil); err != nil {
		t.Fatal(err)
	}
	before := w.azure.OwnerCredentials()
	// A second process opens a copy of the files as they are now, without any
	// closing of the first: what a kill leaves behind.
	crashed := filepath.Join(t.TempDir(), "crashed")
	if err := os.CopyFS(crashed, os.DirFS(w.dir)); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(crashed)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(crashed, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte(value)) || bytes.Contains(data, []byte(base64.StdEncoding.EncodeToString([]byte(value))[:30])) {
			t.Errorf("%s holds the plaintext", e.Name())
		}
		if info, err := os.Stat(filepath.Join(w.dir, e.Name())); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v (%v)", e.Name(), info.Mode(), err)
		}
	}
	w.dir = crashed
	w.start()
	if w.azure.OwnerCredentials() != before {
		t.Error("the owner's credentials changed")
	}
	got, err := w.secrets("storefront-kv", w.owner()).GetSecret(t.Context(), "marker", "", nil)
	if err != nil || *got.Value != value {
		t.Errorf("after the crash: %v", err)
	}
	// Another master key opens nothing.
	if err := os.Remove(filepath.Join(crashed, "master.key")); err != nil {
		t.Fatal(err)
	}
	w.start()
	if _, err := w.secrets("storefront-kv", w.owner()).GetSecret(t.Context(), "marker", "", nil); !refusedWith(err, 500, "InternalError", "") {
		t.Errorf("with another master key: %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	_, err := New(Config{TenantID: "x", Region: "West Europe"}, Deps{})
	for _, want := range []string{"Dir is missing", `TenantID "x"`, `SubscriptionID ""`, `Region "West Europe"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}
