package application

import (
	"encoding/json"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// Annotations of this engine on Applications.
const (
	// AnnotationRollback holds an application at an earlier state although
	// its source names a newer one; see hold.
	AnnotationRollback = "lockstep.dev/rollback"
	// AnnotationPause stops automated syncs; its value is the reason.
	AnnotationPause = "lockstep.dev/pause"
	// AnnotationDependsOn names the applications, by commas, that must be in
	// sync and healthy before this one is synced by itself.
	AnnotationDependsOn = "lockstep.dev/depends-on"
)

// hold is a rollback with automated sync on: what the source named then is
// skipped, and the application stays at an entry of its history, until the
// source names something else.
type hold struct {
	Skip    []string                      `json:"skip"` // revisions of the sources that are skipped
	To      []string                      `json:"to"`   // revisions of the sources that are kept instead
	ID      int64                         `json:"id"`   // of the history
	Sources []*v1alpha1.ApplicationSource `json:"sources,omitempty"`
}

// holdOf returns the hold of an application, nil for none. One that cannot be
// read is none: then the source counts, as without Lockstep.
func holdOf(app *v1alpha1.Application) *hold {
	text := app.Annotations[AnnotationRollback]
	if text == "" {
		return nil
	}
	h := &hold{}
	if err := json.Unmarshal([]byte(text), h); err != nil || len(h.Skip) == 0 || len(h.To) != len(h.Skip) {
		return nil
	}
	return h
}

// passed reports whether the sources name something else than what is skipped.
func (h *hold) passed(revs []Revision) bool {
	if len(revs) != len(h.Skip) {
		return true
	}
	for i, r := range revs {
		if r.ID != h.Skip[i] {
			return true
		}
	}
	return false
}
