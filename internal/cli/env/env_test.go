package env_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/cli"
	"github.com/lockstep-gitops/lockstep/internal/cli/env"
	"github.com/lockstep-gitops/lockstep/internal/cli/environment"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/journal"
	"github.com/lockstep-gitops/lockstep/internal/server"
	"github.com/lockstep-gitops/lockstep/internal/server/servertest"
)

var sheet = environment.Sheet{
	Name: "lockstep", Proxy: "http://127.0.0.1:8080", CABundle: "/it's here/$HOME.pem", Forge: "http://github.localhost:8080",
	TenantID: "tenant", ClientID: "client", ClientSecret: "s'e\"c`r\\et", ForgeToken: "token",
}

// running is a state folder with a platform that answers.
func running(t *testing.T) (stateDir string) {
	t.Helper()
	stateDir, err := os.MkdirTemp("", "ls") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(stateDir) })
	dir := filepath.Join(stateDir, "lockstep")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(t.Context(), filepath.Join(dir, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	s, err := server.New(server.Config{Socket: filepath.Join(dir, "lockstep.sock")}, servertest.New(j).Deps())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-s.Ready()
	data, err := sheet.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, environment.FileName), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return stateDir
}

func call(t *testing.T, stateDir string, shell map[string]string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = cli.Main(t.Context(), cli.Options{
		Streams:  output.Streams{Out: &stdout, Err: &stderr},
		Getenv:   func(name string) string { return shell[name] },
		Commands: []invocation.Constructor{env.New},
	}, append([]string{"env", "--state-dir", stateDir}, args...))
	return code, stdout.String(), stderr.String()
}

// What is printed means to a shell what the sheet says, and nothing else.
func TestShellReadsExports(t *testing.T) {
	dir := running(t)
	code, exports, errs := call(t, dir, nil)
	if code != 0 || errs != "" {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	code, unset, errs := call(t, dir, nil, "--unset")
	if code != 0 || errs != "" {
		t.Fatalf("--unset: exit code %d: %s", code, errs)
	}
	for _, shell := range []string{"sh", "bash"} {
		script := exports + "\nenv -0\nprintf 'CUT\\0'\n" + unset + "\n/usr/bin/env -0"
		out, err := exec.CommandContext(t.Context(), "env", "-i", "PATH="+os.Getenv("PATH"), shell, "-c", script).Output()
		if err != nil {
			t.Fatal(err)
		}
		before, after, _ := strings.Cut(string(out), "CUT\x00")
		for name, value := range sheet.Exports() {
			if !slices.Contains(strings.Split(before, "\x00"), name+"="+value) {
				t.Errorf("%s: no %s=%s", shell, name, value)
			}
			if strings.Contains("\x00"+after, "\x00"+name+"=") {
				t.Errorf("%s: %s is still there after --unset", shell, name)
			}
		}
	}
}

func TestJSON(t *testing.T) {
	code, out, errs := call(t, running(t), nil, "-o", "json")
	var got map[string]string
	if err := json.Unmarshal([]byte(out), &got); code != 0 || err != nil || got["AZURE_CLIENT_SECRET"] != sheet.ClientSecret {
		t.Errorf("exit code %d, %v: %s%s", code, err, out, errs)
	}
}

func TestRefusesCredentialsOfARealAzure(t *testing.T) {
	dir := running(t)
	for name, tc := range map[string]struct {
		shell  map[string]string
		args   []string
		refuse string
	}{
		"none":            {nil, nil, ""},
		"ours":            {map[string]string{"AZURE_CLIENT_SECRET": sheet.ClientSecret}, nil, ""},
		"only a tenant":   {map[string]string{"AZURE_TENANT_ID": "another"}, nil, ""},
		"secret":          {map[string]string{"AZURE_CLIENT_SECRET": "theirs"}, nil, "AZURE_CLIENT_SECRET"},
		"two":             {map[string]string{"AZURE_CLIENT_SECRET": "theirs", "ARM_CLIENT_SECRET": "theirs"}, nil, "ARM_CLIENT_SECRET, AZURE_CLIENT_SECRET"},
		"force":           {map[string]string{"AZURE_CLIENT_SECRET": "theirs"}, []string{"--force"}, ""},
		"unset":           {map[string]string{"AZURE_CLIENT_SECRET": "theirs"}, []string{"--unset"}, ""},
		"json is no hole": {map[string]string{"AZURE_CLIENT_SECRET": "theirs"}, []string{"-o", "json"}, "AZURE_CLIENT_SECRET"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := call(t, dir, tc.shell, tc.args...)
			if tc.refuse == "" {
				if code != 0 || out == "" {
					t.Errorf("exit code %d: %s", code, errs)
				}
				return
			}
			if code != 1 || out != "" || !strings.Contains(errs, "real Azure: "+tc.refuse+"\n") || !strings.Contains(errs, "--force") {
				t.Errorf("exit code %d, %q\n%s", code, out, errs)
			}
			if strings.Contains(errs, "theirs") {
				t.Errorf("shows the value: %s", errs)
			}
		})
	}
	t.Setenv("AZURE_CLIENT_CERTIFICATE_PATH", "/theirs.pem")
	if code, _, errs := call(t, dir, nil); code != 1 || !strings.Contains(errs, "AZURE_CLIENT_CERTIFICATE_PATH") {
		t.Errorf("a kind that we do not export: exit code %d, %s", code, errs)
	}
}

func TestWithoutPlatform(t *testing.T) {
	dir := t.TempDir()
	if code, out, errs := call(t, dir, nil); code != 1 || out != "" || !strings.Contains(errs, "lockstep up") {
		t.Errorf("exit code %d, %q %s", code, out, errs)
	}
	if code, out, _ := call(t, dir, nil, "--unset"); code != 0 || !strings.Contains(out, "unset HTTPS_PROXY\n") {
		t.Errorf("--unset: exit code %d, %q", code, out)
	}
	up := running(t)
	if err := os.Remove(filepath.Join(up, "lockstep", environment.FileName)); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := call(t, up, nil); code != 1 || out != "" || !strings.Contains(errs, "lockstep up --wait") {
		t.Errorf("while it starts: exit code %d, %q %s", code, out, errs)
	}
}
