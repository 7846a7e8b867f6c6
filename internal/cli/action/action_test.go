package action

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/cli/environment"
	"github.com/lockstep-gitops/lockstep/internal/cli/invocation"
	"github.com/lockstep-gitops/lockstep/internal/cli/output"
	"github.com/lockstep-gitops/lockstep/internal/git"
)

const testToken = "the-users-token"

// machine is a state folder with a forge: git's own server, and the four REST
// calls that the command makes.
type machine struct {
	t        *testing.T
	state    string
	repos    string
	disabled []string
	out, err bytes.Buffer
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, state: t.TempDir()}
	m.repos = filepath.Join(m.state, "repos")
	server := httptest.NewServer(m.handler())
	t.Cleanup(server.Close)
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(tls.Close)
	bundle := filepath.Join(m.state, "ca.pem")
	m.write(bundle, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tls.Certificate().Raw})))
	sheet := environment.Sheet{Name: "lockstep", Forge: server.URL, ForgeAPI: server.URL + "/api", Proxy: server.URL, CABundle: bundle, ForgeUser: "ann", ForgeToken: testToken}
	data, err := sheet.Encode()
	if err != nil {
		t.Fatal(err)
	}
	m.write(filepath.Join(m.state, "lockstep", environment.FileName), string(data))
	return m
}

func (m *machine) handler() http.Handler {
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		m.t.Fatal(err)
	}
	backend := &cgi.Handler{Path: strings.TrimSpace(string(path)) + "/git-http-backend", InheritEnv: []string{"PATH"}, Stderr: io.Discard,
		Env: []string{"GIT_PROJECT_ROOT=" + m.repos, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=ann", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http.receivepack", "GIT_CONFIG_VALUE_0=true"}}
	answer := func(w http.ResponseWriter, status int, v any) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	mux := http.NewServeMux()
	there := func(repo string) bool { _, err := os.Stat(filepath.Join(m.repos, repo+".git")); return err == nil }
	mux.HandleFunc("GET /api/repos/{o}/{r}", func(w http.ResponseWriter, r *http.Request) {
		if !there(r.PathValue("o") + "/" + r.PathValue("r")) {
			answer(w, 404, map[string]string{"message": "Not Found"})
		}
	})
	mux.HandleFunc("POST /api/orgs/{o}/repos", func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Name string }
		_ = json.NewDecoder(r.Body).Decode(&body)
		repo, err := git.Init(r.Context(), filepath.Join(m.repos, r.PathValue("o"), body.Name+".git"), "main")
		if err != nil {
			m.t.Error(err)
			return
		}
		repo.Close()
		answer(w, 201, map[string]string{})
	})
	mux.HandleFunc("PUT /api/repos/{o}/{r}/actions/permissions", func(w http.ResponseWriter, r *http.Request) {
		m.disabled = append(m.disabled, r.PathValue("o")+"/"+r.PathValue("r"))
		w.WriteHeader(204)
	})
	mux.HandleFunc("GET /api/user/repos", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, []map[string]string{{"full_name": "acme/greet", "description": "Says hello"}, {"full_name": "acme/app"}})
	})
	mux.HandleFunc("GET /api/repos/{o}/{r}/contents", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("r") == "app" {
			answer(w, 404, map[string]string{"message": "This repository is empty."})
			return
		}
		answer(w, 200, []map[string]string{{"name": "action.yml"}})
	})
	mux.HandleFunc("GET /api/repos/{o}/{r}/tags", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, []map[string]string{{"name": "v1"}}) })
	mux.HandleFunc("GET /api/repos/{o}/{r}/branches", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, []map[string]string{{"name": "main"}}) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != testToken {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(401)
			return
		}
		backend.ServeHTTP(w, r)
	})
	return mux
}

func (m *machine) write(file, content string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) run(args ...string) error {
	m.t.Helper()
	m.out.Reset()
	m.err.Reset()
	inv := &invocation.Invocation{Name: "lockstep", StateDir: m.state, Output: output.FormatTable, Getenv: func(string) string { return "" },
		Streams: output.Streams{Out: &m.out, Err: &m.err}}
	cmd := New(inv)
	cmd.SetArgs(args)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	return cmd.ExecuteContext(m.t.Context())
}

