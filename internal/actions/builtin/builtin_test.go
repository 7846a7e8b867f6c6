package builtin

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/actions/command"
)

// call makes a Call with the defaults of the action filled in.
func call(t *testing.T, uses string, with map[string]string) (*Call, Action, map[string]string, *bytes.Buffer) {
	t.Helper()
	a, ok := Find(uses)
	if !ok {
		t.Fatalf("no action %s", uses)
	}
	open := func() *os.Root {
		r, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
		return r
	}
	files := open()
	outputs, log := map[string]string{}, &bytes.Buffer{}
	if with == nil {
		with = map[string]string{}
	}
	c := &Call{
		Job: &Job{Repo: "o/r", Commit: strings.Repeat("a", 40), Ref: "refs/heads/main", ServerURL: "http://github.localhost", Workspace: "/home/runner/work/r/r",
			WorkspaceDir: files.Name(), Files: files, Home: open(), Temp: open(), HomePath: "/home/runner", Mask: func(...string) {}},
		Uses: uses, File: "ci.yml", Line: 9, With: with, Out: log, State: map[string]string{},
		SetOutput: func(k, v string) { outputs[k] = v }, SetEnv: func(string, string) {}, AddPath: func(string) {},
		Annotate: func(a command.Annotation) { _, _ = fmt.Fprintf(log, "%s %d %s\n", a.Level, a.Line, a.Message) },
	}
	a.Prepare(c, map[string]int{"typo": 12})
	return c, a, outputs, log
}

func TestCheck(t *testing.T) {
	for uses, want := range map[string]string{
		"actions/checkout@v4": "", "Docker/Login-Action@abcdef": "", "actions/checkout": "names no version",
		"./my-action": "local action", "docker://alpine": "container action", "someone/else@v1": "is not part of this engine",
	} {
		err := Check(uses)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", uses, err)
		}
	}
}

func TestUnknownInputsWarnWithTheirLine(t *testing.T) {
	_, _, _, log := call(t, "docker/build-push-action@v6", map[string]string{"typo": "x", "builder": "b", "push": "true"})
	if got := log.String(); !strings.Contains(got, `warning 12 unknown input "typo"`) || !strings.Contains(got, "Input builder has no effect here") || strings.Contains(got, "push") && strings.Contains(got, `"push"`) {
		t.Errorf("%s", got)
	}
}

