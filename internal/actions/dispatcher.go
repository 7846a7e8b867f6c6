package actions

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/execute"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
	"github.com/lockstep-gitops/lockstep/internal/actions/schedule"
	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/actions/trigger"
)

// errStopped ends jobs when Lockstep stops.
var errStopped = fmt.Errorf("%w: Lockstep stopped while it was going on", execute.ErrCancelled)

// interrupted is the problem of a run that Lockstep left behind.
func interrupted() *Problem {
	return &Problem{Message: "Lockstep stopped while this run was going on", Hint: "run it again; what it did so far is in its log"}
}

// Run consumes events and runs workflows until ctx ends. Jobs that are running
// then are ended and marked as interrupted; those that only wait go on at the
// next start.
func (a *Actions) Run(ctx context.Context) error {
	if a.cfg.Group != "" {
		if err := sandbox.Sweep(a.cfg.Group); err != nil {
			return fmt.Errorf("end leftovers of jobs: %w", err)
		}
	}
	if err := os.RemoveAll(filepath.Join(a.cfg.Dir, "jobs")); err != nil {
		return fmt.Errorf("remove leftovers of jobs: %w", err)
	}
	if err := a.recover(ctx); err != nil {
		return err
	}
	if err := a.prune(ctx); err != nil {
		return err
	}
	cursor, err := a.store.Cursor(ctx, store.FromJournal)
	if err != nil {
		return err
	}
	// What runs tell is delivered until the last of them has ended.
	telling, stopTelling := context.WithCancel(context.WithoutCancel(ctx))
	var tellers, work sync.WaitGroup
	tellers.Go(func() { a.deliver(telling, eventKind, a.toJournal) })
	tellers.Go(func() { a.deliver(telling, checkKind, a.toChecks) })
	tellers.Go(func() { a.deliver(telling, runKind, a.toChain) })
	failed := make(chan error, 1)
	work.Go(func() { a.dispatch(ctx) })
	work.Go(func() { a.followClock(ctx) })
	work.Go(func() {
		if err := a.followEvents(ctx); err != nil {
			failed <- err
		}
	})
	close(a.ready)
	a.followPushes(ctx, cursor)
	work.Wait()
	stopTelling()
	tellers.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// recover looks at what a killed Lockstep left behind. Queued runs stay queued;
// a run of which no job was going on goes on; others are marked.
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
		going := len(r.Jobs) == 0
		for i := range r.Jobs {
			going = going || r.Jobs[i].Status == store.InProgress
		}
		if !going || r.Status == store.Pending {
			r.Status, r.Resume = store.Queued, true
			if err := a.change(ctx, false, func(t *telling) error { return t.SaveRun(r) }); err != nil {
				return err
			}
			continue
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
	// Runs of a repository join their groups in the order of their numbers.
	before := map[string]chan struct{}{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		case <-retry.C:
		}
		runs, err := a.store.Runs(ctx, Filter{NotEnded: true, Status: string(store.Queued), Limit: 1000})
		if err != nil {
			if ctx.Err() == nil {
				a.log.Error("read queued runs", "err", err)
				retry.Reset(time.Second)
			}
			continue
		}
		for _, r := range runs {
			runCtx, kill, ok := a.activate(ctx, r.ID)
			if !ok {
				continue
			}
			previous, joined := before[r.Repo], make(chan struct{})
			before[r.Repo] = joined
			work.Go(func() {
				defer a.wakeUp()
				defer a.deactivate(r.ID)
				a.perform(runCtx, kill, r, turn{previous, sync.OnceFunc(func() { close(joined) })})
				if r.ID%16 == 0 {
					if err := a.prune(context.WithoutCancel(ctx)); err != nil {
						a.log.Error("remove old runs", "err", err)
					}
				}
			})
		}
	}
}

// turn lets runs of a repository do something one after the other.
type turn struct {
	before <-chan struct{} // closed when the run before is done with it; nil at once
	done   func()
}

// wait returns when the run before is done, or ctx ends.
func (t turn) wait(ctx context.Context) {
	if t.before == nil {
		return
	}
	select {
	case <-t.before:
	case <-ctx.Done():
	}
}

// activate makes a run cancellable, unless it is active or too many are. The
// first context ends with a cancellation, the second when Lockstep stops or the
// run is to end at once.
func (a *Actions) activate(ctx context.Context, id int64) (soft, hard context.Context, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	going := 0
	for _, r := range a.active {
		if !r.waiting {
			going++
		}
	}
	if a.active[id] != nil || going >= a.cfg.MaxRuns {
		return nil, nil, false
	}
	hard, kill := context.WithCancel(ctx)
	soft, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { cancel(errStopped) })
	a.active[id] = &activeRun{cancel: cancel, kill: kill, stop: stop}
	return soft, hard, true
}

func (a *Actions) deactivate(id int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.active[id].stop()
	a.active[id].cancel(nil)
	a.active[id].kill()
	delete(a.active, id)
}

// setWaiting notes whether a run only waits.
func (a *Actions) setWaiting(id int64, waiting bool) {
	a.mu.Lock()
	active := a.active[id]
	changed := active != nil && active.waiting != waiting
	if changed {
		active.waiting = waiting
	}
	a.mu.Unlock()
	if changed && waiting {
		a.wakeUp()
	}
}

// Cancel ends a run. Its always() steps still run. A run that has ended is an
// error.
func (a *Actions) Cancel(ctx context.Context, id int64) error {
	return a.cancel(ctx, id, execute.ErrCancelled, false)
}

