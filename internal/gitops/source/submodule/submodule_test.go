package submodule

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

func TestResolve(t *testing.T) {
	for _, c := range [][3]string{
		{"https://h/o/r.git", "https://x/y", "https://x/y"}, {"https://h/o/r.git", "../lib.git", "https://h/o/lib.git"},
		{"https://h/o/r/", "../../p/lib", "https://h/p/lib"}, {"git@h:o/r.git", "../lib.git", "git@h:o/lib.git"}, {"git@h:r.git", "../lib.git", "git@h:lib.git"},
		{"https://h/o/r", "./lib", "https://h/o/r/lib"}, {"https://h/o/r", "../../../x", ""}, {"ssh://git@h:22/o/r", "../x", "ssh://git@h:22/o/x"},
	} {
		got, err := Resolve(c[0], c[1])
		if got != c[2] || (err == nil) != (c[2] != "") {
			t.Errorf("Resolve(%q, %q) = %q, %v; want %q", c[0], c[1], got, err, c[2])
		}
	}
}

// world is repositories with one commit each, made by fast-import.
type world struct {
	t     *testing.T
	repos map[string]*git.Repository
	opens int
}

// commit makes a repository; a value "@id" is a submodule.
func (w *world) commit(url string, files map[string]string) string {
	w.t.Helper()
	repo := w.repos[url]
	if repo == nil {
		var err error
		if repo, err = git.Init(w.t.Context(), w.t.TempDir()+"/r.git", "main"); err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(repo.Close)
		w.repos[url] = repo
	}
	var in strings.Builder
	fmt.Fprint(&in, "commit refs/heads/main\ncommitter C <c@example.com> 1700000100 +0000\ndata 0\ndeleteall\n")
	for name, content := range files {
		if id, ok := strings.CutPrefix(content, "@"); ok {
			fmt.Fprintf(&in, "M 160000 %s %s\n", id, name)
			continue
		}
		fmt.Fprintf(&in, "M 100644 inline %s\ndata %d\n%s\n", name, len(content), content)
	}
	if _, err := repo.RunInput(w.t.Context(), []byte(in.String()), "fast-import", "--quiet", "--force"); err != nil {
		w.t.Fatal(err)
	}
	id, err := repo.Resolve(w.t.Context(), "refs/heads/main")
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *world) open(_ context.Context, url, commit string) (source.Files, error) {
	w.opens++
	repo, ok := w.repos[url]
	if !ok {
		return nil, fmt.Errorf("no repository %s", url)
	}
	return source.CommitFiles(repo, commit), nil
}

func (w *world) tree(url, commit string) *source.Tree {
	return source.NewTreeOf(Of(source.CommitFiles(w.repos[url], commit), url, w.open), commit)
}

func gitmodules(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&b, "[submodule %q]\n\tpath = %s\n\turl = %s\n", pairs[i], pairs[i], pairs[i+1])
	}
	return b.String()
}

func TestSubmodules(t *testing.T) {
	ctx := t.Context()
	w := &world{t: t, repos: map[string]*git.Repository{}}
	deep := w.commit("https://h/o/deep", map[string]string{"d.yaml": "deep"})
	lib := w.commit("https://h/o/lib", map[string]string{"x/a.yaml": "one", "own": "lib", ".gitmodules": gitmodules("deep", "../deep"), "deep": "@" + deep})
	app := w.commit("https://h/o/app", map[string]string{"k/main.yaml": "m", "vendor/lib": "@" + lib, ".gitmodules": gitmodules("vendor/lib", "../lib", "gone", "../gone"), "gone": "@" + lib, "unnamed": "@" + lib})
	tree := w.tree("https://h/o/app", app)
	if _, err := tree.ReadFile(ctx, "k/main.yaml"); err != nil || w.opens != 0 {
		t.Errorf("a file of the root: %v, %d opened", err, w.opens)
	}
	for p, want := range map[string]string{"vendor/lib/x/a.yaml": "one", "vendor/lib/deep/d.yaml": "deep", "vendor/lib/own": "lib"} {
		if got, err := tree.ReadFile(ctx, p); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v", p, got, err)
		}
	}
	if w.opens != 2 {
		t.Errorf("%d repositories were opened", w.opens)
	}
	entries, err := tree.ReadDir(ctx, "vendor/lib")
	if err != nil || fmt.Sprint(entries) != "[{.gitmodules false} {deep true} {own false} {x true}]" {
		t.Errorf("listing: %v, %v", entries, err)
	}
	if _, kind, err := tree.Stat(ctx, "vendor/lib"); kind != source.Dir || err != nil {
		t.Errorf("Stat: %v, %v", kind, err)
	}
	in := tree.Inputs()
	if in["vendor/lib"] != lib || in["vendor/lib/deep"] != deep || in[".gitmodules"] == "" || in["vendor/lib/.gitmodules"] == "" {
		t.Errorf("inputs: %v", in)
	}
	index := source.NewIndex()
	index.Set("app", in)
	for changed, want := range map[string]bool{"vendor/lib": true, ".gitmodules": true, "k/other.yaml": false, "gone": false} {
		if _, got := index.Readers([]string{changed})["app"]; got != want {
			t.Errorf("a change of %s affects: %v", changed, got)
		}
	}
	same, err := in.SameIn(ctx, w.tree("https://h/o/app", app))
	if err != nil || !same {
		t.Errorf("the same commit: %v, %v", same, err)
	}
	lib2 := w.commit("https://h/o/lib", map[string]string{"x/a.yaml": "two", "own": "lib"})
	app2 := w.commit("https://h/o/app", map[string]string{"k/main.yaml": "m", "vendor/lib": "@" + lib2, ".gitmodules": gitmodules("vendor/lib", "../lib")})
	if same, err := in.SameIn(ctx, w.tree("https://h/o/app", app2)); err != nil || same {
		t.Errorf("after the submodule moved: %v, %v", same, err)
	}
	for p, says := range map[string]string{"gone/x": "no repository https://h/o/gone", "unnamed/x": "no url for it"} {
		if _, err := tree.ReadFile(ctx, p); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", p, err)
		}
	}
	if _, err := tree.ReadFile(ctx, "vendor/lib/none"); !errors.Is(err, git.ErrNotFound) {
		t.Errorf("a file that is not there: %v", err)
	}
	if has, err := Any(ctx, source.CommitFiles(w.repos["https://h/o/lib"], lib2)); has || err != nil {
		t.Errorf("Any: %v, %v", has, err)
	}
}

func TestEndlessSubmodules(t *testing.T) {
	w := &world{t: t, repos: map[string]*git.Repository{}}
	first := w.commit("https://h/loop", map[string]string{"a": "1"})
	loop := w.commit("https://h/loop", map[string]string{"s": "@" + first, ".gitmodules": gitmodules("s", "https://h/loop")})
	tree := source.NewTreeOf(Of(source.CommitFiles(w.repos["https://h/loop"], loop), "https://h/loop", func(ctx context.Context, url, _ string) (source.Files, error) {
		return w.open(ctx, url, loop)
	}), loop)
	if _, err := tree.ReadFile(t.Context(), strings.Repeat("s/", 20)+"a"); err == nil || !strings.Contains(err.Error(), "more than 8") {
		t.Errorf("%v", err)
	}
}
