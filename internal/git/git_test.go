package git

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// repository makes a bare repository with one commit on main that holds files.
func repository(t testing.TB, files map[string]string) (*Repository, string) {
	t.Helper()
	r, err := Init(t.Context(), filepath.Join(t.TempDir(), "r.git"), "main")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r, commit(t, r, "First commit\n\nWith a body.\n\nTrailer: yes\n", files)
}

// commit writes files as a commit on main, by fast-import.
func commit(t testing.TB, r *Repository, message string, files map[string]string) string {
	t.Helper()
	var in strings.Builder
	fmt.Fprintf(&in, "commit refs/heads/main\nauthor A U Thor <a@example.com> 1700000000 +0100\n")
	fmt.Fprintf(&in, "committer C <c@example.com> 1700000100 +0000\ndata %d\n%s\n", len(message), message)
	if id, err := r.Resolve(t.Context(), "refs/heads/main"); err == nil {
		fmt.Fprintf(&in, "from %s\n", id)
	}
	for name, content := range files {
		mode := "100644"
		if link, ok := strings.CutPrefix(content, "->"); ok {
			mode, content = "120000", link
		}
		fmt.Fprintf(&in, "M %s inline %s\ndata %d\n%s\n", mode, name, len(content), content)
	}
	if _, err := r.RunInput(t.Context(), []byte(in.String()), "fast-import", "--quiet"); err != nil {
		t.Fatal(err)
	}
	id, err := r.Resolve(t.Context(), "refs/heads/main")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

var storefront = map[string]string{
	"README.md": "hello", "deploy/base/web.yaml": "kind: Deployment\n", "deploy/with space.yaml": "x: 1\n",
	"deploy/link": "->base/web.yaml", "src/übung.go": "package übung\n",
}

func TestRead(t *testing.T) {
	r, id := repository(t, storefront)
	for _, c := range []struct {
		file, want string
		missing    bool
	}{
		{file: "README.md", want: "hello"},
		{file: "./deploy/../README.md", want: "hello"},
		{file: "deploy/with space.yaml", want: "x: 1\n"},
		{file: "src/übung.go", want: "package übung\n"},
		{file: "deploy/link", want: "base/web.yaml"},
		{file: "none", missing: true},
		{file: "none missing", missing: true},
		{file: "deploy", missing: true},
		{file: "../README.md", missing: true},
		{file: "/README.md", missing: true},
		{file: "README.md\ncontents HEAD:README.md", missing: true},
	} {
		got, err := r.ReadFile(t.Context(), id, c.file)
		if c.missing {
			if !errors.Is(err, ErrNotFound) || !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("ReadFile(%q) = %q, %v; want ErrNotFound", c.file, got, err)
			}
		} else if err != nil || string(got) != c.want {
			t.Errorf("ReadFile(%q) = %q, %v; want %q", c.file, got, err, c.want)
		}
	}
}

func TestListings(t *testing.T) {
	r, id := repository(t, storefront)
	names := func(entries []Entry) string {
		var s []string
		for _, e := range entries {
			s = append(s, e.Mode+" "+string(e.Kind)+" "+e.Path)
		}
		return strings.Join(s, ", ")
	}
	root, err := r.ReadDir(t.Context(), id, "")
	if want := "100644 blob README.md, 040000 tree deploy, 040000 tree src"; err != nil || names(root) != want {
		t.Errorf("root: %s, %v; want %s", names(root), err, want)
	}
	deploy, err := r.ReadDir(t.Context(), id, "deploy/")
	if want := "040000 tree deploy/base, 120000 blob deploy/link, 100644 blob deploy/with space.yaml"; err != nil || names(deploy) != want {
		t.Errorf("deploy: %s, %v; want %s", names(deploy), err, want)
	}
	all, err := r.ListTree(t.Context(), id, "deploy")
	if want := "100644 blob deploy/base/web.yaml, 120000 blob deploy/link, 100644 blob deploy/with space.yaml"; err != nil || names(all) != want {
		t.Errorf("deploy, recursive: %s, %v; want %s", names(all), err, want)
	}
	for _, e := range all {
		if o, err := r.Object(t.Context(), e.ID); err != nil || o.Kind != KindBlob {
			t.Errorf("object of %s: %v, %v", e.Path, o.Kind, err)
		}
	}
	if whole, err := r.ListTree(t.Context(), "main", ""); err != nil || len(whole) != len(storefront) {
		t.Errorf("whole tree has %d entries, %v", len(whole), err)
	}
	for _, dir := range []string{"none", "README.md", "..", "/"} {
		if _, err := r.ReadDir(t.Context(), id, dir); !errors.Is(err, ErrNotFound) {
			t.Errorf("ReadDir(%q): %v", dir, err)
		}
		if _, err := r.ListTree(t.Context(), id, dir); !errors.Is(err, ErrNotFound) {
			t.Errorf("ListTree(%q): %v", dir, err)
		}
	}
}

