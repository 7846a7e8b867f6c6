package application

import (
	"time"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// unfinished is the sync that an earlier process was in the middle of, as the
// status has it, nil for none.
func (p *pass) unfinished() *v1alpha1.OperationState {
	s := p.app.Status.OperationState
	if s == nil || p.st.state != nil || s.Phase != v1alpha1.PhaseRunning || s.Operation.Sync == nil || s.SyncResult == nil {
		return nil
	}
	return s
}

// resumes returns the unfinished sync if one of these revisions, asked for in
// the same way, goes on with it.
func (p *pass) resumes(automated bool, revision string) *v1alpha1.OperationState {
	s := p.unfinished()
	if s == nil || s.Operation.InitiatedBy.Automated != automated {
		return nil
	}
	was := s.SyncResult.Revision
	if len(s.SyncResult.Revisions) > 0 {
		was = joinIDs(s.SyncResult.Revisions)
	}
	if was != revision {
		return nil
	}
	return s
}

// resumed is what a sync takes over from the one that it goes on with.
type resumed struct {
	started time.Time
	over    map[hookRun]bool
}

// hookRun is one hook in one phase.
type hookRun struct {
	plan.Key
	phase plan.Phase
}

// resumedFrom reads what the status says of a sync; nil gives nil.
func resumedFrom(s *v1alpha1.OperationState) *resumed {
	if s == nil {
		return nil
	}
	out := &resumed{started: s.StartedAt.Time, over: map[hookRun]bool{}}
	for _, r := range s.SyncResult.Resources {
		if r != nil && r.HookType != "" && r.HookPhase == v1alpha1.PhaseSucceeded {
			out.over[hookRun{plan.Key{Group: r.Group, Kind: r.Kind, Namespace: r.Namespace, Name: r.Name}, plan.Phase(r.HookType)}] = true
		}
	}
	return out
}

// has reports whether a hook ran to its end already.
func (r *resumed) has(k plan.Key, phase plan.Phase) bool { return r.over[hookRun{k, phase}] }
