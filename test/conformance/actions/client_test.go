// Package actions_test runs GitHub's own npm clients (@actions/core, artifact,
// cache, github) against Lockstep's runner services over HTTP.
package actions_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/service"
)

// install makes the npm packages available and returns the folder of client.mjs.
func install(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("installs npm packages")
	}
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s: GitHub's clients are npm packages", program)
		}
	}
	dir, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	wanted, err := os.ReadFile("package.json")
	if err != nil {
		t.Fatal(err)
	}
	marker := filepath.Join(dir, "node_modules", ".installed")
	if have, err := os.ReadFile(marker); err == nil && bytes.Equal(have, wanted) {
		return dir
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("the npm packages cannot be had here: %v\n%s", err, out)
	}
	if err := os.WriteFile(marker, wanted, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// world is the services on a real port, with a REST front as the forge has it.
type world struct {
	t       *testing.T
	dir     string // of client.mjs
	service *service.Service
	url     string
}

func newWorld(t *testing.T, change func(*service.Config)) *world {
	dir := install(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := service.Config{Dir: t.TempDir(), URL: "http://" + l.Addr().String(), APIURL: "http://" + l.Addr().String() + "/api"}
	if change != nil {
		change(&cfg)
	}
	s, err := service.New(cfg, service.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	rest := http.StripPrefix("/api", s.REST())
	mux := http.NewServeMux()
	mux.Handle("/", s.Handler())
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("X-Lockstep-Write", "true")
		rest.ServeHTTP(w, r)
	})
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: mux}}
	srv.Start()
	t.Cleanup(func() {
		srv.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{t: t, dir: dir, service: s, url: cfg.URL}
}

// job is an open scope with a workspace.
type job struct {
	*world
	t         *testing.T
	env       []string
	workspace string
}

func (w *world) job(t *testing.T, scope service.Scope) *job {
	t.Helper()
	if scope.Repo == "" {
		scope.Repo = "acme/app"
	}
	if scope.DefaultBranch == "" {
		scope.DefaultBranch = "main"
	}
	if scope.Ref == "" {
		scope.Ref = "refs/heads/main"
	}
	env, closing := w.service.Open(scope)
	t.Cleanup(closing)
	j := &job{world: w, t: t, workspace: t.TempDir()}
	j.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "RUNNER_TEMP=" + t.TempDir(), "GITHUB_WORKSPACE=" + j.workspace,
		"GITHUB_SERVER_URL=http://github.localhost", "GITHUB_API_URL=" + w.url + "/api", "GITHUB_REPOSITORY=" + scope.Repo, "GITHUB_REF=" + scope.Ref,
		"GITHUB_RETENTION_DAYS=90"}
	for name, v := range env {
		j.env = append(j.env, name+"="+v)
	}
	return j
}

type result struct {
	OK    json.RawMessage `json:"ok"`
	Error string          `json:"error"`
	Name  string          `json:"name"`
	Log   string
}

// call runs one verb of client.mjs in the job.
func (j *job) call(verb string, request any, env ...string) result {
	j.t.Helper()
	text, err := json.Marshal(request)
	if err != nil {
		j.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(j.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", filepath.Join(j.dir, "client.mjs"), verb, string(text))
	cmd.Dir, cmd.Env = j.workspace, append(append([]string{}, j.env...), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		j.t.Fatalf("%s: %v\n%s", verb, err, out)
	}
	log, line, found := strings.Cut(string(out), "RESULT ")
	if !found {
		j.t.Fatalf("%s gave no result:\n%s", verb, out)
	}
	r := result{Log: log}
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		j.t.Fatalf("%s: %v\n%s", verb, err, out)
	}
	return r
}

// ok is call that has to succeed, into v.
func (j *job) ok(v any, verb string, request any) {
	j.t.Helper()
	r := j.call(verb, request)
	if r.Error != "" {
		j.t.Fatalf("%s: %s\n%s", verb, r.Error, r.Log)
	}
	if v != nil {
		if err := json.Unmarshal(r.OK, v); err != nil {
			j.t.Fatalf("%s: %v in %s", verb, err, r.OK)
		}
	}
}

func (j *job) write(name, content string) string {
	j.t.Helper()
	path := filepath.Join(j.workspace, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		j.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		j.t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

type obj = map[string]any
