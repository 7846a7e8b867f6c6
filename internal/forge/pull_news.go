package forge

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// pullNews are what a push means for pull requests: heads that moved, bases
// that moved, what is merged thereby. It is worked out before the transaction
// that forgets the push, and recorded in it, so that a crash in between makes
// it again.
type pullNews struct {
	unlock []func()
	write  []func(tx *sql.Tx, out *outbox) error
}

func (n *pullNews) close() {
	for _, unlock := range slices.Backward(n.unlock) {
		unlock()
	}
}

// record writes the news in the transaction that forgets the push.
func (n *pullNews) record(tx *sql.Tx, out *outbox) error {
	for _, write := range n.write {
		if err := write(tx, out); err != nil {
			return err
		}
	}
	return nil
}

// newsOf works out the news of the refs that a push moved.
func (f *Forge) newsOf(ctx context.Context, repo *repository, p *push, moved []refCommand) (*pullNews, error) {
	n := &pullNews{}
	branches := map[string]refCommand{}
	for _, c := range moved {
		if branch, ok := strings.CutPrefix(c.Ref, "refs/heads/"); ok && c.Old != git.ZeroID {
			branches[branch] = c
		}
	}
	if len(branches) == 0 {
		return n, nil
	}
	touched, err := f.touchedPulls(ctx, repo, branches)
	if err != nil || len(touched) == 0 {
		return n, err
	}
	var bases []int64
	for _, i := range touched {
		bases = append(bases, i.repo)
	}
	slices.Sort(bases)
	bases = slices.Compact(bases)
	for _, id := range bases {
		unlock, err := f.pulls.lock(ctx, id)
		if err != nil {
			n.close()
			return nil, err
		}
		n.unlock = append(n.unlock, unlock)
	}
	for _, id := range bases {
		if err := f.newsForBase(ctx, n, id, repo, p, branches); err != nil {
			n.close()
			return nil, err
		}
	}
	return n, nil
}

// touchedPulls are the open pull requests whose head or base a push moved.
func (f *Forge) touchedPulls(ctx context.Context, repo *repository, branches map[string]refCommand) ([]*issue, error) {
	candidates, err := issuesWhere(ctx, f.db, `i.is_pull and i.open and (i.head_repo = ?1 or i.repo = ?1) order by i.repo, i.number`, repo.id)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(candidates, func(i *issue) bool {
		_, head := branches[i.Pull.Head]
		_, base := branches[i.Pull.Base]
		return !(head && i.Pull.HeadRepo == repo.id) && !(base && i.repo == repo.id)
	}), nil
}