func TestCommitAndChanged(t *testing.T) {
	r, first := repository(t, storefront)
	second := commit(t, r, "Second\nline", map[string]string{"README.md": "changed", "new": "1"})
	c, err := r.Commit(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	if c.ID != first || c.Subject != "First commit" || c.Body != "With a body.\n\nTrailer: yes" || c.AuthorName != "A U Thor" ||
		c.AuthorEmail != "a@example.com" || c.AuthorTime.Unix() != 1700000000 || c.CommitterTime.Unix() != 1700000100 || len(c.Parents) != 0 {
		t.Errorf("first commit: %+v", c)
	}
	if id, kind, _, err := r.Stat(t.Context(), first+":"); err != nil || kind != KindTree || id != c.Tree {
		t.Errorf("tree %s, want %s: %v", id, c.Tree, err)
	}
	c, err = r.Commit(t.Context(), "main")
	if err != nil || c.ID != second || c.Subject != "Second line" || !slices.Equal(c.Parents, []string{first}) {
		t.Errorf("second commit: %+v, %v", c, err)
	}
	got, err := r.Changed(t.Context(), first, second)
	if err != nil || !slices.Equal(got, []string{"README.md", "new"}) {
		t.Errorf("changed: %v, %v", got, err)
	}
	if got, err = r.Changed(t.Context(), ZeroID, first); err != nil || len(got) != len(storefront) {
		t.Errorf("changed from nothing: %v, %v", got, err)
	}
	if refs, err := r.Refs(t.Context(), "refs/heads/"); err != nil || len(refs) != 1 || refs["refs/heads/main"] != second {
		t.Errorf("refs: %v, %v", refs, err)
	}
}

func TestResolve(t *testing.T) {
	r, id := repository(t, storefront)
	if _, err := r.Run(t.Context(), "tag", "-a", "-m", "release", "v1", id); err == nil {
		t.Fatal("tagging without an identity should fail: the user's configuration leaked in")
	}
	if _, err := r.Run(t.Context(), "-c", "user.name=T", "-c", "user.email=t@example.com", "tag", "-a", "-m", "release", "v1", id); err != nil {
		t.Fatal(err)
	}
	for _, rev := range []string{"main", "refs/heads/main", "HEAD", id, id[:8], "v1", "refs/tags/v1"} {
		if got, err := r.Resolve(t.Context(), rev); err != nil || got != id {
			t.Errorf("Resolve(%q) = %q, %v", rev, got, err)
		}
	}
	for _, rev := range []string{"", "none", "--help", "main:README.md", "HEAD@{u}", "a b", "main\nx", strings.Repeat("1", 40), "refs/heads/"} {
		if got, err := r.Resolve(t.Context(), rev); !errors.Is(err, ErrNotFound) {
			t.Errorf("Resolve(%q) = %q, %v; want ErrNotFound", rev, got, err)
		}
	}
}

func TestConcurrentReadsAndCancel(t *testing.T) {
	r, id := repository(t, storefront)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%4 == 0 {
				cancel()
			}
			for range 20 {
				got, err := r.ReadFile(ctx, id, "README.md")
				if i%4 == 0 {
					if !errors.Is(err, context.Canceled) {
						t.Errorf("cancelled read: %v", err)
					}
				} else if err != nil || string(got) != "hello" {
					t.Errorf("read: %q, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestReaderThatDiedIsReplaced(t *testing.T) {
	r, id := repository(t, storefront)
	if _, err := r.ReadFile(t.Context(), id, "README.md"); err != nil {
		t.Fatal(err)
	}
	for _, c := range r.readers.idle {
		_ = c.cmd.Process.Kill()
	}
	if got, err := r.ReadFile(t.Context(), id, "README.md"); err != nil || string(got) != "hello" {
		t.Errorf("after the reader was killed: %q, %v", got, err)
	}
	r.Close()
	if _, err := r.ReadFile(t.Context(), id, "README.md"); err != nil || len(r.readers.idle) != 0 {
		t.Errorf("after Close: %v, %d idle readers", err, len(r.readers.idle))
	}
}

func TestReaderExpires(t *testing.T) {
	r, id := repository(t, storefront)
	if _, err := r.ReadFile(t.Context(), id, "README.md"); err != nil {
		t.Fatal(err)
	}
	r.readers.drop(r.readers.idle[0])
	if len(r.readers.idle) != 0 {
		t.Error("an expired reader is still in the pool")
	}
}

func TestErrors(t *testing.T) {
	if _, err := Open(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open of no repository: %v", err)
	}
	r, _ := repository(t, storefront)
	if _, err := r.Run(t.Context(), "no-such-verb"); err == nil || !strings.Contains(err.Error(), "no-such-verb") {
		t.Errorf("git's message is missing: %v", err)
	}
	r.Close()
	if err := os.RemoveAll(r.Dir()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Object(t.Context(), "HEAD"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("read from a repository that is gone: %v", err)
	}
}

// TestParseTreeAgainstGit compares with what git itself says of a tree.
func TestParseTreeAgainstGit(t *testing.T) {
	r, _ := repository(t, storefront)
	out, err := r.Run(t.Context(), "ls-tree", "-z", "main")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := r.ReadDir(t.Context(), "main", "")
	if err != nil {
		t.Fatal(err)
	}
	var mine strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&mine, "%s %s %s\t%s\x00", e.Mode, e.Kind, e.ID, e.Path)
	}
	if mine.String() != string(out) {
		t.Errorf("ParseTree:\n%q\ngit:\n%q", mine.String(), out)
	}
}

func FuzzParseTree(f *testing.F) {
	id := strings.Repeat("\x01", 20)
	f.Add([]byte("100644 a\x00" + id + "40000 dir\x00" + id))
	f.Add([]byte("100644 " + strings.Repeat("n", 5000) + "\x00" + id))
	f.Add([]byte("100644 a\x00short"))
	f.Add([]byte("100644 ../a\x00" + id))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := ParseTree(data, "d")
		if err != nil {
			return
		}
		size := 0
		for _, e := range entries {
			size += len(strings.TrimPrefix(e.Mode, "0")) + 1 + len(e.Name) + 1 + 20
			if len(e.ID) != 40 || e.Path != "d/"+e.Name || strings.Contains(e.Name, "/") || e.Name == ".." || e.Kind == "" {
				t.Fatalf("entry %+v", e)
			}
		}
		if size > len(data) || len(data)-size > len(entries) {
			t.Fatalf("%d bytes gave entries of %d bytes", len(data), size)
		}
	})
}

func FuzzParseCommit(f *testing.F) {
	f.Add([]byte("tree " + strings.Repeat("a", 40) + "\nparent b\nauthor A <a@b> 1 +0000\ncommitter A <a@b> x +0000\ngpgsig x\n y\n\nsubject\nmore\n\nbody\n"))
	f.Add([]byte("tree x\nauthor nobody"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseCommit("id", data)
		if err == nil && (c.Tree == "" || strings.Contains(c.Subject, "\n")) {
			t.Fatalf("%+v", c)
		}
	})
}

func BenchmarkReadFile(b *testing.B) {
	r, id := repository(b, storefront)
	for b.Loop() {
		if _, err := r.ReadFile(b.Context(), id, "README.md"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkResolve(b *testing.B) {
	r, _ := repository(b, storefront)
	for b.Loop() {
		if _, err := r.Resolve(b.Context(), "main"); err != nil {
			b.Fatal(err)
		}
	}
}
