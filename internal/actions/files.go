package actions

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
	"github.com/lockstep-gitops/lockstep/internal/git"
)

const workflowsDir = ".github/workflows"

// maxWorkflows bounds the workflow files of one commit.
const maxWorkflows = 200

// maxParsed bounds the files that are kept parsed.
const maxParsed = 512

// files keeps parsed workflow files by their content. What it returns must not
// be changed.
type files struct {
	mu     sync.Mutex
	parsed map[[sha256.Size]byte]parsedFile
}

type parsedFile struct {
	workflow    *syntax.Workflow
	diagnostics []syntax.Diagnostic
}

func newFiles() *files { return &files{parsed: map[[sha256.Size]byte]parsedFile{}} }

// load parses one file, or knows it.
func (f *files) load(path string, content []byte) (*syntax.Workflow, []syntax.Diagnostic) {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s\x00", path)
	_, _ = h.Write(content)
	key := [sha256.Size]byte(h.Sum(nil))
	f.mu.Lock()
	p, ok := f.parsed[key]
	f.mu.Unlock()
	if ok {
		return p.workflow, p.diagnostics
	}
	p.workflow, p.diagnostics = syntax.Load(path, content)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.parsed) >= maxParsed {
		clear(f.parsed)
	}
	f.parsed[key] = p
	return p.workflow, p.diagnostics
}

type workflowFile struct {
	path    string
	content []byte
}

// workflowFiles reads the workflows of a commit, in the order of their names.
func workflowFiles(ctx context.Context, repo *git.Repository, commit string) ([]workflowFile, error) {
	entries, err := repo.ReadDir(ctx, commit, workflowsDir)
	if errors.Is(err, git.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []workflowFile
	for _, e := range entries {
		if e.Kind != git.KindBlob || e.Symlink() || !strings.HasSuffix(e.Name, ".yml") && !strings.HasSuffix(e.Name, ".yaml") {
			continue
		}
		if len(out) == maxWorkflows {
			return nil, fmt.Errorf("%s has more than %d workflow files", workflowsDir, maxWorkflows)
		}
		content, err := repo.ReadFile(ctx, commit, e.Path)
		if err != nil {
			return nil, err
		}
		out = append(out, workflowFile{path: e.Path, content: content})
	}
	return out, nil
}

// defaultBranch is the branch that HEAD names, read from the file itself: a
// process would cost milliseconds on the way of every run.
func defaultBranch(repo *git.Repository) string {
	data, err := os.ReadFile(filepath.Join(repo.Dir(), "HEAD"))
	if name, ok := strings.CutPrefix(strings.TrimSpace(string(data)), "ref: refs/heads/"); err == nil && ok && name != "" {
		return name
	}
	return "main"
}

// changedPaths lists what a push changed. A new branch is compared with where
// it left the default branch.
func changedPaths(ctx context.Context, repo *git.Repository, ref, before, commit string) ([]string, error) {
	if strings.HasPrefix(ref, "refs/tags/") {
		return nil, nil
	}
	if before != "" && before != git.ZeroID {
		if _, err := repo.Resolve(ctx, before); err == nil {
			return repo.Changed(ctx, before, commit)
		}
	}
	base := ""
	if head := "refs/heads/" + defaultBranch(repo); head != ref {
		base = mergeBase(ctx, repo, head, commit)
	}
	return repo.Changed(ctx, base, commit)
}

// mergeBase is the best common ancestor of two commits, "" without one.
func mergeBase(ctx context.Context, repo *git.Repository, a, b string) string {
	out, err := repo.Run(ctx, "merge-base", a, b)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
