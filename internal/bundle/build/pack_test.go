package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestPackWritesOnlyWhatChanged(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	write := func(name, body string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(from, name), []byte(body), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-time.Hour)
	age := func() { // so that a write is seen by its time
		t.Helper()
		files, _ := filepath.Glob(filepath.Join(to, "*"))
		for _, f := range files {
			if err := os.Chtimes(f, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	changed := func(name string) bool {
		t.Helper()
		info, err := os.Stat(filepath.Join(to, name))
		if err != nil {
			t.Fatal(err)
		}
		return info.ModTime().After(old.Add(time.Minute))
	}
	write("a", "1")
	write("b", "1")
	if err := pack(from, to, []string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	age()
	if err := pack(from, to, []string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.zst", "b.zst", "index.json"} {
		if changed(name) {
			t.Errorf("%s was written again without a change", name)
		}
	}
	write("b", "2")
	if err := pack(from, to, []string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	if changed("a.zst") || !changed("b.zst") || !changed("index.json") {
		t.Error("want b.zst and index.json written again, and a.zst not")
	}
	if err := pack(from, to, []string{"b"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(to, "a.zst")); !os.IsNotExist(err) {
		t.Errorf("a.zst: %v, want it removed", err)
	}
	if err := pack(from, to, []string{"none"}); err == nil {
		t.Error("pack of a missing program = nil, want an error")
	}
	if err := os.WriteFile(filepath.Join(to, "index.json"), []byte("{"), fs.FileMode(0o644)); err != nil {
		t.Fatal(err)
	}
	if err := pack(from, to, []string{"b"}); err != nil {
		t.Errorf("pack over a damaged index: %v", err)
	}
}
