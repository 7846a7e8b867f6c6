package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"
)

// makePayload packs each program with its own name and salt as content.
func makePayload(t *testing.T, salt string) fstest.MapFS {
	t.Helper()
	files, index := fstest.MapFS{}, Index{}
	for _, name := range Programs() {
		content := []byte(name + salt)
		var packed bytes.Buffer
		enc, err := zstd.NewWriter(&packed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := enc.Write(content); err != nil {
			t.Fatal(err)
		}
		if err := enc.Close(); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(content)
		index[name] = Program{SHA256: hex.EncodeToString(sum[:]), Size: int64(len(content))}
		files[name+".zst"] = &fstest.MapFile{Data: packed.Bytes()}
	}
	body, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	files[IndexFile] = &fstest.MapFile{Data: body}
	return files
}

func TestExtract(t *testing.T) {
	dir := t.TempDir()
	first, err := extract(t.Context(), makePayload(t, "1"), dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(first.Runc); err != nil || string(got) != "runc1" {
		t.Errorf("runc = %q, %v", got, err)
	}
	if info, err := os.Stat(first.Pause); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("pause: %v, %v, want mode 0755", info, err)
	}
	// The second time nothing is written: a changed file stays changed.
	if err := os.WriteFile(first.Runc, []byte("mark"), 0o755); err != nil {
		t.Fatal(err)
	}
	if again, err := extract(t.Context(), makePayload(t, "1"), dir); err != nil || again != first {
		t.Errorf("second Extract = %v, %v, want %v", again, err, first)
	}
	if got, _ := os.ReadFile(first.Runc); string(got) != "mark" {
		t.Error("second Extract wrote the programs again")
	}
	// Of older sets only the last one stays.
	for _, salt := range []string{"2", "3"} {
		if _, err := extract(t.Context(), makePayload(t, salt), dir); err != nil {
			t.Fatal(err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("%d sets, %v, want 2", len(entries), err)
	}
}

func TestExtractRefuses(t *testing.T) {
	damaged := makePayload(t, "")
	damaged["runc.zst"] = damaged["ptp.zst"]
	cut := makePayload(t, "")
	cut["runc.zst"] = &fstest.MapFile{Data: cut["runc.zst"].Data[:8]}
	lost := makePayload(t, "")
	delete(lost, "runc.zst")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tc := range []struct {
		name string
		ctx  context.Context
		from fstest.MapFS
		want error
	}{
		{"no payload", t.Context(), fstest.MapFS{}, ErrNoPayload},
		{"bad index", t.Context(), fstest.MapFS{IndexFile: {Data: []byte("{")}}, nil},
		{"escape", t.Context(), fstest.MapFS{IndexFile: {Data: []byte(`{"../x":{}}`)}}, nil},
		{"other content", t.Context(), damaged, nil},
		{"cut short", t.Context(), cut, nil},
		{"lost file", t.Context(), lost, nil},
		{"context ended", ended, makePayload(t, ""), context.Canceled},
	} {
		dir := t.TempDir()
		_, err := extract(tc.ctx, tc.from, dir)
		if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
			t.Errorf("%s: left %v", tc.name, left)
		}
	}
}
