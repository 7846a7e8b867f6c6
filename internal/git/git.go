// Package git reads and writes bare Git repositories through the git program.
//
// Input: a directory with a repository. Output: commits, trees and blobs, read
// without a work tree through one long-lived `git cat-file --batch-command`
// per repository.
//
// Invariants: nothing here reads outside the repository; every call honours its
// context; the environment of git is built from nothing, so the user's
// configuration and credentials never leak in.
//
// Start reading at [Open].
package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"
)

// ZeroID is the object id that stands for "no commit" in a push.
const ZeroID = "0000000000000000000000000000000000000000"

// ErrNotFound says that a revision or path does not exist. It matches
// fs.ErrNotExist under errors.Is.
var ErrNotFound error = notFound{}

type notFound struct{}

// Error implements error.
func (notFound) Error() string { return "not in the repository" }

// Is makes it a kind of fs.ErrNotExist, without that error's words.
func (notFound) Is(target error) bool { return target == fs.ErrNotExist }

// Repository is a bare repository on disk. It is safe for concurrent use.
type Repository struct {
	dir     string
	readers readers
	trees   trees
}

// Open returns the repository in dir. It starts no process until the first read.
func Open(dir string) (*Repository, error) {
	if _, err := os.Stat(dir + "/HEAD"); err != nil {
		return nil, fmt.Errorf("open repository %s: %w", dir, err)
	}
	return &Repository{dir: dir}, nil
}

// Init creates an empty bare repository in dir with the given default branch
// and opens it.
func Init(ctx context.Context, dir, branch string) (*Repository, error) {
	if _, err := run(ctx, "", nil, "init", "--bare", "--quiet", "--initial-branch", branch, dir); err != nil {
		return nil, err
	}
	return Open(dir)
}

// Dir is the directory of the repository.
func (r *Repository) Dir() string { return r.dir }

// Close ends the reader processes. A read that is under way is finished; a
// later one starts a process of its own.
func (r *Repository) Close() {
	r.readers.close()
	r.trees.drop()
}

// Reset ends the reader processes and forgets what was read, after the files
// below Dir were replaced. The repository stays in use.
func (r *Repository) Reset() {
	r.readers.reset()
	r.trees.drop()
}

// Run runs git in the repository and returns its standard output. On failure
// the error carries the first lines of standard error.
func (r *Repository) Run(ctx context.Context, args ...string) ([]byte, error) {
	return run(ctx, r.dir, nil, args...)
}

// RunInput is Run with standard input.
func (r *Repository) RunInput(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	return run(ctx, r.dir, stdin, args...)
}

// Env is the whole environment that git is started with, here and by the
// boxes that start it themselves.
func Env() []string {
	return []string{
		"PATH=" + pathOrDefault(), "HOME=/nonexistent", "LC_ALL=C.UTF-8",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		"GIT_OPTIONAL_LOCKS=0",
	}
}

func pathOrDefault() string {
	return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

func run(ctx context.Context, dir string, stdin []byte, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = Env()
	cmd.WaitDelay = 2 * time.Second
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil {
		return out, nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("git %s: %w", args[0], ctx.Err())
	}
	msg := strings.TrimSpace(stderr.String())
	if len(msg) > 500 {
		msg = msg[:500] + "…"
	}
	return nil, fmt.Errorf("git %s: %w: %s", args[0], err, msg)
}

// Resolve returns the full commit id that rev (branch, tag, SHA, HEAD) names,
// or ErrNotFound.
func (r *Repository) Resolve(ctx context.Context, rev string) (string, error) {
	if err := checkRevision(rev); err != nil {
		return "", err
	}
	id, _, _, err := r.Stat(ctx, rev+"^{commit}")
	if errors.Is(err, ErrNotFound) {
		return "", fmt.Errorf("revision %q: %w", rev, ErrNotFound)
	}
	return id, err
}

// checkRevision refuses what git would take for an option, a path or a reflog.
func checkRevision(rev string) error {
	if rev == "" || strings.HasPrefix(rev, "-") || strings.ContainsAny(rev, "\n\x00: ") || strings.Contains(rev, "@{") {
		return fmt.Errorf("revision %q: %w", rev, ErrNotFound)
	}
	return nil
}

// Refs returns every ref below the given prefixes ("refs/heads/", all when
// none is given) and the object id it points to.
func (r *Repository) Refs(ctx context.Context, prefixes ...string) (map[string]string, error) {
	args := append([]string{"for-each-ref", "--format=%(objectname) %(refname)"}, prefixes...)
	out, err := run(ctx, r.dir, nil, args...)
	if err != nil {
		return nil, err
	}
	refs := map[string]string{}
	for line := range strings.Lines(string(out)) {
		id, name, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok {
			refs[name] = id
		}
	}
	return refs, nil
}

// Commit is what a commit object says about itself.
type Commit struct {
	ID          string
	Tree        string
	Parents     []string
	AuthorName  string
	AuthorEmail string
	AuthorTime  time.Time
	// CommitterName and the two below say who made the commit object and when.
	CommitterName  string
	CommitterEmail string
	CommitterTime  time.Time
	Subject        string // first line of the message
	Body           string // the rest of the message, trailers included
	Message        string // the whole message as it was written
}

// Commit reads the commit that rev names, or returns ErrNotFound.
func (r *Repository) Commit(ctx context.Context, rev string) (Commit, error) {
	if err := checkRevision(rev); err != nil {
		return Commit{}, err
	}
	o, err := r.Object(ctx, rev+"^{commit}")
	if errors.Is(err, ErrNotFound) {
		return Commit{}, fmt.Errorf("revision %q: %w", rev, ErrNotFound)
	}
	if err != nil {
		return Commit{}, err
	}
	return ParseCommit(o.ID, o.Data)
}
