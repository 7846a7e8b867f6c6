package source

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// commitAll writes files (value "" deletes, "-> x" links) and commits them.
func commitAll(t *testing.T, work string, files map[string]string) string {
	t.Helper()
	for name, content := range files {
		p := filepath.Join(work, name)
		_ = os.Remove(p)
		if content == "" {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if len(content) > 3 && content[:3] == "-> " {
			err = os.Symlink(content[3:], p)
		} else {
			err = os.WriteFile(p, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	gitRun(t, work, "add", "-A")
	gitRun(t, work, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "c")
	return gitRun(t, work, "rev-parse", "HEAD")
}

func gitRun(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = git.Env()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	for len(out) > 0 && out[len(out)-1] == '\n' {
		out = out[:len(out)-1]
	}
	return string(out)
}

func open(t *testing.T) (*git.Repository, string) {
	t.Helper()
	work := t.TempDir()
	gitRun(t, work, "init", "-q", "-b", "main")
	repo, err := git.Open(filepath.Join(work, ".git"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(repo.Close)
	return repo, work
}

func TestTreeRecordsWhatItReads(t *testing.T) {
	ctx := context.Background()
	repo, work := open(t)
	first := commitAll(t, work, map[string]string{"a/x.yaml": "1", "a/y.yaml": "2", "b/z.yaml": "3", "a/link": "-> ../b/z.yaml"})
	tree := NewTree(repo, first)
	if _, err := tree.ReadFile(ctx, "a/x.yaml"); err != nil {
		t.Fatal(err)
	}
	if data, err := tree.ReadFile(ctx, "a/link"); err != nil || string(data) != "3" {
		t.Fatalf("through the link: %q, %v", data, err)
	}
	if _, err := tree.ReadFile(ctx, "a/none.yaml"); !errors.Is(err, git.ErrNotFound) {
		t.Fatalf("absent file: %v", err)
	}
	in := tree.Inputs()
	for _, p := range []string{"a/x.yaml", "a/link", "b/z.yaml", "a/none.yaml"} {
		if in[p] == "" {
			t.Errorf("%s is not recorded in %v", p, in)
		}
	}
	cases := []struct {
		change   map[string]string
		affected bool
	}{
		{map[string]string{"a/y.yaml": "other"}, false},
		{map[string]string{"c.txt": "new"}, false},
		{map[string]string{"a/none.yaml": "now there"}, true},
		{map[string]string{"b/z.yaml": "4"}, true},
	}
	index := NewIndex()
	index.Set("app", in)
	before := first
	for _, c := range cases {
		after := commitAll(t, work, c.change)
		changed, err := repo.Changed(ctx, before, after)
		if err != nil {
			t.Fatal(err)
		}
		before = after
		if _, got := in.Affected(changed); got != c.affected {
			t.Errorf("Affected(%v) = %v", changed, got)
		}
		if _, got := index.Readers(changed)["app"]; got != c.affected {
			t.Errorf("Readers(%v) has app: %v", changed, got)
		}
		same, err := in.Same(ctx, repo, after)
		if err != nil || same == c.affected {
			t.Errorf("Same after %v = %v, %v", changed, same, err)
		}
		if c.affected { // put it back for the next case
			undo := map[string]string{"a/none.yaml": "", "b/z.yaml": "3"}
			before = commitAll(t, work, undo)
		}
	}
}

func TestListingCoversNamesOnly(t *testing.T) {
	ctx := context.Background()
	repo, work := open(t)
	tree := NewTree(repo, commitAll(t, work, map[string]string{"d/a.yaml": "1", "d/sub/b.yaml": "1"}))
	if _, err := tree.ReadDir(ctx, "d"); err != nil {
		t.Fatal(err)
	}
	in := tree.Inputs()
	same, err := in.Same(ctx, repo, commitAll(t, work, map[string]string{"d/a.yaml": "2", "d/sub/c.yaml": "1"}))
	if err != nil || !same {
		t.Errorf("content changed, names did not: same = %v, %v", same, err)
	}
	same, err = in.Same(ctx, repo, commitAll(t, work, map[string]string{"d/n.yaml": "2"}))
	if err != nil || same {
		t.Errorf("a name was added: same = %v, %v", same, err)
	}
}

func TestPathsStayInside(t *testing.T) {
	ctx := context.Background()
	repo, work := open(t)
	tree := NewTree(repo, commitAll(t, work, map[string]string{
		"a/up": "-> ../../etc/passwd", "a/abs": "-> /etc/passwd", "a/loop": "-> loop", "a/ok": "-> ../b", "b": "x",
	}))
	for _, p := range []string{"../x", "a/../../x", "a/up", "a/abs"} {
		if _, err := tree.ReadFile(ctx, p); !errors.Is(err, ErrEscapes) {
			t.Errorf("ReadFile(%q): %v", p, err)
		}
	}
	if _, err := tree.ReadFile(ctx, "a/loop"); err == nil {
		t.Error("a link to itself was read")
	}
	if data, err := tree.ReadFile(ctx, "a/ok"); err != nil || string(data) != "x" {
		t.Errorf("a link inside: %q, %v", data, err)
	}
}

func TestTracks(t *testing.T) {
	for _, c := range []struct {
		target, ref string
		want        bool
	}{
		{"main", "refs/heads/main", true}, {"v1", "refs/tags/v1", true}, {"HEAD", "refs/heads/main", true},
		{"", "refs/heads/dev", false}, {"refs/heads/x", "refs/heads/x", true}, {"main", "refs/heads/dev", false},
	} {
		if got := Tracks(c.target, c.ref, "refs/heads/main"); got != c.want {
			t.Errorf("Tracks(%q, %q) = %v", c.target, c.ref, got)
		}
	}
}
