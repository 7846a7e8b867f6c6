package application

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/git"
)

// Annotations of this engine on Applications.
const (
	// AnnotationRollback holds an application at an earlier state although
	// its source names a newer one; see hold.
	AnnotationRollback = v1alpha1.AnnotationRollback
	// AnnotationPause stops automated syncs; its value is the reason.
	AnnotationPause = v1alpha1.AnnotationPause
	// AnnotationDependsOn names the applications, by commas, that must be in
	// sync and healthy before this one is synced by itself.
	AnnotationDependsOn = v1alpha1.AnnotationDependsOn
)

// hold is a rollback with automated sync on: what the source named then is
// skipped, and the application stays at an entry of its history, until the
// source brings something else for it. A commit that touches nothing that the
// application reads does not end a hold: in a repository of many applications
// it would be over within minutes.
type hold struct {
	Skip    []string                      `json:"skip"` // revisions of the sources that are skipped
	To      []string                      `json:"to"`   // revisions of the sources that are kept instead
	ID      int64                         `json:"id"`   // of the history
	Sources []*v1alpha1.ApplicationSource `json:"sources,omitempty"`
	Spec    string                        `json:"spec,omitempty"` // names the sources of the spec then; other ones end the hold
	By      string                        `json:"by,omitempty"`
}

// holdOf returns the hold of an application, nil for none. One that cannot be
// read is none: then the source counts, as without Lockstep.
func holdOf(app *v1alpha1.Application) *hold {
	text := app.Annotations[AnnotationRollback]
	if text == "" {
		return nil
	}
	h := &hold{}
	if err := json.Unmarshal([]byte(text), h); err != nil || len(h.Skip) == 0 || slices.Contains(h.To, "") {
		return nil
	}
	kept := len(h.Skip)
	if len(h.Sources) > 0 {
		kept = len(h.Sources)
	}
	if len(h.To) != kept || slices.Contains(h.Sources, nil) {
		return nil
	}
	return h
}

func (h *hold) annotation() (string, error) {
	data, err := json.Marshal(h)
	if err != nil {
		return "", fmt.Errorf("encode the rollback: %w", err)
	}
	return string(data), nil
}

// params are what the render of a held application depends on.
func (h *hold) params() any {
	if h == nil {
		return nil
	}
	return []any{h.To, h.Sources}
}

// sourcesID names the sources of a spec.
func sourcesID(app *v1alpha1.Application) string {
	data, err := json.Marshal(sourcesOf(app))
	if err != nil {
		return err.Error()
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// passed reports whether the sources name something else than what is skipped.
func (h *hold) passed(revs []Revision) bool {
	return !slices.Equal(idsOf(revs), h.Skip)
}

// takeHold ends a hold that is over, or puts what it keeps in the place of what
// the sources name.
func (p *pass) takeHold(ctx context.Context) error {
	if p.hold == nil {
		return nil
	}
	over, err := p.holdOver(ctx)
	if err != nil {
		return fmt.Errorf("look whether the rollback is over: %w", err)
	}
	if over {
		p.hold = nil
		p.annotate[AnnotationRollback] = nil
		p.st.mu.Lock()
		p.st.params = paramsOf(&p.app, nil)
		p.st.mu.Unlock()
		return nil
	}
	h := p.hold
	sources := p.sources
	if len(h.Sources) > 0 {
		sources = h.Sources
	}
	if slices.EqualFunc(sources, p.sources, samePlace) {
		for i := range p.revs {
			p.revs[i].ID = h.To[i]
		}
	} else if p.revs, err = p.resolveAt(ctx, sources, h.To); err != nil {
		return err
	}
	if err := p.permits(sources); err != nil {
		return err
	}
	p.sources = sources
	p.condition(ConditionHeld, fmt.Sprintf("rolled back to history %d (%s): %s is skipped until the source brings something else for this application",
		h.ID, shortAll(h.To), shortAll(h.Skip)))
	return nil
}

func samePlace(a, b *v1alpha1.ApplicationSource) bool {
	return a.RepoURL == b.RepoURL && a.Chart == b.Chart
}

func shortAll(ids []string) string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = short(id)
	}
	return joinIDs(out)
}

// holdOver reports whether the sources or the spec moved past what is skipped.
// Where they moved without a change for this application, the hold skips the
// new revisions as well.
func (p *pass) holdOver(ctx context.Context) (bool, error) {
	h := p.hold
	if h.Spec != "" && h.Spec != sourcesID(&p.app) || len(h.Skip) != len(p.revs) {
		return true, nil
	}
	if !h.passed(p.revs) {
		return false, nil
	}
	same, err := p.sameAt(ctx, h.Skip)
	if err != nil || !same {
		return true, err
	}
	h.Skip = idsOf(p.revs)
	text, err := h.annotation()
	p.annotate[AnnotationRollback] = text
	return false, err
}

// sameAt reports whether all that the application reads of its sources is the
// same at other revisions as at those of the pass.
func (p *pass) sameAt(ctx context.Context, ids []string) (bool, error) {
	revs := slices.Clone(p.revs)
	for i := range revs {
		revs[i].ID = ids[i]
	}
	was, err := p.fresh(ctx, p.sources, revs, false)
	if errors.Is(err, git.ErrNotFound) {
		return false, nil // the commit was taken back
	}
	if err != nil {
		return false, err
	}
	was.verified = was.revisions
	return p.same(ctx, was)
}

// permits holds sources that are not those of the spec against the project.
func (p *pass) permits(sources []*v1alpha1.ApplicationSource) error {
	checked := p.app
	checked.Spec.Sources, checked.Spec.Source = sources, nil
	for _, v := range p.rules.CheckApplication(&checked, p.cluster.project(), p.Namespace) {
		return invalid("%v. %s", v, v.Hint)
	}
	return nil
}

// resolveAt finds what sources name; a revision that is not "" takes the place
// of a source's own.
func (p *pass) resolveAt(ctx context.Context, sources []*v1alpha1.ApplicationSource, revisions []string) ([]Revision, error) {
	out := make([]Revision, len(sources))
	for i, src := range sources {
		at := *src
		if i < len(revisions) && revisions[i] != "" {
			at.TargetRevision = revisions[i]
		}
		var err error
		if out[i], err = p.Sources.Resolve(ctx, p.project(), at); err != nil {
			return nil, fmt.Errorf("%s of %s: %w", revisionName(at.TargetRevision), src.RepoURL, err)
		}
	}
	return out, nil
}

func revisionName(revision string) string {
	if revision == "" {
		return "HEAD"
	}
	return "revision " + short(revision)
}

// mayUse holds sources at revisions that are not those of the spec against the
// project, as the spec's own are.
func (p *pass) mayUse(ctx context.Context, sources []*v1alpha1.ApplicationSource, revs []Revision) error {
	if err := p.permits(sources); err != nil {
		return err
	}
	other := *p
	other.sources, other.revs = sources, revs
	return other.checkSignatures(ctx)
}
