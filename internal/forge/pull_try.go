package forge

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/lockstep-gitops/lockstep/internal/forge/merge"
	"github.com/lockstep-gitops/lockstep/internal/git"
)

// keyed are locks by repository. A lock on pull requests is taken after the one
// on the repository's refs, never before it.
type keyed struct {
	mu    sync.Mutex
	locks map[int64]chan struct{}
}

func (k *keyed) lock(ctx context.Context, id int64) (unlock func(), err error) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[int64]chan struct{}{}
	}
	held := k.locks[id]
	if held == nil {
		held = make(chan struct{}, 1)
		k.locks[id] = held
	}
	k.mu.Unlock()
	select {
	case held <- struct{}{}:
		return sync.OnceFunc(func() { <-held }), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// github is who commits what is merged here, as on GitHub.
func (f *Forge) github() merge.Signature {
	return merge.Signature{Name: "GitHub", Email: "noreply@github.com", Time: f.deps.Now()}
}

// signature is a login as the author of a commit.
func (f *Forge) signature(login string) merge.Signature {
	return merge.Signature{
		Name: login, Email: strconv.FormatInt(f.account("", login).ID, 10) + "+" + login + "@users.noreply.github.com", Time: f.deps.Now(),
	}
}

// tryOut brings the head of a pull request into its repository, merges it with
// the base for a try, counts what it changes, and moves refs/pull/N/. The
// caller holds the lock on pull requests and stores the issue.
func (f *Forge) tryOut(ctx context.Context, repo, headRepo *repository, i *issue, base string) error {
	p := i.Pull
	if headRepo != nil && headRepo.id != repo.id {
		if _, err := repo.git.RunInput(ctx, nil, "-c", "core.fsync=objects,derived-metadata,reference", "-c", "gc.auto=0", "-c", "maintenance.auto=false",
			"fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", headRepo.git.Dir(), "+refs/heads/"+p.Head+":"+p.headRef(i.number)); err != nil {
			return fmt.Errorf("fetch the head of #%d: %w", i.number, err)
		}
		tip, err := repo.git.Resolve(ctx, p.headRef(i.number))
		if err != nil {
			return err
		}
		p.HeadSHA = tip
	}
	p.BaseSHA = base
	t := test{Base: base, Head: p.HeadSHA}
	var err error
	if t.MergeBase, err = merge.Base(ctx, repo.git, base, p.HeadSHA); err != nil {
		return err
	}
	if err := countChanges(ctx, repo, &t); err != nil {
		return err
	}
	refs := []refCommand{{Ref: p.headRef(i.number), New: p.HeadSHA}}
	message := "Merge " + p.HeadSHA + " into " + base
	var conflict *merge.Conflict
	t.Commit, err = merge.Merge(ctx, repo.git, base, p.HeadSHA, f.signature(i.author), f.github(), message)
	switch {
	case errors.As(err, &conflict):
		t.Conflicts = conflict.Files
		refs = append(refs, refCommand{Ref: p.mergeRef(i.number)})
	case err != nil:
		return err
	default:
		refs = append(refs, refCommand{Ref: p.mergeRef(i.number), New: t.Commit})
	}
	p.Test = t
	return updateRefs(ctx, repo, refs...)
}

// countChanges counts the commits and the lines between base and head.
func countChanges(ctx context.Context, repo *repository, t *test) error {
	out, err := repo.git.Run(ctx, "rev-list", "--count", t.Base+".."+t.Head)
	if err != nil {
		return err
	}
	if t.Commits, err = strconv.Atoi(strings.TrimSpace(string(out))); err != nil {
		return err
	}
	from := t.MergeBase
	if from == "" {
		from = t.Base
	}
	if out, err = repo.git.Run(ctx, "diff-tree", "-r", "-z", "-M", "--shortstat", from, t.Head); err != nil {
		return err
	}
	for part := range strings.SplitSeq(strings.TrimRight(string(out), "\x00\n"), ",") {
		count, what, _ := strings.Cut(strings.TrimSpace(part), " ")
		n, _ := strconv.Atoi(count)
		switch {
		case strings.HasPrefix(what, "file"):
			t.Files = n
		case strings.HasPrefix(what, "insertion"):
			t.Additions = n
		case strings.HasPrefix(what, "deletion"):
			t.Deletions = n
		}
	}
	return nil
}

// fresh brings the test merge of an open pull request up to date with its base,
// and finds out whether it can be rebased.
func (f *Forge) fresh(ctx context.Context, repo *repository, i *issue) (*issue, error) {
	if i.Pull == nil || !i.open {
		return i, nil
	}
	tip, err := repo.git.Resolve(ctx, "refs/heads/"+i.Pull.Base)
	if errors.Is(err, git.ErrNotFound) {
		return i, nil
	}
	if err != nil {
		return nil, err
	}
	if t := i.Pull.Test; t.Base == tip && t.Head == i.Pull.HeadSHA && t.Rebaseable != nil {
		return i, nil
	}
	unlock, err := f.pulls.lock(ctx, repo.id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if i, err = pullOf(ctx, f.db, repo.id, i.number); err != nil || !i.open {
		return i, err
	}
	if t := i.Pull.Test; t.Base != tip || t.Head != i.Pull.HeadSHA {
		if err := f.tryOut(ctx, repo, nil, i, tip); err != nil {
			return nil, err
		}
	}
	rebaseable := i.Pull.Test.Commit != ""
	if rebaseable {
		_, err := merge.Rebase(ctx, repo.git, tip, i.Pull.HeadSHA, f.github())
		var conflict *merge.Conflict
		if rebaseable = err == nil; err != nil && !errors.As(err, &conflict) && !errors.Is(err, merge.ErrNotRebaseable) {
			return nil, err
		}
	}
	i.Pull.Test.Rebaseable = &rebaseable
	tested := *i.Pull
	return f.changeIssue(ctx, repo.id, i.number, func(now *issue, _ *sql.Tx, _ *outbox) error {
		now.updated = i.updated
		now.Pull.Test, now.Pull.BaseSHA = tested.Test, tested.BaseSHA
		return nil
	})
}
