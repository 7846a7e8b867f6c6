package credential_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/cli"
	"github.com/lockstep-gitops/lockstep/internal/cli/credential"
	"github.com/lockstep-gitops/lockstep/internal/cli/environment"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
)

// platform leaves the sheet of a platform whose forge is at the address.
func platform(t *testing.T, forge string) (stateDir string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "lockstep"), 0o700); err != nil {
		t.Fatal(err)
	}
	data, err := environment.Sheet{Forge: forge, ForgeUser: "developer", ForgeToken: "token"}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lockstep", environment.FileName), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func ask(t *testing.T, stateDir, input string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = cli.Main(t.Context(), cli.Options{
		Streams:  output.Streams{In: strings.NewReader(input), Out: &stdout, Err: &stderr},
		Getenv:   func(string) string { return "" },
		Commands: []invocation.Constructor{credential.New},
	}, append([]string{"credential", "--state-dir", stateDir}, args...))
	return code, stdout.String(), stderr.String()
}

func TestAnswersForItsForgeOnly(t *testing.T) {
	const answer = "username=developer\npassword=token\n"
	question := func(protocol, host string) string {
		return "protocol=" + protocol + "\nhost=" + host + "\npath=contoso/storefront.git\n\n"
	}
	for name, tc := range map[string]struct{ forge, verb, input, want string }{
		"forge":                 {"http://github.localhost:8080", "get", question("http", "github.localhost:8080"), answer},
		"usual port":            {"http://github.localhost", "get", question("http", "github.localhost"), answer},
		"usual port named":      {"http://github.localhost", "get", question("http", "github.localhost:80"), answer},
		"no empty line":         {"http://github.localhost", "get", "protocol=http\nhost=github.localhost", answer},
		"unknown keys":          {"http://github.localhost", "get", "capability[]=authtype\n" + question("http", "github.localhost"), answer},
		"another platform":      {"http://github.localhost:8080", "get", question("http", "github.localhost:8081"), ""},
		"another protocol":      {"http://github.localhost", "get", question("https", "github.localhost"), ""},
		"the real one":          {"http://github.localhost:8080", "get", question("https", "github.com"), ""},
		"looks like it":         {"http://github.localhost", "get", question("http", "github.localhost.example.com"), ""},
		"nothing":               {"http://github.localhost", "get", "", ""},
		"host after the end":    {"http://github.localhost", "get", "\nprotocol=http\nhost=github.localhost\n", ""},
		"host beyond the bound": {"http://github.localhost", "get", strings.Repeat("x=y\n", 20<<10) + question("http", "github.localhost"), ""},
		"endless line":          {"http://github.localhost", "get", strings.Repeat("x", 1<<20), ""},
		"store":                 {"http://github.localhost", "store", question("http", "github.localhost"), ""},
		"erase":                 {"http://github.localhost", "erase", question("http", "github.localhost"), ""},
		"verb of a later git":   {"http://github.localhost", "approve", question("http", "github.localhost"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := ask(t, platform(t, tc.forge), tc.input, tc.verb)
			if code != 0 || out != tc.want || errs != "" {
				t.Errorf("exit code %d, %q %s, want %q", code, out, errs, tc.want)
			}
		})
	}
}

func TestWithoutPlatform(t *testing.T) {
	code, out, errs := ask(t, t.TempDir(), "protocol=http\nhost=github.localhost\n\n", "get")
	if code != 1 || out != "" || !strings.Contains(errs, "lockstep up") {
		t.Errorf("exit code %d, %q %q", code, out, errs)
	}
	if code, _, errs := ask(t, t.TempDir(), ""); code != 1 || !strings.Contains(errs, "lockstep credential") {
		t.Errorf("no verb: exit code %d, %q", code, errs)
	}
}

// What git really sends is what this command understands.
func TestGitAsks(t *testing.T) {
	dir := t.TempDir()
	asked := filepath.Join(dir, "asked")
	cmd := exec.CommandContext(t.Context(), "git", "-c", "credential.helper=", "-c", "credential.http://github.localhost:8080.helper=!cat >"+asked+"; :", "credential", "fill")
	cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=true", "HOME="+dir)
	cmd.Stdin = strings.NewReader("url=http://github.localhost:8080/contoso/storefront.git\n\n")
	_ = cmd.Run() // nobody answers it
	input, err := os.ReadFile(asked)
	if err != nil {
		t.Fatal(err)
	}
	if _, out, _ := ask(t, platform(t, "http://github.localhost:8080"), string(input), "get"); !strings.Contains(out, "password=token") {
		t.Errorf("git asked %q, the answer is %q", input, out)
	}
}
