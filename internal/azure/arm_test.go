package azure

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func readAll(t *testing.T, resp *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// errorText is "code: message" of an error body.
func errorText(body map[string]any) string {
	e, _ := body["error"].(map[string]any)
	return fmt.Sprint(e["code"], ": ", e["message"])
}

func TestResourceManagerRefusals(t *testing.T) {
	w := newWorld(t)
	w.storefront()
	const (
		vaults     = group + "/providers/Microsoft.KeyVault/vaults/"
		registries = group + "/providers/Microsoft.ContainerRegistry/registries/"
		identities = group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/"
		assigns    = group + "/providers/Microsoft.Authorization/roleAssignments/"
		v          = "2024-11-30"
	)
	vault := `{"location":"westeurope","properties":{"tenantId":"` + tenant + `","sku":{"name":"standard","family":"A"}%s}}`
	role := `{"properties":{"roleDefinitionId":"/providers/Microsoft.Authorization/roleDefinitions/` + reader + `","principalId":"%s"%s}}`
	for _, tc := range []struct {
		method, path, version, body string
		status                      int
		want                        string
	}{
		{"GET", group, "", "", 400, "MissingApiVersionParameter"},
		{"GET", group, "latest", "", 400, "InvalidApiVersionParameter"},
		{"GET", "/subscriptions/" + guid(1), v, "", 404, "SubscriptionNotFound"},
		{"GET", "/subscriptions/" + subscription + "/resourceGroups/none", v, "", 404, "ResourceGroupNotFound: Resource group 'none' could not be found."},
		{"GET", vaults + "none", v, "", 404, "ResourceNotFound: The Resource 'Microsoft.KeyVault/vaults/none' under resource group 'storefront' was not found."},
		{"GET", strings.Replace(vaults, "storefront", "none", 1) + "x", v, "", 404, "ResourceGroupNotFound"},
		{"PUT", group + "/providers/Microsoft.Web/sites/x", v, "{}", 400, "InvalidResourceType: The resource type 'Microsoft.Web/sites' is not supported by this local Azure. It has: Microsoft.ContainerRegistry/registries,"},
		{"GET", "/subscriptions/" + subscription + "/providers/Microsoft.Web", v, "", 404, "InvalidResourceNamespace"},
		{"GET", "/nonsense", v, "", 404, "InvalidRequestUri"},
		{"PUT", "/subscriptions/" + subscription + "/resourceGroups/new", v, `{}`, 400, "LocationRequired"},
		{"PUT", "/subscriptions/" + subscription + "/resourceGroups/bad.", v, `{"location":"westeurope"}`, 400, "InvalidResourceGroup"},
		{"PUT", group, v, `{"location":"eastus"}`, 409, "InvalidResourceLocation"},
		{"PUT", group, v, `[]`, 400, "InvalidRequestContent"},
		{"PUT", group, v, ``, 400, "InvalidRequestContent"},
		{"PUT", group, v, `{"location":"westeurope","tags":{"a":1}}`, 400, "InvalidTagValue"},
		{"PUT", vaults + "a--b", v, fmt.Sprintf(vault, ""), 400, "InvalidResourceName"},
		{"PUT", vaults + "other", v, fmt.Sprintf(vault, `,"softDeleteRetentionInDays":5`), 400, "softDeleteRetentionInDays"},
		{"PUT", vaults + "other", v, fmt.Sprintf(vault, `,"enableSoftDelete":false`), 400, "enableSoftDelete"},
		{"PUT", vaults + "other", v, fmt.Sprintf(vault, `,"accessPolicies":[{"objectId":"x"}]`), 400, "objectId"},
		{"PUT", vaults + "other", v, `{"location":"westeurope","properties":{"tenantId":"` + guid(1) + `"}}`, 400, "one tenant '" + tenant},
		{"PUT", vaults + "other", v, `{"location":"westeurope","properties":{"tenantId":"` + tenant + `"}}`, 400, "sku.name"},
		{"PUT", strings.Replace(vaults, "/storefront/", "/second/", 1) + "storefront-kv", v, fmt.Sprintf(vault, ""), 409, "VaultAlreadyExists"},
		{"PUT", registries + "bad-name", v, `{"location":"westeurope","sku":{"name":"Basic"}}`, 400, "5 to 50 letters and digits"},
		{"PUT", registries + "another", v, `{"location":"westeurope"}`, 400, "InvalidSku"},
		{"POST", registries + "storefront/buildTask", v, `{}`, 400, "'POST buildTask' of the resource type Microsoft.ContainerRegistry/registries is not supported"},
		{"PUT", identities + "none/federatedIdentityCredentials/abc", v, `{}`, 404, "ParentResourceNotFound"},
		{"PUT", identities + "storefront-web/federatedIdentityCredentials/abc", v, `{"properties":{"issuer":"http://x","subject":"s","audiences":["a"]}}`, 400, "InvalidIssuer"},
		{"PUT", identities + "storefront-web/federatedIdentityCredentials/abc", v, `{"properties":{"issuer":"https://x","subject":"s","audiences":[]}}`, 400, "InvalidAudiences"},
		{"PUT", identities + "storefront-web/federatedIdentityCredentials/abc", v, `{"properties":{"issuer":"` + issuer + `","subject":"system:serviceaccount:storefront:web","audiences":["a"]}}`, 409, "Issuer and subject combination already exists"},
		{"PUT", assigns + "x", v, fmt.Sprintf(role, guid(1), ""), 400, "InvalidRoleAssignmentId"},
		{"PUT", assigns + guid(50), v, fmt.Sprintf(role, guid(1), ""), 400, "PrincipalNotFound"},
		{"PUT", assigns + guid(50), v, fmt.Sprintf(role, "x", ""), 400, "InvalidPrincipalId"},
		{"PUT", assigns + guid(50), v, fmt.Sprintf(role, guid(1), `,"condition":"x"`), 400, "Conditions"},
		{"PUT", assigns + guid(50), v, `{"properties":{"roleDefinitionId":"/x/` + guid(1) + `","principalId":"` + guid(1) + `"}}`, 400, "RoleDefinitionDoesNotExist"},
		{"PUT", vaults + "none/providers/Microsoft.Authorization/roleAssignments/" + guid(51), v, fmt.Sprintf(role, guid(1), `,"principalType":"User"`), 404, "ResourceNotFound"},
		{"GET", assigns + guid(50), v, "", 404, "RoleAssignmentNotFound"},
		{"PUT", group + "/providers/Microsoft.Authorization/roleDefinitions/" + guid(1), v, "{}", 400, "built-in roles only"},
		{"DELETE", "/subscriptions/" + subscription + "/resourceGroups/none", v, "", 404, "ResourceGroupNotFound"},
	} {
		t.Run(tc.method+" "+tc.path[max(0, len(tc.path)-40):], func(t *testing.T) {
			if strings.Contains(tc.path, "/second/") {
				w.arm("PUT", "/subscriptions/"+subscription+"/resourceGroups/second", v, `{"location":"westeurope"}`)
			}
			code, body := w.arm(tc.method, tc.path, tc.version, tc.body)
			if code != tc.status || !strings.Contains(errorText(body), tc.want) {
				t.Errorf("%d %s, want %d %s", code, errorText(body), tc.status, tc.want)
			}
		})
	}
	if code, body := w.send("", "GET", "https://management.azure.com"+group+"?api-version="+v, ""); code != 401 || !strings.Contains(errorText(body), "AuthenticationFailed") {
		t.Errorf("without a token: %d %v", code, body)
	}
}

func TestResourcesAreStoredAsSentWithDefaults(t *testing.T) {
	w := newWorld(t)
	w.storefront()
	id := group + "/providers/Microsoft.KeyVault/vaults/storefront-kv"
	// Ids match without regard to case and are shown as created.
	vault := w.must(200, "GET", strings.ToUpper(id[:20])+strings.ToLower(id[20:]), "2099-01-01", "")
	if vault["id"] != id || vault["name"] != "storefront-kv" || vault["type"] != "Microsoft.KeyVault/vaults" {
		t.Errorf("%v", vault)
	}
	for name, want := range map[string]string{"vaultUri": "https://storefront-kv.vault.azure.net/", "provisioningState": "Succeeded",
		"enableRbacAuthorization": "true", "softDeleteRetentionInDays": "90", "publicNetworkAccess": "Enabled", "accessPolicies": "[]"} {
		if got := prop(vault, name); got != want {
			t.Errorf("%s = %s, want %s", name, got, want)
		}
	}
	// Unknown properties and numbers stay; a PUT replaces, a PATCH merges.
	body := `{"location":"West Europe","tags":{"a":"1"},"properties":{"tenantId":"` + tenant + `","sku":{"family":"A","name":"standard"},"future":{"big":12345678901234567890}}}`
	put := w.must(200, "PUT", id, "2026-02-01", body)
	if prop(put, "future") != "map[big:1.2345678901234567e+19]" || prop(put, "enableRbacAuthorization") != "true" {
		t.Errorf("%v", put)
	}
	patched := w.must(200, "PATCH", id, "2026-02-01", `{"tags":{"b":"2"},"properties":{"enablePurgeProtection":true}}`)
	if fmt.Sprint(patched["tags"]) != "map[b:2]" || prop(patched, "future") == "<nil>" || prop(patched, "enablePurgeProtection") != "true" {
		t.Errorf("%v", patched)
	}
	if code, out := w.arm("PATCH", id, "2026-02-01", `{"properties":{"enablePurgeProtection":false}}`); code != 400 || !strings.Contains(errorText(out), "irreversible") {
		t.Errorf("%d %v", code, out)
	}
	registry := w.must(200, "GET", group+"/providers/Microsoft.ContainerRegistry/registries/storefront", "2025-11-01", "")
	for _, name := range []string{"publicNetworkAccess", "zoneRedundancy", "adminUserEnabled", "loginServer", "policies"} {
		if prop(registry, name) == "<nil>" {
			t.Errorf("the registry has no %s, which clients read", name)
		}
	}
	// Lists.
	for path, want := range map[string]int{
		"/subscriptions": 1, "/subscriptions/" + subscription + "/resourceGroups": 1, group + "/resources?$top=10": 3,
		"/subscriptions/" + subscription + "/resources?$filter=resourceType%20eq%20'Microsoft.KeyVault/vaults'":           1,
		"/subscriptions/" + subscription + "/providers/Microsoft.KeyVault/vaults":                                         1,
		group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities":                                             1,
		group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/storefront-web/federatedIdentityCredentials": 1,
		group + "/providers/Microsoft.ContainerRegistry/registries/storefront/replications":                               0,
		id + "/providers/Microsoft.Authorization/roleDefinitions?$filter=roleName%20eq%20'Key%20Vault%20Secrets%20User'":  1,
		id + "/providers/Microsoft.Authorization/roleAssignments?$filter=atScope()":                                       3,
		"/subscriptions/" + subscription + "/providers":                                                                   5,
	} {
		list, ok := w.must(200, "GET", path, "2022-09-01", "")["value"].([]any)
		if !ok || len(list) != want {
			t.Errorf("%s: %d items, want %d", path, len(list), want)
		}
	}
}

func TestRoleAssignmentsDecideInTheResourceManager(t *testing.T) {
	w := newWorld(t)
	identity := w.storefront()
	pod := w.identityToken(identity, "https://management.azure.com/.default")
	read := func() int {
		code, _ := w.armAs(pod, "GET", group+"/providers/Microsoft.KeyVault/vaults/storefront-kv", "2023-07-01", "")
		return code
	}
	code, body := w.armAs(pod, "PUT", group, "2023-07-01", `{"location":"westeurope"}`)
	want := fmt.Sprintf("AuthorizationFailed: The client '%s' with object id '%s' does not have authorization to perform action 'Microsoft.Resources/subscriptions/resourceGroups/write' over scope '%s'",
		prop(identity, "clientId"), prop(identity, "principalId"), group)
	if code != 403 || !strings.Contains(errorText(body), want) {
		t.Errorf("%d %s", code, errorText(body))
	}
	if code := read(); code != 403 {
		t.Errorf("read without a role: %d", code)
	}
	w.assign(10, group, prop(identity, "principalId"), reader)
	if code := read(); code != 200 {
		t.Errorf("read as Reader: %d", code)
	}
	if code, _ := w.armAs(pod, "DELETE", group, "2023-07-01", ""); code != 403 {
		t.Errorf("delete as Reader: %d", code)
	}
	assignment := group + "/providers/Microsoft.Authorization/roleAssignments/" + guid(10)
	again := fmt.Sprintf(`{"properties":{"roleDefinitionId":"/x/%s","principalId":"%s"}}`, reader, prop(identity, "principalId"))
	w.must(200, "PUT", assignment, "2022-04-01", again)
	if code, body := w.arm("PUT", assignment, "2022-04-01", strings.Replace(again, reader, acrPush, 1)); code != 400 || !strings.Contains(errorText(body), "RoleAssignmentUpdateNotPermitted") {
		t.Errorf("%d %v", code, body)
	}
	if code, body := w.arm("PUT", strings.Replace(assignment, guid(10), guid(11), 1), "2022-04-01", again); code != 409 || !strings.Contains(errorText(body), "RoleAssignmentExists") {
		t.Errorf("%d %v", code, body)
	}
	w.must(200, "DELETE", assignment, "2022-04-01", "")
	if code, _ := w.arm("DELETE", assignment, "2022-04-01", ""); code != 204 {
		t.Errorf("delete again: %d", code)
	}
	if code := read(); code != 403 {
		t.Errorf("read after the role was taken: %d", code)
	}
	// A new identity of the same name inherits nothing.
	path := group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/storefront-web"
	w.must(200, "DELETE", path, "2024-11-30", "")
	if code, _ := w.armAs(pod, "GET", group, "2023-07-01", ""); code != 401 {
		t.Errorf("a token of a deleted identity: %d", code)
	}
	w.must(201, "PUT", path, "2024-11-30", `{"location":"westeurope"}`)
	list := w.must(200, "GET", group+"/providers/Microsoft.KeyVault/vaults/storefront-kv/providers/Microsoft.Authorization/roleAssignments?$filter=principalId%20eq%20'"+prop(identity, "principalId")+"'", "2022-04-01", "")
	if n := len(list["value"].([]any)); n != 0 {
		t.Errorf("%d role assignments were inherited", n)
	}
}

func TestDeletedVaultsAreKeptRecoveredAndPurged(t *testing.T) {
	w := newWorld(t)
	w.storefront()
	value := "v"
	client := w.secrets("storefront-kv", w.owner())
	setSecret(t, client, "kept", value)
	id := group + "/providers/Microsoft.KeyVault/vaults/storefront-kv"
	deleted := "/subscriptions/" + subscription + "/providers/Microsoft.KeyVault/locations/westeurope/deletedVaults/storefront-kv"
	body := `{"location":"westeurope","properties":{"tenantId":"` + tenant + `","sku":{"family":"A","name":"standard"}%s}}`

	if code, _ := w.arm("GET", deleted, "2026-02-01", ""); code != 404 {
		t.Errorf("a live vault is among the deleted: %d", code)
	}
	w.must(200, "DELETE", id, "2026-02-01", "")
	if got := prop(w.must(200, "GET", deleted, "2026-02-01", ""), "vaultId"); got != id {
		t.Errorf("vaultId %s", got)
	}
	if code, out := w.arm("PUT", id, "2026-02-01", fmt.Sprintf(body, "")); code != 409 || !strings.Contains(errorText(out), "recover or purge") {
		t.Errorf("%d %v", code, out)
	}
	w.must(201, "PUT", id, "2026-02-01", fmt.Sprintf(body, `,"createMode":"recover"`))
	w.assign(20, id, w.azure.OwnerCredentials().ObjectID, secretsOfficer)
	if got, err := client.GetSecret(t.Context(), "kept", "", nil); err != nil || *got.Value != value {
		t.Errorf("a recovered vault lost its secret: %v", err)
	}

	w.must(200, "DELETE", group, "2023-07-01", "")
	w.must(200, "POST", deleted+"/purge", "2026-02-01", "")
	w.must(201, "PUT", group, "2023-07-01", `{"location":"westeurope"}`)
	w.must(201, "PUT", id, "2026-02-01", fmt.Sprintf(body, ""))
	w.assign(21, id, w.azure.OwnerCredentials().ObjectID, secretsOfficer)
	if _, err := client.GetSecret(t.Context(), "kept", "", nil); !refusedWith(err, 404, "SecretNotFound", "kept") {
		t.Errorf("a purged vault kept its secret: %v", err)
	}
	// After the retention time the name is free again.
	w.must(200, "DELETE", id, "2026-02-01", "")
	w.now = func() time.Time { return time.Now().AddDate(0, 0, 91) }
	w.must(201, "PUT", id, "2026-02-01", fmt.Sprintf(body, ""))
}

func TestMetadataEndpoints(t *testing.T) {
	w := newWorld(t)
	code, doc := w.send("", "GET", "https://management.azure.com/metadata/endpoints?api-version=2022-09-01", "")
	auth, _ := doc["authentication"].(map[string]any)
	if code != 200 || auth["identityProvider"] != "AAD" || auth["loginEndpoint"] != "https://login.microsoftonline.com" {
		t.Errorf("%d %v", code, doc)
	}
}
