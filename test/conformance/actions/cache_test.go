package actions_test

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/actions/service"
	"github.com/lockstep-gitops/lockstep/internal/actions/service/archive"
)

func TestCache(t *testing.T) {
	w := newWorld(t, nil)
	main := w.job(t, service.Scope{Run: 1, Attempt: 1, Job: 1})
	main.write("deps/a.txt", "from main")
	var id int64
	main.ok(&id, "save", obj{"paths": []string{"deps"}, "key": "deps-linux-1"})
	if id <= 0 {
		t.Fatalf("saved as %d", id)
	}
	if r := main.call("save", obj{"paths": []string{"deps"}, "key": "deps-linux-1"}); string(r.OK) != "-1" || !strings.Contains(r.Log, "Unable to reserve cache") {
		t.Errorf("a key that exists: %+v", r)
	}

	pull := w.job(t, service.Scope{Run: 2, Attempt: 1, Job: 2, Ref: "refs/pull/7/merge", BaseRef: "release"})
	var key string
	pull.ok(&key, "restore", obj{"paths": []string{"deps"}, "key": "deps-linux-2", "restoreKeys": []string{"deps-mac-", "deps-linux-"}})
	if key != "deps-linux-1" || read(t, filepath.Join(pull.workspace, "deps/a.txt")) != "from main" {
		t.Errorf("a pull request restores %q", key)
	}
	pull.write("deps/a.txt", "from pull")
	pull.ok(nil, "save", obj{"paths": []string{"deps"}, "key": "deps-linux-2"})

	again := w.job(t, service.Scope{Run: 3, Attempt: 1, Job: 3})
	if r := again.call("restore", obj{"paths": []string{"deps"}, "key": "deps-linux-2"}); string(r.OK) != "null" {
		t.Errorf("the default branch reads a pull request's cache: %+v", r)
	}
	if r := again.call("restore", obj{"paths": []string{"other"}, "key": "deps-linux-1"}); string(r.OK) != "null" {
		t.Errorf("another version: %+v", r)
	}
	if r := again.call("restore", obj{"paths": []string{"deps"}, "key": "deps-linux-1", "options": obj{"lookupOnly": true}}); string(r.OK) != `"deps-linux-1"` {
		t.Errorf("lookup: %+v", r)
	}
}

func TestCacheDenied(t *testing.T) {
	w := newWorld(t, nil)
	j := w.job(t, service.Scope{Run: 1, Attempt: 1, Job: 1, CacheMode: "read"})
	j.write("deps/a.txt", "a")
	if r := j.call("save", obj{"paths": []string{"deps"}, "key": "k"}, "ACTIONS_CACHE_MODE="); !strings.Contains(r.Log, "cache write denied") {
		t.Errorf("save by a job that may only read: %+v", r)
	}
}

func TestLargeCache(t *testing.T) {
	w := newWorld(t, nil)
	j := w.job(t, service.Scope{Run: 1, Attempt: 1, Job: 1})
	file := filepath.Join(j.workspace, "deps", "large.bin")
	j.write("deps/x", "x")
	j.ok(nil, "random", obj{"file": file, "mib": 150}) // beyond one request of the client
	want := read(t, file)
	j.ok(nil, "save", obj{"paths": []string{"deps"}, "key": "k"})
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	j.ok(nil, "restore", obj{"paths": []string{"deps"}, "key": "k"})
	if read(t, file) != want {
		t.Error("150 MiB came back changed")
	}
}

// TestSharedCaches: what the built-in action saves the client restores, and
// the other way round.
func TestSharedCaches(t *testing.T) {
	w := newWorld(t, nil)
	compression := service.CompressionZstd
	if _, err := exec.LookPath("zstd"); err != nil {
		compression = service.CompressionGzip // as the client decides
	}
	scope := service.Scope{Repo: "acme/app", Run: 1, Attempt: 1, Job: 1, Ref: "refs/heads/main", DefaultBranch: "main"}
	j := w.job(t, scope)
	root, err := os.OpenRoot(filepath.Dir(j.workspace))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	tree := archive.Tree{{Path: filepath.Dir(j.workspace), Root: root}}
	outside := filepath.Join(filepath.Dir(j.workspace), "outside")
	paths := []string{"deps", outside}
	fill := func(text string) {
		j.write("deps/sub/a.txt", text)
		j.write("../outside/b.txt", text)
		_ = os.Remove(filepath.Join(j.workspace, "deps/link"))
		if err := os.Symlink("sub/a.txt", filepath.Join(j.workspace, "deps/link")); err != nil {
			t.Fatal(err)
		}
	}
	wipe := func() {
		if err := os.RemoveAll(filepath.Join(j.workspace, "deps")); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(outside); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want string) {
		t.Helper()
		for _, f := range []string{filepath.Join(j.workspace, "deps/sub/a.txt"), filepath.Join(outside, "b.txt"), filepath.Join(j.workspace, "deps/link")} {
			if got := read(t, f); got != want {
				t.Errorf("%s holds %q, want %q", f, got, want)
			}
		}
	}

	fill("ours")
	version := service.CacheVersion(paths, compression)
	if _, err := w.service.SaveCache(t.Context(), scope, "ours", version, func(out io.Writer) error {
		return archive.WriteTar(out, tree, j.workspace, paths, compression == service.CompressionGzip)
	}); err != nil {
		t.Fatal(err)
	}
	wipe()
	if r := j.call("restore", obj{"paths": paths, "key": "ours"}); string(r.OK) != `"ours"` {
		t.Fatalf("%+v", r)
	}
	check("ours")

	fill("theirs")
	j.ok(nil, "save", obj{"paths": paths, "key": "theirs"})
	wipe()
	c, found, err := w.service.FindCache(t.Context(), scope, "theirs", nil, version)
	if !found || err != nil {
		t.Fatal(found, err)
	}
	content, err := w.service.OpenCache(c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = content.Close() }()
	if _, err := archive.ReadTar(content, tree, j.workspace, archive.Limit{}); err != nil {
		t.Fatal(err)
	}
	check("theirs")
}

func TestCacheREST(t *testing.T) {
	w := newWorld(t, nil)
	j := w.job(t, service.Scope{Run: 1, Attempt: 1, Job: 1})
	j.write("deps/a.txt", "a")
	j.ok(nil, "save", obj{"paths": []string{"deps"}, "key": "k1"})
	var list struct {
		Caches []struct{ Key, Ref string } `json:"actions_caches"`
	}
	at := obj{"owner": "acme", "repo": "app", "key": "k1"}
	j.ok(&list, "rest", obj{"token": "t", "route": "GET /repos/{owner}/{repo}/actions/caches", "parameters": at})
	if len(list.Caches) != 1 || list.Caches[0].Ref != "refs/heads/main" {
		t.Errorf("%+v", list)
	}
	j.ok(nil, "rest", obj{"token": "t", "route": "DELETE /repos/{owner}/{repo}/actions/caches{?key}", "parameters": at})
	var usage json.RawMessage
	j.ok(&usage, "rest", obj{"token": "t", "route": "GET /repos/{owner}/{repo}/actions/cache/usage", "parameters": at})
	if !strings.Contains(string(usage), `"active_caches_count":0`) {
		t.Errorf("%s", usage)
	}
}
