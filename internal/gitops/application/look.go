package application

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// Refusal says why something that somebody asked for is not done.
type Refusal struct {
	Message string
	Hint    string // what to try, "" for nothing
	Busy    bool   // it can be done later
}

func (r *Refusal) Error() string { return r.Message }

func refuse(hint, format string, args ...any) error {
	return &Refusal{Message: fmt.Sprintf(format, args...), Hint: hint}
}

func busy(hint, format string, args ...any) error {
	return &Refusal{Message: fmt.Sprintf(format, args...), Hint: hint, Busy: true}
}

// lock takes busy, unless ctx ends first.
func (st *state) lock(ctx context.Context) error {
	if st.busy.TryLock() {
		return nil
	}
	got := make(chan struct{})
	go func() { // a pass ends, so this does
		st.busy.Lock()
		select {
		case got <- struct{}{}:
		case <-ctx.Done():
			st.busy.Unlock()
		}
	}()
	select {
	case <-got:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// inspect runs f with a pass over an Application that writes nothing, while no
// other pass over it runs. What f leaves in the pass may be read after it.
func (c *Controller) inspect(ctx context.Context, namespace, name string, f func(*pass) error) error {
	key := namespace + "/" + name
	if app, _ := c.application(key); app == nil {
		return fmt.Errorf("%s: %w", key, ErrNotFound)
	}
	st := c.state(key)
	if err := st.lock(ctx); err != nil {
		return fmt.Errorf("look at %s: %w", key, err)
	}
	defer st.busy.Unlock()
	app, _ := c.application(key)
	if app == nil {
		return fmt.Errorf("%s: %w", key, ErrNotFound)
	}
	p := &pass{Controller: c, key: key, st: st, app: *app, was: &app.Status, set: c.policies(), annotate: map[string]any{}, exact: true}
	p.hold, p.sources = holdOf(&p.app), sourcesOf(&p.app)
	if policy := p.app.Spec.SyncPolicy; policy != nil {
		p.options, _ = plan.ParseOptions(policy.SyncOptions) // warnings are in the conditions
	}
	err := f(p)
	var bad *specError
	if errors.As(err, &bad) {
		return &Refusal{Message: err.Error()}
	}
	return err
}

// At names what an Application could be brought to. The zero value is what it
// is to be now.
type At struct {
	Revision string // of the first source: branch, tag or commit
	History  *int64 // an entry of the history, instead of Revision
}

// stateAt is sources at revisions: what an application could be brought to.
type stateAt struct {
	entry   *v1alpha1.RevisionHistory // nil when it is none of the history
	sources []*v1alpha1.ApplicationSource
	revs    []Revision
}

// at finds what an At means.
func (p *pass) at(ctx context.Context, at At) (stateAt, error) {
	if at.History != nil {
		e, err := p.entry(ctx, *at.History)
		if err != nil {
			return stateAt{}, err
		}
		return p.atEntry(ctx, e)
	}
	s := stateAt{sources: p.sources}
	var revisions []string
	switch {
	case at.Revision != "":
		revisions = []string{at.Revision}
	case p.hold != nil:
		if revisions = p.hold.To; len(p.hold.Sources) > 0 {
			s.sources = p.hold.Sources
		}
	}
	var err error
	s.revs, err = p.resolveAt(ctx, s.sources, revisions)
	return s, err
}

// Plan returns what bringing an Application to a state would change, as the API
// server sees it. Secrets are masked. It writes nothing.
func (c *Controller) Plan(ctx context.Context, namespace, name string, at At) ([]ObjectDiff, error) {
	st := c.state(namespace + "/" + name)
	ch := make(chan struct{}, 1)
	st.watch(ch)
	defer st.unwatch(ch)
	for {
		var pl *plan.Plan
		err := c.inspect(ctx, namespace, name, func(p *pass) error {
			if err := p.checkSpec(); err != nil {
				return err
			}
			s, err := p.at(ctx, at)
			if err != nil {
				return err
			}
			pl, err = p.planAt(ctx, s)
			return err
		})
		if err != nil {
			return nil, err
		}
		if pl != nil {
			return diffsOf(pl)
		}
		select { // kinds that are new to the engine are being listed; the end of that brings a pass
		case <-ch:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the live state of %s/%s: %w", namespace, name, context.Cause(ctx))
		}
	}
}

// planAt plans a state; nil while the live state is being listed.
func (p *pass) planAt(ctx context.Context, s stateAt) (*plan.Plan, error) {
	if err := p.mayUse(ctx, s.sources, s.revs); err != nil {
		return nil, err
	}
	want, err := p.renderAt(ctx, s)
	if err != nil {
		return nil, err
	}
	return p.compareWith(ctx, want, false)
}

func (p *pass) renderAt(ctx context.Context, s stateAt) (*rendered, error) {
	want, err := p.fresh(ctx, s.sources, s.revs, false)
	if err == nil {
		err = want.err
	}
	return want, err
}

// Manifest is one object that the source of an Application has.
type Manifest struct {
	plan.Key
	Place  string // "file:line"
	Hook   bool
	Object map[string]any // Secrets are masked
}

// Manifests returns the objects that an Application is to have, in the order of
// the source. The zero At is what was rendered last.
func (c *Controller) Manifests(ctx context.Context, namespace, name string, at At) ([]Manifest, error) {
	var out []Manifest
	err := c.inspect(ctx, namespace, name, func(p *pass) error {
		want := p.st.rendered
		if at != (At{}) || want == nil || want.err != nil {
			if err := p.checkSpec(); err != nil {
				return err
			}
			s, err := p.at(ctx, at)
			if err != nil {
				return err
			}
			if err := p.mayUse(ctx, s.sources, s.revs); err != nil {
				return err
			}
			if want, err = p.renderAt(ctx, s); err != nil {
				return err
			}
		}
		for _, d := range want.objects {
			o, err := d.object()
			if err != nil {
				return err
			}
			p.mask(o.Unstructured)
			out = append(out, Manifest{Key: d.key, Place: o.Place(), Hook: d.hook, Object: o.Object})
		}
		return nil
	})
	return out, err
}

const masked = "(hidden)"

// mask hides the values of a Secret.
func (p *pass) mask(o *unstructured.Unstructured) {
	if !isSecret(plan.KeyOf(o)) {
		return
	}
	for _, field := range []string{"data", "stringData"} {
		switch m := o.Object[field].(type) {
		case nil:
		case map[string]any:
			for k := range m {
				m[k] = masked
			}
		default:
			o.Object[field] = masked
		}
	}
	annotations := o.GetAnnotations()
	for k := range annotations {
		if k == annotationLastApplied || slices.Contains(p.set.Plan.Masked, k) {
			annotations[k] = masked
		}
	}
	if len(annotations) > 0 {
		o.SetAnnotations(annotations)
	}
}

const annotationLastApplied = "kubectl.kubernetes.io/last-applied-configuration"

func isSecret(k plan.Key) bool { return k.Group == "" && k.Kind == "Secret" }
