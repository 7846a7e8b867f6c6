package actions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/store"
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// followPushes turns the pushes of the journal into runs until ctx ends.
func (a *Actions) followPushes(ctx context.Context, cursor int64) {
	query := journal.Query{Stages: []journal.Stage{journal.StagePush}, Statuses: []journal.Status{journal.StatusSucceeded}}
	for e := range a.deps.Journal.Follow(ctx, cursor, query) {
		a.insist(ctx, store.FromJournal, e.ID, e.Repo, e.Commit, "this push", func() error { return a.consumePush(ctx, e) })
	}
}

// consumePush starts what a push starts. A push to the default branch also says
// which schedules there are.
func (a *Actions) consumePush(ctx context.Context, e journal.Event) error {
	ref := e.Data[journal.DataRef]
	if ref == "" {
		ref = e.Subject
	}
	if e.Commit == "" || e.Commit == git.ZeroID {
		return a.consume(ctx, store.FromJournal, e.ID, nil, nil)
	}
	repo, err := a.deps.Repositories.Repository(ctx, e.Repo)
	if err != nil {
		return err
	}
	var more func(*store.Tx) error
	if ref == "refs/heads/"+defaultBranch(repo) {
		schedules, err := a.schedulesOf(ctx, repo, e.Repo, e.Commit, e.Data[journal.DataActor])
		if err != nil {
			return err
		}
		more = func(tx *store.Tx) error { return tx.SetSchedules(e.Repo, schedules) }
		defer a.lookAtClock()
	}
	if e.Data[journal.DataActor] == bot {
		a.log.Debug("a job's push starts no workflow", "repo", e.Repo, "commit", e.Commit)
		return a.consume(ctx, store.FromJournal, e.ID, nil, more)
	}
	commit, err := repo.Commit(ctx, e.Commit)
	if err != nil {
		return err
	}
	before := e.Data[journal.DataBefore]
	h := &happening{id: e.ID, repo: e.Repo, name: "push", ref: ref, commit: e.Commit, before: before, actor: e.Data[journal.DataActor], title: commit.Subject,
		message: commit.Subject + "\n\n" + commit.Body,
		paths:   func() ([]string, error) { return changedPaths(ctx, repo, ref, before, e.Commit) }}
	starts, err := a.starts(ctx, repo, h)
	if err != nil {
		return err
	}
	return a.consume(ctx, store.FromJournal, e.ID, starts, more)
}

// firstFatal is the fault to tell first: a slip of the pen explains what else is
// wrong with a file.
func firstFatal(diagnostics []syntax.Diagnostic) *Problem {
	fatal := func(d syntax.Diagnostic) bool { return d.Fatal }
	slip := func(d syntax.Diagnostic) bool { return d.Fatal && strings.HasPrefix(d.Hint, "did you mean") }
	for _, wanted := range []func(syntax.Diagnostic) bool{slip, fatal} {
		if i := slices.IndexFunc(diagnostics, wanted); i >= 0 {
			d := diagnostics[i]
			return &Problem{Message: d.Message, Hint: d.Hint, File: d.File, Line: d.Line}
		}
	}
	return &Problem{Message: "the workflow file could not be read"}
}

func resolveRef(ctx context.Context, repo *git.Repository, ref string) (full, commit string, err error) {
	candidates := []string{"refs/heads/" + ref, "refs/tags/" + ref}
	if strings.HasPrefix(ref, "refs/") {
		candidates = []string{ref}
	}
	for _, full := range candidates {
		if commit, err = repo.Resolve(ctx, full); err == nil {
			return full, commit, nil
		}
	}
	return "", "", fmt.Errorf("no branch or tag %q: %w", ref, errors.Join(err, ErrNotFound))
}

// ignoreMissing drops the error of what is no longer in the repository.
func ignoreMissing(err error) error {
	if errors.Is(err, git.ErrNotFound) {
		return nil
	}
	return err
}
