package forge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// errRefMoved says that a ref was not where the caller said.
var errRefMoved = errors.New("a ref is not where it was")

// changeRefs moves branches and tags for a request of the API, the same way as
// a push: under the repository's lock, held against the same rules, durable, and
// told to the journal. All commands are done or none. Old of each command is what
// the ref must name now.
//
// Errors: errRefMoved, *refusedError.
func (f *Forge) changeRefs(ctx context.Context, repo *repository, by Identity, commands ...refCommand) error {
	// From here on it no longer depends on the client's connection.
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
	if err := f.permit(ctx, proposal{repo: repo, by: by, commands: commands}); err != nil {
		return err
	}
	return f.moveRefs(ctx, repo, by, commands, nil)
}

// permit is judge for what the forge itself is to do: a *refusedError when the rules
// are against it.
func (f *Forge) permit(ctx context.Context, p proposal) error {
	v, err := f.judge(ctx, p)
	if err != nil {
		return err
	}
	if v.refused() {
		f.log.Info("change of refs refused", "repo", p.repo.full(), "actor", p.by.Actor, "reason", v.refusals[0])
		return &refusedError{v}
	}
	return nil
}

// expect makes sure that the refs are where the commands say.
func (f *Forge) expect(ctx context.Context, repo *repository, commands []refCommand) error {
	for _, c := range commands {
		if c.Old == c.New {
			return fmt.Errorf("%s: %w", c.Ref, errRefMoved)
		}
	}
	now, err := repo.git.Refs(ctx, pushedRefs...)
	if err != nil {
		return err
	}
	for _, c := range commands {
		if idOrZero(now[c.Ref]) != c.Old {
			return fmt.Errorf("%s: %w", c.Ref, errRefMoved)
		}
	}
	return nil
}

// moveAnswer turns an error of changeRefs into GitHub's answer.
func moveAnswer(err error) error {
	var refused *refusedError
	switch {
	case errors.As(err, &refused):
		text := strings.Join(refused.verdict.refusals, "\n")
		if strings.HasPrefix(text, "GH013") {
			return fail(http.StatusConflict, "Repository rule violations found\n\n%s", text)
		}
		return fail(http.StatusUnprocessableEntity, "%s", strings.TrimPrefix(text, "GH006: "))
	case errors.Is(err, errRefMoved):
		return fail(http.StatusConflict, "Reference update failed: it moved meanwhile")
	}
	return err
}
