package git

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// gitChanged is what git itself says.
func gitChanged(t testing.TB, r *Repository, from, to string) []string {
	t.Helper()
	out, err := r.Run(t.Context(), "diff-tree", "-r", "-z", "--name-only", "--no-renames", from, to)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for p := range strings.SplitSeq(string(out), "\x00") {
		if p != "" {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return paths
}

// replace makes a commit that holds exactly files.
func replace(t testing.TB, r *Repository, files map[string]string) string {
	t.Helper()
	var in strings.Builder
	fmt.Fprint(&in, "commit refs/heads/main\ncommitter C <c@example.com> 1700000100 +0000\ndata 0\n")
	if id, err := r.Resolve(t.Context(), "refs/heads/main"); err == nil {
		fmt.Fprintf(&in, "from %s\n", id)
	}
	fmt.Fprint(&in, "deleteall\n")
	for _, name := range slices.Sorted(maps.Keys(files)) {
		mode, content := "100644", files[name]
		if rest, ok := strings.CutPrefix(content, "x:"); ok {
			mode, content = "100755", rest
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

func TestChangedIsWhatGitSays(t *testing.T) {
	r, _ := repository(t, storefront)
	name := rapid.SampledFrom([]string{"a", "a.b", "a/b", "a/b/c", "a/c", "a-b/x", "d/e/f", "d/e.txt", "z"})
	rapid.Check(t, func(rt *rapid.T) {
		var ids [2]string
		for i := range ids {
			files := map[string]string{}
			for p, content := range rapid.MapOfN(name, rapid.SampledFrom([]string{"1", "2", "x:1"}), 0, 6).Draw(rt, "files") {
				clash := false // a file where another has a directory
				for other := range files {
					clash = clash || strings.HasPrefix(other, p+"/") || strings.HasPrefix(p, other+"/")
				}
				if !clash {
					files[p] = content
				}
			}
			ids[i] = replace(t, r, files)
		}
		got, err := r.Changed(t.Context(), ids[0], ids[1])
		if want := gitChanged(t, r, ids[0], ids[1]); err != nil || !slices.Equal(got, want) {
			rt.Fatalf("Changed = %q, %v; git says %q", got, err, want)
		}
	})
}

func TestEntriesAreSharedAndBounded(t *testing.T) {
	r, id := repository(t, storefront)
	root, err := r.Root(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	first, err := r.Entries(t.Context(), root)
	if err != nil || len(first) != 3 {
		t.Fatalf("%v, %v", first, err)
	}
	again, err := r.Entries(t.Context(), root)
	if err != nil || &again[0] != &first[0] {
		t.Errorf("the tree was parsed again: %v", err)
	}
	want, err := r.ReadDir(t.Context(), id, "")
	if err != nil || !slices.Equal(first, want) {
		t.Errorf("Entries: %v\nReadDir: %v, %v", first, want, err)
	}
	for i := range 3 {
		r.trees.put(fmt.Sprint(i), make([]Entry, maxCachedEntries/2))
	}
	if r.trees.entries > maxCachedEntries {
		t.Errorf("%d entries are kept", r.trees.entries)
	}
	if _, err := r.Entries(t.Context(), id); err == nil {
		t.Error("a commit was read as a tree")
	}
}

func TestResetReadsTheNewFiles(t *testing.T) {
	r, id := repository(t, storefront)
	if _, err := r.Changed(t.Context(), "", id); err != nil {
		t.Fatal(err)
	}
	r.Reset()
	if n := len(r.readers.idle); n != 0 {
		t.Errorf("%d readers are left", n)
	}
	if _, err := r.ReadFile(t.Context(), id, "README.md"); err != nil || len(r.readers.idle) != 1 {
		t.Errorf("after Reset: %v, %d readers", err, len(r.readers.idle))
	}
}

// BenchmarkChanged compares a one-file commit of a repository with n
// directories by the walk and by starting git.
func BenchmarkChanged(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		files := make(map[string]string, 3*n+1)
		files["README.md"] = "hello"
		for i := range n {
			for _, f := range []string{"deployment.yaml", "service.yaml", "kustomization.yaml"} {
				files[fmt.Sprintf("apps/app-%05d/%s", i, f)] = fmt.Sprintf("n: %d\n", i)
			}
		}
		r, before := repository(b, files)
		after := commit(b, r, "one", map[string]string{fmt.Sprintf("apps/app-%05d/service.yaml", n/2): "changed"})
		b.Run(fmt.Sprintf("walk-%d", n), func(b *testing.B) {
			for b.Loop() {
				r.trees.drop()
				if _, err := r.Changed(b.Context(), before, after); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("next-%d", n), func(b *testing.B) { // as after a push: the tree before it is known
			root, err := r.Root(b.Context(), before)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				b.StopTimer()
				r.trees.drop()
				entries, err := r.Entries(b.Context(), root)
				if err == nil {
					_, err = r.Entries(b.Context(), entries[1].ID) // apps
				}
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if _, err := r.Changed(b.Context(), before, after); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("cached-%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := r.Changed(b.Context(), before, after); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("exec-%d", n), func(b *testing.B) {
			for b.Loop() {
				if got := gitChanged(b, r, before, after); len(got) != 1 {
					b.Fatal(got)
				}
			}
		})
	}
}
