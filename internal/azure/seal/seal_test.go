package seal

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSealedValuesOpenOnlyWhereTheyBelong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	k, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	for _, plaintext := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("secret"), 5000)} {
		blob, err := k.Seal(plaintext, "vault/name/1")
		if err != nil {
			t.Fatal(err)
		}
		if len(plaintext) > 3 && bytes.Contains(blob, plaintext) {
			t.Error("the blob holds the plaintext")
		}
		again, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := again.Open(blob, "vault/name/1")
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("open: %v", err)
		}
		if _, err := again.Open(blob, "vault/name/2"); err == nil {
			t.Error("a moved blob opened")
		}
		for _, i := range []int{0, 1, 20, len(blob) - 1} {
			bad := bytes.Clone(blob)
			bad[i] ^= 1
			if _, err := again.Open(bad, "vault/name/1"); err == nil {
				t.Errorf("a blob changed at %d opened", i)
			}
		}
	}
	other, err := Open(filepath.Join(t.TempDir(), "k"))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := k.Derive("x", 32)
	b, _ := k.Derive("x", 32)
	c, _ := other.Derive("x", 32)
	if !bytes.Equal(a, b) || bytes.Equal(a, c) {
		t.Error("Derive depends on the wrong things")
	}
}

func TestDamagedMasterKeyIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
}

func FuzzOpen(f *testing.F) {
	k, err := Open(filepath.Join(f.TempDir(), "k"))
	if err != nil {
		f.Fatal(err)
	}
	blob, _ := k.Seal([]byte("v"), "a")
	f.Add(blob, "b")
	f.Add([]byte{1}, "")
	f.Fuzz(func(t *testing.T, b []byte, aad string) {
		if _, err := k.Open(b, aad); err == nil && !(aad == "a" && bytes.Equal(b, blob)) {
			t.Error("a made-up blob opened")
		}
	})
}
