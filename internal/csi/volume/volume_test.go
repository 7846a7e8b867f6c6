package volume

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// list returns the visible files of a volume and their content.
func list(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") {
			continue
		}
		start := filepath.Join(dir, e.Name())
		if start, err = filepath.EvalSymlinks(start); err != nil {
			t.Fatal(err)
		}
		err := filepath.WalkDir(start, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(p)
			got[e.Name()+strings.TrimPrefix(p, start)] = string(data)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return got
}

func files(pairs ...string) []File {
	var fs []File
	for i := 0; i < len(pairs); i += 2 {
		fs = append(fs, File{Path: pairs[i], Mode: 0o644, Data: []byte(pairs[i+1])})
	}
	return fs
}

func want(t *testing.T, dir string, pairs ...string) {
	t.Helper()
	got := list(t, dir)
	if len(got) != len(pairs)/2 {
		t.Errorf("volume holds %q, want %q", got, pairs)
	}
	for i := 0; i < len(pairs); i += 2 {
		if got[pairs[i]] != pairs[i+1] {
			t.Errorf("%s = %q, want %q", pairs[i], got[pairs[i]], pairs[i+1])
		}
	}
}

// write fails the test on an error.
func write(t *testing.T, dir string, fs []File) bool {
	t.Helper()
	changed, err := Write(dir, fs, NoGID)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	if Written(dir) {
		t.Error("an empty directory counts as written")
	}
	if !write(t, dir, files("user", "a", "tls/cert.pem", "c", "tls/key.pem", "k")) {
		t.Error("first write changed nothing")
	}
	if !Written(dir) {
		t.Error("not written after a write")
	}
	want(t, dir, "user", "a", "tls/cert.pem", "c", "tls/key.pem", "k")
	if link, _ := os.Readlink(filepath.Join(dir, "user")); link != "..data/user" {
		t.Errorf("user -> %q, want ..data/user", link)
	}
	before, _ := os.Readlink(filepath.Join(dir, "..data"))
	if write(t, dir, files("user", "a", "tls/cert.pem", "c", "tls/key.pem", "k")) {
		t.Error("the same content counts as a change")
	}
	if after, _ := os.Readlink(filepath.Join(dir, "..data")); after != before {
		t.Errorf("generation changed from %s to %s without a change", before, after)
	}
	if !write(t, dir, files("user", "b", "new", "n")) {
		t.Error("new content counts as no change")
	}
	want(t, dir, "user", "b", "new", "n")
	if _, err := os.Stat(filepath.Join(dir, before)); err == nil {
		t.Error("the old generation is still there")
	}
}

func TestWriteModes(t *testing.T) {
	dir := t.TempDir()
	fs := []File{{Path: "strict", Mode: 0o400, Data: []byte("x")}, {Path: "open", Mode: 0o666, Data: []byte("y")}}
	write(t, dir, fs)
	for _, f := range fs {
		info, err := os.Stat(filepath.Join(dir, f.Path))
		if err != nil || info.Mode() != f.Mode {
			t.Errorf("%s: mode %v, %v; want %v", f.Path, info.Mode(), err, f.Mode)
		}
	}
	fs[0].Mode = 0o440
	if !write(t, dir, fs) {
		t.Error("a new mode counts as no change")
	}
}

// TestWriteAfterCrash leaves what a crash at each step would and writes again.
func TestWriteAfterCrash(t *testing.T) {
	link := func(target, name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	partial := func(t *testing.T, dir string) {
		if err := os.MkdirAll(filepath.Join(dir, "..2020_01_01_00_00_00.0000"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "..2020_01_01_00_00_00.0000", "user"), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string][]func(t *testing.T, dir string){
		"half a generation":      {partial},
		"link not yet renamed":   {partial, link("..2020_01_01_00_00_00.0000", "..data_tmp")},
		"stale visible name":     {partial, link("..data/gone", "gone")},
		"link to a missing one":  {link("..2019_01_01_00_00_00.0000", "..data_tmp")},
		"two partial ones":       {partial, func(t *testing.T, dir string) { _ = os.Mkdir(filepath.Join(dir, "..2021_01_01_00_00_00.0000"), 0o755) }},
		"name made by a crashed": {link("..data/user", "user")},
	}
	for name, steps := range tests {
		for _, had := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				if had {
					write(t, dir, files("old", "1"))
				}
				for _, step := range steps {
					step(t, dir)
				}
				if had {
					if got := content(dir, "old"); got != "1" {
						t.Errorf("old content after the crash is %q", got)
					}
				}
				write(t, dir, files("user", "whole"))
				want(t, dir, "user", "whole")
				entries, _ := os.ReadDir(dir)
				if len(entries) != 3 { // generation, ..data, user
					t.Errorf("left-overs: %v", entries)
				}
			})
		}
	}
}

func content(dir, name string) string {
	data, _ := os.ReadFile(filepath.Join(dir, name))
	return string(data)
}

