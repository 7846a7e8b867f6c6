package application

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// resolve finds out what the sources name, where that is not known, and takes
// the hold into account.
func (p *pass) resolve(ctx context.Context) error {
	st := p.st
	heads := st.heads()
	st.mu.Lock()
	p.dirty = st.dirty
	st.dirty, st.looking = false, st.dirty // what comes from now on is for the next pass
	known := !p.dirty && len(st.revs) == len(p.sources)
	if known {
		p.revs = slices.Clone(st.revs)
		for i, head := range heads {
			if head != "" {
				p.revs[i].ID = head
			}
		}
	}
	st.mu.Unlock()
	if !known {
		if err := p.resolveAnew(ctx); err != nil {
			return err
		}
	}
	if err := p.takeHold(ctx); err != nil {
		return err
	}
	if p.hold != nil {
		for _, t := range st.tracks {
			if t != nil {
				t.hold(p.key, true)
			}
		}
	}
	return nil
}

// ConditionHeld says that a rollback holds the application at an earlier state.
const ConditionHeld = "RollbackHeld"

func (p *pass) resolveAnew(ctx context.Context) error {
	st := p.st
	since := p.moves.Load()
	revs := make([]Revision, len(p.sources))
	tracks := make([]*track, len(p.sources))
	for i, src := range p.sources {
		r, err := p.Sources.Resolve(ctx, p.project(), *src)
		if err != nil {
			p.mu.Lock()
			p.unresolved[p.key] = true
			p.mu.Unlock()
			at := "spec.source"
			if len(p.sources) > 1 {
				at = fmt.Sprintf("spec.sources[%d]", i)
			}
			return fmt.Errorf("%s: %w", at, err)
		}
		revs[i] = r
		if r.Repo != "" {
			tracks[i] = p.follow(p.key, source.Revision{Target: src.TargetRevision, TagPrefix: src.TagPrefix}, r, since)
		}
	}
	st.mu.Lock()
	old := st.tracks
	st.revs, st.tracks = revs, tracks
	st.mu.Unlock()
	for i, t := range old {
		if t != nil && !slices.Contains(tracks, t) {
			p.leave(p.key, t)
			t.repo.index.Set(readerKey(p.key, i), nil)
		}
	}
	p.revs = slices.Clone(revs)
	list := make([]v1alpha1.ApplicationSource, len(p.sources))
	for i, src := range p.sources {
		list[i] = *src
	}
	p.Sources.Follow(ctx, p.key, p.project(), list...)
	return nil
}

// project is the name of the application's project.
func (p *pass) project() string {
	if p.app.Spec.Project == "" {
		return "default"
	}
	return p.app.Spec.Project
}

// commit is the commit that the journal follows.
func (p *pass) commit() string {
	if p.main < len(p.revs) {
		return p.revs[p.main].ID
	}
	return ""
}

// revision names what all sources name.
func (p *pass) revision() string { return joinRevisions(p.revs) }

func joinRevisions(revs []Revision) string {
	if len(revs) == 1 {
		return revs[0].ID
	}
	ids := make([]string, len(revs))
	for i, r := range revs {
		ids[i] = r.ID
	}
	return strings.Join(ids, ",")
}
