package mirror

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	rebuildAfter = 10 * time.Minute // between two times that a mirror is made anew
	packsMost    = 40               // packs before they are joined
)

// check looks whether all that the refs on disk need is there.
func (r *work) check(ctx context.Context, local map[string]string) error {
	for _, id := range local {
		if _, err := r.repo.Root(ctx, id); err != nil {
			return err
		}
	}
	r.mu.Lock()
	deep := r.mirror.suspect
	r.mu.Unlock()
	if !deep {
		return nil
	}
	_, err := r.wire.run(ctx, r.dir, "", 0, "fsck", "--connectivity-only", "--no-dangling", "--no-progress")
	return err
}

// rebuild makes the mirror anew beside the old one, and replaces it.
func (r *work) rebuild(ctx context.Context, local map[string]string) error {
	fresh := r.dir + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	before := r.commits(ctx, slices.Collect(maps.Keys(local)))
	specs := []string{}
	for _, ref := range slices.Sorted(maps.Keys(r.refs)) {
		specs = append(specs, "+"+ref+":"+ref)
	}
	for _, step := range []func() error{
		func() error { return create(fresh) },
		func() error { return r.fetch(ctx, fresh, specs) },
		func() error { return r.setHead(ctx, fresh) },
		func() error { return r.fetchCommits(ctx, fresh) },
		func() error { return os.Rename(r.dir, fresh+".old") },
		func() error { return os.Rename(fresh, r.dir) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("make the mirror anew: %w", err)
		}
	}
	r.repo.Reset()
	_ = os.RemoveAll(fresh + ".old")
	r.mu.Lock()
	r.rebuilt = r.store.deps.Now()
	r.mu.Unlock()
	r.note(nil, before, r.commits(ctx, refsOf(specs)))
	return nil
}

// tidy joins packs when fetches made many of them.
func (r *work) tidy(ctx context.Context) {
	packs, err := filepath.Glob(filepath.Join(r.dir, "objects", "pack", "*.pack"))
	if err != nil || len(packs) < packsMost {
		return
	}
	if _, err := r.wire.run(ctx, r.dir, "", 0, "gc", "--quiet", "--prune=2.days.ago"); err != nil {
		r.store.deps.Log.Warn("tidy a mirror", "repo", r.name, "error", err)
	}
}
