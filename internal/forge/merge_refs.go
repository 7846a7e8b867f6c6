package forge

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// moveRefs moves refs as a push does: what is to move is durable first, git
// compares each ref with its Old value and moves all or none, and the journal
// is told. also, when it is not nil, runs in a transaction after the push is
// recorded and before git moves anything. The caller holds the repository's
// lock and has settled what was left.
func (f *Forge) moveRefs(ctx context.Context, repo *repository, id Identity, commands []refCommand, also func(*sql.Tx, *push) error) error {
	if !f.enterPush() {
		return fail(503, "lockstep is shutting down")
	}
	defer f.leavePush()
	start := time.Now()
	p, err := f.recordPush(ctx, repo, id.Actor, id.Cause, commands)
	if err != nil {
		return err
	}
	if also != nil {
		err = f.transact(ctx, func(tx *sql.Tx) error { return also(tx, p) })
	}
	if err == nil {
		err = compareAndMove(ctx, repo, commands)
	}
	p.took = time.Since(start)
	// What moved has moved: tell it even when the client is gone.
	settleCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if settleErr := f.settle(settleCtx, repo, p); settleErr != nil {
		f.log.Error("a moved ref is not in the journal yet; it will be with the next push or start", "repo", repo.full(), "error", settleErr)
	}
	f.noteMaintenance(repo)
	return err
}

// compareAndMove moves all refs or none.
func compareAndMove(ctx context.Context, repo *repository, commands []refCommand) error {
	var b strings.Builder
	b.WriteString("start\x00")
	for _, c := range commands {
		switch {
		case c.New == git.ZeroID:
			fmt.Fprintf(&b, "delete %s\x00%s\x00", c.Ref, c.Old)
		case c.Old == git.ZeroID:
			fmt.Fprintf(&b, "create %s\x00%s\x00", c.Ref, c.New)
		default:
			fmt.Fprintf(&b, "update %s\x00%s\x00%s\x00", c.Ref, c.New, c.Old)
		}
	}
	b.WriteString("prepare\x00commit\x00")
	_, err := repo.git.RunInput(ctx, []byte(b.String()), "-c", "core.fsync=objects,derived-metadata,reference", "update-ref", "--stdin", "-z")
	return err
}

// changeRefsFor is changeRefs for a pull request whose conditions hold.
func (f *Forge) changeRefsFor(ctx context.Context, repo *repository, by Identity, commands ...refCommand) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.cfg.PushTimeout)
	defer cancel()
	defer context.AfterFunc(f.base, cancel)()
	if err := repo.lock(ctx); err != nil {
		return fmt.Errorf("wait for a push: %w", err)
	}
	defer repo.unlock()
	if err := f.settleLeftovers(ctx, repo); err != nil {
		return err
	}
	if err := f.expect(ctx, repo, commands); err != nil {
		return err
	}
	if err := f.permit(ctx, proposal{repo: repo, by: by, commands: commands, viaPull: true}); err != nil {
		return err
	}
	return f.moveRefs(ctx, repo, by, commands, nil)
}
