package application

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// Previous asks for the youngest entry of the history that differs from what
// the application is to be now.
const Previous int64 = -1

// RollbackOptions are those of one rollback.
type RollbackOptions struct {
	Actor  string
	Prune  bool // delete what the entry does not have; automated sync with prune does so anyway
	DryRun bool // only say what it would change
}

// RolledBack says what a rollback does.
type RolledBack struct {
	Entry   HistoryEntry
	Skipped []string     // revisions that automated sync leaves out from now on; nil when it is off
	Changes []ObjectDiff // of a dry run
}

// Rollback brings an Application to an entry of its history. With automated
// sync on, it stays there until the source brings something else for it; see
// [AnnotationRollback]. It returns when the wish is stored.
func (c *Controller) Rollback(ctx context.Context, namespace, name string, id int64, o RollbackOptions) (RolledBack, error) {
	var out RolledBack
	var patch map[string]any
	err := c.inspect(ctx, namespace, name, func(p *pass) (err error) {
		out, patch, err = p.rollback(ctx, id, o)
		return err
	})
	if err != nil {
		return out, err
	}
	if o.DryRun {
		out.Changes, err = c.Plan(ctx, namespace, name, At{History: &out.Entry.ID})
		return out, err
	}
	if err := c.mergeApp(ctx, namespace, name, patch); err != nil {
		return out, err
	}
	c.tellRollback(namespace+"/"+name, o.Actor, out)
	return out, nil
}

// rollback finds out what a rollback means: the patch of the Application.
func (p *pass) rollback(ctx context.Context, id int64, o RollbackOptions) (out RolledBack, patch map[string]any, err error) {
	if err := p.checkSpec(); err != nil {
		return out, nil, err
	}
	entry, err := p.entry(ctx, id)
	if err != nil {
		return out, nil, err
	}
	out.Entry = entryOf(entry)
	to, err := p.atEntry(ctx, entry)
	if err != nil {
		return out, nil, err
	}
	now, err := p.resolveAt(ctx, p.sources, nil)
	if err != nil && p.st.known(len(p.sources)) != nil { // the repository does not answer, which is no time to refuse this
		now, err = p.st.known(len(p.sources)), nil
	}
	if err != nil {
		return out, nil, err
	}
	changed := !slices.Equal(idsOf(now), idsOf(to.revs)) || !reflect.DeepEqual(to.sources, p.sources)
	held := automated(&p.app) && changed
	if held {
		out.Skipped = idsOf(now)
	}
	if o.DryRun {
		return out, nil, nil
	}
	if err := p.idle(); err != nil {
		return out, nil, err
	}
	if err := p.mayUse(ctx, to.sources, to.revs); err != nil {
		return out, nil, err
	}
	if _, err := p.renderAt(ctx, to); err != nil {
		return out, nil, refuse("another entry of the history may do", "history %d cannot be rendered: %v", entry.ID, err)
	}
	patch = map[string]any{"operation": p.rollbackOperation(entry, held || !changed, o)}
	switch {
	case held:
		h := hold{Skip: idsOf(now), To: idsOf(to.revs), ID: entry.ID, Sources: to.sources, Spec: sourcesID(&p.app), By: o.Actor}
		text, err := h.annotation()
		if err != nil {
			return out, nil, err
		}
		patch["metadata"] = map[string]any{"annotations": map[string]any{AnnotationRollback: text}}
	case p.hold != nil:
		patch["metadata"] = map[string]any{"annotations": map[string]any{AnnotationRollback: nil}}
	}
	return out, patch, nil
}

// rollbackOperation is the sync of a rollback. Like Argo CD's it runs no hooks.
// current says that the pass that takes it up follows the entry anyway.
func (p *pass) rollbackOperation(e *v1alpha1.RevisionHistory, current bool, o RollbackOptions) v1alpha1.Operation {
	sync := &v1alpha1.SyncOperation{Prune: o.Prune, SyncStrategy: &v1alpha1.SyncStrategy{Apply: &v1alpha1.SyncStrategyApply{}}}
	if policy := p.app.Spec.SyncPolicy; policy != nil {
		sync.SyncOptions = policy.SyncOptions
		sync.Prune = sync.Prune || automated(&p.app) && policy.Automated.Prune
	}
	if !current {
		sync.Revision, sync.Revisions, sync.Source, sync.Sources = e.Revision, e.Revisions, e.Source, e.Sources
	}
	return v1alpha1.Operation{Sync: sync, InitiatedBy: v1alpha1.Initiator{Username: o.Actor}}
}

// idle refuses while a sync that somebody asked for is under way.
func (p *pass) idle() error {
	const hint = "wait for it, or end it with `lockstep app terminate`"
	if op := p.app.Operation; op != nil {
		return busy(hint, "%s: a sync that %s asked for waits to be taken up", p.key, nameOr(op.InitiatedBy.Username, "somebody"))
	}
	if by := p.wisher(p.key); by != "" {
		return busy(hint, "%s: a sync that %s asked for is under way", p.key, by)
	}
	return nil
}

func nameOr(name, otherwise string) string {
	if name == "" {
		return otherwise
	}
	return name
}

// known are the revisions that the sources named when they were looked at
// last, nil for none.
func (st *state) known(sources int) []Revision {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.revs) != sources {
		return nil
	}
	out := slices.Clone(st.revs)
	for i, t := range st.tracks {
		if t != nil {
			out[i].ID = t.now()
		}
	}
	return out
}

func (c *Controller) tellRollback(key, actor string, r RolledBack) {
	commit, repo := "", ""
	for _, id := range slices.Concat(r.Skipped, r.Entry.Revisions) {
		if commit == "" && len(id) == 40 {
			commit = id
		}
	}
	c.mu.Lock()
	st := c.states[key]
	c.mu.Unlock()
	if st != nil {
		repo = st.repo()
	}
	text := fmt.Sprintf("%s rolls back to history %d (%s)", nameOr(actor, "somebody"), r.Entry.ID, shortAll(r.Entry.Revisions))
	if r.Skipped != nil {
		text += fmt.Sprintf("; %s is skipped", shortAll(r.Skipped))
	}
	c.tell(key, repo, commit, journal.Event{Stage: journal.StageApply, Status: journal.StatusInfo, Message: text})
}

// Unhold gives up a rollback: what the source names counts again.
func (c *Controller) Unhold(ctx context.Context, namespace, name string) error {
	v, err := c.view(namespace + "/" + name)
	if err != nil {
		return err
	}
	if _, ok := v.Application.Annotations[AnnotationRollback]; !ok {
		return refuse("", "%s/%s is not held by a rollback", namespace, name)
	}
	return c.annotate(ctx, namespace, name, AnnotationRollback, nil)
}
