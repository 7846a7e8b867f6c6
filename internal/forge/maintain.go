package forge

import (
	"context"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// maintain keeps repositories tidy while nobody pushes to them, until ctx ends.
func (f *Forge) maintain(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, r := range f.dueForMaintenance(time.Now()) {
			runCtx, cancel := context.WithTimeout(ctx, 10*time.Minute)
			_, err := r.Run(runCtx, "-c", "gc.auto=2000", "-c", "gc.autoDetach=false", "-c", "gc.writeCommitGraph=true", "gc", "--auto", "--quiet")
			cancel()
			if err != nil && ctx.Err() == nil {
				f.log.Warn("repository could not be packed; it works on", "dir", r.Dir(), "error", err)
			}
		}
	}
}

func (f *Forge) noteMaintenance(repo *repository) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.open[repo.key]; known != nil {
		known.touched = time.Now()
	}
}

// dueForMaintenance returns the repositories whose last push is a minute ago, once.
func (f *Forge) dueForMaintenance(now time.Time) []*git.Repository {
	f.mu.Lock()
	defer f.mu.Unlock()
	var due []*git.Repository
	for _, r := range f.open {
		if !r.touched.IsZero() && now.Sub(r.touched) > time.Minute {
			r.touched = time.Time{}
			due = append(due, r.git)
		}
	}
	return due
}