// show reads a file of a repository of the forge.
func (m *machine) show(repo, spec string) string {
	m.t.Helper()
	cmd := exec.Command("git", "-C", filepath.Join(m.repos, repo+".git"), "show", spec)
	cmd.Env = git.Env()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "error: " + string(out)
	}
	return string(out)
}

const greet = "name: greet\nruns:\n  using: composite\n  steps:\n    - run: echo hi\n      shell: bash\n"

func TestImportFromFolderArchiveAndGit(t *testing.T) {
	m := newMachine(t)
	dir := t.TempDir()
	m.write(filepath.Join(dir, "action.yml"), greet)
	if err := m.run("import", "acme/greet@v1", "--from", dir); err != nil {
		t.Fatal(err)
	}
	if m.out.String() != "acme/greet@main\nacme/greet@v1\n" || m.show("acme/greet", "v1:action.yml") != greet || len(m.disabled) != 1 {
		t.Errorf("out %q, err %q, disabled %v", m.out.String(), m.err.String(), m.disabled)
	}
	// A second version goes on top of the first.
	archive := filepath.Join(t.TempDir(), "greet.tar.gz")
	m.write(archive, tarball(t, map[string]string{"greet-2.0/action.yml": greet, "greet-2.0/more.txt": "more"}))
	if err := m.run("import", "acme/greet@v2", "--from", archive); err != nil {
		t.Fatal(err)
	}
	if got := m.show("acme/greet", "v2:more.txt"); got != "more" || !strings.HasPrefix(m.show("acme/greet", "v1:more.txt"), "error") || m.show("acme/greet", "main:more.txt") != "more" {
		t.Errorf("v2 holds %q", got)
	}
	// From a Git repository: only the version that is asked for.
	if err := m.run("import", "acme/copy@v1", "--from", filepath.Join(m.repos, "acme/greet.git")); err != nil {
		t.Fatal(err)
	}
	if m.show("acme/copy", "v1:action.yml") != greet || !strings.HasPrefix(m.show("acme/copy", "v2:action.yml"), "error") {
		t.Error("the copy differs")
	}
	if err := m.run("import", "acme/copy", "--from", filepath.Join(m.repos, "acme/greet.git")); err != nil || m.show("acme/copy", "v2:more.txt") != "more" {
		t.Errorf("all versions: %v", err)
	}
	if err := m.run("list"); err != nil || !strings.Contains(m.out.String(), "acme/greet") || !strings.Contains(m.out.String(), "Says hello") || strings.Contains(m.out.String(), "acme/app") || !strings.Contains(m.out.String(), "actions/checkout") {
		t.Errorf("list: %v\n%s", err, m.out.String())
	}
}

func TestImportRefuses(t *testing.T) {
	m := newMachine(t)
	empty, broken := t.TempDir(), t.TempDir()
	m.write(filepath.Join(empty, "README"), "x")
	m.write(filepath.Join(broken, "a.tar.gz"), "no gzip")
	m.write(filepath.Join(broken, "out.tar.gz"), tarball(t, map[string]string{"../../out.txt": "x", "action.yml": greet}))
	for _, c := range []struct{ name, from, want string }{
		{"nonsense", empty, "is no name of an action"},
		{"acme/x/path@v1", empty, "names a folder of a repository"},
		{"acme/x@v1", empty, "there is no action in it"},
		{"acme/x@v1", filepath.Join(empty, "nowhere"), "there is no folder or file"},
		{"acme/x@v1", filepath.Join(empty, "README"), "is no archive"},
		{"acme/x@v1", filepath.Join(broken, "a.tar.gz"), "not compressed by gzip"},
		{"acme/x@v1", filepath.Join(broken, "out.tar.gz"), "leads out of its folder"},
		{"acme/x@v1", "ftp://example.com/x", "this kind of URL is not known"},
	} {
		if err := m.run("import", c.name, "--from", c.from); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s from %s: %v", c.name, c.from, err)
		}
	}
	if _, err := os.Stat(filepath.Join(m.repos, "acme")); err == nil {
		t.Error("a repository was made for nothing")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := importAction(ctx, forge{}, "a/b", empty); err == nil {
		t.Error("a cancelled import succeeded")
	}
}

func tarball(t *testing.T, files map[string]string) string {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
