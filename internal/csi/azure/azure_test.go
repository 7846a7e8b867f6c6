package azure

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	"github.com/lockstep-gitops/lockstep/internal/csi/azuretest"
	"github.com/lockstep-gitops/lockstep/internal/csi/provider"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	shopID  = "aaaaaaaa-0000-0000-0000-000000000001"
	otherID = "aaaaaaaa-0000-0000-0000-000000000002"
	lostID  = "aaaaaaaa-0000-0000-0000-000000000003"
)

// world is an Azure with one vault, and identities with and without rights.
func world(t *testing.T) *azuretest.Azure {
	az := azuretest.New(t)
	az.Put("shop-kv", "db-password", azuretest.Secret{Value: "hunter2", Version: "v1"})
	az.Put("shop-kv", "bin", azuretest.Secret{Value: "aGVsbG8=", Version: "b1"})
	az.Put("shop-kv", "off", azuretest.Secret{Disabled: true, Version: "o1"})
	az.Put("shop-kv", "pfx", azuretest.Secret{Value: "UEZY", Version: "p1", ContentType: "application/x-pkcs12", Managed: true})
	az.Register(shopID, azuretest.App{ObjectID: "oid-shop", Subjects: []string{"system:serviceaccount:shop:web"}, Vaults: []string{"shop-kv"}, ClientSecret: "cs"})
	az.Register(otherID, azuretest.App{ObjectID: "oid-other", Subjects: []string{"system:serviceaccount:shop:web"}})
	return az
}

func newProvider(az *azuretest.Azure, annotations map[string]string) *Provider {
	return New(Config{AuthorityHost: "https://login.microsoftonline.com/", VaultDNSSuffix: "vault.azure.net", TenantID: azuretest.Tenant},
		Deps{Transport: az.Transport, Accounts: func(context.Context, string, string) (map[string]string, error) { return annotations, nil }})
}

func objects(entries ...string) string {
	var b strings.Builder
	b.WriteString("array:\n")
	for _, e := range entries {
		b.WriteString("  - |\n    " + strings.ReplaceAll(e, "\n", "\n    ") + "\n")
	}
	return b.String()
}

func secret(name string) string { return "objectName: " + name + "\nobjectType: secret" }

// request is a pod of account shop/web that mounts db-password; more changes
// its attributes.
func request(t *testing.T, more map[string]string) provider.Request {
	attributes := map[string]string{
		"keyvaultName": "shop-kv", "tenantId": azuretest.Tenant, "clientID": shopID, "objects": objects(secret("db-password")),
		provider.AttrPodName: "web-1", provider.AttrPodNamespace: "shop", provider.AttrServiceAccount: "web",
	}
	maps.Copy(attributes, more)
	return provider.Request{Attributes: attributes, Mode: 0o644,
		Secrets: map[string]string{provider.Tokens: azuretest.AccountToken(t, "shop", "web")}}
}

func TestMount(t *testing.T) {
	p := newProvider(world(t), nil)
	got, err := p.Mount(t.Context(), request(t, map[string]string{"objects": objects(
		secret("db-password")+"\nobjectAlias: db/password\nfilePermission: 0400", secret("bin")+"\nobjectEncoding: base64\nobjectVersion: b1", secret("pfx")+"\nobjectFormat: pfx\ncolour: red")}))
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		path, data string
		mode       uint32
	}{{"db/password", "hunter2", 0o400}, {"bin", "hello", 0o644}, {"pfx", "UEZY", 0o644}}
	for i, w := range want {
		f := got.Files[i]
		if f.Path != w.path || string(f.Data) != w.data || uint32(f.Mode) != w.mode {
			t.Errorf("file %d = %s %q %o, want %v", i, f.Path, f.Data, f.Mode, w)
		}
	}
	if !maps.Equal(got.Versions, map[string]string{"secret/db-password": "v1", "secret/bin": "b1", "secret/pfx": "p1"}) {
		t.Errorf("versions = %v", got.Versions)
	}
	if len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], `unknown key "colour"`) {
		t.Errorf("warnings = %q", got.Warnings)
	}
}

