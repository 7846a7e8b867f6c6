// Package azuretest is the least of Entra and Key Vault that a test of the CSI
// driver needs, on a real TLS socket.
//
// Input: vaults, identities and rights as Go maps. Output: [Azure.Transport],
// which reaches login.microsoftonline.com and *.vault.azure.net there.
//
// It is for tests only. Start reading at [New].
package azuretest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Tenant owns everything here.
const Tenant = "11111111-2222-3333-4444-555555555555"

const tokenKey = "only for tests"

// Secret is one secret of a vault.
type Secret struct {
	Value, Version, ContentType string
	Managed, Disabled           bool
}

// App is an identity that Entra knows by its client id.
type App struct {
	ObjectID string
	// Subjects that may exchange their tokens, "system:serviceaccount:ns:name".
	Subjects []string
	// ClientSecret is the other way to a token.
	ClientSecret string
	// Vaults that it may read.
	Vaults []string
}

// Azure is a running server.
type Azure struct {
	Transport http.RoundTripper

	mu      sync.Mutex
	vaults  map[string]map[string]Secret // vault -> name -> secret
	apps    map[string]App               // client id -> app
	counts  map[string]int               // "token", "secret"
	handler http.Handler                 // instead of all of the above
	trust   func(assertion string) (subject string, ok bool)
}

// New starts a server that ends with the test.
func New(t testing.TB) *Azure {
	t.Helper()
	a := &Azure{vaults: map[string]map[string]Secret{}, apps: map[string]App{}, counts: map[string]int{},
		trust: func(assertion string) (string, bool) {
			claims, ok := verify(assertion)
			subject, _ := claims["sub"].(string)
			return subject, ok
		}}
	server := httptest.NewTLSServer(a)
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
		},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the test's own server
	}
	a.Transport = transport
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		server.Close()
	})
	return a
}

// Put stores a secret.
func (a *Azure) Put(vault, name string, s Secret) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.vaults[vault] == nil {
		a.vaults[vault] = map[string]Secret{}
	}
	a.vaults[vault][name] = s
}

// Register adds or replaces an identity.
func (a *Azure) Register(clientID string, app App) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.apps[clientID] = app
}

// Handle answers every request by h; nil means as usual.
func (a *Azure) Handle(h http.Handler) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handler = h
}

// Trust reads client assertions by f instead of only those of [AccountToken].
func (a *Azure) Trust(f func(assertion string) (subject string, ok bool)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.trust = f
}

// Count says how many "token"s were issued or "secret"s were read.
func (a *Azure) Count(what string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counts[what]
}

// AccountToken is a service account token as kubelet would send it, in the
// JSON map of csi.storage.k8s.io/serviceAccount.tokens.
func AccountToken(t testing.TB, namespace, account string) string {
	t.Helper()
	expires := time.Now().Add(time.Hour)
	token := sign(jwt.MapClaims{"iss": "https://oidc.test/", "sub": "system:serviceaccount:" + namespace + ":" + account,
		"aud": "api://AzureADTokenExchange", "exp": expires.Unix(), "jti": fmt.Sprint(time.Now().UnixNano())})
	text, err := json.Marshal(map[string]any{"api://AzureADTokenExchange": map[string]any{"token": token, "expirationTimestamp": expires.UTC().Format(time.RFC3339)}})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func sign(claims jwt.MapClaims) string {
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(tokenKey))
	if err != nil {
		panic(err) // HS256 with a key cannot fail
	}
	return token
}

func verify(token string) (jwt.MapClaims, bool) {
	claims := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return []byte(tokenKey), nil })
	return claims, err == nil
}

// ServeHTTP implements http.Handler by the Host of the request.
func (a *Azure) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.handler != nil:
		a.handler.ServeHTTP(w, r)
	case r.Host == "login.microsoftonline.com" && strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration"):
		base := "https://login.microsoftonline.com/" + Tenant
		reply(w, 200, map[string]any{"issuer": base + "/v2.0", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "token_endpoint": base + "/oauth2/v2.0/token"})
	case r.Host == "login.microsoftonline.com" && r.URL.Path == "/"+Tenant+"/oauth2/v2.0/token":
		a.token(w, r)
	case strings.HasSuffix(r.Host, ".vault.azure.net"):
		a.secret(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (a *Azure) token(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, code, text string) {
		reply(w, status, map[string]any{"error": code, "error_description": text + " Trace.\r\nTrace ID: 1\r\nTimestamp: now"})
	}
	clientID := r.FormValue("client_id")
	app, ok := a.apps[clientID]
	if !ok {
		refuse(400, "unauthorized_client", "AADSTS700016: Application with identifier '"+clientID+"' was not found in the directory.")
		return
	}
	if secret := r.FormValue("client_secret"); secret != "" {
		if secret != app.ClientSecret {
			refuse(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
			return
		}
	} else {
		subject, ok := a.trust(r.FormValue("client_assertion"))
		if !ok || !slices.Contains(app.Subjects, subject) {
			refuse(401, "invalid_client", "AADSTS700213: No matching federated identity record found for presented assertion subject '"+subject+"'.")
			return
		}
	}
	a.counts["token"]++
	reply(w, 200, map[string]any{"token_type": "Bearer", "expires_in": 3599, "access_token": sign(jwt.MapClaims{
		"appid": clientID, "oid": app.ObjectID, "tid": Tenant, "aud": "https://vault.azure.net", "exp": time.Now().Add(time.Hour).Unix()})})
}

func (a *Azure) secret(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, code, inner, text string) {
		e := map[string]any{"code": code, "message": text}
		if inner != "" {
			e["innererror"] = map[string]any{"code": inner}
		}
		reply(w, status, map[string]any{"error": e})
	}
	vault, _, _ := strings.Cut(r.Host, ".")
	secrets, ok := a.vaults[vault]
	if !ok {
		refuse(404, "VaultNotFound", "", "The vault was not found.")
		return
	}
	claims, ok := verify(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	if !ok {
		w.Header().Set("WWW-Authenticate", `Bearer authorization="https://login.microsoftonline.com/`+Tenant+`", resource="https://vault.azure.net"`)
		refuse(401, "Unauthorized", "", "AKV10000: Request is missing a Bearer or PoP token.")
		return
	}
	clientID, _ := claims["appid"].(string)
	if !slices.Contains(a.apps[clientID].Vaults, vault) {
		refuse(403, "Forbidden", "ForbiddenByRbac", "Caller is not authorized to perform action on resource.\r\nAction: 'Microsoft.KeyVault/vaults/secrets/getSecret/action'\r\nResource: '/subscriptions/0000-11/resourcegroups/rg-shop/providers/microsoft.keyvault/vaults/"+vault+"/secrets/x'")
		return
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	s, ok := secrets[parts[1]]
	switch {
	case !ok, len(parts) == 3 && parts[2] != s.Version:
		refuse(404, "SecretNotFound", "", "A secret with (name/id) "+strings.Join(parts[1:], "/")+" was not found in this key vault.")
	case s.Disabled:
		refuse(403, "Forbidden", "SecretDisabled", "Operation get is not allowed on a disabled secret.")
	default:
		a.counts["secret"]++
		body := map[string]any{"value": s.Value, "id": "https://" + r.Host + "/secrets/" + parts[1] + "/" + s.Version, "attributes": map[string]any{"enabled": true}}
		if s.ContentType != "" {
			body["contentType"] = s.ContentType
		}
		if s.Managed {
			body["kid"] = "https://" + r.Host + "/keys/" + parts[1] + "/" + s.Version
		}
		reply(w, 200, body)
	}
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client went away
}
