package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is set by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// served is a service on a real port.
type served struct {
	*Service
	t     *testing.T
	clock *clock
	url   string
}

func serve(t *testing.T, change func(*Config)) *served {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: t.TempDir(), URL: "http://" + l.Addr().String()}
	if change != nil {
		change(&cfg)
	}
	c := &clock{now: time.Now()}
	s, err := New(cfg, Deps{Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: s.Handler()}}
	srv.Start()
	t.Cleanup(func() {
		srv.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &served{s, t, c, cfg.URL}
}

func scope(run, job int64) Scope {
	return Scope{Repo: "acme/app", Run: run, Attempt: 1, Job: job, Ref: "refs/heads/main", DefaultBranch: "main"}
}

// do sends a request and returns the status, the body and the answer.
func (s *served) do(method, url, body string, header ...string) (int, string, *http.Response) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.Body.Close() != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(data), resp
}

func (s *served) twirp(env map[string]string, method, body string) (int, string) {
	s.t.Helper()
	status, answer, _ := s.do("POST", s.url+"/twirp/github.actions.results.api.v1."+method, body, "Content-Type", "application/json", "Authorization", "Bearer "+env["ACTIONS_RUNTIME_TOKEN"])
	return status, answer
}

func (s *served) save(sc Scope, name, content string) (Artifact, error) {
	return s.SaveArtifact(s.t.Context(), sc, ArtifactSpec{Name: name}, text(content))
}

func text(content string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, content)
		return err
	}
}

