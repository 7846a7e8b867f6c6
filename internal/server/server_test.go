package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"github.com/lockstep-gitops/lockstep/internal/journal"
	"github.com/lockstep-gitops/lockstep/internal/server"
	"github.com/lockstep-gitops/lockstep/internal/server/servertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "a-token-of-some-length"

type fixture struct {
	*servertest.Platform
	server *server.Server
	config server.Config
}

func newFixture(t *testing.T, change func(*server.Config, *server.Deps)) *fixture {
	t.Helper()
	dir, err := os.MkdirTemp("", "ls") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	j, err := journal.Open(t.Context(), filepath.Join(dir, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	f := &fixture{Platform: servertest.New(j)}
	f.config = server.Config{Socket: filepath.Join(dir, "lockstep.sock"), Token: token, Coalesce: 20 * time.Millisecond, Heartbeat: 50 * time.Millisecond,
		Page: fstest.MapFS{"index.html": {Data: []byte("<p>page")}, "main.js": {Data: []byte("1")}}}
	deps := f.Deps()
	if change != nil {
		change(&f.config, &deps)
	}
	if f.server, err = server.New(f.config, deps); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) ask(t *testing.T, h http.Handler, method, target, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	r.Host = "localhost:8080"
	for pair := range slices.Chunk(header, 2) {
		if pair[0] == "Host" {
			r.Host = pair[1]
		} else {
			r.Header.Set(pair[0], pair[1])
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAnswers(t *testing.T) {
	f := newFixture(t, nil)
	if err := f.Play(t.Context()); err != nil {
		t.Fatal(err)
	}
	sized := func(n int) string {
		b, _ := json.Marshal(server.SetSecret{Value: bytes.Repeat([]byte("x"), n)})
		return string(b)
	}
	for _, tc := range []struct {
		method, path, body string
		status             int
		contains           string
	}{
		{"GET", "/api/v1/status", "", 200, `"uptimeSeconds":4200`},
		{"GET", "/api/v1/apps", "", 200, `"health":{"Degraded":1,"Healthy":1}`},
		{"GET", "/api/v1/apps?limit=1", "", 200, `"next":1`},
		{"GET", "/api/v1/apps?q=STORE", "", 200, `"total":1`},
		{"GET", "/api/v1/apps?q=nothing", "", 200, `"items":[]`},
		{"GET", "/api/v1/apps?limit=0", "", 400, "use 1 to 100"},
		{"GET", "/api/v1/apps?limit=101", "", 400, "use 1 to 100"},
		{"GET", "/api/v1/apps?offset=-1", "", 400, "does not fit"},
		{"GET", "/api/v1/apps?offset=999999", "", 200, `"items":[]`},
		{"GET", "/api/v1/apps/argocd/storefront", "", 200, `"kind":"Deployment"`},
		{"GET", "/api/v1/apps/argocd/nobody", "", 404, "application argocd/nobody: not found"},
		{"GET", "/api/v1/apps/argocd/storefront/diff", "", 200, `+  replicas: 2`},
		{"POST", "/api/v1/apps/argocd/storefront/sync", `{"prune":true}`, 204, ""},
		{"POST", "/api/v1/apps/argocd/storefront/sync", "", 204, ""},
		{"POST", "/api/v1/apps/argocd/storefront/sync", `{"purge":true}`, 400, "does not fit"},
		{"POST", "/api/v1/apps/argocd/storefront/sync", `{"revision":"` + strings.Repeat("x", 70000) + `"}`, 413, "larger than"},
		{"POST", "/api/v1/apps/argocd/storefront/refresh?hard=1", "", 204, ""},
		{"POST", "/api/v1/apps/argocd/storefront/sync", `{"force":true,"resources":[{"group":"apps","kind":"Deployment","name":"web"}]}`, 204, ""},
		{"GET", "/api/v1/apps/argocd/storefront/history", "", 200, `"subject":"First version"`},
		{"GET", "/api/v1/apps/argocd/nobody/history", "", 404, "not found"},
		{"GET", "/api/v1/apps/argocd/storefront/plan?revision=v1", "", 200, `+  replicas: 2`},
		{"GET", "/api/v1/apps/argocd/storefront/plan?history=-1", "", 400, "does not fit"},
		{"GET", "/api/v1/apps/argocd/storefront/plan?history=1&revision=v1", "", 400, "does not fit"},
		{"GET", "/api/v1/apps/argocd/storefront/manifests?history=0", "", 200, `"place":"deploy/base/service.yaml:1"`},
		{"GET", "/api/v1/apps/argocd/storefront/tree", "", 200, `"kind":"ReplicaSet"`},
		{"GET", "/api/v1/apps/argocd/storefront/actions?kind=Deployment", "", 200, `"name":"scale"`},
		{"POST", "/api/v1/apps/argocd/storefront/actions", `{"kind":"Deployment","name":"web","action":"scale","params":{"replicas":"3"}}`, 204, ""},
		{"POST", "/api/v1/apps/argocd/storefront/actions", `{"kind":"Deployment","name":"web"}`, 400, "send kind, name and action"},
		{"POST", "/api/v1/apps/argocd/storefront/rollback", `{"history":0,"prune":true}`, 200, `"id":0`},
		{"POST", "/api/v1/apps/argocd/storefront/rollback", `{"dryRun":true}`, 200, `+  replicas: 2`},
		{"POST", "/api/v1/apps/argocd/storefront/rollback", `{"history":"x"}`, 400, "does not fit"},
		{"POST", "/api/v1/apps/argocd/storefront/unhold", "", 204, ""},
		{"POST", "/api/v1/apps/argocd/storefront/terminate", "", 204, ""},
		{"POST", "/api/v1/apps/argocd/storefront/pause", `{"reason":"incident 7"}`, 204, ""},
		{"POST", "/api/v1/apps/argocd/storefront/resume", "", 204, ""},
		{"POST", "/api/v1/apps/argocd/storefront/confirm", "", 204, ""},
		{"DELETE", "/api/v1/apps/argocd/storefront/objects?kind=Pod&name=web&propagation=orphan", "", 204, ""},
		{"DELETE", "/api/v1/apps/argocd/storefront/objects?kind=Pod", "", 400, "needs a kind and a name"},
		{"GET", "/api/v1/runs?limit=1", "", 200, `"next":2`},
		{"GET", "/api/v1/runs?before=2", "", 200, `"id":1`},
		{"GET", "/api/v1/runs/1", "", 200, `"Build the image"`},
		{"GET", "/api/v1/runs/77", "", 404, "run 77: not found"},
		{"GET", "/api/v1/runs/one", "", 400, "a run is a number"},
		{"GET", "/api/v1/runs/1/logs", "", 200, "build  Check out"},
		{"GET", "/api/v1/runs/77/logs", "", 404, "not found"},
		{"POST", "/api/v1/runs/1/cancel", "", 204, ""},
		{"POST", "/api/v1/runs/1/rerun?failed=1", "", 200, `{"id":101}`},
		{"GET", "/api/v1/traces", "", 200, servertest.Broken},
		{"GET", "/api/v1/traces/5d6e7f8", "", 200, `"state":"ready"`},
		{"GET", "/api/v1/traces/" + servertest.Broken, "", 200, `"file":".github/workflows/ci.yaml"`},
		{"GET", "/api/v1/traces/0000", "", 404, "no such commit"},
		{"GET", "/api/v1/traces/%27or%201=1", "", 404, "no such commit"},
		{"GET", "/api/v1/secrets", "", 200, `"db-password"`},
		{"PUT", "/api/v1/secrets/storefront-kv/db-password", sized(9), 200, `"version":"0d20"`},
		{"PUT", "/api/v1/secrets/storefront-kv/db-password", sized(26 << 10), 413, "at most 25600"},
		{"PUT", "/api/v1/secrets/storefront-kv/db-password", "{}", 400, "empty"},
		{"PUT", "/api/v1/secrets/storefront-kv/db-password", `{"value":"hunter2!"}`, 400, "does not fit"},
		{"PUT", "/api/v1/secrets/storefront-kv/db_password", sized(1), 400, "cannot be the name"},
		{"PUT", "/api/v1/secrets/x/db", sized(1), 400, "name of a vault"},
		{"PUT", "/api/v1/repos/contoso/storefront/secrets/DEPLOY_KEY", sized(3), 204, ""},
		{"PUT", "/api/v1/repos/contoso/storefront/secrets/GITHUB_X", sized(3), 400, "cannot be the name"},
		{"GET", "/api/v1/images", "", 200, `{"host":"docker.io","repository":"library/golang","tags":["1","1.26"]}`},
		{"POST", "/api/v1/images/import", `{"file":"/tmp/redis.tar","reference":"redis:7"}`, 200, `{"reference":"redis:7","digest":"sha256:4f53cda1"}`},
		{"POST", "/api/v1/images/import", `{"file":"redis.tar","reference":"redis:7"}`, 400, "no absolute path"},
		{"POST", "/api/v1/images/import", `{"file":"/` + strings.Repeat("x", 4096) + `","reference":"redis:7"}`, 400, "no absolute path"},
		{"POST", "/api/v1/images/import", `{"file":"/tmp/redis.tar"}`, 400, "names no image"},
		{"POST", "/api/v1/images/import", `{"path":"/tmp/redis.tar"}`, 400, "does not fit"},
		{"GET", "/api/v1/images/import", "", 404, "there is no GET"},
		{"GET", "/api/v1/components", "", 200, "snapshotter"},
		{"GET", "/api/v1/components/kubelet/logs?tail=10&since=2026-11-23T12:00:00Z", "", 200, "kubelet.go"},
		{"GET", "/api/v1/components/kubelet/logs?since=yesterday", "", 400, "use a time like"},
		{"GET", "/api/v1/components/nobody/logs", "", 404, "not found"},
		{"GET", "/api/v1/events?after=x", "", 400, "cursor"},
		{"POST", "/api/v1/shutdown", "", 204, ""},
		{"GET", "/api/v2/status", "", 404, "there is no GET /api/v2/status"},
		{"DELETE", "/api/v1/status", "", 404, "there is no DELETE"},
		{"GET", "/", "", 200, "<p>page"},
		{"GET", "/main.js", "", 200, "1"},
		{"GET", "/nothing.html", "", 404, "no page"},
	} {
		t.Run(tc.method+" "+tc.path[:min(len(tc.path), 60)], func(t *testing.T) {
			w := f.ask(t, f.server.ControlHandler(), tc.method, tc.path, tc.body)
			if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.contains) {
				t.Errorf("answer %d %s\nwant %d with %q", w.Code, w.Body, tc.status, tc.contains)
			}
			if w.Code >= 400 && w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("error of type %s", w.Header().Get("Content-Type"))
			}
			if strings.Contains(w.Body.String(), "hunter2") {
				t.Error("the answer quotes a secret")
			}
			if w.Header().Get("Content-Security-Policy") == "" {
				t.Error("no Content-Security-Policy")
			}
		})
	}
	want := []string{"sync argocd/storefront prune=true revision=", "sync argocd/storefront prune=false revision=", "refresh argocd/storefront hard=true",
		"sync argocd/storefront prune=false revision= force=true noHooks=false resources=[{apps Deployment  web}]",
		"scale argocd/storefront  Deployment  web map[replicas:3]", "rollback argocd/storefront to=0 prune=true", "unhold argocd/storefront",
		"terminate argocd/storefront", "pause argocd/storefront incident 7", "resume argocd/storefront", "confirm argocd/storefront", "delete argocd/storefront  Pod  web orphan",
		"cancel 1", "rerun 1 failed=true", "set storefront-kv/db-password to 9 bytes", "set contoso/storefront DEPLOY_KEY to 3 bytes",
		"import redis:7 from /tmp/redis.tar", "shutdown"}
	if got := f.Calls(); !slices.Equal(got, want) {
		t.Errorf("calls:\n%q\nwant\n%q", got, want)
	}
}

func TestLoopbackDoor(t *testing.T) {
	f := newFixture(t, nil)
	const shutdown, status, load = "/api/v1/shutdown", "/api/v1/status", "/api/v1/images/import"
	for name, tc := range map[string]struct {
		method, path string
		header       []string
		status       int
	}{
		"show":                            {"GET", status, nil, 200},
		"show images":                     {"GET", "/api/v1/images", nil, 200},
		"read a file":                     {"POST", load, nil, 401},
		"read a file with the token":      {"POST", load, []string{"Authorization", "Bearer " + token}, 403},
		"show by address":                 {"GET", status, []string{"Host", "127.0.0.1:8080"}, 200},
		"show by name":                    {"GET", status, []string{"Host", "lockstep.localhost"}, 200},
		"rebinding":                       {"GET", status, []string{"Host", "evil.example"}, 421},
		"rebinding that looks local":      {"GET", status, []string{"Host", "localhost.evil.example"}, 421},
		"rebinding with a suffix":         {"GET", status, []string{"Host", "evillocalhost"}, 421},
		"no host":                         {"GET", status, []string{"Host", ""}, 421},
		"change without token":            {"POST", shutdown, nil, 401},
		"change with a wrong token":       {"POST", shutdown, []string{"Authorization", "Bearer " + token + "x"}, 401},
		"change with an empty token":      {"POST", shutdown, []string{"Authorization", "Bearer "}, 401},
		"change":                          {"POST", shutdown, []string{"Authorization", "Bearer " + token}, 204},
		"change from our page":            {"POST", shutdown, []string{"Authorization", "Bearer " + token, "Origin", "http://localhost:8080"}, 204},
		"change from another port":        {"POST", shutdown, []string{"Authorization", "Bearer " + token, "Origin", "http://localhost:9999"}, 403},
		"change from a site":              {"POST", shutdown, []string{"Authorization", "Bearer " + token, "Origin", "https://evil.example"}, 403},
		"change from an opaque origin":    {"POST", shutdown, []string{"Authorization", "Bearer " + token, "Origin", "null"}, 403},
		"read by a site":                  {"GET", status, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors"}, 403},
		"a sibling name, as a job's site": {"GET", status, []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script"}, 403},
		"framed by a site":                {"GET", "/", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, 403},
		"a link to the page":              {"GET", "/", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			if w := f.ask(t, f.server.Handler(), tc.method, tc.path, "", tc.header...); w.Code != tc.status {
				t.Errorf("answer %d %s, want %d", w.Code, w.Body, tc.status)
			}
		})
	}
	closed := newFixture(t, func(c *server.Config, _ *server.Deps) { c.Token = "" })
	if w := closed.ask(t, closed.server.Handler(), "POST", shutdown, "", "Authorization", "Bearer "); w.Code != 401 {
		t.Errorf("without a token in Config: answer %d, want 401", w.Code)
	}
}

func TestPartsThatAreMissingSaySo(t *testing.T) {
	f := newFixture(t, func(_ *server.Config, d *server.Deps) {
		d.Apps, d.Runs, d.Components, d.Secrets, d.Images, d.Shutdown = nil, nil, nil, nil, nil, nil
	})
	for _, call := range []string{"GET /apps", "GET /apps/a/b", "GET /apps/a/b/diff", "POST /apps/a/b/sync", "POST /apps/a/b/refresh", "GET /runs", "GET /runs/1",
		"GET /runs/1/logs", "GET /secrets", "PUT /secrets/vault/b", "GET /images", "POST /images/import", "GET /components", "GET /components/a/logs", "POST /shutdown"} {
		method, path, _ := strings.Cut(call, " ")
		if w := f.ask(t, f.server.ControlHandler(), method, "/api/v1"+path, ""); w.Code != 501 || !strings.Contains(w.Body.String(), "runs without") {
			t.Errorf("%s: %d %s", call, w.Code, w.Body)
		}
	}
	if w := f.ask(t, f.server.ControlHandler(), "GET", "/api/v1/status", ""); w.Code != 200 {
		t.Errorf("status: %d %s", w.Code, w.Body)
	}
}

// run starts the server on its socket and returns a client and how to end it.
func (f *fixture) run(t *testing.T) (*http.Client, func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.server.Run(ctx) }()
	select {
	case <-f.server.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", f.config.Socket)
	}}
	return &http.Client{Transport: transport}, func() error {
		cancel()
		err := <-done
		transport.CloseIdleConnections()
		return err
	}
}

func TestControlSocket(t *testing.T) {
	f := newFixture(t, nil)
	if err := os.WriteFile(f.config.Socket, nil, 0o644); err != nil { // left by a dead platform
		t.Fatal(err)
	}
	client, stop := f.run(t)
	info, err := os.Stat(f.config.Socket)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("socket: %v, %v; want a socket with mode 600", info.Mode(), err)
	}
	res, err := client.Post("http://lockstep/api/v1/shutdown", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != 204 {
		t.Errorf("shutdown by socket: %d", res.StatusCode)
	}
	second, err := server.New(f.config, f.Deps())
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "already answers") {
		t.Errorf("a second server on the same socket: %v", err)
	}
	// An open stream ends with the server.
	res, err = client.Get("http://lockstep/api/v1/components/kubelet/logs?follow=1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	line, err := bufio.NewReader(res.Body).ReadString('\n')
	if err != nil || !strings.Contains(line, "kubelet.go") {
		t.Errorf("log: %q, %v", line, err)
	}
	began := time.Now()
	if err := stop(); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	if d := time.Since(began); d > 4*time.Second {
		t.Errorf("stopping took %v: a stream held it up", d)
	}
	if _, err := os.Stat(f.config.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket file is left: %v", err)
	}
	left, err := os.ReadDir(filepath.Dir(f.config.Socket))
	if err != nil || slices.ContainsFunc(left, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".s") }) {
		t.Errorf("left in the folder: %v, %v", left, err)
	}
}

