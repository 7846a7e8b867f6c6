package application

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

func joinIDs(ids []string) string { return strings.Join(ids, ",") }

// startOperation begins the sync that is asked for or due, if any.
func (p *pass) startOperation(ctx context.Context) {
	st := p.st
	wish := p.app.Operation
	if op := st.op; op != nil {
		another := wish != nil && !(op.asked && equality.Semantic.DeepEqual(*wish, op.wish))
		p.takeOp = op.asked && !another // it is this one
		newer := p.plan != nil && st.rendered != nil && st.rendered.serial != op.serial
		switch {
		case terminates(&p.app):
			op.cancel(errTerminated)
		case p.overrun(op) != "":
			op.cancel(fmt.Errorf("%w: %s", errWindow, p.overrun(op)))
		case op.wish.InitiatedBy.Automated && another, !op.asked && newer:
			op.cancel(errSuperseded) // its end brings the next pass
		case !op.waiting() && p.Now().Sub(op.started) >= quietTime:
			op.announce.Do(func() { p.announceApply(op) })
		case wish == nil && !op.asked && !op.waiting() && p.Now().Sub(op.started) < quietTime:
			p.quiet = true
		}
		return
	}
	if wish == nil && p.interrupted() {
		resumed := p.app.Status.OperationState.Operation
		wish = &resumed
	}
	if wish != nil {
		if p.waiting != "" {
			return // the live state is being listed
		}
		p.takeOp = true
		p.startWished(ctx, *wish)
		return
	}
	p.startAutomated(ctx)
}

// interrupted reports whether an earlier process was in the middle of a sync
// that it was asked for: by somebody, or by a rolling sync.
func (p *pass) interrupted() bool {
	s := p.app.Status.OperationState
	if s == nil || p.st.state != nil || s.Phase != v1alpha1.PhaseRunning || s.Operation.Sync == nil {
		return false
	}
	return !s.Operation.InitiatedBy.Automated || !automated(&p.app)
}

// startWished begins a sync that somebody asked for, or says why not.
func (p *pass) startWished(ctx context.Context, wish v1alpha1.Operation) {
	l, err := p.wished(ctx, wish)
	if err == nil {
		p.launch(ctx, l)
		return
	}
	if ctx.Err() != nil {
		return
	}
	now := metav1.NewTime(p.Now())
	p.st.state = &v1alpha1.OperationState{Operation: wish, Phase: v1alpha1.PhaseError, Message: err.Error(), StartedAt: now, FinishedAt: &now}
}

// wished finds out what a wish means.
func (p *pass) wished(ctx context.Context, wish v1alpha1.Operation) (launch, error) {
	l := launch{wish: wish, asked: true, want: p.st.rendered, plan: p.plan, sources: p.sources, main: p.main}
	sync := wish.Sync
	if sync == nil {
		return l, fmt.Errorf("the operation is not a sync; nothing else is carried out")
	}
	if p.cluster == nil {
		return l, p.failure
	}
	if err := p.mayWish(); err != nil {
		return l, err
	}
	if len(sync.Manifests) > 0 {
		return p.wishedManifests(ctx, l)
	}
	sources, revisions := wishedSources(sync)
	if len(sources) == 0 && len(revisions) == 0 {
		if p.failure != nil {
			return l, p.failure
		}
		return l, nil
	}
	if len(sources) == 0 {
		sources = sourcesOf(&p.app)
	}
	revs, err := p.resolveWished(ctx, sources, revisions)
	if err != nil {
		return l, err
	}
	if p.failure == nil && slices.Equal(idsOf(revs), idsOf(p.revs)) && len(sync.Sources) == 0 && sync.Source == nil {
		return l, nil
	}
	if automated(&p.app) && p.hold == nil && !sync.DryRun {
		return l, fmt.Errorf("cannot sync to %s: automated sync would bring %s back; use `lockstep app rollback`, turn spec.syncPolicy.automated off first, or revert the commit", short(revs[0].ID), short(p.commit()))
	}
	if err := p.mayUse(ctx, sources, revs); err != nil {
		return l, err
	}
	l.sources = sources
	if l.want, err = p.fresh(ctx, sources, revs, false); err != nil {
		return l, err
	}
	if l.want.err != nil {
		return l, l.want.err
	}
	l.plan, err = p.planWished(ctx, l.want)
	return l, err
}

func (p *pass) planWished(ctx context.Context, want *rendered) (*plan.Plan, error) {
	pl, err := p.compareWith(ctx, want, false)
	if err == nil && pl == nil {
		err = fmt.Errorf("the live state is not known yet (%s); try again in a moment", p.waiting)
	}
	return pl, err
}

func wishedSources(sync *v1alpha1.SyncOperation) (sources []*v1alpha1.ApplicationSource, revisions []string) {
	switch {
	case len(sync.Sources) > 0:
		sources = sync.Sources
	case sync.Source != nil:
		sources = []*v1alpha1.ApplicationSource{sync.Source}
	}
	switch {
	case len(sync.Revisions) > 0:
		revisions = sync.Revisions
	case sync.Revision != "":
		revisions = []string{sync.Revision}
	}
	return sources, revisions
}

// resolveWished finds what the sources name at the wished revisions.
func (p *pass) resolveWished(ctx context.Context, sources []*v1alpha1.ApplicationSource, revisions []string) ([]Revision, error) {
	out := make([]Revision, len(sources))
	for i, src := range sources {
		at := *src
		if i < len(revisions) && revisions[i] != "" {
			at.TargetRevision = revisions[i]
		}
		var err error
		if out[i], err = p.Sources.Resolve(ctx, p.project(), at); err != nil {
			return nil, fmt.Errorf("operation.sync.revision %s: %w", at.TargetRevision, err)
		}
	}
	return out, nil
}

// wishedManifests plans manifests that came with the operation instead of the
// source's.
func (p *pass) wishedManifests(ctx context.Context, l launch) (launch, error) {
	if automated(&p.app) {
		return l, fmt.Errorf("cannot sync local manifests: automated sync would take them back; turn spec.syncPolicy.automated off first")
	}
	var objects []manifest.Object
	for i, text := range l.wish.Sync.Manifests {
		parsed, _, err := manifest.Parse(fmt.Sprintf("operation.sync.manifests[%d]", i), []byte(text))
		if err != nil {
			return l, err
		}
		objects = append(objects, parsed...)
	}
	p.st.serial++
	l.want = &rendered{params: p.st.params, revisions: idsOf(p.revs), serial: p.st.serial}
	if len(l.want.revisions) == 0 {
		l.want.revisions = []string{""}
	}
	if err := p.targeted(l.want, objects); err != nil {
		return l, err
	}
	var err error
	l.plan, err = p.planWished(ctx, l.want)
	return l, err
}
