package blobs

import (
	"bytes"
	"os"
	"testing"
)

func TestKeptIsBounded(t *testing.T) {
	k := New(t.TempDir(), 10_000)
	var last []byte
	for i := range 50 {
		last = bytes.Repeat([]byte{byte(i)}, 1000)
		if err := k.Put(last); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(k.dir)
	if err != nil || len(entries) > 10 || len(entries) < 5 {
		t.Errorf("%d are kept, %v", len(entries), err)
	}
	if _, ok := k.Get(Digest(last)); !ok {
		t.Error("the newest is gone")
	}
	p, _ := k.path(Digest(last))
	if err := os.WriteFile(p, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := k.Get(Digest(last)); ok {
		t.Error("damaged content is used")
	}
	if _, ok := k.Get("sha256:../../etc/passwd"); ok {
		t.Error("a path is a digest")
	}
}
