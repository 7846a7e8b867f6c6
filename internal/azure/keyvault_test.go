package azure

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

func setSecret(t *testing.T, c *azsecrets.Client, name, value string) azsecrets.SetSecretResponse {
	t.Helper()
	r, err := c.SetSecret(t.Context(), name, azsecrets.SetSecretParameters{Value: &value}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// identityToken signs a managed identity in by its service account.
func (w *world) identityToken(identity map[string]any, scope string) string {
	w.t.Helper()
	cred, err := azidentity.NewClientAssertionCredential(tenant, prop(identity, "clientId"), func(context.Context) (string, error) { return w.serviceAccountToken(nil), nil },
		&azidentity.ClientAssertionCredentialOptions{ClientOptions: w.options()})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.token(cred, scope)
}

func TestKeyVaultOnTheWire(t *testing.T) {
	w := newWorld(t)
	w.storefront()
	token := w.token(w.owner(), "https://vault.azure.net/.default")
	const kv = "https://storefront-kv.vault.azure.net"
	big := strings.Repeat("x", 25<<10)
	version := strings.Repeat("0", 32)
	for _, tc := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"PUT", "//secrets/one?api-version=7.4", `{"value":"1"}`, 200, kv + "/secrets/one/"},
		{"GET", "/secrets/one/?api-version=7.4", "", 200, "value:1"},
		{"GET", "/secrets/ONE?api-version=2026-04-01", "", 200, kv + "/secrets/one/"},
		{"GET", "/secrets/one", "", 400, "BadParameter: api-version must be specified"},
		{"GET", "/secrets/none?api-version=7.4", "", 404, "SecretNotFound: A secret with (name/id) none was not found"},
		{"GET", "/secrets/one/" + version + "?api-version=7.4", "", 404, "(name/id) one/" + version},
		{"GET", "/secrets/a_b?api-version=7.4", "", 400, "BadParameter"},
		{"PUT", "/secrets/two?api-version=7.4", `{"value":"` + big + `"}`, 200, "/secrets/two/"},
		{"PUT", "/secrets/two?api-version=7.4", `{"value":"x` + big + `"}`, 400, "BadParameter: The secret value is 25601 bytes long"},
		{"PUT", "/secrets/two?api-version=7.4", `{"attributes":{"enabled":true}}`, 400, "value"},
		{"PUT", "/secrets/two?api-version=7.4", `{"value":"s3cr3t"`, 400, "BadParameter"},
		{"PUT", "/secrets/two?api-version=7.4", `{"value":"1","attributes":{"nbf":20,"exp":10}}`, 400, "expiry"},
		{"PUT", "/secrets/past?api-version=7.4", `{"value":"1","attributes":{"nbf":10,"exp":20}}`, 200, "exp:20"},
		{"GET", "/secrets/past?api-version=7.4", "", 200, "value:1"},
		{"PUT", "/secrets/off?api-version=7.4", `{"value":"1","attributes":{"enabled":false},"tags":{"a":"b"}}`, 200, "a:b"},
		{"GET", "/secrets/off?api-version=7.4", "", 403, "SecretDisabled"},
		{"PATCH", "/secrets/off/?api-version=7.4", `{"attributes":{"enabled":true}}`, 200, "a:b"},
		{"GET", "/secrets/off?api-version=7.4", "", 200, "value:1"},
		{"PATCH", "/secrets/off?api-version=7.4", `{"value":"2"}`, 400, "cannot be changed"},
		{"DELETE", "/secrets/off?api-version=7.4", "", 200, kv + "/deletedsecrets/off"},
		{"DELETE", "/secrets/off?api-version=7.4", "", 404, "SecretNotFound"},
		{"PUT", "/secrets/off?api-version=7.4", `{"value":"1"}`, 409, "ObjectIsDeletedButRecoverable"},
		{"POST", "/deletedsecrets/off/recover?api-version=7.4", "", 200, "/secrets/off/"},
		{"DELETE", "/deletedsecrets/off?api-version=7.4", "", 404, "SecretNotFound"},
		{"GET", "/secrets?api-version=7.4&maxresults=26", "", 400, "maxresults"},
		{"GET", "/secrets?api-version=7.4&$skiptoken=***", "", 400, "skiptoken"},
		{"POST", "/secrets/restore?api-version=7.4", `{"value":"AAAA"}`, 400, "backup"},
		{"GET", "/keys?api-version=7.4", "", 501, "holds secrets only"},
		{"GET", "/nonsense?api-version=7.4", "", 404, "no operation"},
		{"POST", "/secrets/one?api-version=7.4", "{}", 405, "MethodNotAllowed"},
		{"GET", "/", "", 400, "api-version"},
	} {
		t.Run(tc.method+" "+tc.path, func(t *testing.T) {
			code, body := w.send(token, tc.method, kv+tc.path, tc.body)
			text := fmt.Sprint(body) + errorText(body)
			if code != tc.status || !strings.Contains(text, tc.want) {
				t.Errorf("%d %.300s, want %d %s", code, text, tc.status, tc.want)
			}
			if code >= 400 && strings.Contains(text, "s3cr3t") {
				t.Error("the error quotes the value")
			}
		})
	}
	t.Run("no vault", func(t *testing.T) {
		code, body := w.send(token, "GET", "https://other-kv.vault.azure.net/secrets?api-version=7.4", "")
		if code != 404 || !strings.Contains(errorText(body), `VaultNotFound: There is no key vault "other-kv"`) {
			t.Errorf("%d %v", code, body)
		}
	})
	t.Run("challenge before the body", func(t *testing.T) {
		resp, err := w.client.Post(kv+"/secrets/one", "application/json", strings.NewReader("{"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		want := `Bearer authorization="https://login.microsoftonline.com/` + tenant + `", resource="https://vault.azure.net"`
		if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") != want {
			t.Errorf("%d %s", resp.StatusCode, resp.Header.Get("WWW-Authenticate"))
		}
	})
	t.Run("token for another audience", func(t *testing.T) {
		code, body := w.send(w.token(w.owner(), "https://management.azure.com/.default"), "GET", kv+"/secrets?api-version=7.4", "")
		if code != 401 || !strings.Contains(errorText(body), "audience") {
			t.Errorf("%d %v", code, body)
		}
	})
}

func TestListsArePaged(t *testing.T) {
	w := newWorld(t)
	w.storefront()
	client := w.secrets("storefront-kv", w.owner())
	for i := range 30 {
		setSecret(t, client, fmt.Sprintf("s-%02d", i), "v")
		setSecret(t, client, "many", fmt.Sprint(i))
	}
	for i := range 30 {
		if i%2 == 0 {
			if _, err := client.DeleteSecret(t.Context(), fmt.Sprintf("s-%02d", i), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	count := map[string]int{}
	pages := 0
	for p := client.NewListSecretPropertiesPager(nil); p.More(); pages++ {
		page, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range page.Value {
			count[s.ID.Name()]++
		}
	}
	if len(count) != 16 || pages != 1 {
		t.Errorf("%d secrets on %d pages", len(count), pages)
	}
	seen := map[string]bool{}
	pages = 0
	for p := client.NewListSecretPropertiesVersionsPager("many", nil); p.More(); pages++ {
		page, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range page.Value {
			seen[s.ID.Version()] = true
		}
	}
	if len(seen) != 30 || pages != 2 {
		t.Errorf("%d versions on %d pages", len(seen), pages)
	}
	deleted := 0
	for p := client.NewListDeletedSecretPropertiesPager(nil); p.More(); {
		page, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		deleted += len(page.Value)
	}
	if deleted != 15 {
		t.Errorf("%d deleted secrets", deleted)
	}
}

func TestWhoMayReadASecret(t *testing.T) {
	w := newWorld(t)
	identity := w.storefront()
	vault := group + "/providers/Microsoft.KeyVault/vaults/storefront-kv"
	setSecret(t, w.secrets("storefront-kv", w.owner()), "one", "1")
	setSecret(t, w.secrets("storefront-kv", w.owner()), "two", "2")
	token := w.identityToken(identity, "https://vault.azure.net/.default")
	get := func(name string) (int, string) {
		code, body := w.send(token, "GET", "https://storefront-kv.vault.azure.net/secrets/"+name+"?api-version=7.5", "")
		inner, _ := body["error"].(map[string]any)
		return code, fmt.Sprint(errorText(body), inner["innererror"])
	}
	if code, _ := get("one"); code != 200 {
		t.Errorf("as Secrets User: %d", code)
	}
	w.must(200, "DELETE", vault+"/providers/Microsoft.Authorization/roleAssignments/"+guid(2), "2022-04-01", "")
	code, text := get("one")
	for _, want := range []string{"Forbidden: Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\n",
		"Caller: appid=" + prop(identity, "clientId") + ";oid=" + prop(identity, "principalId") + ";iss=https://sts.windows.net/" + tenant + "/\r\n",
		"Action: 'Microsoft.KeyVault/vaults/secrets/getSecret/action'\r\n", "Vault: storefront-kv;location=westeurope", "code:ForbiddenByRbac"} {
		if code != 403 || !strings.Contains(text, want) {
			t.Errorf("%d %q does not say %q", code, text, want)
		}
	}
	// A role on one secret reaches only that one.
	w.assign(30, vault+"/secrets/one", prop(identity, "principalId"), secretsUser)
	if code, _ := get("one"); code != 200 {
		t.Errorf("with a role on the secret: %d", code)
	}
	if code, _ := get("two"); code != 403 {
		t.Errorf("with a role on another secret: %d", code)
	}
	// With access policies roles do not count.
	w.must(200, "PATCH", vault, "2026-02-01", `{"properties":{"enableRbacAuthorization":false}}`)
	if code, text := get("one"); code != 403 || !strings.Contains(text, "does not have secrets get permission on key vault 'storefront-kv;location=westeurope'") {
		t.Errorf("%d %s", code, text)
	}
	policy := `{"properties":{"accessPolicies":[{"tenantId":"` + tenant + `","objectId":"` + prop(identity, "principalId") + `","permissions":{"secrets":["%s"]}}]}}`
	w.must(200, "PUT", vault+"/accessPolicies/add", "2026-02-01", fmt.Sprintf(policy, "List"))
	if code, _ := get("one"); code != 403 {
		t.Errorf("with a policy to list: %d", code)
	}
	added := w.must(200, "PUT", vault+"/accessPolicies/add", "2026-02-01", fmt.Sprintf(policy, "Get"))
	if code, _ := get("two"); code != 200 || !strings.Contains(prop(added, "accessPolicies"), "secrets:[List Get]") {
		t.Errorf("with a policy to get: %d %v", code, added)
	}
	w.must(200, "PUT", vault+"/accessPolicies/remove", "2026-02-01", fmt.Sprintf(policy, "Get"))
	if code, _ := get("one"); code != 403 {
		t.Errorf("without a policy: %d", code)
	}
}

func TestDeletedSecretsGoAfterTheirTime(t *testing.T) {
	w := newWorld(t)
	w.storefront()
	w.must(200, "PATCH", group+"/providers/Microsoft.KeyVault/vaults/storefront-kv", "2026-02-01", `{"properties":{"softDeleteRetentionInDays":7,"enablePurgeProtection":true}}`)
	client := w.secrets("storefront-kv", w.owner())
	set := setSecret(t, client, "gone", "v")
	if string(*set.Attributes.RecoveryLevel) != "CustomizedRecoverable" || *set.Attributes.RecoverableDays != 7 {
		t.Errorf("%v %v", *set.Attributes.RecoveryLevel, *set.Attributes.RecoverableDays)
	}
	if _, err := client.DeleteSecret(t.Context(), "gone", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := client.PurgeDeletedSecret(t.Context(), "gone", nil); !refusedWith(err, 403, "Forbidden", "purge protection") {
		t.Errorf("%v", err)
	}
	w.now = func() time.Time { return time.Now().AddDate(0, 0, 8) }
	client = w.secrets("storefront-kv", w.owner())
	if _, err := client.GetDeletedSecret(t.Context(), "gone", nil); !refusedWith(err, 404, "SecretNotFound", "gone") {
		t.Errorf("%v", err)
	}
	setSecret(t, client, "gone", "new")
}

func TestManyWritersAtOnce(t *testing.T) {
	w := newWorld(t)
	w.storefront()
	client := w.secrets("storefront-kv", w.owner())
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 5 {
				value := fmt.Sprint(i, j)
				if _, err := client.SetSecret(t.Context(), "shared", azsecrets.SetSecretParameters{Value: &value}, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	got, err := client.GetSecret(t.Context(), "shared", "", nil)
	if err != nil || len(*got.Value) < 2 {
		t.Errorf("%v", err)
	}
}
