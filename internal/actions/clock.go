package actions

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/actions/schedule/cron"
	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// maxSchedules bounds the `schedule` entries of a repository.
const maxSchedules = 500

// schedulesOf reads the schedules of the workflow files of a default branch.
func (a *Actions) schedulesOf(ctx context.Context, repo *git.Repository, name, commit, actor string) ([]store.Schedule, error) {
	files, err := workflowFiles(ctx, repo, commit)
	if err != nil {
		return nil, err
	}
	var out []store.Schedule
	for _, f := range files {
		w, _ := a.files.load(f.path, f.content)
		if w == nil || w.Event("schedule") == nil {
			continue
		}
		for _, c := range w.Event("schedule").Crons {
			e := store.Schedule{Repo: name, File: f.path, Cron: c.Expr, Zone: c.Zone, Actor: actor, Last: a.deps.Now().UTC()}
			if _, err := nextTick(e, e.Last); err != nil {
				a.tellNow(ctx, journal.Event{Repo: name, Commit: commit, Subject: f.path, Status: journal.StatusInfo,
					Message: fmt.Sprintf("schedule %q never starts: %v", c.Expr, err), File: f.path, Line: c.Line})
				continue
			}
			if len(out) < maxSchedules {
				out = append(out, e)
			}
		}
	}
	return out, nil
}

// nextTick is the first time of a schedule after the given one.
func nextTick(e store.Schedule, after time.Time) (time.Time, error) {
	zone, err := cron.Zone(e.Zone)
	if err != nil {
		return time.Time{}, err
	}
	s, err := cron.Parse(e.Cron)
	if err != nil {
		return time.Time{}, err
	}
	next := s.Next(after, zone)
	if next.IsZero() {
		return next, errors.New("it fits no day")
	}
	return next.UTC(), nil
}

// lookAtClock lets the schedules be read again.
func (a *Actions) lookAtClock() {
	select {
	case a.clock <- struct{}{}:
	default:
	}
}

// longestNap bounds how long the clock sleeps, so that a clock that was set
// forward is noticed.
const longestNap = time.Minute

// followClock starts scheduled runs until ctx ends.
func (a *Actions) followClock(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.clock:
		case <-timer.C:
		}
		next, err := a.tick(ctx)
		if err != nil && ctx.Err() == nil {
			a.log.Error("start scheduled workflows", "err", err)
		}
		timer.Reset(min(longestNap, max(time.Millisecond, next)))
	}
}

// tick starts every schedule that is due, each once however many of its times
// have passed. It returns the time until the next is due.
func (a *Actions) tick(ctx context.Context) (time.Duration, error) {
	list, err := a.store.Schedules(ctx)
	if err != nil {
		return longestNap, err
	}
	now, wait := a.deps.Now().UTC(), longestNap
	for _, e := range list {
		due, err := nextTick(e, e.Last)
		if err != nil {
			continue // it was told at the push
		}
		if due.After(now) {
			wait = min(wait, due.Sub(now))
			continue
		}
		if err := a.startScheduled(ctx, e, due, now); err != nil {
			return longestNap, err
		}
		if next, err := nextTick(e, now); err == nil {
			wait = min(wait, next.Sub(now))
		}
	}
	return wait, nil
}

func (a *Actions) startScheduled(ctx context.Context, e store.Schedule, due, now time.Time) error {
	looked := func(tx *store.Tx) error { return tx.Looked(e, now) }
	repo, err := a.deps.Repositories.Repository(ctx, e.Repo)
	if err != nil {
		a.log.Warn("a schedule's repository cannot be opened", "repo", e.Repo, "err", err)
		return a.consume(ctx, store.FromSchedule, 0, nil, looked)
	}
	// Two entries of one file may fall on the same minute: both start, as on GitHub.
	sum := fnv.New32a()
	_, _ = fmt.Fprintf(sum, "%s %s", e.Cron, e.Zone)
	id := due.Unix()/60<<16 | int64(sum.Sum32()&0xffff)
	h := &happening{id: id, repo: e.Repo, name: "schedule", action: e.Cron, actor: e.Actor, only: e.File,
		payload: payloadJSON(a.commonPayload(repo, e.Repo, e.Actor).Set("schedule", e.Cron).Set("workflow", e.File))}
	list, err := a.atDefault(ctx, repo, h)
	if err != nil {
		return err
	}
	var starts []store.Start
	for _, h := range list {
		if starts, err = a.starts(ctx, repo, h); err != nil {
			return err
		}
	}
	for i := range starts {
		starts[i].Run.Action = ""
	}
	return a.consume(ctx, store.FromSchedule, 0, starts, looked)
}
