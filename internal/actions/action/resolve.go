package action

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
	"github.com/lockstep-gitops/lockstep/internal/git"
)

// Repositories opens the forge's repositories.
type Repositories interface {
	Repository(ctx context.Context, name string) (*git.Repository, error)
}

// Config says where actions come from.
type Config struct {
	// Mirror is the folder of copies of Remote's repositories.
	Mirror string
	// Remote is where repositories are looked for that the forge does not
	// have: "https://github.com", or "" for nowhere.
	Remote string
	// Env are further variables of git, for example HTTPS_PROXY.
	Env []string
	// Timeout bounds one question to Remote; default 20 s.
	Timeout time.Duration
	// Fresh is how long an answer of Remote, or its silence, is believed;
	// default 1 minute.
	Fresh time.Duration
	Now   func() time.Time // default time.Now
}

// Resolver finds the repositories behind `uses`. It is safe for concurrent use.
type Resolver struct {
	cfg    Config
	forge  Repositories
	mirror mirror
}

// NewResolver returns a resolver of the forge's repositories and the remote's.
func NewResolver(cfg Config, forge Repositories) *Resolver {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 20 * time.Second
	}
	if cfg.Fresh <= 0 {
		cfg.Fresh = time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Resolver{cfg: cfg, forge: forge, mirror: mirror{cfg: cfg, repos: map[string]*mirrored{}}}
}

// Close ends the processes that read mirrors.
func (r *Resolver) Close() { r.mirror.close() }

// Source is one commit of a repository with an action.
type Source struct {
	Ref    Reference
	Commit string // full
	From   string // "the forge", or the remote's URL
	// Stale says that the remote could not be asked, so that Commit is what
	// it said before; "" otherwise.
	Stale string

	repo *git.Repository
}

var fullCommit = regexp.MustCompile(`^[0-9a-f]{40}$`)

// Resolve finds the commit of a Reference of kind Repository: on the forge, or
// else at the remote. The error is an *[Error] with what to try.
func (r *Resolver) Resolve(ctx context.Context, ref Reference) (Source, error) {
	if ref.Kind != Repository {
		return Source{}, fmt.Errorf("%q is in no repository of its own", ref.Text)
	}
	repo, err := r.forge.Repository(ctx, ref.Repo)
	if ctx.Err() != nil {
		return Source{}, context.Cause(ctx)
	}
	onForge := err == nil
	var have []string
	if onForge {
		commit, err := revision(ctx, repo, ref.Rev)
		if err == nil {
			return Source{Ref: ref, Commit: commit, From: "the forge", repo: repo}, nil
		}
		if ctx.Err() != nil {
			return Source{}, context.Cause(ctx)
		}
		have = names(ctx, repo)
	}
	source, err := r.mirror.resolve(ctx, ref)
	if err == nil {
		return source, nil
	}
	if ctx.Err() != nil {
		return Source{}, context.Cause(ctx)
	}
	return Source{}, r.explain(ref, onForge, have, err)
}

func (r *Resolver) explain(ref Reference, onForge bool, have []string, err error) error {
	e := &Error{Err: err, Hint: fmt.Sprintf("lockstep action import %s@%s --from DIR|FILE.tar.gz|URL", ref.Repo, ref.Rev)}
	var missing *missingError
	asked := errors.As(err, &missing)
	switch {
	case onForge && len(have) == 0:
		e.Msg = fmt.Sprintf("action %q: the repository %s on the forge is empty", ref.Text, ref.Repo)
	case onForge:
		e.Msg = fmt.Sprintf("action %q: the repository %s on the forge has no branch, tag or commit %q; it has %s", ref.Text, ref.Repo, ref.Rev, strings.Join(have, ", "))
	case asked && missing.repo:
		e.Msg = fmt.Sprintf("action %q: neither the forge nor %s has the repository %s", ref.Text, r.cfg.Remote, ref.Repo)
		e.Hint = "check the spelling, or: " + e.Hint
	case asked:
		e.Msg = fmt.Sprintf("action %q: %s/%s has no branch, tag or commit %q", ref.Text, r.cfg.Remote, ref.Repo, ref.Rev)
		e.Hint = "check the version"
	case r.cfg.Remote == "":
		e.Msg = fmt.Sprintf("action %q is not on this machine: the forge has no repository %s", ref.Text, ref.Repo)
	default:
		e.Msg = fmt.Sprintf("action %q is not on this machine, and %s cannot be reached (%v)", ref.Text, r.cfg.Remote, err)
	}
	return e
}

