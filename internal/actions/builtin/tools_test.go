package builtin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Masterminds/semver/v3"
)

// program puts a shell script on the PATH of the call, before all others.
func program(t *testing.T, c *Call, name, script string) {
	t.Helper()
	dir := filepath.Join(c.Job.HomePath, "bin")
	write(t, filepath.Join(dir, name), "#!/bin/sh\n"+script)
	if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
		t.Fatal(err)
	}
	c.Env = append(c.Env, "PATH="+dir+":"+os.Getenv("PATH"))
}

func TestVersionRange(t *testing.T) {
	for _, c := range []struct {
		wanted, has string
		want        bool
	}{
		{"20", "20.20.2", true}, {"20.x", "20.20.2", true}, {"v20.20.2", "20.20.2", true}, {"20.1", "20.20.2", false}, {"18", "20.20.2", false},
		{">=18 <21", "20.20.2", true}, {"18 || 20", "20.20.2", true}, {"^1.5", "1.9.0", true}, {"~1.5.0", "1.9.0", false}, {"1.5.7", "1.5.7", true},
		{"latest", "1.2.3", true}, {"", "1.2.3", true}, {"stable", "3.0.0", true}, {"lts/*", "20.1.0", true}, {"lts/*", "21.1.0", false}, {"lts/iron", "20.1.0", true},
	} {
		text, ok := nodeRange(c.wanted)
		fits, err := versionRange(text)
		if v, verr := parse(c.has); !ok || err != nil || verr != nil || fits(v) != c.want {
			t.Errorf("%s for %s: %v %v", c.has, c.wanted, err, verr)
		}
	}
	if _, err := versionRange("twenty"); err == nil {
		t.Error("twenty is a range")
	}
}

func TestSetupsUseWhatIsThere(t *testing.T) {
	for _, test := range []struct {
		uses     string
		with     map[string]string
		programs map[string]string
		files    map[string]string
		out      string // output=value
		wantErr  string
	}{
		{"actions/setup-node@v4", map[string]string{"node-version": "22"}, map[string]string{"node": "echo v22.5.1"}, nil, "node-version=v22.5.1", ""},
		{"actions/setup-node@v4", map[string]string{"node-version": "17"}, map[string]string{"node": "echo v22.5.1"}, nil, "", "but this machine has 22.5.1"},
		{"actions/setup-node@v4", map[string]string{"node-version-file": "package.json"}, map[string]string{"node": "echo v22.5.1"}, map[string]string{"package.json": `{"engines":{"node":">=20"}}`}, "node-version=v22.5.1", ""},
		{"actions/setup-node@v4", map[string]string{"node-version-file": ".nvmrc"}, map[string]string{"node": "echo v22.5.1"}, map[string]string{".nvmrc": "v22\n"}, "node-version=v22.5.1", ""},
		{"actions/setup-python@v5", map[string]string{"python-version": "3.9"}, map[string]string{"python3": "echo Python 3.9.2"}, nil, "python-version=3.9.2", ""},
		{"actions/setup-python@v5", map[string]string{"python-version": "pypy3.9"}, nil, nil, "", "pypy3.9 is not supported"},
		{"actions/setup-java@v4", map[string]string{"distribution": "temurin", "java-version": "99"}, nil, nil, "", "Java 99 is asked for"},
		{"actions/setup-dotnet@v4", map[string]string{"global-json-file": "global.json"}, map[string]string{"dotnet": "echo 8.0.100"}, map[string]string{"global.json": `{"sdk":{"version":"8.0.100"}}`}, "dotnet-version=8.0.100", ""},
		{"azure/setup-kubectl@v4", map[string]string{"version": "v1.30.1"}, map[string]string{"kubectl": `echo 'Client Version: v1.30.1'`}, nil, "", ""},
		{"azure/setup-helm@v4", map[string]string{"version": "v3.1.0"}, map[string]string{"helm": `echo v4.3.1+gabc`}, nil, "", "Helm v3.1.0 is asked for, but this machine has 4.3.1"},
		{"azure/use-kubelogin@v1", nil, map[string]string{"kubelogin": "exit 1"}, nil, "", "this machine has no kubelogin"},
	} {
		c, a, out, log := call(t, test.uses, test.with)
		onHost(t, c)
		for name, script := range test.programs {
			program(t, c, name, script+"\n")
		}
		for name, text := range test.files {
			write(t, filepath.Join(c.Job.Workspace, name), text)
		}
		err := a.Run(t.Context(), c)
		if (err == nil) != (test.wantErr == "") || err != nil && !strings.Contains(err.Error(), test.wantErr) {
			t.Errorf("%s %v: %v\n%s", test.uses, test.with, err, log)
		}
		if k, v, _ := strings.Cut(test.out, "="); k != "" && out[k] != v {
			t.Errorf("%s: outputs %v, want %s", test.uses, out, test.out)
		}
	}
}

func TestTerraformWrapper(t *testing.T) {
	c, a, _, log := call(t, "hashicorp/setup-terraform@v3", map[string]string{"cli_config_credentials_token": "t0k", "terraform_version": "~1.9"})
	onHost(t, c)
	program(t, c, "terraform", `case $1 in
version) echo "Terraform v1.9.5";;
plan) echo "a plan"; echo "a note" >&2; exit 2;;
*) echo broken >&2; exit 1;;
esac
`)
	var dirs []string
	c.AddPath = func(d string) { dirs = append(dirs, d) }
	if err := a.Run(t.Context(), c); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	rc, err := c.Job.Home.ReadFile(".terraformrc")
	if err != nil || !strings.Contains(string(rc), `token = "t0k"`) {
		t.Errorf("%s %v", rc, err)
	}
	if len(dirs) != 1 {
		t.Fatalf("path %v", dirs)
	}
	output := filepath.Join(c.Job.TempPath, "output")
	write(t, output, "")
	c.Env = append(c.Env, "GITHUB_OUTPUT="+output)
	said, err := c.capture(t.Context(), c.Job.Workspace, filepath.Join(dirs[0], "terraform"), "plan", "-detailed-exitcode")
	got, _ := os.ReadFile(output)
	if err != nil || !strings.Contains(said, "a plan") || !strings.Contains(said, "a note") || !strings.Contains(string(got), "exitcode=2") || !strings.Contains(string(got), "\na plan\n") {
		t.Errorf("%v\n%s\n%s", err, said, got)
	}
	if said, err = c.capture(t.Context(), c.Job.Workspace, filepath.Join(dirs[0], "terraform"), "apply"); err == nil || !strings.Contains(err.Error(), "exited with code 1") {
		t.Errorf("%v %s", err, said)
	}
}

func parse(s string) (*semver.Version, error) { return semver.NewVersion(s) }
