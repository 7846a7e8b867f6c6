package builtin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// onHost lets the call run programs on this machine, in the job's own folders.
func onHost(t *testing.T, c *Call) {
	t.Helper()
	c.Job.Workspace, c.Job.TempPath, c.Job.HomePath = c.Job.WorkspaceDir, c.Job.Temp.Name(), c.Job.Home.Name()
	c.Env = append(c.Env, "PATH="+os.Getenv("PATH"), "HOME="+c.Job.HomePath, "RUNNER_TEMP="+c.Job.TempPath, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
	c.Job.Exec = func(ctx context.Context, dir string, env, args []string, out io.Writer) (int, error) {
		program := args[0]
		for _, kv := range env { // as the sandbox does: by the PATH of env
			if v, ok := strings.CutPrefix(kv, "PATH="); ok && !strings.Contains(args[0], "/") {
				for d := range strings.SplitSeq(v, ":") {
					if fi, err := os.Stat(filepath.Join(d, args[0])); err == nil && fi.Mode()&0o111 != 0 && !fi.IsDir() {
						program = filepath.Join(d, args[0])
						break
					}
				}
			}
		}
		cmd := exec.CommandContext(ctx, program, args[1:]...)
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, out, out
		err := cmd.Run()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return exit.ExitCode(), nil
		}
		return 0, err
	}
}

// gitServer serves the repositories below the returned folder and counts
// requests without the token.
func gitServer(t *testing.T) (dir string, server *httptest.Server) {
	t.Helper()
	dir = t.TempDir()
	core, err := exec.CommandContext(t.Context(), "git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	handler := &cgi.Handler{Path: filepath.Join(strings.TrimSpace(string(core)), "git-http-backend"), Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1"}}
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != "tok" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return dir, server
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com", "GIT_CONFIG_NOSYSTEM=1", "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// published makes o/r with a branch, a tag, a pull request, a submodule.
func published(t *testing.T, dir, server string) (main, merge string) {
	t.Helper()
	for _, name := range []string{"o/r", "o/lib"} {
		git(t, dir, "init", "--quiet", "--bare", "-b", "main", name)
		git(t, filepath.Join(dir, name), "config", "uploadpack.allowAnySHA1InWant", "true")
		git(t, filepath.Join(dir, name), "config", "uploadpack.allowFilter", "true")
	}
	lib := t.TempDir()
	git(t, lib, "init", "--quiet", "-b", "main")
	write(t, lib+"/lib.txt", "lib\n")
	git(t, lib, "add", ".")
	git(t, lib, "commit", "--quiet", "-m", "lib")
	git(t, lib, "push", "--quiet", filepath.Join(dir, "o/lib"), "main")
	work := t.TempDir()
	git(t, work, "init", "--quiet", "-b", "main")
	write(t, work+"/deploy/a.yaml", "a: 1\n")
	write(t, work+"/src/main.txt", "main\n")
	git(t, work, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", filepath.Join(dir, "o/lib"), "lib")
	git(t, work, "config", "-f", ".gitmodules", "submodule.lib.url", "git@github.com:o/lib")
	git(t, work, "add", ".")
	git(t, work, "commit", "--quiet", "-m", "one")
	git(t, work, "tag", "v1")
	write(t, work+"/src/main.txt", "main 2\n")
	git(t, work, "commit", "--quiet", "-am", "two")
	main = git(t, work, "rev-parse", "HEAD")
	git(t, work, "checkout", "--quiet", "-b", "feature")
	write(t, work+"/feature.txt", "f\n")
	git(t, work, "add", ".")
	git(t, work, "commit", "--quiet", "-m", "feature")
	merge = git(t, work, "rev-parse", "HEAD")
	git(t, work, "push", "--quiet", filepath.Join(dir, "o/r"), "main", "v1", "feature", "HEAD:refs/pull/7/merge")
	return main, merge
}

func TestCheckoutOfARealRepository(t *testing.T) {
	dir, server := gitServer(t)
	main, merge := published(t, dir, server.URL)
	for _, test := range []struct {
		name      string
		with      map[string]string
		ref, sha  string
		head      string
		there     []string
		missing   []string
		onBranch  string
		wantError string
	}{
		{name: "push", ref: "refs/heads/main", sha: main, head: main, there: []string{"src/main.txt"}, missing: []string{"feature.txt", "lib/lib.txt"}, onBranch: "main"},
		{name: "pull request", ref: "refs/pull/7/merge", sha: merge, head: merge, there: []string{"feature.txt"}},
		{name: "short branch", with: map[string]string{"ref": "feature"}, ref: "refs/heads/main", sha: main, head: merge, onBranch: "feature"},
		{name: "short tag", with: map[string]string{"ref": "v1"}, ref: "refs/heads/main", sha: main, there: []string{"src/main.txt"}},
		{name: "missing", with: map[string]string{"ref": "nowhere"}, ref: "refs/heads/main", sha: main, wantError: `no branch and no tag "nowhere"`},
		{name: "sparse", with: map[string]string{"sparse-checkout": "deploy"}, ref: "refs/heads/main", sha: main, there: []string{"deploy/a.yaml"}, missing: []string{"src/main.txt"}},
		{name: "submodules", with: map[string]string{"submodules": "recursive", "fetch-depth": "0"}, ref: "refs/heads/main", sha: main, there: []string{"lib/lib.txt"}},
		{name: "path", with: map[string]string{"path": "sub/dir", "fetch-tags": "true", "fetch-depth": "0"}, ref: "refs/heads/main", sha: main, there: []string{"sub/dir/src/main.txt"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, a, out, log := call(t, "actions/checkout@v5", test.with)
			onHost(t, c)
			c.Job.ServerURL, c.Job.Token, c.Job.Ref, c.Job.Commit = server.URL, "tok", test.ref, test.sha
			for range 2 { // the second time over what is there
				write(t, filepath.Join(c.Job.Workspace, c.With["path"], "litter.txt"), "x")
				err := a.Run(t.Context(), c)
				if test.wantError != "" {
					if err == nil || !strings.Contains(err.Error(), test.wantError) {
						t.Fatalf("%v\n%s", err, log)
					}
					return
				}
				if err != nil {
					t.Fatalf("%v\n%s", err, log)
				}
			}
			if test.head != "" && out["commit"] != test.head {
				t.Errorf("commit %s, want %s", out["commit"], test.head)
			}
			if test.onBranch != "" && git(t, c.Job.Workspace, "rev-parse", "--abbrev-ref", "HEAD") != test.onBranch {
				t.Errorf("not on %s", test.onBranch)
			}
			for _, f := range test.there {
				if _, err := c.Job.Files.Stat(f); err != nil {
					t.Error(err)
				}
			}
			for _, f := range append(test.missing, filepath.Join(c.With["path"], "litter.txt")) {
				if _, err := c.Job.Files.Stat(f); err == nil {
					t.Errorf("%s is there", f)
				}
			}
			if err := a.Post(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			config, err := os.ReadFile(filepath.Join(c.Job.Workspace, c.With["path"], ".git/config"))
			if err != nil || strings.Contains(string(config), "AUTHORIZATION") {
				t.Errorf("the token is left: %s %v", config, err)
			}
		})
	}
}