// ForceCancel ends a run at once, without its always() steps and jobs.
func (a *Actions) ForceCancel(ctx context.Context, id int64) error {
	return a.cancel(ctx, id, execute.ErrCancelled, true)
}

func (a *Actions) cancel(ctx context.Context, id int64, cause error, force bool) error {
	a.mu.Lock()
	active := a.active[id]
	a.mu.Unlock()
	if active != nil {
		active.cancel(cause)
		if force {
			active.kill()
		}
		return nil
	}
	r, err := a.store.Run(ctx, id)
	if err != nil {
		return err
	}
	if r.Status == store.Completed {
		return fmt.Errorf("run %d has ended already: %w", id, errConflict)
	}
	a.endRun(ctx, &r, schedule.Cancelled, &Problem{Message: cause.Error()})
	return nil
}

// errConflict says that a run is not in a state for what is asked.
var errConflict = errors.New("nothing to do")

// RerunOptions say what of a run is done again.
type RerunOptions struct {
	OnlyFailed bool   // only jobs that did not succeed, and those that need them
	Job        int64  // only this job and those that need it; 0 for all
	Actor      string // who asks
}

// Rerun starts a run that has ended again, all of it or only the jobs that did
// not succeed and those that need them. It returns the run's ID.
func (a *Actions) Rerun(ctx context.Context, id int64, onlyFailed bool) (int64, error) {
	return id, a.RerunWith(ctx, id, RerunOptions{OnlyFailed: onlyFailed})
}

// maxAttempts bounds the attempts of a run, as GitHub does.
const maxAttempts = 50

// RerunWith starts a run that has ended again.
func (a *Actions) RerunWith(ctx context.Context, id int64, o RerunOptions) error {
	r, err := a.store.Run(ctx, id)
	if err != nil {
		return err
	}
	a.mu.Lock()
	active := a.active[id] != nil
	a.mu.Unlock()
	switch {
	case r.Status != store.Completed || active:
		return fmt.Errorf("run %d is still going on: %w", id, errConflict)
	case r.Attempt >= maxAttempts:
		return fmt.Errorf("run %d had %d attempts already, which is the most: %w", id, r.Attempt, errConflict)
	}
	next := r
	next.OnlyJob = ""
	if o.Job != 0 {
		j, err := a.store.Job(ctx, o.Job)
		if err != nil {
			return err
		}
		if j.RunID != id || j.Attempt != r.Attempt {
			return fmt.Errorf("job %d is not of the newest attempt of run %d: %w", o.Job, id, errConflict)
		}
		next.OnlyJob = j.Name
	}
	next.Attempt++
	next.Status, next.Conclusion, next.Problem, next.Note, next.OnlyFailed, next.TriggeredBy = store.Queued, "", nil, "", o.OnlyFailed, o.Actor
	next.Started, next.Ended, next.Resume = time.Time{}, time.Time{}, false
	err = a.change(ctx, true, func(t *telling) error {
		if err := t.NextAttempt(r, next); err != nil {
			return err
		}
		return t.tell(runKind, runMessage{r.ID, "requested"})
	})
	if err == nil {
		a.wakeUp()
	}
	return err
}

// ErrConflict says that a run is not in a state for what is asked.
var ErrConflict = errConflict

// DefaultBranch is the branch at HEAD of a repository.
func (a *Actions) DefaultBranch(ctx context.Context, repoName string) (string, error) {
	repo, err := a.deps.Repositories.Repository(ctx, repoName)
	if err != nil {
		return "", err
	}
	return defaultBranch(repo), nil
}

// Dispatch starts a workflow by hand, as the API's workflow_dispatch does. ref
// is a branch or tag, with or without refs/. It returns the run.
func (a *Actions) Dispatch(ctx context.Context, repoName, file, ref, actor string, inputs map[string]string) (Run, error) {
	repo, err := a.deps.Repositories.Repository(ctx, repoName)
	if err != nil {
		return Run{}, err
	}
	full, commit, err := resolveRef(ctx, repo, ref)
	if err != nil {
		return Run{}, err
	}
	p := path.Join(workflowsDir, path.Base(file))
	states, err := a.store.WorkflowStates(ctx, repoName)
	if err != nil {
		return Run{}, err
	}
	if states[p] != "" {
		return Run{}, &LocatedError{File: p, Msg: "cannot trigger a workflow_dispatch on a disabled workflow", Hint: "enable it first"}
	}
	content, err := repo.ReadFile(ctx, commit, p)
	if err != nil {
		return Run{}, fmt.Errorf("workflow %s at %s: %w", file, ref, errors.Join(err, ErrNotFound))
	}
	w, diagnostics := a.files.load(p, content)
	if w == nil {
		d := firstFatal(diagnostics)
		return Run{}, &LocatedError{File: d.File, Line: d.Line, Msg: d.Message, Hint: d.Hint}
	}
	values, err := trigger.Inputs(w, inputs)
	if err != nil {
		return Run{}, &LocatedError{File: p, Msg: err.Error(), Err: err}
	}
	r := Run{Attempt: 1, Repo: repoName, File: p, Name: w.Name, Title: w.Name, Event: "workflow_dispatch", Ref: full, Commit: commit,
		Actor: actor, Inputs: values, Status: store.Queued, Created: a.deps.Now().UTC(), Annotations: annotations(diagnostics)}
	if r, err = a.store.CreateRun(ctx, r, nil); err == nil {
		a.wakeUp()
	}
	return r, err
}