func files(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTokensEndWithTheirJob(t *testing.T) {
	s := serve(t, nil)
	env, closing := s.Open(scope(1, 1))
	list := fmt.Sprintf(`{"workflowRunBackendId":%q,"workflowJobRunBackendId":"x"}`, scope(1, 1).runBackend())
	if status, body := s.twirp(env, "ArtifactService/ListArtifacts", list); status != 200 || body != `{"artifacts":[]}`+"\n" {
		t.Errorf("open: %d %s", status, body)
	}
	create := fmt.Sprintf(`{"workflow_run_backend_id":%q,"workflow_job_run_backend_id":"x","name":"a","version":4}`, scope(1, 1).runBackend())
	status, body := s.twirp(env, "ArtifactService/CreateArtifact", create)
	if status != 200 {
		t.Fatalf("create: %d %s", status, body)
	}
	other, _ := s.Open(scope(2, 2))
	if status, body := s.twirp(other, "ArtifactService/ListArtifacts", list); status != 403 || !strings.Contains(body, "another workflow run") {
		t.Errorf("another run: %d %s", status, body)
	}
	closing()
	if status, body := s.twirp(env, "ArtifactService/ListArtifacts", list); status != 401 || !strings.Contains(body, "job has ended") {
		t.Errorf("closed: %d %s", status, body)
	}
	if n := files(t, s.stagingDir()); n != 0 || len(s.uploads) != 0 || len(s.staged) != 0 {
		t.Errorf("left: %d files, %v, %v", n, s.uploads, s.staged)
	}
	for name, call := range map[string]struct{ method, path, token, body, want string }{
		"no token":   {"POST", "ArtifactService/ListArtifacts", "", list, "unauthenticated"},
		"forged":     {"POST", "ArtifactService/ListArtifacts", "Bearer eyJhbGciOiJub25lIn0.e30.", list, "unauthenticated"},
		"no method":  {"POST", "ArtifactService/MigrateArtifact", "Bearer x", list, "bad_route"},
		"GET":        {"GET", "ArtifactService/ListArtifacts", "Bearer x", "", "bad_route"},
		"not JSON":   {"POST", "ArtifactService/ListArtifacts", "Bearer " + other["ACTIONS_RUNTIME_TOKEN"], "{", "malformed"},
		"wrong type": {"POST", "ArtifactService/ListArtifacts", "Bearer " + other["ACTIONS_RUNTIME_TOKEN"], `{"name_filter":1}`, "malformed"},
	} {
		if _, body, _ := s.do(call.method, s.url+"/twirp/github.actions.results.api.v1."+call.path, call.body, "Content-Type", "application/json", "Authorization", call.token); !strings.Contains(body, call.want) {
			t.Errorf("%s: %s", name, body)
		}
	}
}

// TestRestart: what was finalized is there after a crash, what was not is gone.
func TestRestart(t *testing.T) {
	s := serve(t, nil)
	a, err := s.save(scope(1, 1), "kept", "content")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SaveCache(t.Context(), scope(1, 1), "key", "v", text("cached")); err != nil {
		t.Fatal(err)
	}
	u, err := s.newArtifact(t.Context(), "", scope(1, 1), "half", "", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.putBlob(t.Context(), u, strings.NewReader("half"), nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.keep(u); err != nil { // killed between the file and the row
		t.Fatal(err)
	}
	u, err = s.newArtifact(t.Context(), "", scope(1, 1), "less", "", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.putBlock(t.Context(), u, "AAAA", strings.NewReader("less"), nil); err != nil {
		t.Fatal(err)
	}
	again, err := New(s.cfg, Deps{Now: s.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	_, content, err := again.OpenArtifact(t.Context(), "ACME/app", a.ID)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(content)
	if err != nil || string(data) != "content" || content.Close() != nil {
		t.Errorf("%q %v", data, err)
	}
	if c, found, err := again.FindCache(t.Context(), scope(2, 2), "key", nil, "v"); !found || err != nil || c.Size != 6 {
		t.Errorf("%+v %v %v", c, found, err)
	}
	if n, m := files(t, s.blobDir()), files(t, s.stagingDir()); n != 2 || m != 0 {
		t.Errorf("%d blobs and %d staged files, want 2 and 0", n, m)
	}
	if list, n, err := again.Artifacts(t.Context(), ArtifactFilter{Repo: "acme/app"}); n != 1 || len(list) != 1 || err != nil {
		t.Errorf("%v %d %v", list, n, err)
	}
}

func TestArtifactRules(t *testing.T) {
	s := serve(t, func(c *Config) { c.ArtifactQuota, c.ArtifactDays = 100, 10 })
	for _, name := range []string{"", "a/b", `a\b`, "a:b", "a\nb", "..", strings.Repeat("x", 256), "\xff"} {
		if _, err := s.save(scope(1, 1), name, "x"); !errors.Is(err, ErrInvalid) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	a, err := s.save(scope(1, 1), "a", "12345")
	if err != nil || a.Expires.Sub(a.Created) < 9*24*time.Hour {
		t.Fatalf("%+v %v", a, err)
	}
	if _, err := s.save(scope(1, 2), "a", "x"); !errors.Is(err, ErrExists) {
		t.Errorf("same name: %v", err)
	}
	retry := scope(1, 3)
	retry.Attempt = 2
	if _, err := s.save(retry, "a", "x"); err != nil {
		t.Errorf("another attempt: %v", err)
	}
	if b, err := s.SaveArtifact(t.Context(), scope(1, 2), ArtifactSpec{Name: "a", Overwrite: true}, text("new")); err != nil || b.ID == a.ID {
		t.Errorf("overwrite: %+v %v", b, err)
	}
	if _, err := s.save(scope(1, 1), "large", strings.Repeat("x", 101)); !errors.Is(err, ErrQuota) {
		t.Errorf("beyond the quota: %v", err)
	}
	if _, err := s.save(scope(1, 1), "broken", "x"); err != nil {
		t.Error(err)
	}
	failure := errors.New("disk on fire")
	if _, err := s.SaveArtifact(t.Context(), scope(1, 1), ArtifactSpec{Name: "f"}, func(w io.Writer) error { _, _ = io.WriteString(w, "x"); return failure }); !errors.Is(err, failure) {
		t.Errorf("a writer that fails: %v", err)
	}
	if len(s.staged) != 0 || files(t, s.stagingDir()) != 0 {
		t.Errorf("left: %v", s.staged)
	}
	s.clock.add(11 * 24 * time.Hour)
	if _, err := s.Artifact(t.Context(), "acme/app", a.ID); !errors.Is(err, ErrExpired) && !errors.Is(err, ErrNotFound) {
		t.Errorf("expired: %v", err)
	}
	if err := s.Sweep(t.Context()); err != nil || files(t, s.blobDir()) != 0 {
		t.Errorf("after the sweep: %d files, %v", files(t, s.blobDir()), err)
	}
}

func TestCacheScopes(t *testing.T) {
	s := serve(t, nil)
	pull := scope(2, 1)
	pull.Ref, pull.BaseRef = "refs/pull/3/merge", "release"
	release := scope(3, 1)
	release.Ref = "refs/heads/release"
	feature := scope(4, 1)
	feature.Ref = "refs/heads/feature"
	for _, e := range []struct {
		scope Scope
		key   string
	}{{scope(1, 1), "k-1"}, {scope(1, 1), "k-main"}, {release, "k-release"}, {pull, "k-pull"}, {feature, "k-feature"}} {
		if _, err := s.SaveCache(t.Context(), e.scope, e.key, "v", text(e.key)); err != nil {
			t.Fatal(err)
		}
		s.clock.add(time.Second)
	}
	for name, c := range map[string]struct {
		scope   Scope
		key     string
		restore []string
		want    string
	}{
		"own":                      {pull, "k-pull", nil, "k-pull"},
		"base before default":      {pull, "x", []string{"k-r", "k-main"}, "k-release"},
		"own prefix before all":    {pull, "k-1", nil, "k-1"},
		"nearest ref first":        {pull, "x", []string{"k-"}, "k-pull"},
		"default branch":           {feature, "k-main", nil, "k-main"},
		"prefix of the key":        {scope(9, 9), "k-", nil, "k-main"},
		"not another branch's":     {scope(9, 9), "k-feature", nil, ""},
		"not a pull request's":     {release, "k-pull", nil, ""},
		"not another repository's": {Scope{Repo: "acme/other", Ref: "refs/heads/main"}, "k-main", nil, ""},
	} {
		got, found, err := s.FindCache(t.Context(), c.scope, c.key, c.restore, "v")
		if err != nil || got.Key != c.want || found != (c.want != "") {
			t.Errorf("%s: %q %v, want %q", name, got.Key, err, c.want)
		}
	}
	if _, found, err := s.FindCache(t.Context(), scope(1, 1), "k-1", nil, "w"); found || err != nil {
		t.Errorf("another version: %v", err)
	}
	for _, keys := range [][]string{{"a,b"}, {strings.Repeat("x", 513)}, {""}, {"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"}} {
		if _, _, err := s.FindCache(t.Context(), scope(1, 1), keys[0], keys[1:], "v"); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.20q: %v", keys, err)
		}
	}
	read := scope(5, 1)
	read.CacheMode = "read"
	if _, err := s.SaveCache(t.Context(), read, "n", "v", text("")); !errors.Is(err, ErrDenied) {
		t.Errorf("save with cache mode read: %v", err)
	}
}

func TestCacheEviction(t *testing.T) {
	s := serve(t, func(c *Config) { c.CacheQuota = 100 })
	put := func(key string, size int) error {
		s.clock.add(time.Second)
		_, err := s.SaveCache(t.Context(), scope(1, 1), key, "v", text(strings.Repeat("x", size)))
		return err
	}
	for _, key := range []string{"a", "b", "c"} {
		if err := put(key, 30); err != nil {
			t.Fatal(err)
		}
	}
	s.clock.add(time.Second)
	if _, found, err := s.FindCache(t.Context(), scope(1, 1), "a", nil, "v"); !found || err != nil {
		t.Fatal(err)
	}
	if err := put("d", 40); err != nil { // b and c are the least recently used; one of them has to go
		t.Fatal(err)
	}
	list, _, err := s.Caches(t.Context(), CacheFilter{Repo: "acme/app", Sort: "created_at", Asc: true})
	var keys []string
	for _, c := range list {
		keys = append(keys, c.Key)
	}
	if got := strings.Join(keys, ""); got != "acd" || err != nil {
		t.Errorf("kept %q, %v", got, err)
	}
	if err := put("huge", 101); !errors.Is(err, ErrQuota) {
		t.Errorf("an entry beyond the quota: %v", err)
	}
	if n, size, err := s.CacheUsage(t.Context(), "acme/app"); n != 3 || size != 100 || err != nil || files(t, s.blobDir()) != 3 {
		t.Errorf("%d entries, %d bytes, %d files, %v", n, size, files(t, s.blobDir()), err)
	}
	s.clock.add(8 * 24 * time.Hour)
	if _, found, err := s.FindCache(t.Context(), scope(1, 1), "a", nil, "v"); found || err != nil {
		t.Error("an unused entry is found")
	}
	if err := put("a", 10); err != nil {
		t.Errorf("an unused entry is in the way: %v", err)
	}
}

func TestValidate(t *testing.T) {
	for want, c := range map[string]Config{"Dir is empty": {}, "not an origin": {Dir: "x", URL: "http://h/path"}, "negative": {Dir: "x", CacheDays: -1}} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestRunEnds(t *testing.T) {
	s := serve(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(filepath.Join(s.cfg.Dir, "oidc-keys.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("keys: %v %v", info, err)
	}
}
