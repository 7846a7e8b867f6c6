package forge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// writeTree changes paths of the tree base ("" is an empty one) and returns the
// new tree's id. The work is done in an index of its own, so nobody else sees it.
func (f *Forge) writeTree(ctx context.Context, repo *repository, base string, entries []newTreeEntry) (string, error) {
	dir, err := os.MkdirTemp(f.tmp(), "index-")
	if err != nil {
		return "", fmt.Errorf("write tree: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	env := []string{"GIT_INDEX_FILE=" + filepath.Join(dir, "index")}
	if base != "" {
		if _, err := f.gitIn(ctx, repo, env, nil, "read-tree", base); err != nil {
			return "", err
		}
	}
	var info bytes.Buffer
	for _, e := range entries {
		switch {
		case e.SHA == nil:
			if err := f.removePath(ctx, repo, base, e.Path, &info); err != nil {
				return "", err
			}
		case e.Mode == "040000":
			if err := f.addTree(ctx, repo, *e.SHA, e.Path, &info); err != nil {
				return "", err
			}
		default:
			fmt.Fprintf(&info, "%s %s 0\t%s\x00", e.Mode, *e.SHA, e.Path)
		}
	}
	if _, err := f.gitIn(ctx, repo, env, info.Bytes(), "update-index", "--replace", "-z", "--index-info"); err != nil {
		return "", fail(422, "GitRPC::BadObjectState: the tree can't be made: %s", err)
	}
	out, err := f.gitIn(ctx, repo, env, nil, "write-tree")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(out)), nil
}

// removePath removes a file, or all files of a directory.
func (f *Forge) removePath(ctx context.Context, repo *repository, base, name string, info *bytes.Buffer) error {
	out, err := f.gitIn(ctx, repo, nil, nil, "ls-tree", "-r", "-z", "--name-only", "--full-tree", base, "--", ":(literal)"+name)
	if base == "" || err == nil && len(out) == 0 {
		return invalid("Tree", "invalid", "path", fmt.Sprintf("%.200q can't be removed: it isn't in base_tree", name))
	}
	if err != nil {
		return err
	}
	for file := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		fmt.Fprintf(info, "0 %s 0\t%s\x00", git.ZeroID, file)
	}
	return nil
}

// addTree puts all files of a tree below a directory.
func (f *Forge) addTree(ctx context.Context, repo *repository, tree, dir string, info *bytes.Buffer) error {
	out, err := f.gitIn(ctx, repo, nil, nil, "ls-tree", "-r", "-z", tree)
	if err != nil {
		return err
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		meta, name, ok := strings.Cut(line, "\t")
		fields := strings.Fields(meta) // mode type id
		if !ok || len(fields) != 3 {
			continue
		}
		fmt.Fprintf(info, "%s %s 0\t%s/%s\x00", fields[0], fields[2], dir, name)
	}
	return nil
}

// branchTip is the tip of a branch and its root tree; both "" for a
// repository without commits.
func (f *Forge) branchTip(ctx context.Context, repo *repository, branch string) (commit, tree string, err error) {
	c, err := repo.git.Commit(ctx, "refs/heads/"+branch)
	if errors.Is(err, git.ErrNotFound) {
		refs, err := repo.git.Refs(ctx, "refs/heads/")
		if err == nil && len(refs) > 0 {
			err = fail(404, "Branch %s not found", branch)
		}
		return "", "", err
	}
	return c.ID, c.Tree, err
}
