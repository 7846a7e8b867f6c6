package az

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
)

// azure answers as Azure's documentation says, by host name.
type azure struct {
	server  *httptest.Server
	secrets map[string]string
	tokens  []url.Values
}

// RoundTrip sends every request to the one server, with its host.
func (a *azure) RoundTrip(r *http.Request) (*http.Response, error) {
	target, err := url.Parse(a.server.URL)
	if err != nil {
		return nil, err
	}
	asked := r
	r = r.Clone(r.Context())
	r.Host = r.URL.Host
	r.URL.Scheme, r.URL.Host = target.Scheme, target.Host
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		resp.Request = asked
	}
	return resp, err
}

const subscriptionID = "11111111-1111-1111-1111-111111111111"

func newAzure(t *testing.T) *azure {
	t.Helper()
	a := &azure{secrets: map[string]string{}}
	images := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	reply := func(w http.ResponseWriter, status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	a.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		authorized := strings.HasPrefix(r.Header.Get("Authorization"), "Bearer at-")
		switch {
		case r.Host == "login.microsoftonline.com":
			a.tokens = append(a.tokens, r.PostForm)
			if r.PostForm.Get("client_secret") != "s3cret" && r.PostForm.Get("client_assertion") != "jwt" {
				reply(w, 401, map[string]string{"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."})
				return
			}
			reply(w, 200, map[string]any{"access_token": "at-" + r.PostForm.Get("scope"), "expires_in": 3600})
		case strings.HasSuffix(r.Host, ".azurecr.io") && r.URL.Path == "/oauth2/exchange":
			if r.PostForm.Get("service") != r.Host || r.PostForm.Get("access_token") == "" {
				reply(w, 401, map[string]any{"errors": []any{map[string]string{"code": "UNAUTHORIZED", "message": "no"}}})
				return
			}
			reply(w, 200, map[string]string{"refresh_token": "refresh"})
		case strings.HasSuffix(r.Host, ".azurecr.io"), r.Host == "ghcr.io":
			images.ServeHTTP(w, r)
		case !authorized:
			reply(w, 401, map[string]any{"error": map[string]string{"code": "Unauthorized", "message": "no token"}})
		case strings.HasSuffix(r.Host, ".vault.azure.net"):
			a.vault(w, r, reply)
		case r.URL.Path == "/subscriptions":
			reply(w, 200, map[string]any{"value": []any{map[string]string{"subscriptionId": subscriptionID, "displayName": "dev", "state": "Enabled"}}})
		case strings.HasSuffix(r.URL.Path, "/listClusterUserCredential"):
			config := "apiVersion: v1\nkind: Config\nclusters:\n- name: k\n  cluster: {server: https://k}\nusers:\n- name: u\n  user: {token: t}\ncontexts:\n- name: k\n  context: {cluster: k, user: u}\ncurrent-context: k\n"
			reply(w, 200, map[string]any{"kubeconfigs": []any{map[string]string{"name": "clusterUser", "value": base64.StdEncoding.EncodeToString([]byte(config))}}})
		case strings.HasSuffix(r.URL.Path, "/registries"):
			reply(w, 200, map[string]any{"value": []any{map[string]any{"id": "/subscriptions/x/resourceGroups/rg/providers/Microsoft.ContainerRegistry/registries/shop", "name": "shop", "location": "westeurope",
				"properties": map[string]any{"loginServer": "shop.azurecr.io"}}}})
		case strings.HasSuffix(r.URL.Path, "/resourcegroups/rg"):
			reply(w, 200, map[string]any{"name": "rg", "location": "westeurope", "properties": map[string]string{"provisioningState": "Succeeded"}})
		default:
			reply(w, 404, map[string]any{"error": map[string]string{"code": "ResourceNotFound", "message": "there is no " + r.URL.Path}})
		}
	}))
	t.Cleanup(a.server.Close)
	return a
}

func (a *azure) vault(w http.ResponseWriter, r *http.Request, reply func(http.ResponseWriter, int, any)) {
	key := r.Host + strings.TrimSuffix(r.URL.Path, "/")
	answer := func() map[string]any {
		return map[string]any{"id": "https://" + key + "/v1", "value": a.secrets[key], "attributes": map[string]any{"enabled": true, "created": 1700000000}}
	}
	switch {
	case r.URL.Path == "/secrets":
		reply(w, 200, map[string]any{"value": []any{map[string]any{"id": "https://" + r.Host + "/secrets/db"}}})
	case r.Method == http.MethodPut:
		var in struct{ Value string }
		_ = json.NewDecoder(r.Body).Decode(&in)
		a.secrets[key] = in.Value
		reply(w, 200, answer())
	case a.secrets[key] == "":
		reply(w, 404, map[string]any{"error": map[string]string{"code": "SecretNotFound", "message": "A secret with (name/id) was not found in this key vault."}})
	default:
		reply(w, 200, answer())
	}
}

// az runs one command in a home folder.
func (a *azure) az(t *testing.T, home, line string, more ...string) (string, string, int) {
	t.Helper()
	var out, err bytes.Buffer
	p := &shim.Process{Args: append(strings.Fields(line), more...), Env: []string{"HOME=" + home, "RUNNER_TEMP=" + home}, Dir: home, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &err, Transport: a}
	code := Main(t.Context(), p)
	return out.String(), err.String(), code
}

const loginLine = "login --service-principal -u client --tenant tenant --federated-token jwt -o none"