func TestEventsResumeAndCoalesce(t *testing.T) {
	f := newFixture(t, nil)
	if err := f.Play(t.Context()); err != nil {
		t.Fatal(err)
	}
	client, stop := f.run(t)
	follow := func(path string, lastEventID string) (*bufio.Scanner, func()) {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://lockstep/api/v1/events"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if lastEventID != "" {
			r.Header.Set("Last-Event-ID", lastEventID)
		}
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
			t.Fatalf("type %s", got)
		}
		return bufio.NewScanner(res.Body), func() { _ = res.Body.Close() }
	}
	// next reads the batch that follows, and its id.
	next := func(s *bufio.Scanner) (id int64, batch []journal.Event) {
		for s.Scan() {
			if text, ok := strings.CutPrefix(s.Text(), "id: "); ok {
				id, _ = strconv.ParseInt(text, 10, 64)
			}
			if text, ok := strings.CutPrefix(s.Text(), "data: ["); ok {
				if err := json.Unmarshal([]byte("["+text), &batch); err != nil {
					t.Fatal(err)
				}
				return id, batch
			}
		}
		t.Fatal("the stream ended: ", s.Err())
		return 0, nil
	}
	last := int64(len(servertest.Story()))
	s, end := follow("?after=18", "") // coalesced: three events, one message
	if id, batch := next(s); id != last || len(batch) != int(last)-18 || batch[0].ID != 19 {
		t.Errorf("got %d events up to %d, want 19 to %d at once", len(batch), id, last)
	}
	end()
	s, end = follow("?after=1", strconv.FormatInt(last, 10)) // a browser that reconnects
	if _, err := f.Journal.Append(t.Context(), journal.Event{Stage: journal.StagePlatform, Subject: "new", Status: journal.StatusInfo}); err != nil {
		t.Fatal(err)
	}
	if id, batch := next(s); id != last+1 || len(batch) != 1 {
		t.Errorf("after reconnecting: %d events up to %d, want only %d", len(batch), id, last+1)
	}
	heartbeat := false
	for s.Scan() && !heartbeat {
		heartbeat = strings.HasPrefix(s.Text(), ":")
	}
	if !heartbeat {
		t.Error("no heartbeat")
	}
	end()
	s, end = follow("", "") // from now on
	defer end()
	if _, err := f.Journal.Append(t.Context(), journal.Event{Stage: journal.StagePlatform, Subject: "newer", Status: journal.StatusInfo}); err != nil {
		t.Fatal(err)
	}
	if _, batch := next(s); len(batch) != 1 || batch[0].Subject != "newer" {
		t.Errorf("from now on: %v", batch)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	f := newFixture(t, func(c *server.Config, _ *server.Deps) { c.MaxStreams = 1 })
	client, stop := f.run(t)
	first, err := client.Get("http://lockstep/api/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	second, err := client.Get("http://lockstep/api/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(second.Body)
	_ = second.Body.Close()
	if second.StatusCode != 503 || !strings.Contains(string(body), "streams are in use") {
		t.Errorf("second stream: %d %s", second.StatusCode, body)
	}
	_ = first.Body.Close()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, c := range map[string]server.Config{
		"no socket":        {},
		"long path":        {Socket: "/" + strings.Repeat("x", 120)},
		"guessable token":  {Socket: "/s", Token: "short"},
		"negative streams": {Socket: "/s", MaxStreams: -1},
	} {
		if err := c.Validate(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