// TestMountIdentities covers where the identity comes from.
func TestMountIdentities(t *testing.T) {
	annotated := map[string]string{annotationClientID: shopID}
	tests := []struct {
		name        string
		annotations map[string]string
		change      func(*provider.Request)
		wantErr     string
	}{
		{name: "class", change: func(*provider.Request) {}},
		{name: "annotation", annotations: annotated, change: func(r *provider.Request) { delete(r.Attributes, "clientID") }},
		{name: "cluster's tenant", change: func(r *provider.Request) { delete(r.Attributes, "tenantId") }},
		{name: "tenantID spelling", change: func(r *provider.Request) {
			r.Attributes["tenantID"] = azuretest.Tenant
			r.Attributes["tenantId"] = "ignored"
		}},
		{name: "client secret", change: func(r *provider.Request) {
			delete(r.Attributes, "clientID")
			r.Secrets = map[string]string{"clientid": shopID, "ClientSecret": "cs"}
		}},
		{name: "wrong client secret", wantErr: "AADSTS7000215", change: func(r *provider.Request) {
			delete(r.Attributes, "clientID")
			r.Secrets = map[string]string{"clientid": shopID, "clientsecret": "no"}
		}},
		{name: "older kubelet", change: func(r *provider.Request) {
			r.Attributes[provider.Tokens], r.Secrets = r.Secrets[provider.Tokens], nil
		}},
		{name: "forged attribute loses", change: func(r *provider.Request) { r.Attributes[provider.Tokens] = "{}" }},
		{name: "nobody", wantErr: "annotate service account shop/web", change: func(r *provider.Request) { delete(r.Attributes, "clientID") }},
		{name: "no token yet", wantErr: "kubelet sent no service account token", change: func(r *provider.Request) { r.Secrets = nil }},
		{name: "token for others", wantErr: "no service account token for audience", change: func(r *provider.Request) { r.Secrets = map[string]string{provider.Tokens: `{"vault":{"token":"x"}}`} }},
		{name: "broken tokens", wantErr: "not a JSON map", change: func(r *provider.Request) { r.Secrets = map[string]string{provider.Tokens: `{"a`} }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newProvider(world(t), tt.annotations)
			req := request(t, nil)
			tt.change(&req)
			got, err := p.Mount(t.Context(), req)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Errorf("error = %v, want %q in it", err, tt.wantErr)
				}
				return
			}
			if err != nil || string(got.Files[0].Data) != "hunter2" {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

// TestMountFailures holds the words that a team reads in its pod's events.
func TestMountFailures(t *testing.T) {
	tests := []struct {
		name string
		more map[string]string
		code codes.Code
		want []string
	}{
		{"no role", map[string]string{"clientID": otherID}, codes.PermissionDenied, []string{
			"service account shop/web", otherID, "principal oid-other", `secret "db-password" of key vault "shop-kv"`, `lacks the role "Key Vault Secrets User"`,
			"403 Forbidden/ForbiddenByRbac", "Microsoft.KeyVault/vaults/secrets/getSecret/action",
			`az role assignment create --role "Key Vault Secrets User" --assignee oid-other --scope /subscriptions/0000-11/resourcegroups/rg-shop/providers/microsoft.keyvault/vaults/shop-kv`}},
		{"no secret", map[string]string{"objects": objects(secret("nope"))}, codes.NotFound, []string{
			`no secret "nope" of key vault "shop-kv"`, "404 SecretNotFound", "lockstep secret set shop-kv/nope"}},
		{"no version", map[string]string{"objects": objects(secret("db-password") + "\nobjectVersion: v9")}, codes.NotFound, []string{
			"version v9", "az keyvault secret list-versions --vault-name shop-kv --name db-password"}},
		{"no vault", map[string]string{"keyvaultName": "nope-kv"}, codes.NotFound, []string{`key vault "nope-kv"`, "VaultNotFound", "az keyvault list"}},
		{"unknown client", map[string]string{"clientID": lostID}, codes.Unauthenticated, []string{"AADSTS700016", lostID, "check clientID"}},
		{"disabled", map[string]string{"objects": objects(secret("off"))}, codes.PermissionDenied, []string{"is disabled", "SecretDisabled", "--enabled true"}},
		{"pfx", map[string]string{"objects": objects(secret("pfx"))}, codes.InvalidArgument, []string{"PFX", "objectFormat: pfx"}},
		{"wrong encoding", map[string]string{"objects": objects(secret("db-password") + "\nobjectEncoding: hex")}, codes.InvalidArgument, []string{"db-password: the value is not hex"}},
		{"pod identity", map[string]string{"usePodIdentity": "true"}, codes.InvalidArgument, []string{"usePodIdentity", "retired", "clientID"}},
		{"one of many", map[string]string{"objects": objects(secret("db-password"), secret("bin"), secret("nope"))}, codes.NotFound, []string{"nope"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newProvider(world(t), nil).Mount(t.Context(), request(t, tt.more))
			if err == nil {
				t.Fatal("mounted")
			}
			if got := provider.AsError(err).Code; got != tt.code {
				t.Errorf("code = %v, want %v", got, tt.code)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error lacks %q:\n%v", w, err)
				}
			}
			for _, secret := range []string{"hunter2", "eyJ"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("error shows %q: %v", secret, err)
				}
			}
		})
	}
}

