// Package merge merges commits of a bare repository without a work tree.
//
// Input: commits of one repository. Output: new objects, and the names of the
// files that conflict; no ref moves. Merges are those of `git merge-tree`, so
// the result is what `git merge` would give.
//
// Invariants: objects are on the disk when their id is returned. The same
// input gives the same commit, so that a merge can be made again after a crash.
//
// Start reading at [Trees].
package merge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// maxConflicts bounds how many conflicting files are named.
const maxConflicts = 100

// maxOutput bounds what is read of one git process, in bytes.
const maxOutput = 8 << 20

// Conflict says that commits can't be merged, and which files are why.
type Conflict struct{ Files []string }

// Error implements error.
func (c *Conflict) Error() string { return "merge conflict in " + strings.Join(c.Files, ", ") }

// Signature is who made a commit and when.
type Signature struct {
	Name, Email string
	Time        time.Time
}

func (s Signature) String() string {
	clean := strings.NewReplacer("<", "", ">", "", "\n", " ", "\x00", "")
	name := strings.TrimSpace(clean.Replace(s.Name))
	if name == "" {
		name = "unknown"
	}
	return fmt.Sprintf("%s <%s> %d %s", name, strings.TrimSpace(clean.Replace(s.Email)), s.Time.Unix(), s.Time.Format("-0700"))
}

// Trees merges two commits and returns the tree, or a *Conflict.
func Trees(ctx context.Context, repo *git.Repository, ours, theirs string) (string, error) {
	out, code, err := command(ctx, repo, nil, "merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", "--allow-unrelated-histories", ours, theirs)
	if err != nil {
		return "", err
	}
	fields := strings.Split(strings.TrimRight(string(out), "\x00\n"), "\x00")
	tree := strings.TrimSpace(fields[0])
	if len(tree) != 40 {
		return "", fmt.Errorf("git merge-tree can't merge %s and %s", ours, theirs)
	}
	switch code {
	case 0:
		return tree, nil
	case 1:
		files := fields[1:]
		if len(files) > maxConflicts {
			files = append(files[:maxConflicts:maxConflicts], "…")
		}
		return "", &Conflict{Files: files}
	}
	return "", fmt.Errorf("git merge-tree ended with status %d", code)
}

// Spec is a commit to be written.
type Spec struct {
	Tree              string
	Parents           []string
	Author, Committer Signature
	Message           string
}

// Commit writes a commit and returns its id.
func Commit(ctx context.Context, repo *git.Repository, s Spec) (string, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "tree %s\n", s.Tree)
	for _, p := range s.Parents {
		fmt.Fprintf(&b, "parent %s\n", p)
	}
	fmt.Fprintf(&b, "author %s\ncommitter %s\n\n%s", s.Author, s.Committer, strings.ReplaceAll(s.Message, "\x00", ""))
	if !strings.HasSuffix(s.Message, "\n") {
		b.WriteByte('\n')
	}
	out, code, err := command(ctx, repo, b.Bytes(), "hash-object", "-t", "commit", "-w", "--stdin")
	if err != nil {
		return "", err
	}
	if code != 0 {
		return "", fmt.Errorf("git hash-object ended with status %d", code)
	}
	return strings.TrimSpace(string(out)), nil
}

// Merge merges head into base with a merge commit.
func Merge(ctx context.Context, repo *git.Repository, base, head string, author, committer Signature, message string) (string, error) {
	tree, err := Trees(ctx, repo, base, head)
	if err != nil {
		return "", err
	}
	return Commit(ctx, repo, Spec{Tree: tree, Parents: []string{base, head}, Author: author, Committer: committer, Message: message})
}

// Squash makes one commit on base of all that head has and base has not.
func Squash(ctx context.Context, repo *git.Repository, base, head string, author, committer Signature, message string) (string, error) {
	tree, err := Trees(ctx, repo, base, head)
	if err != nil {
		return "", err
	}
	return Commit(ctx, repo, Spec{Tree: tree, Parents: []string{base}, Author: author, Committer: committer, Message: message})
}

// MaxRebase is how many commits a rebase takes, as on GitHub.
const MaxRebase = 100

// ErrNotRebaseable says why commits can't be rebased one by one.
var ErrNotRebaseable = errors.New("the commits can't be rebased")

