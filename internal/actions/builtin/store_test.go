package builtin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// memory is a Store of this process.
type memory struct {
	artifacts []Artifact
	caches    []Cache
	versions  map[int64]string
	data      map[int64][]byte
}

func newMemory() *memory { return &memory{versions: map[int64]string{}, data: map[int64][]byte{}} }

func (m *memory) put(r io.Reader) (int64, []byte, error) {
	data, err := io.ReadAll(r)
	id := int64(len(m.data) + 1)
	m.data[id] = data
	return id, data, err
}

func (m *memory) PutArtifact(_ context.Context, a NewArtifact, zip io.Reader) (Artifact, error) {
	for i, old := range m.artifacts {
		if old.Name == a.Name {
			if !a.Overwrite {
				return Artifact{}, ErrExists
			}
			m.artifacts = append(m.artifacts[:i], m.artifacts[i+1:]...)
			break
		}
	}
	id, data, err := m.put(zip)
	made := Artifact{ID: id, Name: a.Name, Size: int64(len(data)), Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(data))}
	m.artifacts = append(m.artifacts, made)
	return made, err
}

func (m *memory) Artifacts(context.Context, string, int64) ([]Artifact, error) {
	return m.artifacts, nil
}

func (m *memory) open(id int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(m.data[id])), nil
}
func (m *memory) OpenArtifact(_ context.Context, id int64) (io.ReadCloser, error) { return m.open(id) }
func (m *memory) OpenCache(_ context.Context, id int64) (io.ReadCloser, error)    { return m.open(id) }

func (m *memory) FindCache(_ context.Context, keys []string, version string) (Cache, bool, error) {
	for _, k := range keys {
		for i := len(m.caches) - 1; i >= 0; i-- {
			if c := m.caches[i]; m.versions[c.ID] == version && strings.HasPrefix(c.Key, k) {
				return c, true, nil
			}
		}
	}
	return Cache{}, false, nil
}

func (m *memory) SaveCache(_ context.Context, key, version string, archive io.Reader) error {
	for _, c := range m.caches {
		if c.Key == key && m.versions[c.ID] == version {
			return ErrExists
		}
	}
	id, data, err := m.put(archive)
	m.caches, m.versions[id] = append(m.caches, Cache{ID: id, Key: key, Size: int64(len(data))}), version
	return err
}

func TestArtifactsRoundTrip(t *testing.T) {
	store := newMemory()
	for _, test := range []struct {
		path  string
		with  map[string]string
		names string // after the download, below the path
	}{
		{"dist", nil, "a.txt sub/b.bin"},
		{"dist/**/*.bin", nil, "sub/b.bin"},
		{"dist/a.txt", nil, "a.txt"},
		{"dist\nother/c.txt", nil, "dist/a.txt dist/sub/b.bin other/c.txt"},
		{"dist\n!dist/sub", nil, "a.txt"},
		{"dist", map[string]string{"include-hidden-files": "true", "compression-level": "0"}, ".hidden a.txt sub/b.bin"},
		{"~/outside", nil, "o.txt"},
	} {
		with := map[string]string{"path": test.path, "name": "x", "overwrite": "true"}
		for k, v := range test.with {
			with[k] = v
		}
		c, a, out, log := call(t, "actions/upload-artifact@v4", with)
		onHost(t, c)
		c.Job.Store = store
		for name, text := range map[string]string{"dist/a.txt": "a", "dist/sub/b.bin": "b", "dist/.hidden": "h", "other/c.txt": "c"} {
			write(t, filepath.Join(c.Job.Workspace, name), text)
		}
		write(t, filepath.Join(c.Job.HomePath, "outside/o.txt"), "o")
		if err := a.Run(t.Context(), c); err != nil {
			t.Fatalf("%q: %v\n%s", test.path, err, log)
		}
		if out["artifact-id"] == "" || len(out["artifact-digest"]) != 64 || !strings.Contains(out["artifact-url"], "/artifacts/") {
			t.Errorf("outputs %v", out)
		}
		d, a, out, log := call(t, "actions/download-artifact@v5", map[string]string{"name": "x", "path": "in/to"})
		onHost(t, d)
		d.Job.Store = store
		if err := a.Run(t.Context(), d); err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		var got []string
		base := filepath.Join(d.Job.Workspace, "in/to")
		_ = filepath.WalkDir(base, func(p string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				rel, _ := filepath.Rel(base, p)
				got = append(got, rel)
			}
			return nil
		})
		if strings.Join(got, " ") != test.names || out["download-path"] != base {
			t.Errorf("%q: got %v, want %s (%s)", test.path, got, test.names, out["download-path"])
		}
	}
}

