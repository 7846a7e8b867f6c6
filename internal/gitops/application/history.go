package application

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"slices"

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
	}
	return last
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
