package forge

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// reconcileAll brings the journal up to date with every repository, and ends
// what a crash interrupted.
func (f *Forge) reconcileAll(ctx context.Context) error {
	if err := f.resumeDeletions(ctx); err != nil {
		return err
	}
	rows, err := f.db.QueryContext(ctx, `select key from repository order by key`)
	if err != nil {
		return fmt.Errorf("forge state: %w", err)
	}
	keys, err := scanStrings(rows)
	if err != nil {
		return err
	}
	for _, key := range keys {
		repo, err := f.find(ctx, key)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			f.log.Error("repository can't be opened and is left out", "repo", key, "error", err)
			continue
		}
		if err := removeLocks(repo.git.Dir()); err != nil {
			return fmt.Errorf("remove locks that a crash left in %s: %w", repo.full(), err)
		}
		if err := f.reconcile(ctx, repo); err != nil {
			return fmt.Errorf("reconcile %s with the journal: %w", repo.full(), err)
		}
	}
	return nil
}

// removeLocks removes the lock files of a git that was killed. Nothing may be
// writing to the repository.
func removeLocks(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, "*.lock"))
	if err != nil {
		return err
	}
	err = filepath.WalkDir(filepath.Join(dir, "refs"), func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasSuffix(name, ".lock") {
			left = append(left, name)
		}
		return err
	})
	for _, name := range left {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

func (f *Forge) resumeDeletions(ctx context.Context) error {
	rows, err := f.db.QueryContext(ctx, `select key from repository where deleting = 1`)
	if err != nil {
		return fmt.Errorf("forge state: %w", err)
	}
	keys, err := scanStrings(rows)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := f.finishDeletion(ctx, key); err != nil {
			return fmt.Errorf("finish deleting %s: %w", key, err)
		}
	}
	return nil
}

func scanStrings(rows *sql.Rows) ([]string, error) {
	defer func() { _ = rows.Close() }()
	var all []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, fmt.Errorf("forge state: %w", err)
		}
		all = append(all, s)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	return all, nil
}

// reconcile settles what is left of earlier pushes and tells of refs that moved
// otherwise.
func (f *Forge) reconcile(ctx context.Context, repo *repository) error {
	if err := repo.lock(ctx); err != nil {
		return err
	}
	defer repo.unlock()
	if err := f.settleLeftovers(ctx, repo); err != nil {
		return err
	}
	told, err := f.toldRefs(ctx, repo)
	if err != nil {
		return err
	}
	now, err := repo.git.Refs(ctx, pushedRefs...)
	if err != nil {
		return err
	}
	var moved []refCommand
	for ref, id := range now {
		if told[ref] != id {
			moved = append(moved, refCommand{Ref: ref, Old: idOrZero(told[ref]), New: id})
		}
	}
	for ref, id := range told {
		if now[ref] == "" {
			moved = append(moved, refCommand{Ref: ref, Old: id, New: git.ZeroID})
		}
	}
	if len(moved) == 0 {
		return nil
	}
	sort.Slice(moved, func(i, k int) bool { return moved[i].Ref < moved[k].Ref })
	f.log.Warn("refs moved otherwise than by a push", "repo", repo.full(), "refs", len(moved), "first", moved[0].Ref)
	p, err := f.recordPush(ctx, repo, ActorUnknown, "", moved)
	if err != nil {
		return err
	}
	return f.settle(ctx, repo, p)
}

// settleLeftovers settles the pushes whose events could not be written when they
// ended. The caller holds the repository's lock.
func (f *Forge) settleLeftovers(ctx context.Context, repo *repository) error {
	left, err := f.leftovers(ctx, repo)
	if err != nil {
		return err
	}
	for _, p := range left {
		if err := f.settle(ctx, repo, p); err != nil {
			return fmt.Errorf("settle an earlier push: %w", err)
		}
	}
	return nil
}

func (f *Forge) leftovers(ctx context.Context, repo *repository) ([]*push, error) {
	rows, err := f.db.QueryContext(ctx, `select p.id, p.actor, p.cause, p.time, r.ref, r.old, r.new
		from push p join push_ref r on r.push = p.id where p.repo = ? order by p.seq, r.n`, repo.key)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var all []*push
	for rows.Next() {
		p := &push{recovered: true}
		var c refCommand
		var at int64
		if err := rows.Scan(&p.id, &p.actor, &p.cause, &at, &c.Ref, &c.Old, &c.New); err != nil {
			return nil, fmt.Errorf("forge state: %w", err)
		}
		if n := len(all); n > 0 && all[n-1].id == p.id {
			p = all[n-1]
		} else {
			p.time = time.UnixMicro(at).UTC()
			all = append(all, p)
		}
		p.commands = append(p.commands, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	return all, nil
}
