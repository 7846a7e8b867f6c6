package action

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// mirror keeps the commits of the remote's repositories that were used.
type mirror struct {
	cfg Config

	mu    sync.Mutex
	repos map[string]*mirrored
	// silent is when the remote did not answer at all.
	silent    time.Time
	silentErr error
}

// mirrored is the copy of one repository: only the commits that were asked for,
// and refs/lockstep/REV for what the remote said last.
type mirrored struct {
	mu    sync.Mutex // held over one question
	repo  *git.Repository
	asked map[string]time.Time // by revision
}

// missingError says that the remote answered and does not have it.
type missingError struct {
	repo bool // not even the repository
	err  error
}

func (e *missingError) Error() string { return e.err.Error() }

func (m *mirror) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.repos {
		if r.repo != nil {
			r.repo.Close()
		}
	}
}

func (m *mirror) entry(repo string) *mirrored {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := strings.ToLower(repo)
	if m.repos[key] == nil {
		m.repos[key] = &mirrored{asked: map[string]time.Time{}}
	}
	return m.repos[key]
}

func (m *mirror) resolve(ctx context.Context, ref Reference) (Source, error) {
	if m.cfg.Remote == "" || m.cfg.Mirror == "" {
		return Source{}, errors.New("no remote is configured")
	}
	e := m.entry(ref.Repo)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := m.open(ctx, e, ref.Repo); err != nil {
		return Source{}, err
	}
	url := m.cfg.Remote + "/" + ref.Repo
	source := Source{Ref: ref, From: url, repo: e.repo}
	kept := "refs/lockstep/" + ref.Rev
	if fullCommit.MatchString(ref.Rev) {
		kept = ref.Rev
	}
	have, haveErr := e.repo.Resolve(ctx, kept+"^{commit}")
	if haveErr == nil && (kept == ref.Rev || m.cfg.Now().Sub(e.asked[ref.Rev]) < m.cfg.Fresh) {
		source.Commit = have
		return source, nil
	}
	commit, err := m.update(ctx, e, ref, url, have)
	var missing *missingError
	switch {
	case err == nil:
		source.Commit = commit
		e.asked[ref.Rev] = m.cfg.Now()
		return source, nil
	case haveErr == nil && !errors.As(err, &missing) && ctx.Err() == nil:
		source.Commit, source.Stale = have, err.Error()
		return source, nil
	}
	return Source{}, err
}

func (m *mirror) open(ctx context.Context, e *mirrored, repo string) error {
	if e.repo != nil {
		return nil
	}
	var err error
	e.repo, err = git.Init(ctx, filepath.Join(m.cfg.Mirror, strings.ReplaceAll(strings.ToLower(repo), "/", "__")+".git"), "main")
	if err != nil {
		return fmt.Errorf("open the mirror of %s: %w", repo, err)
	}
	return nil
}

// update asks the remote for a revision and fetches its commit.
func (m *mirror) update(ctx context.Context, e *mirrored, ref Reference, url, have string) (string, error) {
	if err := m.quiet(); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, m.cfg.Timeout, fmt.Errorf("no answer within %s", m.cfg.Timeout))
	defer cancel()
	commit := ref.Rev
	if !fullCommit.MatchString(ref.Rev) {
		out, err := m.git(ctx, e, "ls-remote", "--", url, "refs/tags/"+ref.Rev, "refs/tags/"+ref.Rev+"^{}", "refs/heads/"+ref.Rev)
		if err != nil {
			return "", m.classify(err)
		}
		if commit = pick(string(out), ref.Rev); commit == "" {
			return "", &missingError{err: fmt.Errorf("%s has no %q", url, ref.Rev)}
		}
	}
	if commit != have {
		if _, err := m.git(ctx, e, "fetch", "--quiet", "--no-tags", "--depth=1", "--no-write-fetch-head", "--", url, commit); err != nil {
			return "", m.classify(err)
		}
		e.repo.Reset() // a reader that is open does not see new packs
	}
	if commit == ref.Rev {
		// Kept alive by a name of its own.
		_, err := e.repo.Run(ctx, "update-ref", "refs/lockstep/commits/"+commit, commit)
		return commit, err
	}
	_, err := e.repo.Run(ctx, "update-ref", "refs/lockstep/"+ref.Rev, commit)
	return commit, err
}

// pick reads the answer of ls-remote: a tag before a branch, its commit before
// the tag object.
func pick(out, rev string) string {
	found := map[string]string{}
	for line := range strings.Lines(out) {
		id, name, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if ok && fullCommit.MatchString(id) {
			found[name] = id
		}
	}
	for _, name := range []string{"refs/tags/" + rev + "^{}", "refs/tags/" + rev, "refs/heads/" + rev} {
		if id := found[name]; id != "" {
			return id
		}
	}
	return ""
}

// quiet reports the remote's silence while it is fresh, so that not every job
// waits for it anew.
func (m *mirror) quiet() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.silentErr != nil && m.cfg.Now().Sub(m.silent) < m.cfg.Fresh {
		return m.silentErr
	}
	return nil
}

// classify tells a repository that does not exist from a remote that cannot be
// reached. GitHub asks for a password for what it does not have.
func (m *mirror) classify(err error) error {
	text := err.Error()
	for _, sign := range []string{"not found", "could not read Username", "does not appear to be a git repository", "Authentication failed", "not our ref", "couldn't find remote ref"} {
		if strings.Contains(text, sign) {
			return &missingError{repo: !strings.Contains(sign, "ref"), err: err}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.silent, m.silentErr = m.cfg.Now(), err
	return err
}

func (m *mirror) git(ctx context.Context, e *mirrored, args ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Env = e.repo.Dir(), append(git.Env(), m.cfg.Env...)
	cmd.Stdout, cmd.Stderr = &limited{w: &stdout, left: 1 << 20}, &limited{w: &stderr, left: 4 << 10}
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		text := strings.TrimSpace(stderr.String())
		if i := strings.Index(text, "fatal: "); i >= 0 {
			text = text[i+len("fatal: "):]
		}
		text, _, _ = strings.Cut(text, "\n")
		return nil, fmt.Errorf("%s", text)
	}
	return stdout.Bytes(), nil
}