// revision finds a commit by tag, branch or full hash.
func revision(ctx context.Context, repo *git.Repository, rev string) (string, error) {
	specs := []string{"refs/tags/" + rev, "refs/heads/" + rev}
	if fullCommit.MatchString(rev) {
		specs = []string{rev}
	}
	var err error
	for _, spec := range specs {
		var commit string
		if commit, err = repo.Resolve(ctx, spec+"^{commit}"); err == nil {
			return commit, nil
		}
	}
	return "", err
}

// names lists some tags and branches, for an error.
func names(ctx context.Context, repo *git.Repository) []string {
	refs, err := repo.Refs(ctx, "refs/tags/", "refs/heads/")
	if err != nil {
		return nil
	}
	var out []string
	for ref := range refs {
		out = append(out, strings.TrimPrefix(strings.TrimPrefix(ref, "refs/tags/"), "refs/heads/"))
	}
	slices.Sort(out)
	if len(out) > 12 {
		out = append(out[:12], "…")
	}
	return out
}

// FileNames are where an action is described, in the order of search.
var FileNames = []string{"action.yml", "action.yaml"}

// Load reads the action.yml in the source. Without one, a Dockerfile is a
// Docker action. The error is an *[Error].
func (s Source) Load(ctx context.Context) (*Action, []syntax.Diagnostic, error) {
	for _, name := range append(slices.Clone(FileNames), "Dockerfile") {
		content, err := s.repo.ReadFile(ctx, s.Commit, path.Join(s.Ref.Path, name))
		switch {
		case errors.Is(err, git.ErrNotFound):
			continue
		case err != nil:
			return nil, nil, fmt.Errorf("read %s of %s: %w", name, s.Ref.Text, err)
		case name == "Dockerfile":
			return &Action{File: s.Ref.Name() + "/" + name, Runs: Runs{Using: Docker, Image: name, Line: 1}}, nil, nil
		}
		a, diagnostics := Load(s.Ref.Name()+"/"+name, content)
		return a, diagnostics, FirstFatal(diagnostics)
	}
	where := "at its top"
	if s.Ref.Path != "" {
		where = "in " + s.Ref.Path
	}
	return nil, nil, &Error{Msg: fmt.Sprintf("action %q: %s has no action.yml, action.yaml or Dockerfile %s", s.Ref.Text, s.Ref.Repo, where),
		Hint: "check the path and the version; the commit is " + s.Commit}
}

// Extract writes the whole tree of the source into a folder of root.
func (s Source) Extract(ctx context.Context, root *os.Root, dir string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", "archive", "--format=tar", s.Commit)
	var stderr strings.Builder
	cmd.Dir, cmd.Env, cmd.Stderr = s.repo.Dir(), git.Env(), &limited{w: &stderr, left: 4 << 10}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("extract %s: %w", s.Ref.Text, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("extract %s: %w", s.Ref.Text, err)
	}
	unpackErr := Unpack(out, root, dir)
	if unpackErr != nil {
		cancel()
	}
	_, _ = io.Copy(io.Discard, out)
	waitErr := cmd.Wait()
	switch {
	case unpackErr != nil:
		return fmt.Errorf("extract %s: %w", s.Ref.Text, unpackErr)
	case waitErr != nil:
		return fmt.Errorf("extract %s: git archive: %w: %s", s.Ref.Text, waitErr, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// limited keeps the first bytes and drops the rest.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	if _, err := l.w.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}
