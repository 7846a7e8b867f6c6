// Package keyvault_test runs the live tests of the azsecrets SDK, as its authors
// wrote them, against the local Azure through the gateway's proxy.
package keyvault_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/lockstep-gitops/lockstep/internal/azure"
	"github.com/lockstep-gitops/lockstep/internal/gateway"
)

const (
	sdk          = "github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	tenant       = "11111111-2222-4333-8444-555555555555"
	subscription = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
	minimumTests = 10 // that must pass: a suite that skips everything proves nothing
)

func TestSDKSuite(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the SDK's test suite")
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("needs the go command to compile the SDK's test suite")
	}
	dir := t.TempDir()
	suite := filepath.Join(dir, "azsecrets.test")
	build := exec.CommandContext(t.Context(), goTool, "test", "-c", "-o", suite, sdk)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("compile the suite: %v\n%s", err, out)
	}
	owner, env := serve(t, dir)

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	run := exec.CommandContext(ctx, suite, "-test.v", "-test.timeout=150s")
	run.Dir = dir
	run.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"),
		"AZURE_RECORD_MODE=live", "AZURE_KEYVAULT_URL=https://conformance-kv.vault.azure.net/",
		"AZURE_TENANT_ID=" + owner.TenantID, "AZURE_CLIENT_ID=" + owner.ClientID, "AZURE_CLIENT_SECRET=" + owner.ClientSecret}
	for name, value := range env {
		run.Env = append(run.Env, name+"="+value)
	}
	out, err := run.CombinedOutput()
	passed := regexp.MustCompile(`(?m)^--- PASS: `).FindAll(out, -1)
	if err != nil || len(passed) < minimumTests {
		t.Fatalf("%d tests passed, want at least %d; %v\n%s", len(passed), minimumTests, err, out)
	}
	t.Logf("%d tests of %s passed", len(passed), sdk)
}

// serve starts an Azure with the vault conformance-kv behind a proxy. It returns
// credentials that may write secrets there, and the environment to reach it.
func serve(t *testing.T, dir string) (azure.Credentials, map[string]string) {
	t.Helper()
	az, err := azure.New(azure.Config{Dir: filepath.Join(dir, "azure"), TenantID: tenant, SubscriptionID: subscription}, azure.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = az.Close() })
	ca, err := gateway.OpenCA(gateway.CAConfig{Dir: filepath.Join(dir, "ca")})
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{}, gateway.Deps{CA: ca})
	if err != nil {
		t.Fatal(err)
	}
	for pattern, h := range az.Hosts() {
		if err := g.Route([]string{pattern}, h); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, l, gateway.Options{Proxy: true}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	proxy := "http://" + l.Addr().String()
	bundle := filepath.Join(dir, "bundle.pem")
	if err := ca.Bundle(bundle); err != nil {
		t.Fatal(err)
	}
	createVault(t, az, ca, proxy)
	return az.OwnerCredentials(), gateway.Env(proxy, bundle)
}

// createVault makes the vault, and lets the owner do everything in it.
func createVault(t *testing.T, az *azure.Azure, ca *gateway.CA, proxy string) {
	t.Helper()
	u, _ := url.Parse(proxy)
	tr := &http.Transport{Proxy: http.ProxyURL(u), TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	o := az.OwnerCredentials()
	cred, err := azidentity.NewClientSecretCredential(o.TenantID, o.ClientID, o.ClientSecret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: azcore.ClientOptions{Transport: client}})
	if err != nil {
		t.Fatal(err)
	}
	token, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://management.azure.com/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	group := "/subscriptions/" + subscription + "/resourceGroups/conformance"
	vault := group + "/providers/Microsoft.KeyVault/vaults/conformance-kv"
	for _, step := range [][2]string{
		{group + "?api-version=2023-07-01", `{"location":"westeurope"}`},
		{vault + "?api-version=2026-02-01", `{"location":"westeurope","properties":{"tenantId":"` + tenant + `","sku":{"family":"A","name":"standard"}}}`},
		{vault + "/providers/Microsoft.Authorization/roleAssignments/00000000-0000-4000-8000-000000000001?api-version=2022-04-01",
			fmt.Sprintf(`{"properties":{"roleDefinitionId":"/providers/Microsoft.Authorization/roleDefinitions/00482a5a-887f-4fb3-b363-3b7fe8e74483","principalId":"%s"}}`, o.ObjectID)},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "https://management.azure.com"+step[0], strings.NewReader(step[1]))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token.Token)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("PUT %s: %s", step[0], resp.Status)
		}
	}
}