func TestAccount(t *testing.T) {
	a, home := newAzure(t), t.TempDir()
	for _, c := range []struct {
		line, want string // want is in the output, or in the errors
		code       int
	}{
		{"account show", "Please run 'az login'", 1},
		{"login --service-principal -u client --tenant tenant -p wrong", "AADSTS7000215", 1},
		{"login --service-principal -u client --tenant tenant -p s3cret --query [0].id -o tsv", subscriptionID, 0},
		{loginLine, "", 0},
		{"account show --query id -o tsv", subscriptionID, 0},
		{"account show --query {tenant:tenantId,who:user.name} -o tsv", "tenant\tclient", 0},
		{"account list -o table", "AzureCloud", 0},
		{"account set -s dev", "", 0},
		{"account set -s none", "doesn't exist", 1},
		{"account get-access-token --resource https://vault.azure.net --query accessToken -o tsv", "at-https://vault.azure.net/.default", 0},
		{"acr show -n shop --query loginServer -o tsv", "shop.azurecr.io", 0},
		{"acr list --query [].resourceGroup -o yaml", "- rg", 0},
		{"group show -n rg --query properties.provisioningState -o tsv", "Succeeded", 0},
		{"group exists -n none", "false", 0},
		{"group show -n none", "(ResourceNotFound)", 3},
		{"group show -n rg --query [", "invalid jmespath", 1},
		{"network vnet create", "does not know this command", 2},
		{"group list --wrong", "unknown option --wrong", 2},
		{"version -o tsv --query lockstep", "emulated", 0},
		{"account clear", "", 0},
		{"group list", "az login", 1},
	} {
		out, errs, code := a.az(t, home, c.line)
		if code != c.code || !strings.Contains(out+errs, c.want) {
			t.Errorf("az %s: code %d\n%s%s", c.line, code, out, errs)
		}
		if strings.Contains(out+errs, "s3cret") {
			t.Errorf("az %s shows the secret", c.line)
		}
	}
	last := a.tokens[len(a.tokens)-1]
	if last.Get("client_assertion") != "jwt" || last.Get("grant_type") != "client_credentials" {
		t.Errorf("token request %v", last)
	}
}

func TestVault(t *testing.T) {
	a, home := newAzure(t), t.TempDir()
	a.az(t, home, loginLine)
	if out, errs, code := a.az(t, home, "keyvault secret set --vault-name kv --name db --query name -o tsv --value", "pass word"); code != 0 || out != "db\n" {
		t.Fatalf("%d %s%s", code, out, errs)
	}
	for line, want := range map[string]string{
		"keyvault secret show --vault-name kv -n db --query value -o tsv":                      "pass word\n",
		"keyvault secret show --id https://kv.vault.azure.net/secrets/db --query value -o tsv": "pass word\n",
		"keyvault secret show --vault-name kv -n db --query attributes.created -o tsv":         "2023-11-14T22:13:20+00:00\n",
		"keyvault secret list --vault-name kv --query [].name -o tsv":                          "db\n",
		"keyvault secret download --vault-name kv -n db --file out.txt":                        "",
		"aks get-credentials -g rg -n k --overwrite-existing":                                  "",
	} {
		if out, errs, code := a.az(t, home, line); code != 0 || out != want {
			t.Errorf("az %s: %d %q %s", line, code, out, errs)
		}
	}
	if data, err := os.ReadFile(filepath.Join(home, "out.txt")); err != nil || string(data) != "pass word" {
		t.Errorf("%q %v", data, err)
	}
	if data, err := os.ReadFile(filepath.Join(home, ".kube/config")); err != nil || !strings.Contains(string(data), "current-context: k") || !strings.Contains(string(data), "server: https://k") {
		t.Errorf("%s %v", data, err)
	}
	if _, errs, code := a.az(t, home, "keyvault secret show --vault-name kv -n none"); code != exitNotFound || !strings.Contains(errs, "SecretNotFound") {
		t.Errorf("%d %s", code, errs)
	}
	info, err := os.Stat(filepath.Join(home, ".azure/lockstep.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the login's file: %v %v", info, err)
	}
}

func TestRegistry(t *testing.T) {
	a, home := newAzure(t), t.TempDir()
	a.az(t, home, loginLine)
	if out, errs, code := a.az(t, home, "acr login -n shop"); code != 0 || !strings.Contains(out, "Login Succeeded") {
		t.Fatalf("%d %s%s", code, out, errs)
	}
	config, err := os.ReadFile(filepath.Join(home, ".docker/config.json"))
	if want := base64.StdEncoding.EncodeToString([]byte(tokenUser + ":refresh")); err != nil || !strings.Contains(string(config), want) {
		t.Errorf("%s %v", config, err)
	}
	img, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	from, err := name.ParseReference("ghcr.io/o/base:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(from, img, remote.WithTransport(a)); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := a.az(t, home, "acr import -n shop --source ghcr.io/o/base:1 --image mirror/base:1"); code != 0 {
		t.Fatalf("%d %s", code, errs)
	}
	if _, errs, code := a.az(t, home, "acr import -n shop --source ghcr.io/o/base:1 --image mirror/base:1"); code != 1 || !strings.Contains(errs, "already exists") {
		t.Errorf("a second import: %d %s", code, errs)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"acr repository show-tags -n shop --repository mirror/base -o tsv":                         "1\n",
		"acr repository show-manifests -n shop --repository mirror/base --query [0].digest -o tsv": digest.String() + "\n",
		"acr repository show -n shop --image mirror/base:1 --query digest -o tsv":                  digest.String() + "\n",
		"acr login -n shop --expose-token --query loginServer -o tsv":                              "shop.azurecr.io\n",
	} {
		if out, errs, code := a.az(t, home, line); code != 0 || out != want {
			t.Errorf("az %s: %d %q %s", line, code, out, errs)
		}
	}
	if out, _, code := a.az(t, home, "acr repository list -n shop --query", "[?contains(@,'mirror')]", "-o", "tsv"); code != 0 || !strings.Contains(out, "mirror/base") {
		t.Errorf("%d %q", code, out)
	}
}
