package merge

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// yard is a repository with a work tree, in which git itself is the judge.
type yard struct {
	t    testing.TB
	dir  string
	repo *git.Repository
}

var who = Signature{Name: "Ada <x>", Email: "ada@example.com", Time: time.Unix(1700000000, 0).UTC()}

func newYard(t testing.TB, dir string) *yard {
	t.Helper()
	y := &yard{t: t, dir: dir}
	y.git("init", "-q", "-b", "main")
	y.write("a", "1\n2\n3\n4\n5\n6\n7\n8\n9\n")
	y.commit("root")
	var err error
	if y.repo, err = git.Open(filepath.Join(dir, ".git")); err != nil {
		t.Fatal(err)
	}
	return y
}

func (y *yard) git(args ...string) string {
	y.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = y.dir
	cmd.Env = append(git.Env(), "GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@b", "GIT_EDITOR=true")
	out, err := cmd.CombinedOutput()
	if err != nil {
		y.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (y *yard) write(file, text string) {
	y.t.Helper()
	if err := os.WriteFile(filepath.Join(y.dir, file), []byte(text), 0o600); err != nil {
		y.t.Fatal(err)
	}
}

func (y *yard) commit(message string) string {
	y.t.Helper()
	y.git("add", "-A")
	y.git("commit", "-q", "--allow-empty", "-m", message)
	return y.git("rev-parse", "HEAD")
}

func TestMergeSquashRebase(t *testing.T) {
	y, ctx := newYard(t, t.TempDir()), t.Context()
	y.git("checkout", "-q", "-b", "topic")
	y.write("a", "one\n2\n3\n4\n5\n6\n7\n8\n9\n")
	y.commit("first\n\nwith a body")
	y.write("b", "new\n")
	head := y.commit("second")
	y.git("checkout", "-q", "main")
	y.write("a", "1\n2\n3\n4\n5\n6\n7\n8\nnine\n")
	base := y.commit("main moves")

	merged, err := Merge(ctx, y.repo, base, head, who, who, "Merge it")
	if err != nil {
		t.Fatal(err)
	}
	again, err := Merge(ctx, y.repo, base, head, who, who, "Merge it")
	if err != nil || again != merged {
		t.Errorf("the same merge is another commit: %s, %v", again, err)
	}
	if got := y.git("show", merged+":a"); got != "one\n2\n3\n4\n5\n6\n7\n8\nnine" {
		t.Errorf("merged a: %q", got)
	}
	if got := y.git("log", "-1", "--format=%P|%an|%ae|%s", merged); got != base+" "+head+"|Ada x|ada@example.com|Merge it" {
		t.Errorf("merge commit: %s", got)
	}
	squashed, err := Squash(ctx, y.repo, base, head, who, who, "All at once\n\nbody")
	if err != nil || y.git("log", "-1", "--format=%P|%B", squashed) != base+"|All at once\n\nbody" || y.git("rev-parse", squashed+"^{tree}") != y.git("rev-parse", merged+"^{tree}") {
		t.Errorf("squash: %s, %v", squashed, err)
	}
	rebased, err := Rebase(ctx, y.repo, base, head, who)
	if err != nil || y.git("log", "--format=%s", base+".."+rebased) != "second\nfirst" || y.git("rev-parse", rebased+"^{tree}") != y.git("rev-parse", merged+"^{tree}") {
		t.Errorf("rebase: %s, %v", rebased, err)
	}
	if got := y.git("log", "-1", "--format=%an|%cn", rebased); got != "A|Ada x" {
		t.Errorf("rebased by %s", got)
	}
	// On its own base nothing has to be written anew.
	if same, err := Rebase(ctx, y.repo, y.git("rev-parse", "main~1"), head, who); err != nil || same != head {
		t.Errorf("fast-forward: %s, %v", same, err)
	}
	if root, err := Base(ctx, y.repo, base, head); err != nil || root != y.git("rev-parse", "main~1") {
		t.Errorf("base: %s, %v", root, err)
	}
	y.git("fsck", "--strict")
}

func TestConflictNamesFiles(t *testing.T) {
	y, ctx := newYard(t, t.TempDir()), t.Context()
	y.git("checkout", "-q", "-b", "topic")
	y.write("a", "topic\n")
	y.write("with space\tand tab", "topic\n")
	head := y.commit("topic")
	y.git("checkout", "-q", "main")
	y.write("a", "main\n")
	y.write("with space\tand tab", "main\n")
	base := y.commit("main")
	var conflict *Conflict
	if _, err := Merge(ctx, y.repo, base, head, who, who, "m"); !errors.As(err, &conflict) || strings.Join(conflict.Files, "|") != "a|with space\tand tab" {
		t.Errorf("merge: %v", err)
	}
	if _, err := Rebase(ctx, y.repo, base, head, who); !errors.As(err, &conflict) || len(conflict.Files) != 2 {
		t.Errorf("rebase: %v", err)
	}
	y.git("checkout", "-q", "--orphan", "island")
	island := y.commit("island")
	if b, err := Base(ctx, y.repo, base, island); err != nil || b != "" {
		t.Errorf("base of unrelated commits: %q, %v", b, err)
	}
	if _, err := Trees(ctx, y.repo, base, strings.Repeat("0", 40)); err == nil || errors.As(err, &conflict) {
		t.Errorf("a commit that is not there: %v", err)
	}
}

// TestRebaseIsGits compares with git rebase on random histories.
func TestRebaseIsGits(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "y")
		if err != nil {
			t.Fatal(err)
		}
		y := newYard(t, dir)
		change := func(n int) {
			lines := strings.Split("1\n2\n3\n4\n5\n6\n7\n8\n9", "\n")
			if data, err := os.ReadFile(filepath.Join(dir, "a")); err == nil {
				lines = strings.Split(strings.TrimSpace(string(data)), "\n")
			}
			lines[rapid.IntRange(0, len(lines)-1).Draw(r, "line")] = rapid.SampledFrom([]string{"x", "y"}).Draw(r, "text")
			y.write("a", strings.Join(lines, "\n")+"\n")
			if len(y.git("status", "--porcelain")) > 0 {
				y.commit("change " + string(rune('a'+n)))
			}
		}
		y.git("checkout", "-q", "-b", "topic")
		for n := range rapid.IntRange(1, 3).Draw(r, "topic") {
			change(n)
		}
		head := y.git("rev-parse", "HEAD")
		y.git("checkout", "-q", "main")
		for n := range rapid.IntRange(0, 2).Draw(r, "main") {
			change(n)
		}
		base := y.git("rev-parse", "HEAD")
		got, err := Rebase(t.Context(), y.repo, base, head, who)
		cmd := exec.Command("git", "-c", "user.name=A", "-c", "user.email=a@b", "rebase", "-q", "--no-reapply-cherry-picks", "--no-keep-empty", "--empty=drop", "main", "topic")
		cmd.Dir, cmd.Env = dir, git.Env()
		gitErr := cmd.Run()
		if (err == nil) != (gitErr == nil) {
			t.Fatalf("ours: %v, git's: %v", err, gitErr)
		}
		if err == nil && y.git("rev-parse", got+"^{tree}") != y.git("rev-parse", "topic^{tree}") {
			t.Fatalf("another tree than git's")
		}
	})
}