func TestCheckoutPlan(t *testing.T) {
	sha := strings.Repeat("a", 40)
	other := strings.Repeat("b", 40)
	for _, c := range []struct {
		with map[string]string
		ref  string
		want string
	}{
		{nil, "refs/heads/main", "+" + sha + ":refs/remotes/origin/main | -B main refs/remotes/origin/main"},
		{nil, "refs/tags/v1", "+" + sha + ":refs/tags/v1 | refs/tags/v1"},
		{map[string]string{"ref": other}, "refs/heads/main", other + " | --detach " + other},
		{map[string]string{"ref": "refs/heads/dev"}, "refs/heads/main", "+refs/heads/dev:refs/remotes/origin/dev | -B dev refs/remotes/origin/dev"},
		{map[string]string{"ref": "dev"}, "refs/heads/main", "+refs/heads/dev*:refs/remotes/origin/dev* +refs/tags/dev*:refs/tags/dev* | "},
		{nil, "refs/pull/7/merge", "+" + sha + ":refs/remotes/pull/7/merge | refs/remotes/pull/7/merge"},
		{map[string]string{"fetch-tags": "true", "ref": other}, "refs/heads/main", other + " +refs/tags/*:refs/tags/* | --detach " + other},
		{map[string]string{"repository": "x/y"}, "refs/heads/main", "HEAD | --detach FETCH_HEAD"},
		{map[string]string{"fetch-depth": "0"}, "refs/heads/main", "+refs/heads/*:refs/remotes/origin/* +refs/tags/*:refs/tags/* " + sha + " | -B main " + sha},
	} {
		call, _, _, _ := call(t, "actions/checkout@v4", c.with)
		call.Job.Ref = c.ref
		p, err := planCheckout(call)
		if got := strings.Join(p.refspecs, " ") + " | " + strings.Join(p.local, " "); err != nil || got != c.want {
			t.Errorf("%v\n got %s %v\nwant %s", c.with, got, err, c.want)
		}
	}
	for _, bad := range []map[string]string{{"path": "../x"}, {"repository": "a/b/c"}, {"fetch-depth": "x"}, {"ssh-key": "k"}, {"submodules": "maybe"}, {"ref": "--upload-pack=x"}} {
		call, _, _, _ := call(t, "actions/checkout@v4", bad)
		if _, err := planCheckout(call); err == nil || !strings.HasPrefix(err.Error(), "ci.yml:9: ") {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestVersions(t *testing.T) {
	for _, c := range []struct {
		with, file string
		want       string
		minimum    bool
	}{
		{"go-version:1.22", "", "1.22", false}, {"go-version:1.22.x", "", "1.22", false}, {"go-version:^1.21", "", "1.21", true}, {"go-version:>=1.20", "", "1.20", true},
		{"go-version:stable", "", "1", true}, {"", "", "1", true}, {"go-version-file:go.mod", "module x\n\ngo 1.22\n", "1.22", true},
		{"go-version-file:go.mod", "module x\n\ngo 1.22.0\n\ntoolchain go1.23.4\n", "1.23.4", true}, {"go-version-file:.go-version", "1.21.3\n", "1.21.3", true},
		{"go-version-file:.tool-versions", "node 20\ngolang 1.20\n", "1.20", true},
	} {
		k, v, _ := strings.Cut(c.with, ":")
		with := map[string]string{}
		if k != "" {
			with[k] = v
		}
		call, _, _, _ := call(t, "actions/setup-go@v5", with)
		if c.file != "" {
			if err := call.Job.Files.WriteFile(v, []byte(c.file), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := wantedGo(call)
		if err != nil || got.text != c.want || got.minimum != c.minimum {
			t.Errorf("%s: %+v %v", c.with, got, err)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"1.26.8", "1.26", 0}, {"1.26.8", "1.22.1", 1}, {"1.9", "1.10", -1}, {"1.27rc1", "1.27", 0}} {
		if got, ok := compareVersions(c.a, c.b); !ok || got != c.want {
			t.Errorf("%s and %s: %d", c.a, c.b, got)
		}
	}
}

func TestBuildRequest(t *testing.T) {
	c, _, _, _ := call(t, "docker/build-push-action@v6", map[string]string{
		"context": "./app", "file": "app/build/Dockerfile", "tags": "r.example/a:1,r.example/a:2\nr.example/a:3", "push": "true", "build-args": "A=1\nB=x,y=z\nFROM_ENV",
		"labels": "l=v", "platforms": "linux/amd64,linux/arm64", "secrets": "tok=s3cret", "no-cache": "true", "target": "prod"})
	c.Env = []string{"FROM_ENV=e"}
	if err := c.Job.Files.MkdirAll("app/build", 0o755); err != nil {
		t.Fatal(err)
	}
	r, dir, err := buildRequest(t.Context(), c)
	if err != nil || dir != "app" || r.Dockerfile != "build/Dockerfile" || len(r.Tags) != 3 || !r.Push || r.BuildArgs["B"] != "x,y=z" || r.BuildArgs["FROM_ENV"] != "e" ||
		len(r.Platforms) != 2 || string(r.Secrets["tok"]) != "s3cret" || !r.NoCache || r.Target != "prod" || r.Labels["l"] != "v" {
		t.Errorf("%+v %s %v", r, dir, err)
	}
	for want, with := range map[string]map[string]string{
		"push needs a tag": {"context": ".", "push": "true"}, "is outside of the workspace": {"context": "../x"}, "is not a directory": {"context": "none"},
		"remote contexts": {"context": "https://example.com/x.git"}, "must be true or false": {"context": ".", "push": "maybe"}, "outside of the build context": {"context": "app", "file": "Dockerfile"},
		"is not name=value": {"context": ".", "build-args": "NOT_SET"}, "has an unknown type": {"context": ".", "outputs": "type=moon,dest=out"}, "builder cannot reach": {"context": ".", "ssh": "default"},
		"names no file": {"context": ".", "outputs": "type=oci"}, "build cache": {"context": ".", "cache-to": "type=s3,bucket=x"}, "always built": {"context": ".", "call": "check"},
	} {
		bad, _, _, _ := call(t, "docker/build-push-action@v6", with)
		_ = bad.Job.Files.Mkdir("app", 0o755)
		if _, _, err := buildRequest(t.Context(), bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", with, err)
		}
	}
}

func TestContextsOutsideOfTheWorkspace(t *testing.T) {
	c, _, _, _ := call(t, "docker/build-push-action@v6", map[string]string{"context": "."})
	onHost(t, c)
	outside := t.TempDir()
	write(t, outside+"/ctx/Dockerfile", "FROM scratch\n")
	write(t, c.Job.TempPath+"/ctx/Dockerfile", "FROM scratch\n")
	for _, input := range []string{outside + "/ctx", c.Job.TempPath + "/ctx"} {
		dir, _, err := directory(t.Context(), c, input)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir + "/Dockerfile"); err != nil || !strings.HasPrefix(dir, c.Job.TempPath) {
			t.Errorf("%s: %s %v", input, dir, err)
		}
	}
	if err := os.Symlink("/etc", c.Job.TempPath+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, input := range []string{c.Job.TempPath + "/link", "/nowhere/at/all", "../.."} {
		if dir, _, err := directory(t.Context(), c, input); err == nil {
			t.Errorf("%s: %s", input, dir)
		}
	}
}

func TestMetadata(t *testing.T) {
	for _, c := range []struct{ ref, tags, flavor, want string }{
		{"refs/heads/main", "", "", "r.example/a:main"},
		{"refs/heads/feature/x", "", "", "r.example/a:feature-x"},
		{"refs/tags/v1.2.3", "", "", "r.example/a:v1.2.3 r.example/a:latest"},
		{"refs/tags/v1.2.3", "type=semver,pattern={{version}}\ntype=semver,pattern={{major}}.{{minor}}", "", "r.example/a:1.2.3 r.example/a:1.2 r.example/a:latest"},
		{"refs/tags/v1.2.3-rc1", "type=semver,pattern={{version}}\ntype=semver,pattern={{major}}", "", "r.example/a:1.2.3-rc1"},
		{"refs/heads/main", "type=sha", "", "r.example/a:sha-aaaaaaa"},
		{"refs/heads/main", "type=sha,format=long,prefix=", "", "r.example/a:" + strings.Repeat("a", 40)},
		{"refs/pull/7/merge", "", "", "r.example/a:pr-7"},
		{"refs/heads/main", "type=edge\ntype=sha", "", "r.example/a:edge r.example/a:sha-aaaaaaa"},
		{"refs/heads/main", "type=sha\ntype=ref,event=branch\ntype=raw,value=x,priority=2000", "", "r.example/a:x r.example/a:main r.example/a:sha-aaaaaaa"},
		{"refs/tags/p1/v1.2.3", "type=match,pattern=v(\\d.\\d),group=1", "", "r.example/a:1.2 r.example/a:latest"},
		{"refs/heads/main", "type=raw,value={{branch}}-{{sha}},enable={{is_default_branch}}", "prefix=p-,onlatest=true\nlatest=true", "r.example/a:p-main-aaaaaaa r.example/a:p-latest"},
		{"refs/tags/1.2.3rc1", "type=pep440,pattern={{major}}\ntype=pep440,pattern={{version}}", "", "r.example/a:1.2.3rc1"},
		{"refs/heads/main", "type=schedule", "", ""},
		{"refs/heads/main", "type=raw,value=edge,enable=false\nnightly", "latest=true", "r.example/a:nightly r.example/a:latest"},
	} {
		call, a, out, _ := call(t, "docker/metadata-action@v5", map[string]string{"images": "r.example/A", "tags": c.tags, "flavor": c.flavor})
		call.Job.Ref = c.ref
		if err := a.Run(t.Context(), call); err != nil || strings.Join(strings.Fields(out["tags"]), " ") != c.want {
			t.Errorf("%s %q: %q %v", c.ref, c.tags, out["tags"], err)
		}
	}
}

// toHost sends every request to one test server.
type toHost struct{ server *httptest.Server }

func (h toHost) RoundTrip(r *http.Request) (*http.Response, error) {
	target, err := url.Parse(h.server.URL)
	if err != nil {
		return nil, err
	}
	r.URL.Scheme, r.URL.Host = target.Scheme, target.Host
	return http.DefaultTransport.RoundTrip(r)
}

func TestLoginAndLogout(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			if user, password, _ := r.BasicAuth(); user == "u" && password == "p" && r.URL.Query().Get("service") == "s" {
				_, _ = io.WriteString(w, "{}")
				return
			}
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://x.azurecr.io/token",service="s"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	c, a, _, _ := call(t, "docker/login-action@v3", map[string]string{"registry": "https://X.azurecr.io/", "username": "u", "password": "p"})
	c.Job.RegistryProbe = toHost{server}
	if err := a.Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	config, err := readDockerConfig(c.Job.Home)
	if err != nil || config.credentials()["x.azurecr.io"] != (Credential{Username: "u", Password: "p"}) {
		t.Errorf("%+v %v", config, err)
	}
	if err := a.Post(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if config, _ = readDockerConfig(c.Job.Home); len(config.Auths) != 0 {
		t.Errorf("after logout %+v", config)
	}
	c.With["registry-auth"] = "- registry: x.azurecr.io\n  username: u\n  password: p\n- registry: y.azurecr.io\n  username: u\n  password: p\n"
	if err := a.Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if config, _ = readDockerConfig(c.Job.Home); len(config.Auths) != 2 {
		t.Errorf("two logins: %+v", config)
	}
	if err := a.Post(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	c.With["registry-auth"], c.With["registry"] = "", "x.azurecr.io"
	c.With["password"] = "wrong"
	if err := a.Run(context.Background(), c); err == nil || !strings.Contains(err.Error(), "refused the login with status 401") {
		t.Errorf("wrong password: %v", err)
	}
}
