package application

import (
	"context"
	"reflect"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// lastAttempt is what the status says of the last sync, for a process that has
// just started.
func lastAttempt(app *v1alpha1.Application, params string) attempt {
	s := app.Status.OperationState
	if s == nil || s.SyncResult == nil || !s.Phase.Completed() || s.FinishedAt == nil {
		return attempt{}
	}
	commit := s.SyncResult.Revision
	if len(s.SyncResult.Revisions) > 0 {
		commit = joinIDs(s.SyncResult.Revisions)
	}
	last := attempt{commit: commit, params: params, phase: s.Phase, at: s.FinishedAt.Time}
	if s.Phase != v1alpha1.PhaseSucceeded {
		last.failures, last.why = s.RetryCount+1, s.Message
		last.hook = slices.ContainsFunc(s.SyncResult.Resources, hookFailed)
	}
	return last
}

// hookFailed reports whether a result is of a hook that ran and failed.
func hookFailed(r *v1alpha1.ResourceResult) bool {
	return r != nil && r.HookType != "" && r.Status != "SyncFailed" && (r.HookPhase == v1alpha1.PhaseFailed || r.HookPhase == v1alpha1.PhaseError)
}

const defaultHistory = 10

// record adds a successful sync to the history.
func (p *pass) record(op *operation) {
	if len(op.wish.Sync.Resources) > 0 {
		return
	}
	history := slices.Clone(p.app.Status.History)
	id := int64(0)
	if n := len(history); n > 0 {
		id = history[n-1].ID + 1
	}
	started := metav1.NewTime(op.started)
	entry := v1alpha1.RevisionHistory{ID: id, DeployedAt: metav1.NewTime(op.at), DeployStartedAt: &started, InitiatedBy: &op.wish.InitiatedBy}
	if len(p.app.Spec.Sources) > 0 {
		entry.Revisions, entry.Sources = op.want.revisions, op.sources
	} else {
		entry.Revision, entry.Source = op.revision, op.sources[0]
	}
	history = append(history, entry)
	limit := int64(defaultHistory)
	if p.app.Spec.RevisionHistoryLimit != nil {
		limit = max(0, *p.app.Spec.RevisionHistoryLimit)
	}
	if over := int64(len(history)) - limit; over > 0 {
		history = history[over:]
	}
	p.app.Status.History = history
}

// HistoryEntry is one successful sync of all objects.
type HistoryEntry struct {
	ID        int64
	Revisions []string // of the sources
	Sources   []*v1alpha1.ApplicationSource
	Started   time.Time // zero when it is not known
	Deployed  time.Time
	Actor     string // "" for none
	Automated bool
	Subject   string // of the commit, with its author; "" where it cannot be had
	Author    string
	Current   bool // the application is to be so now
}

func entryOf(e *v1alpha1.RevisionHistory) HistoryEntry {
	out := HistoryEntry{ID: e.ID, Revisions: revisionsOf(e), Sources: sourcesOfEntry(e), Deployed: e.DeployedAt.Time}
	if e.DeployStartedAt != nil {
		out.Started = e.DeployStartedAt.Time
	}
	if e.InitiatedBy != nil {
		out.Actor, out.Automated = e.InitiatedBy.Username, e.InitiatedBy.Automated
	}
	return out
}

func revisionsOf(e *v1alpha1.RevisionHistory) []string {
	if len(e.Sources) > 0 {
		return e.Revisions
	}
	return []string{e.Revision}
}

func sourcesOfEntry(e *v1alpha1.RevisionHistory) []*v1alpha1.ApplicationSource {
	if len(e.Sources) > 0 {
		return e.Sources
	}
	if e.Source == nil || e.Source.RepoURL == "" {
		return nil
	}
	return []*v1alpha1.ApplicationSource{e.Source}
}

// History returns the syncs of an Application that can be gone back to, the
// youngest first.
func (c *Controller) History(ctx context.Context, namespace, name string) ([]HistoryEntry, error) {
	var out []HistoryEntry
	err := c.inspect(ctx, namespace, name, func(p *pass) error {
		history := p.app.Status.History
		current := false
		for i := len(history) - 1; i >= 0; i-- {
			e := entryOf(&history[i])
			if !current {
				e.Current = p.wantsNow(ctx, &history[i])
				current = e.Current
			}
			p.describe(ctx, &e)
			out = append(out, e)
		}
		return nil
	})
	return out, err
}

// describe adds what the commit says of itself.
func (p *pass) describe(ctx context.Context, e *HistoryEntry) {
	for i, src := range e.Sources {
		if i >= len(e.Revisions) || refOnly(src) {
			continue
		}
		at := *src
		at.TargetRevision = e.Revisions[i]
		r, err := p.Sources.Resolve(ctx, p.project(), at)
		if err != nil || r.Git == nil {
			continue // it is only shown
		}
		if commit, err := r.Git.Commit(ctx, r.ID); err == nil {
			e.Subject, e.Author = commit.Subject, commit.AuthorName
			return
		}
	}
}

// entry finds an entry of the history, by its ID or [Previous].
func (p *pass) entry(ctx context.Context, id int64) (*v1alpha1.RevisionHistory, error) {
	history := p.app.Status.History
	if len(history) == 0 {
		return nil, refuse("sync it first", "%s has no history", p.key)
	}
	for i := len(history) - 1; i >= 0; i-- {
		e := &history[i]
		if e.ID == id || id == Previous && p.earlier(ctx, e) {
			return e, nil
		}
	}
	if id == Previous {
		return nil, refuse("see `lockstep app history`", "%s has no earlier state in its history", p.key)
	}
	return nil, refuse("see `lockstep app history`", "%s has no history %d; it has %d to %d", p.key, id, history[0].ID, history[len(history)-1].ID)
}

// earlier reports whether an entry is one that "the previous" can mean: it
// differs from what is to be now, and in a row of rollbacks each goes further
// back.
func (p *pass) earlier(ctx context.Context, e *v1alpha1.RevisionHistory) bool {
	if p.hold != nil && (e.ID >= p.hold.ID || slices.Equal(revisionsOf(e), p.hold.Skip)) {
		return false
	}
	return !p.wantsNow(ctx, e)
}

// wantsNow reports whether an entry is what the application is to be now: the
// same sources, with the same content of all that it reads.
func (p *pass) wantsNow(ctx context.Context, e *v1alpha1.RevisionHistory) bool {
	sources := p.sources
	if p.hold != nil && len(p.hold.Sources) > 0 {
		sources = p.hold.Sources
	}
	if !reflect.DeepEqual(sourcesOfEntry(e), sources) {
		return false
	}
	r, ids := p.st.rendered, revisionsOf(e)
	if r == nil {
		named := p.app.Status.Sync.Revisions
		if len(named) == 0 {
			named = []string{p.app.Status.Sync.Revision}
		}
		return slices.Equal(named, ids)
	}
	if slices.Equal(r.revisions, ids) {
		return true
	}
	at, err := p.atEntry(ctx, e)
	if err != nil {
		return false
	}
	then := *p
	then.sources, then.revs = at.sources, at.revs
	same, err := then.same(ctx, r)
	return err == nil && same
}

// atEntry is the state of an entry of the history.
func (p *pass) atEntry(ctx context.Context, e *v1alpha1.RevisionHistory) (stateAt, error) {
	s := stateAt{entry: e, sources: sourcesOfEntry(e)}
	ids := revisionsOf(e)
	if len(s.sources) == 0 || len(ids) != len(s.sources) || slices.Contains(ids, "") {
		return s, refuse("sync to a revision instead", "history %d does not say what was synced", e.ID)
	}
	var err error
	s.revs, err = p.resolveAt(ctx, s.sources, ids)
	return s, err
}