func TestArtifactFailures(t *testing.T) {
	store := newMemory()
	if _, err := store.PutArtifact(t.Context(), NewArtifact{Name: "there"}, strings.NewReader("no zip")); err != nil {
		t.Fatal(err)
	}
	for want, with := range map[string]map[string]string{
		"No files were found":    {"path": "none", "if-no-files-found": "error"},
		"is not valid":           {"path": "f", "name": "a/b"},
		"has an artifact":        {"path": "f", "name": "there"},
		"from 0 to 9":            {"path": "f", "compression-level": "x"},
		"warn, error or ignore":  {"path": "none", "if-no-files-found": "perhaps"},
		"archive: false":         {"path": "f", "archive": "false"},
		"as a whole cannot be r": {"path": "/"},
	} {
		c, a, _, _ := call(t, "actions/upload-artifact@v4", with)
		onHost(t, c)
		c.Job.Store = store
		write(t, filepath.Join(c.Job.Workspace, "f"), "f")
		err := a.Run(t.Context(), c)
		if err == nil {
			t.Errorf("%v passed", with)
			continue
		}
		text := err.Error()
		if e, ok := err.(*Error); ok { //nolint:errorlint // the outermost error carries the hint
			text += e.Hint
		}
		if !strings.Contains(text, want) {
			t.Errorf("%v: %v", with, err)
		}
	}
	for want, with := range map[string]map[string]string{"there is no artifact": {"name": "other"}, "not a valid zip": {"name": "there"}, "exclude each other": {"name": "a", "artifact-ids": "1"}} {
		c, a, _, _ := call(t, "actions/download-artifact@v4", with)
		onHost(t, c)
		c.Job.Store = store
		if err := a.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", with, err)
		}
	}
}

func TestCacheRoundTrip(t *testing.T) {
	store := newMemory()
	run := func(uses string, with map[string]string, files map[string]string) (*Call, map[string]string) {
		t.Helper()
		c, a, out, log := call(t, uses, with)
		onHost(t, c)
		c.Job.Store = store
		for name, text := range files {
			write(t, filepath.Join(c.Job.HomePath, name), text)
		}
		if err := a.Run(t.Context(), c); err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		if files != nil {
			write(t, filepath.Join(c.Job.Workspace, "web/node_modules/m.js"), "m")
		}
		if a.Post != nil {
			if err := a.Post(t.Context(), c); err != nil {
				t.Fatalf("%v\n%s", err, log)
			}
		}
		return c, out
	}
	with := func(key string) map[string]string {
		return map[string]string{"path": "web/node_modules\n**/*.cache\nnowhere", "key": key, "restore-keys": "npm-"}
	}
	_, out := run("actions/cache@v4", with("npm-1"), map[string]string{})
	if out["cache-hit"] != "" || len(store.caches) != 1 {
		t.Fatalf("first: %v %v", out, store.caches)
	}
	c, out := run("actions/cache@v4", with("npm-1"), nil)
	if data, err := c.Job.Files.ReadFile("web/node_modules/m.js"); err != nil || string(data) != "m" || out["cache-hit"] != "true" {
		t.Errorf("exact: %v %v", out, err)
	}
	c, out = run("actions/cache/restore@v4", with("npm-2"), nil)
	if _, err := c.Job.Files.Stat("web/node_modules/m.js"); err != nil || out["cache-hit"] != "false" || out["cache-matched-key"] != "npm-1" || out["cache-primary-key"] != "npm-2" {
		t.Errorf("partial: %v %v", out, err)
	}
	lookup := with("npm-1")
	lookup["lookup-only"] = "true"
	if c, out = run("actions/cache/restore@v4", lookup, nil); out["cache-hit"] != "true" {
		t.Errorf("lookup: %v", out)
	}
	if _, err := c.Job.Files.Stat("web"); err == nil {
		t.Error("lookup-only restored files")
	}
	miss := with("go-1")
	miss["restore-keys"], miss["fail-on-cache-miss"] = "", "true"
	bad, a, _, _ := call(t, "actions/cache@v4", miss)
	onHost(t, bad)
	bad.Job.Store = store
	if err := a.Run(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "go-1") {
		t.Errorf("miss: %v", err)
	}
}

func FuzzFixedPart(f *testing.F) {
	f.Add("/a/b/*.txt")
	f.Add("/**")
	f.Fuzz(func(t *testing.T, p string) {
		if part := fixedPart("/" + p); !strings.HasPrefix("/"+p, part) {
			t.Errorf("%q is no prefix of %q", part, p)
		}
	})
}
