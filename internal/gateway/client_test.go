package gateway

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestProgramsTrustTheBundle lets programs with other TLS libraries than Go's go
// through the proxy, with nothing but the variables of Env.
func TestProgramsTrustTheBundle(t *testing.T) {
	g := newGateway(t, Deps{})
	addr := listen(t, g, Options{Proxy: true, Tunnel: true})
	bundle := filepath.Join(t.TempDir(), "bundle.pem")
	if err := g.ca.Bundle(bundle); err != nil {
		t.Fatal(err)
	}
	const ref = "0123456789012345678901234567890123456789\trefs/heads/main"
	if err := g.Route([]string{"git.localhost"}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/o/r/info/refs" {
			fmt.Fprintln(w, ref) // the simplest Git host that there is
		}
	})); err != nil {
		t.Fatal(err)
	}
	const python = `import urllib.request; print(urllib.request.urlopen("https://kv.vault.azure.net/a").read().decode())`
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"curl", []string{"-sS", "https://kv.vault.azure.net/a"}, "GET /a host=kv.vault.azure.net tls=true"},
		{"curl", []string{"-sS", "http://github.localhost/a"}, "GET /a host=github.localhost tls=false"},
		{"python3", []string{"-c", python}, "GET /a host=kv.vault.azure.net tls=true"},
		{"git", []string{"ls-remote", "https://git.localhost/o/r"}, ref},
		{"git", []string{"ls-remote", "http://git.localhost/o/r"}, ref},
	} {
		t.Run(fmt.Sprintf("%s tls=%t", tc.name, strings.Contains(tc.args[len(tc.args)-1], "https")), func(t *testing.T) {
			path, err := exec.LookPath(tc.name)
			if err != nil {
				t.Skip(err)
			}
			cmd := exec.CommandContext(t.Context(), path, tc.args...)
			cmd.Env = []string{"HOME=" + t.TempDir(), "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C"}
			for name, value := range Env("http://"+addr, bundle) {
				cmd.Env = append(cmd.Env, name+"="+value)
			}
			out, _ := cmd.CombinedOutput() // what it says decides
			if !strings.Contains(string(out), tc.want) {
				t.Errorf("%s does not say %q", out, tc.want)
			}
		})
	}
}