// Rebase puts the commits that head has and base has not onto base, one by
// one. Merge commits are left out, as by git rebase, and so are commits whose
// change base has already, or that change nothing any more.
func Rebase(ctx context.Context, repo *git.Repository, base, head string, committer Signature) (string, error) {
	out, err := repo.Run(ctx, "rev-list", "--reverse", "--topo-order", "--no-merges", "--cherry-pick", "--right-only", "--max-count="+strconv.Itoa(MaxRebase+1), base+"..."+head)
	if err != nil {
		return "", err
	}
	ids := strings.Fields(string(out))
	if len(ids) > MaxRebase {
		return "", fmt.Errorf("%w: there are more than %d", ErrNotRebaseable, MaxRebase)
	}
	onto := base
	for _, id := range ids {
		if onto, err = pick(ctx, repo, onto, id, committer); err != nil {
			return "", err
		}
	}
	return onto, nil
}

// pick puts the change of one commit onto another.
func pick(ctx context.Context, repo *git.Repository, onto, id string, committer Signature) (string, error) {
	c, err := repo.Commit(ctx, id)
	if err != nil {
		return "", err
	}
	if len(c.Parents) == 1 && c.Parents[0] == onto {
		return id, nil // it is there already, and stays what it is
	}
	ours, err := repo.Commit(ctx, onto)
	if err != nil {
		return "", err
	}
	tree, err := pickTree(ctx, repo, ours, c)
	if err != nil {
		return "", err
	}
	if tree == ours.Tree {
		return onto, nil
	}
	author := Signature{c.AuthorName, c.AuthorEmail, c.AuthorTime}
	return Commit(ctx, repo, Spec{Tree: tree, Parents: []string{onto}, Author: author, Committer: committer, Message: c.Message})
}

// emptyTree is the tree without entries, which git knows without its object.
const emptyTree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

// pickTree merges trees with the parent of the picked commit as their base.
// Git 2.38 takes the base from the history, so there is a small one of three
// commits; nothing names them, and they go with the next gc.
func pickTree(ctx context.Context, repo *git.Repository, ours, picked git.Commit) (string, error) {
	before := emptyTree
	if len(picked.Parents) > 0 {
		parent, err := repo.Commit(ctx, picked.Parents[0])
		if err != nil {
			return "", err
		}
		before = parent.Tree
	}
	nobody := Signature{Name: "lockstep", Time: time.Unix(0, 0).UTC()}
	root, err := Commit(ctx, repo, Spec{Tree: before, Author: nobody, Committer: nobody, Message: "base"})
	if err != nil {
		return "", err
	}
	sides := [2]string{ours.Tree, picked.Tree}
	for i, tree := range sides {
		if sides[i], err = Commit(ctx, repo, Spec{Tree: tree, Parents: []string{root}, Author: nobody, Committer: nobody, Message: "side"}); err != nil {
			return "", err
		}
	}
	return Trees(ctx, repo, sides[0], sides[1])
}

// Base returns the best common ancestor of two commits, "" without one.
func Base(ctx context.Context, repo *git.Repository, a, b string) (string, error) {
	out, code, err := command(ctx, repo, nil, "merge-base", a, b)
	if err != nil {
		return "", err
	}
	if code > 1 {
		return "", fmt.Errorf("git merge-base ended with status %d", code)
	}
	return strings.TrimSpace(string(out)), nil
}

// command runs git and returns its exit status. An error is one of starting it
// or of its standard error.
func command(ctx context.Context, repo *git.Repository, stdin []byte, args ...string) ([]byte, int, error) {
	all := append([]string{"-c", "core.fsync=objects,derived-metadata,reference", "-c", "core.fsyncMethod=batch"}, args...)
	cmd := exec.CommandContext(ctx, "git", all...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = repo.Dir(), git.Env(), 2*time.Second
	cmd.Stdin = bytes.NewReader(stdin)
	stdout, stderr := &limited{left: maxOutput}, &limited{left: 2000}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, 0, fmt.Errorf("git %s: %w", args[0], ctx.Err())
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return stdout.Bytes(), 1, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), 0, nil
}

// limited keeps the first bytes that are written to it.
type limited struct {
	bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(l.left, len(p))
	l.left -= n
	_, _ = l.Buffer.Write(p[:n])
	return len(p), nil
}
