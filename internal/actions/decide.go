package actions

import (
	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
	"github.com/lockstep-gitops/lockstep/internal/actions/trigger"
)

// decide asks the triggers of a workflow about a happening.
func decide(w *syntax.Workflow, h *happening, paths func() ([]string, error)) (trigger.Decision, error) {
	e := trigger.Event{Name: h.name, Action: h.action, Ref: h.ref, BaseRef: h.baseRef, Message: h.message, Workflow: h.workflow, Branch: h.branch}
	if trigger.NeedsPaths(w, h.name) {
		var err error
		if e.Paths, err = paths(); err != nil {
			return trigger.Decision{}, &unreadable{err}
		}
	}
	return trigger.Match(w, e)
}

// unreadable says that the repository could not be read: not the fault of a
// workflow file.
type unreadable struct{ error }

func (u *unreadable) Unwrap() error { return u.error }
