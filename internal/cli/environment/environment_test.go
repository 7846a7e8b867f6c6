package environment_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-gitops/lockstep/internal/cli/environment"
	"github.com/lockstep-gitops/lockstep/internal/gateway"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	if _, err := environment.Read(dir); err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "lockstep up") {
		t.Errorf("no platform: %v", err)
	}
	want := environment.Sheet{Name: "unit", Forge: "http://github.localhost", ForgeToken: "token"}
	data, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, environment.FileName)
	write := func(data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(data)
	got, err := environment.Read(dir)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	write(data[:len(data)/2])
	if _, err := environment.Read(dir); err == nil || !strings.Contains(err.Error(), environment.FileName) {
		t.Errorf("half a sheet: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := environment.Read(dir); err == nil || !strings.Contains(err.Error(), "addresses") {
		t.Errorf("a folder in its place: %v", err)
	}
}

func TestClientReachesWhatThePlatformStandsFor(t *testing.T) {
	dir := t.TempDir()
	ca, err := gateway.OpenCA(gateway.CAConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(dir, "bundle.pem")
	if err := ca.Bundle(bundle, ""); err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{}, gateway.Deps{CA: ca})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Route([]string{"management.azure.com"}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Host+r.URL.Path)
	})); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, l, gateway.Options{Proxy: true}) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	sheet := environment.Sheet{Proxy: "http://" + l.Addr().String(), CABundle: bundle}
	client, err := sheet.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	resp, err := client.Get("https://management.azure.com/subscriptions")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, _ := io.ReadAll(resp.Body); string(body) != "management.azure.com/subscriptions" {
		t.Errorf("%q", body)
	}
	if other, err := client.Get("https://nobody.invalid/"); err == nil {
		_ = other.Body.Close()
		t.Error("a host that nobody serves answers")
	}
}

func TestClientNeedsCertificates(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, []byte("no certificate\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, sheet := range map[string]environment.Sheet{
		"no file":        {CABundle: filepath.Join(dir, "none.pem")},
		"no certificate": {CABundle: empty},
		"no address":     {Proxy: "http://[", CABundle: empty},
	} {
		if _, err := sheet.Client(); err == nil || !strings.Contains(err.Error(), "platform") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExports(t *testing.T) {
	vars := environment.Sheet{Name: "unit", Proxy: "http://127.0.0.1:80", CABundle: "/ca.pem", Forge: "http://github.localhost",
		ForgeToken: "token", TenantID: "tenant", ClientSecret: "secret"}.Exports()
	for name, want := range map[string]string{
		"HTTPS_PROXY": "http://127.0.0.1:80", "https_proxy": "http://127.0.0.1:80", "SSL_CERT_FILE": "/ca.pem",
		"AZURE_TENANT_ID": "tenant", "ARM_TENANT_ID": "tenant", "AZURE_CLIENT_SECRET": "secret", "ARM_CLIENT_SECRET": "secret",
		"GH_TOKEN": "token", "LOCKSTEP_NAME": "unit", "GIT_CONFIG_COUNT": "1",
		"GIT_CONFIG_KEY_0":   "http.http://github.localhost/.extraHeader",
		"GIT_CONFIG_VALUE_0": "Authorization: Basic eC1hY2Nlc3MtdG9rZW46dG9rZW4=",
	} {
		if vars[name] != want {
			t.Errorf("%s=%q, want %q", name, vars[name], want)
		}
	}
	if no := vars["NO_PROXY"]; strings.Contains(no, "localhost") || !strings.Contains(no, "10.0.0.0/8") {
		t.Errorf("NO_PROXY=%q", no)
	}
}
