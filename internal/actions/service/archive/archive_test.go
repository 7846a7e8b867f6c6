package archive

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tree is a job's file system with a workspace and a home.
func tree(t testing.TB) (Tree, string) {
	t.Helper()
	dir := t.TempDir()
	var out Tree
	for _, name := range []string{"work", "home"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = root.Close() })
		out = append(out, Folder{"/job/" + name, root})
	}
	return out, dir
}

func put(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode)); err != nil {
		t.Fatal(err)
	}
}

func TestTarRoundTrip(t *testing.T) {
	for _, gz := range []bool{false, true} {
		from, dir := tree(t)
		put(t, dir+"/work/deps/run.sh", "#!/bin/sh\n", 0o755)
		put(t, dir+"/work/deps/empty/.keep", "", 0o600)
		put(t, dir+"/home/.cache/x", strings.Repeat("x", 1<<20), 0o644)
		old := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
		if err := errors.Join(os.Symlink("run.sh", dir+"/work/deps/link"), os.Symlink("/nowhere/at/all", dir+"/work/deps/dangling"), os.Chtimes(dir+"/home/.cache/x", old, old)); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := WriteTar(&b, from, "/job/work", []string{"deps", "/job/home/.cache"}, gz); err != nil {
			t.Fatal(err)
		}
		to, out := tree(t)
		if n, err := ReadTar(&b, to, "/job/work", Limit{}); n != 8 || err != nil {
			t.Fatal(n, err)
		}
		for name, want := range map[string]string{"/work/deps/run.sh": "#!/bin/sh\n", "/work/deps/link": "#!/bin/sh\n", "/home/.cache/x": strings.Repeat("x", 1<<20)} {
			if got, err := os.ReadFile(out + name); err != nil || string(got) != want {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
		}
		run, err := os.Stat(out + "/work/deps/run.sh")
		if err != nil || run.Mode().Perm() != 0o755 {
			t.Errorf("mode %v %v", run, err)
		}
		x, err := os.Stat(out + "/home/.cache/x")
		if err != nil || !x.ModTime().Equal(old) {
			t.Errorf("time %v %v", x, err)
		}
		if target, err := os.Readlink(out + "/work/deps/dangling"); target != "/nowhere/at/all" {
			t.Errorf("link %q %v", target, err)
		}
	}
}

// TestHostileTar: nothing is written outside, and what was there stays.
func TestHostileTar(t *testing.T) {
	for name, entries := range map[string][]tar.Header{
		"up and out":        {{Name: "../../escaped", Typeflag: tar.TypeReg, Size: 1}},
		"absolute":          {{Name: "/escaped", Typeflag: tar.TypeReg, Size: 1}},
		"beside":            {{Name: "/job/work2/escaped", Typeflag: tar.TypeReg, Size: 1}},
		"through a link":    {{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "../.."}, {Name: "a/escaped", Typeflag: tar.TypeReg, Size: 1}},
		"through a folder":  {{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/"}, {Name: "a/tmp/escaped/", Typeflag: tar.TypeDir}},
		"hard link outside": {{Name: "a", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"}},
		"device":            {{Name: "a", Typeflag: tar.TypeChar}},
		"too large":         {{Name: "a", Typeflag: tar.TypeReg, Size: 1 << 20}},
		"too many":          {{Name: "a", Typeflag: tar.TypeReg}, {Name: "b", Typeflag: tar.TypeReg}, {Name: "c", Typeflag: tar.TypeReg}, {Name: "d", Typeflag: tar.TypeReg}},
	} {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		w := tar.NewWriter(z)
		for _, h := range entries {
			h.Mode = 0o777
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(w, strings.NewReader(strings.Repeat("x", int(h.Size))), h.Size); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(w.Close(), z.Close()); err != nil {
			t.Fatal(err)
		}
		to, dir := tree(t)
		if _, err := ReadTar(&b, to, "/job/work", Limit{Bytes: 1000, Files: 3}); err == nil {
			t.Errorf("%s: no error", name)
		}
		if list, err := os.ReadDir(dir); len(list) != 2 || err != nil {
			t.Errorf("%s: outside are %v, %v", name, list, err)
		}
	}
	to, _ := tree(t)
	if _, err := ReadTar(strings.NewReader("plain"), to, "/job/work", Limit{}); err == nil || !strings.Contains(err.Error(), "neither zstd nor gzip") {
		t.Error(err)
	}
}

// TestLinkIsReplaced: a file takes the place of a link and does not follow it.
func TestLinkIsReplaced(t *testing.T) {
	from, dir := tree(t)
	put(t, dir+"/work/a", "new", 0o644)
	var b bytes.Buffer
	if err := WriteTar(&b, from, "/job/work", []string{"a"}, false); err != nil {
		t.Fatal(err)
	}
	to, out := tree(t)
	put(t, out+"/work/victim", "old", 0o644)
	if err := os.Symlink("victim", out+"/work/a"); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadTar(&b, to, "/job/work", Limit{}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(out + "/work/victim"); string(got) != "old" || err != nil {
		t.Errorf("%q %v", got, err)
	}
}

func TestZip(t *testing.T) {
	from, dir := tree(t)
	put(t, dir+"/work/out/a.txt", strings.Repeat("a", 10_000), 0o644)
	if err := os.Symlink("a.txt", dir+"/work/out/link"); err != nil {
		t.Fatal(err)
	}
	entries := []Entry{{"a.txt", "/job/work/out/a.txt"}, {"d/", "/job/work/out"}, {"d/link", "/job/work/out/link"}}
	var b bytes.Buffer
	if err := WriteZip(&b, from, entries, 9); err != nil {
		t.Fatal(err)
	}
	to, out := tree(t)
	if n, err := ReadZip(bytes.NewReader(b.Bytes()), int64(b.Len()), to, "/job/work/in", Limit{}); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if got, err := os.ReadFile(out + "/work/in/d/link"); len(got) != 10_000 || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for name, e := range map[string]Entry{"outside": {"a", "/etc/passwd"}, "name": {"../a", "/job/work/out/a.txt"}, "missing": {"a", "/job/work/none"}} {
		if err := WriteZip(io.Discard, from, []Entry{e}, 6); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestHostileZip(t *testing.T) {
	for name, h := range map[string]*zip.FileHeader{"up": {Name: "../escaped"}, "absolute": {Name: "/escaped"}, "windows": {Name: `..\escaped`}, "bomb": {Name: "a", Method: zip.Deflate}, "link": {Name: "l"}} {
		if name == "link" {
			h.SetMode(os.ModeSymlink | 0o777)
		}
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		w, err := z.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte("/"), 1<<20)); err != nil || z.Close() != nil {
			t.Fatal(err)
		}
		to, dir := tree(t)
		if _, err := ReadZip(bytes.NewReader(b.Bytes()), int64(b.Len()), to, "/job/work", Limit{Bytes: 1000}); !errors.Is(err, ErrUnsafe) {
			t.Errorf("%s: %v", name, err)
		}
		if list, err := os.ReadDir(dir); len(list) != 2 || err != nil {
			t.Errorf("%s: outside are %v, %v", name, list, err)
		}
	}
}

// FuzzRead: whatever an archive holds, the folder above stays as it was.
func FuzzRead(f *testing.F) {
	from, dir := tree(f)
	put(f, dir+"/work/a/b", "text", 0o644)
	var tarball, zipped bytes.Buffer
	if err := errors.Join(WriteTar(&tarball, from, "/job/work", []string{"a", "/job/home"}, true), WriteZip(&zipped, from, []Entry{{"x", "/job/work/a/b"}}, 6)); err != nil {
		f.Fatal(err)
	}
	f.Add(tarball.Bytes())
	f.Add(zipped.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		to, dir := tree(t)
		limit := Limit{Bytes: 1 << 16, Files: 20}
		_, _ = ReadTar(bytes.NewReader(data), to, "/job/work", limit)
		_, _ = ReadZip(bytes.NewReader(data), int64(len(data)), to, "/job/work", limit)
		if list, err := os.ReadDir(dir); len(list) != 2 || err != nil {
			t.Fatalf("outside are %v, %v", list, err)
		}
	})
}
