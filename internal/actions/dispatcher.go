package actions

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/execute"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// errStopped ends jobs when Lockstep stops.
var errStopped = fmt.Errorf("%w: Lockstep stopped while it was going on", execute.ErrCancelled)

// interrupted is the problem of a run that Lockstep left behind.
func interrupted() *Problem {
	return &Problem{Message: "Lockstep stopped while this run was going on", Hint: "run it again; what it did so far is in its log"}
}

// Run consumes push events and runs workflows until ctx ends. Jobs that are
// running then are ended and marked as interrupted.
func (a *Actions) Run(ctx context.Context) error {
	if err := os.RemoveAll(filepath.Join(a.cfg.Dir, "jobs")); err != nil {
		return fmt.Errorf("remove leftovers of jobs: %w", err)
	}
	if err := a.recover(ctx); err != nil {
		return err
	}
	if err := a.prune(ctx); err != nil {
		return err
	}
	cursor, err := a.store.Cursor(ctx)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.host = ctx
	a.mu.Unlock()
	var work sync.WaitGroup
	work.Go(func() { a.dispatch(ctx) })
	close(a.ready)
	query := journal.Query{Stages: []journal.Stage{journal.StagePush}, Statuses: []journal.Status{journal.StatusSucceeded}}
	for e := range a.deps.Journal.Follow(ctx, cursor, query) {
		a.consume(ctx, e)
	}
	work.Wait()
	a.mu.Lock()
	a.host = nil
	a.mu.Unlock()
	return nil
}

// recover marks what a killed Lockstep left behind. Queued runs stay queued.
func (a *Actions) recover(ctx context.Context) error {
	runs, err := a.store.Runs(ctx, Filter{NotEnded: true, Limit: 1000})
	if err != nil {
		return err
	}
	for _, r := range runs {
		if r.Status == store.Queued {
			continue
		}
		if r.Jobs, err = a.store.Jobs(ctx, r.ID, r.Attempt); err != nil {
			return err
		}
		for i := range r.Jobs {
			if j := &r.Jobs[i]; j.Status != store.Completed {
				a.endJob(ctx, &r, j, schedule.Failure, interrupted())
			}
		}
		a.endRun(ctx, &r, schedule.Failure, interrupted())
	}
	return nil
}

// prune removes the oldest runs that have ended, with their logs, beyond
// Config.KeepRuns.
func (a *Actions) prune(ctx context.Context) error {
	old, err := a.store.Prune(ctx, a.cfg.KeepRuns)
	if err != nil {
		return err
	}
	for _, id := range old {
		if err := a.logs.Remove(id); err != nil {
			return fmt.Errorf("remove logs of run %d: %w", id, err)
		}
	}
	return nil
}

// wakeUp lets the dispatcher look for queued runs.
func (a *Actions) wakeUp() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// dispatch starts queued runs, oldest first, until ctx ends; then it waits for
// those that are going on.
func (a *Actions) dispatch(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		case <-retry.C:
		}
		runs, err := a.store.Runs(ctx, Filter{NotEnded: true, Limit: 1000})
		if err != nil {
			if ctx.Err() == nil {
				a.log.Error("read queued runs", "err", err)
				retry.Reset(time.Second)
			}
			continue
		}
		for _, r := range runs {
			if r.Status != store.Queued {
				continue
			}
			runCtx, ok := a.activate(ctx, r.ID)
			if !ok {
				continue
			}
			work.Go(func() {
				defer func() {
					if err := a.prune(context.WithoutCancel(ctx)); err != nil {
						a.log.Error("remove old runs", "err", err)
					}
				}()
				defer a.wakeUp()
				defer a.deactivate(r.ID)
				a.perform(runCtx, ctx, r)
			})
		}
	}
}

// activate makes a run cancellable, unless it is active or too many are.
func (a *Actions) activate(ctx context.Context, id int64) (context.Context, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.active[id] != nil || len(a.active) >= a.cfg.MaxRuns {
		return nil, false
	}
	runCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { cancel(errStopped) })
	a.active[id] = &activeRun{cancel: cancel, stop: stop}
	return runCtx, true
}

func (a *Actions) deactivate(id int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.active[id].stop()
	a.active[id].cancel(nil)
	delete(a.active, id)
}

// Cancel ends a run. Its always() steps still run. A run that has ended is an
// error.
func (a *Actions) Cancel(ctx context.Context, id int64) error {
	a.mu.Lock()
	active := a.active[id]
	a.mu.Unlock()
	if active != nil {
		active.cancel(execute.ErrCancelled)
		return nil
	}
	r, err := a.store.Run(ctx, id)
	if err != nil {
		return err
	}
	if r.Status == store.Completed {
		return fmt.Errorf("run %d has ended already: %w", id, errConflict)
	}
	a.endRun(ctx, &r, schedule.Cancelled, nil)
	return nil
}

// errConflict says that a run is not in a state for what is asked.
var errConflict = errors.New("nothing to do")

// Rerun starts a run that has ended again, all of it or only the jobs that did
// not succeed and those that need them. It returns the run's ID.
func (a *Actions) Rerun(ctx context.Context, id int64, onlyFailed bool) (int64, error) {
	r, err := a.store.Run(ctx, id)
	if err != nil {
		return 0, err
	}
	a.mu.Lock()
	active := a.active[id] != nil
	a.mu.Unlock()
	if r.Status != store.Completed || active {
		return 0, fmt.Errorf("run %d is still going on: %w", id, errConflict)
	}
	r.Attempt++
	r.Status, r.Conclusion, r.Problem, r.Note, r.OnlyFailed = store.Queued, "", nil, "", onlyFailed
	r.Started, r.Ended = time.Time{}, time.Time{}
	if err := a.store.SaveRun(ctx, r); err != nil {
		return 0, err
	}
	a.wakeUp()
	return id, nil
}