func TestMountUntrustedAccount(t *testing.T) {
	p := newProvider(world(t), nil)
	req := request(t, map[string]string{provider.AttrServiceAccount: "intruder"})
	req.Secrets[provider.Tokens] = azuretest.AccountToken(t, "shop", "intruder")
	_, err := p.Mount(t.Context(), req)
	for _, w := range []string{"shop/intruder", "AADSTS700213", "az identity federated-credential create", "--subject system:serviceaccount:shop:intruder", "--issuer https://oidc.test/"} {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("error lacks %q: %v", w, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "Trace ID") {
		t.Errorf("error holds Entra's trace lines: %v", err)
	}
}

// TestTokensAreSharedOnlyByTheirOwner: one pod's mounts share an access token,
// another service account never gets it.
func TestTokensAreSharedOnlyByTheirOwner(t *testing.T) {
	az := world(t)
	p := newProvider(az, nil)
	req := request(t, nil)
	for range 3 {
		if _, err := p.Mount(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	if n := az.Count("token"); n != 1 {
		t.Errorf("%d tokens issued for one pod, want 1", n)
	}
	stranger := request(t, map[string]string{provider.AttrServiceAccount: "intruder"})
	stranger.Secrets[provider.Tokens] = azuretest.AccountToken(t, "shop", "intruder")
	if _, err := p.Mount(t.Context(), stranger); err == nil {
		t.Error("a stranger mounted with somebody else's token")
	}
	if n := az.Count("secret"); n != 3 {
		t.Errorf("%d reads, want one per mount", n)
	}
}

func TestIdentityCacheIsBounded(t *testing.T) {
	var c identityCache
	now := time.Now()
	for i := range 3 * maxIdentities {
		_, err := c.get([32]byte{byte(i), byte(i >> 8)}, now, func() (*identity, error) { return &identity{expires: now.Add(time.Hour)}, nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(c.by) > maxIdentities {
		t.Errorf("%d identities cached", len(c.by))
	}
}

func TestMountDeadline(t *testing.T) {
	az := world(t)
	az.Handle(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := newProvider(az, nil).Mount(ctx, request(t, nil))
	if got := provider.AsError(err); got.Code != codes.DeadlineExceeded || !strings.Contains(got.Message, `key vault "shop-kv"`) {
		t.Errorf("error = %v (%v)", err, got.Code)
	}
}

// TestMountBadServer: whatever a server sends becomes an error of this mount.
func TestMountBadServer(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"short challenge": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer authorization="x", resource="https://vault.azure.net"`)
			w.WriteHeader(401)
		},
		"no value": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{}`)) },
		"not JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`<html>`)) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.test/", http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			az := world(t)
			az.Handle(h)
			if _, err := newProvider(az, nil).Mount(t.Context(), request(t, nil)); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestAsErrorKeepsTheHint(t *testing.T) {
	_, err := newProvider(world(t), nil).Mount(t.Context(), request(t, map[string]string{"clientID": otherID}))
	var e *provider.Error
	if !errors.As(err, &e) || !strings.HasPrefix(e.Hint, "grant it: az role assignment") || strings.Contains(e.Message, "az role") {
		t.Errorf("hint = %q, message = %q", e.Hint, e.Message)
	}
}

// TestExplainVault maps answers that kubelet should see as "again" or "no".
func TestExplainVault(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		code   codes.Code
		want   string
	}{
		{500, "", codes.Unavailable, "500 Internal Server Error"},
		{503, `{"error":{"code":"ServiceUnavailable","message":"busy"}}`, codes.Unavailable, "ServiceUnavailable: busy; it is tried again"},
		{429, `{"error":{"code":"Throttled","message":"slow down"}}`, codes.ResourceExhausted, "throttled"},
		{401, `{"error":{"code":"Unauthorized","message":"AKV10032: Invalid issuer."}}`, codes.Unauthenticated, "AKV10032: Invalid issuer."},
		{400, `{"error":{"code":"BadParameter","message":"no"}}`, codes.InvalidArgument, "BadParameter: no"},
		{403, `{"error":{"code":"Forbidden","message":"m","innererror":{"code":"AccessDenied"}}}`, codes.PermissionDenied, "az keyvault set-policy --name kv --object-id c1 --secret-permissions get"},
		{403, `{"error":{"code":"Forbidden","message":"m","innererror":{"code":"ForbiddenByFirewall"}}}`, codes.PermissionDenied, "network-rule"},
		{403, `{"error":{"code":"Forbidden","message":"m","innererror":{"code":"ForbiddenByRbac"}}}`, codes.PermissionDenied, "--scope $(az keyvault show --name kv --query id -o tsv)"},
		{403, strings.Repeat("<html>", 5000), codes.PermissionDenied, "403 Forbidden"},
	} {
		resp := &azcore.ResponseError{StatusCode: tt.status, RawResponse: &http.Response{StatusCode: tt.status, Body: io.NopCloser(strings.NewReader(tt.body))}}
		e := explainVault(resp, "kv", object{Name: "s"}, &identity{clientID: "c1", serviceAccount: "shop/web"})
		if e.Code != tt.code || !strings.Contains(e.Error(), tt.want) {
			t.Errorf("%d %s: %v %v", tt.status, tt.body, e.Code, e)
		}
		if len(e.Error()) > 1024 {
			t.Errorf("%d: %d bytes do not fit into an event", tt.status, len(e.Error()))
		}
	}
}