// newsForBase works out the news for the pull requests into one repository. Its
// lock on pull requests is held.
func (f *Forge) newsForBase(ctx context.Context, n *pullNews, id int64, pushed *repository, p *push, branches map[string]refCommand) error {
	base, err := f.findID(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	all, err := f.touchedPulls(ctx, pushed, branches)
	if err != nil {
		return err
	}
	merged := map[string]map[int]bool{} // by base branch
	for _, i := range all {
		if i.repo != id {
			continue
		}
		headMove, headMoved := branches[i.Pull.Head]
		headMoved = headMoved && i.Pull.HeadRepo == pushed.id
		baseMove, baseMoved := branches[i.Pull.Base]
		baseMoved = baseMoved && i.repo == pushed.id
		if headMoved && headMove.New != git.ZeroID && headMove.New == i.Pull.HeadSHA {
			headMoved = false // told already
		}
		by := ""
		if baseMoved {
			if by, err = f.mergedBy(ctx, i, baseMove.New); err != nil {
				return err
			}
		}
		switch {
		case by != "":
			if err := n.merged(ctx, f, base, i, by, baseMove.New, p); err != nil {
				return err
			}
			continue
		case headMoved && headMove.New == git.ZeroID, baseMoved && baseMove.New == git.ZeroID:
			if err := n.closed(ctx, f, base, i, p); err != nil {
				return err
			}
			continue
		}
		tip, err := base.git.Resolve(ctx, "refs/heads/"+i.Pull.Base)
		if errors.Is(err, git.ErrNotFound) {
			if err := n.closed(ctx, f, base, i, p); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if headMoved {
			if err := f.headMoved(ctx, n, base, pushed, i, tip, p); err != nil {
				return err
			}
			continue
		}
		if merged[i.Pull.Base] == nil {
			if merged[i.Pull.Base], err = mergedInto(ctx, base, tip); err != nil {
				return err
			}
		}
		if merged[i.Pull.Base][i.number] {
			if err := n.merged(ctx, f, base, i, p.actor, tip, p); err != nil {
				return err
			}
		}
		// Else the test merge is out of date, which shows when it is asked for.
	}
	return nil
}

// headMoved tries the new head out, and tells of it.
func (f *Forge) headMoved(ctx context.Context, n *pullNews, base, head *repository, i *issue, tip string, p *push) error {
	before := i.Pull.HeadSHA
	var err error
	if i.Pull.HeadSHA, err = head.git.Resolve(ctx, "refs/heads/"+i.Pull.Head); err != nil {
		return err
	}
	if err := f.tryOut(ctx, base, head, i, tip); err != nil {
		return err
	}
	tried := *i.Pull
	return n.change(ctx, f, base, i, p, "synchronize", map[string]any{"before": before, "after": tried.HeadSHA}, func(now *issue) {
		now.Pull.HeadSHA, now.Pull.BaseSHA, now.Pull.Test = tried.HeadSHA, tried.BaseSHA, tried.Test
	})
}

func (n *pullNews) merged(ctx context.Context, f *Forge, base *repository, i *issue, by, sha string, p *push) error {
	at := f.deps.Now()
	return n.change(ctx, f, base, i, p, "closed", nil, func(now *issue) {
		now.shut(at, by, "")
		now.Pull.Merged, now.Pull.MergedBy, now.Pull.MergeSHA, now.Pull.Auto = now.Closed, by, sha, nil
	})
}

func (n *pullNews) closed(ctx context.Context, f *Forge, base *repository, i *issue, p *push) error {
	at := f.deps.Now()
	return n.change(ctx, f, base, i, p, "closed", nil, func(now *issue) {
		now.shut(at, p.actor, "")
		now.Pull.Auto = nil
	})
}

// change is one change of one pull request with its event.
func (n *pullNews) change(ctx context.Context, f *Forge, base *repository, i *issue, p *push, action string, extra map[string]any, change func(now *issue)) error {
	sc, err := f.eventScene(ctx, base, i)
	if err != nil {
		return err
	}
	n.write = append(n.write, func(tx *sql.Tx, out *outbox) error {
		now, err := issueOf(out.ctx, tx, i.repo, i.number)
		if err != nil || !now.open {
			return err
		}
		change(now)
		now.updated = out.now.UTC()
		if err := now.save(out.ctx, tx); err != nil {
			return err
		}
		return sc.tell(out, now, Identity{Actor: p.actor, Cause: p.cause}, action, extra)
	})
	return nil
}

// mergedBy returns who made the commit to merge the pull request, "" when it is
// not the commit of its merge.
func (f *Forge) mergedBy(ctx context.Context, i *issue, sha string) (by string, err error) {
	err = f.db.QueryRowContext(ctx, `select actor from pull_merge where issue = ? and sha = ?`, i.id, sha).Scan(&by)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return by, err
}

// mergedInto returns the numbers of the pull requests whose head a commit has.
func mergedInto(ctx context.Context, repo *repository, tip string) (map[int]bool, error) {
	out, err := repo.git.Run(ctx, "for-each-ref", "--merged="+tip, "--format=%(refname)", "refs/pull/*/head")
	if err != nil {
		return nil, err
	}
	numbers := map[int]bool{}
	for _, ref := range strings.Fields(string(out)) {
		numbers[numberOf(strings.TrimSuffix(strings.TrimPrefix(ref, "refs/pull/"), "/head"))] = true
	}
	return numbers, nil
}