// TestWriteLostLink covers a crash between the rename and the visible names.
func TestWriteLostLink(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, files("a", "1", "b", "2"))
	if err := os.Remove(filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	write(t, dir, files("a", "1", "b", "2"))
	want(t, dir, "a", "1", "b", "2")
}

func TestWriteBadNames(t *testing.T) {
	for name, fs := range map[string][]File{
		"nothing":       nil,
		"empty":         files("", "x"),
		"absolute":      files("/etc/passwd", "x"),
		"up":            files("../x", "x"),
		"up inside":     files("a/../../x", "x"),
		"hidden data":   files("..data", "x"),
		"not clean":     files("a//b", "x"),
		"dot":           files(".", "x"),
		"trailing":      files("a/", "x"),
		"twice":         files("a", "x", "a", "y"),
		"file as dir":   files("a", "x", "a/b", "y"),
		"dir as file":   files("a/b/c", "x", "a", "y"),
		"zero byte":     files("a\x00b", "x"),
		"name too long": files(strings.Repeat("n", 256), "x"),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := Write(dir, fs, NoGID); err == nil {
				t.Error("accepted")
			}
			if entries, _ := os.ReadDir(dir); len(entries) != 0 {
				t.Errorf("wrote %v", entries)
			}
		})
	}
}

// TestReadersSeeOneGeneration reads two files through one look at ..data while
// a writer replaces both; they must always match.
func TestReadersSeeOneGeneration(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, files("a", "0", "b", "0"))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			v := string(rune('0' + i%10))
			if _, err := Write(dir, files("a", v, "b", v), NoGID); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for seen := 0; seen < 300; {
		at, err := os.OpenRoot(filepath.Join(dir, "..data"))
		if err != nil {
			t.Fatal(err)
		}
		a, errA := at.ReadFile("a")
		b, errB := at.ReadFile("b")
		_ = at.Close()
		if errA != nil || errB != nil { // the generation was removed under us
			continue
		}
		if string(a) != string(b) {
			t.Fatalf("read a=%s b=%s in one generation", a, b)
		}
		seen++
	}
	close(stop)
	wg.Wait()
}

func TestMount(t *testing.T) {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("mounting needs root on Linux")
	}
	dir := filepath.Join(t.TempDir(), "pod", "mount")
	t.Cleanup(func() { _ = Unmount(dir) })
	for range 2 { // the second Unmount has nothing to do
		if err := Unmount(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := Mount(dir); err != nil {
		t.Fatal(err)
	}
	if mounted, err := Mounted(dir); !mounted || err != nil {
		t.Fatalf("Mounted = %v, %v after Mount", mounted, err)
	}
	write(t, dir, files("a", "1"))
	if mounted, err := Mounted(filepath.Join(dir, "..data")); mounted || err != nil {
		t.Errorf("a name inside counts as mounted (%v)", err)
	}
	if err := Mount(dir); err != nil { // a second one on top, as after a race
		t.Fatal(err)
	}
	open, err := os.Open(dir) // keeps the upper mount busy
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := Unmount(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("mount point is still there: %v", err)
	}
}

func TestUnmountKeepsStrangers(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "precious")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Unmount(dir); err == nil {
		t.Error("removed a directory that was never ours")
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func FuzzCheckPath(f *testing.F) {
	for _, s := range []string{"a", "a/b", "../a", "/a", "a\x00", "..data", ".", "a//b", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if CheckPath(p) != nil {
			return
		}
		if !filepath.IsLocal(p) || filepath.Clean(p) != p {
			t.Errorf("accepted %q", p)
		}
	})
}

// TestKill kills a process with SIGKILL while it writes generation after
// generation, and looks at what is left.
func TestKill(t *testing.T) {
	if dir := os.Getenv("VOLUME_WRITER"); dir != "" {
		for i := 0; ; i++ {
			v := strings.Repeat(string(rune('a'+i%26)), 4096)
			if _, err := Write(dir, files("one", v, "dir/two", v), NoGID); err != nil {
				t.Fatal(err)
			}
		}
	}
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	write(t, dir, files("one", "start", "dir/two", "start"))
	for round := range 12 {
		writer := exec.Command(os.Args[0], "-test.run=^TestKill$")
		writer.Env = append(os.Environ(), "VOLUME_WRITER="+dir)
		if err := writer.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(40+7*round) * time.Millisecond)
		if err := writer.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = writer.Wait() // killed
		one, two := content(dir, "one"), content(dir, "dir/two")
		if one != two || one == "" {
			t.Fatalf("round %d: one has %d bytes of %.1q, two %d of %.1q", round, len(one), one, len(two), two)
		}
	}
	if content(dir, "one") == "start" {
		t.Error("no writer ever wrote")
	}
	write(t, dir, files("one", "end"))
	if entries, _ := os.ReadDir(dir); len(entries) != 3 {
		t.Errorf("left-overs: %v", entries)
	}
}
