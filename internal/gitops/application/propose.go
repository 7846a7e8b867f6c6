package application

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// Proposal is a commit that a branch does not name yet.
type Proposal struct {
	Repo string          // "owner/name", as moves have it
	Ref  string          // the branch that it would go to, "refs/heads/main"
	Base string          // the commit that it is compared with, git.ZeroID for none
	Head string          // the proposed commit
	Git  *git.Repository // has both
	// Name is what moves of the repository of a repoURL are announced under.
	Name func(repoURL string) string
}

// Proposed is what a proposal does to one Application.
type Proposed struct {
	Application *v1alpha1.Application // shared: not to be changed
	Cluster     string                // name of the destination, or its address
	Path        string                // of the source that follows the branch
	Held        bool                  // by a rollback: a push changes nothing until that ends
	Fixed       bool                  // the base does not render
	Before      []manifest.Object     // that differ from After, or are not there
	After       []manifest.Object
	Same        int      // objects that are the same on both sides
	Masked      []string // annotations of Secrets that are not to be shown
	Problems    []ProposalProblem
}

// ProposalProblem is why a proposal cannot be rendered or synced.
type ProposalProblem struct {
	manifest.Error
	Old   bool // the base has it too
	Fault bool // it says nothing about the input
}

// Propose renders the Applications that a proposal affects, at both commits,
// and hands them to yield by name. It writes nothing, and its cost follows what
// changed. followers is how many Applications follow the branch.
func (c *Controller) Propose(ctx context.Context, p Proposal, yield func(Proposed) error) (followers int, err error) {
	select {
	case <-c.ready:
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for the applications: %w", context.Cause(ctx))
	}
	changed, err := p.Git.Changed(ctx, p.Base, p.Head)
	if err != nil {
		return 0, fmt.Errorf("what the proposal changes: %w", err)
	}
	keys, followers := c.affected(p, changed)
	for _, key := range keys {
		out, ok, err := c.proposed(ctx, p, key)
		if err != nil {
			return followers, fmt.Errorf("preview of application %s: %w", key, err)
		}
		if !ok {
			continue
		}
		if err := yield(out); err != nil {
			return followers, err
		}
	}
	return followers, nil
}

// affected are the applications that follow the branch and may read what
// changed.
func (c *Controller) affected(p Proposal, changed []string) (keys []string, followers int) {
	wake, users := map[string]bool{}, map[string]bool{}
	c.mu.Lock()
	repo := c.repos[p.Repo]
	c.mu.Unlock()
	if repo != nil {
		readers, read := map[string]bool{}, map[string]bool{}
		for reader := range repo.index.Readers(changed) {
			readers[readerOf(reader)] = true
		}
		for reader := range repo.index.Names() {
			read[readerOf(reader)] = true
		}
		for _, t := range repo.following(p.Ref) {
			for key, always := range t.followers() {
				users[key] = true
				if always || p.Base == git.ZeroID || readers[key] || !read[key] {
					wake[key] = true
				}
			}
		}
	}
	// Those that were not looked at since the start have no tracks yet.
	for _, key := range c.apps.GetStore().ListKeys() {
		if !users[key] && c.mayFollow(key, p) {
			users[key], wake[key] = true, true
		}
	}
	for key := range wake {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys, len(users)
}

// following are the tracks that a move of the ref would move.
func (r *repository) following(ref string) []*track {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*track
	for _, t := range r.tracks {
		t.mu.Lock()
		if !t.chart && t.rev.Tracks(ref, t.ref) {
			out = append(out, t)
		}
		t.mu.Unlock()
	}
	return out
}

// followers are the users; true are those whom every move wakes.
func (t *track) followers() map[string]bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[string]bool, len(t.users))
	for key := range t.users {
		out[key] = t.held[key]
	}
	return out
}

// mayFollow reports whether an application of which nothing is known yet has a
// source in the repository of a proposal.
func (c *Controller) mayFollow(key string, p Proposal) bool {
	app, st := c.application(key)
	if app == nil || app.DeletionTimestamp != nil {
		return false
	}
	if st != nil {
		st.mu.Lock()
		looked := len(st.revs) > 0
		st.mu.Unlock()
		if looked {
			return false
		}
	}
	return slices.ContainsFunc(sourcesOf(app), func(s *v1alpha1.ApplicationSource) bool {
		return s != nil && s.Chart == "" && p.Name(s.RepoURL) == p.Repo
	})
}

// proposed renders both sides of one application; ok is false when the proposal
// is nothing to it.
func (c *Controller) proposed(ctx context.Context, from Proposal, key string) (out Proposed, ok bool, err error) {
	app, _ := c.application(key)
	if app == nil || app.DeletionTimestamp != nil {
		return out, false, nil
	}
	// A pass of its own, with a state of its own: it leaves nothing behind.
	p := &pass{Controller: c, key: key, st: newState(), app: *app, was: &app.Status, set: c.policies(), annotate: map[string]any{}, sources: sourcesOf(app)}
	if p.app.Spec.SyncPolicy != nil {
		p.options, _ = plan.ParseOptions(p.app.Spec.SyncPolicy.SyncOptions)
	}
	p.st.params = paramsOf(app, nil)
	out = Proposed{Application: app, Held: holdOf(app) != nil, Masked: p.set.Settings.MaskedAnnotations, Cluster: app.Spec.Destination.Name}
	if out.Cluster == "" {
		out.Cluster = app.Spec.Destination.Server
	}
	if err := p.checkSpec(); err != nil {
		out.Problems = []ProposalProblem{{Error: manifest.Error{Message: err.Error()}, Old: true}}
		return out, true, nil
	}
	if p.cluster.Name != "" {
		out.Cluster = p.cluster.Name
	}
	base, head, err := p.bothSides(ctx, from)
	if err == nil && head == nil {
		return out, false, nil
	}
	if err == nil {
		out.Path = p.pathOf(head)
		err = p.cluster.reach(p.Now)
	}
	if err == nil {
		err = p.renderSides(ctx, from, base, head, &out)
	}
	switch {
	case ctx.Err() != nil:
		return out, false, context.Cause(ctx)
	case err != nil: // the surroundings of this application: the others can be looked at
		out.Before, out.After = nil, nil
		out.Problems = []ProposalProblem{{Error: manifest.Error{Message: err.Error()}, Fault: true}}
	}
	return out, true, nil
}

// bothSides are what the sources name without and with the proposal; head is
// nil when no source follows its branch.
func (p *pass) bothSides(ctx context.Context, from Proposal) (base, head []Revision, err error) {
	now := p.named()
	for i, src := range p.sources {
		r := Revision{}
		if now != nil {
			r = now[i]
		}
		if r.Repo == "" {
			if r, err = p.Sources.Resolve(ctx, p.project(), *src); err != nil && !(r.Repo == from.Repo && r.Git != nil) {
				return nil, nil, fmt.Errorf("spec.source: %w", err)
			}
		}
		base = append(base, r)
		if r.Repo != from.Repo || r.Chart || !(source.Revision{Target: src.TargetRevision, TagPrefix: src.TagPrefix}).Tracks(from.Ref, r.Head) {
			continue
		}
		base[i].ID, base[i].Git = from.Base, from.Git
		if head == nil {
			head = make([]Revision, len(p.sources))
		}
		head[i] = base[i]
		head[i].ID = from.Head
	}
	for i := range head {
		if head[i].ID == "" {
			head[i] = base[i]
		}
	}
	return base, head, nil
}

// named is what the live state of the application says that its sources name,
// nil when it does not know.
func (p *pass) named() []Revision {
	p.mu.Lock()
	st := p.states[p.key]
	p.mu.Unlock()
	if st == nil {
		return nil
	}
	heads := st.heads()
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.dirty || len(st.revs) != len(p.sources) || st.params != p.st.params {
		return nil
	}
	revs := slices.Clone(st.revs)
	for i := range revs {
		if i < len(heads) && heads[i] != "" {
			revs[i].ID = heads[i]
		}
	}
	return revs
}

// pathOf names the first source with objects that the proposal is about.
func (p *pass) pathOf(head []Revision) string {
	for i, src := range p.sources {
		if head[i].Git != nil && !refOnly(src) {
			return src.Path
		}
	}
	return ""
}

// renderSides fills in what differs between the two sides.
func (p *pass) renderSides(ctx context.Context, from Proposal, base, head []Revision, out *Proposed) error {
	have := p.atHand()
	before := &rendered{}
	var err error
	if from.Base != git.ZeroID {
		if before, err = p.sideOf(ctx, have, base); err != nil {
			return err
		}
	}
	after, err := p.sideOf(ctx, have, head)
	if err != nil {
		return err
	}
	old := p.faultsOf(before)
	out.Problems = p.faultsOf(after)
	for i := range out.Problems {
		out.Problems[i].Old = slices.ContainsFunc(old, func(o ProposalProblem) bool { return o.Error.Message == out.Problems[i].Error.Message })
	}
	if after.err != nil {
		return nil // nothing is known of what it would give
	}
	out.Fixed = before.err != nil
	return p.different(ctx, before, after, out)
}

// atHand is the rendering that the live state has, nil when there is none. It is
// never changed.
func (p *pass) atHand() *rendered {
	p.mu.Lock()
	st := p.states[p.key]
	p.mu.Unlock()
	if st == nil {
		return nil
	}
	st.busy.Lock()
	defer st.busy.Unlock()
	return st.rendered
}

// sideOf renders one side, or takes what is at hand when its inputs are the same.
func (p *pass) sideOf(ctx context.Context, have *rendered, revs []Revision) (*rendered, error) {
	p.revs = revs
	if have != nil && have.params == p.st.params && have.lasts() {
		if slices.Equal(have.verified, idsOf(revs)) {
			return have, nil
		}
		same, err := p.same(ctx, have)
		if err != nil {
			return nil, err
		}
		if same {
			return have, nil
		}
	}
	p.pickMain()
	return p.fresh(ctx, p.sources, revs, false)
}

// faultsOf is what is wrong with a side as a whole.
func (p *pass) faultsOf(r *rendered) []ProposalProblem {
	err := r.err
	if err == nil {
		err = p.checkObjects(r)
	}
	if err == nil {
		return nil
	}
	problem := ProposalProblem{Error: manifest.Error{Message: err.Error()}, Fault: r.fault != nil}
	var bad *manifest.Error
	if errors.As(err, &bad) {
		problem.Error = manifest.Error{File: bad.File, Line: bad.Line, Message: bad.Message, Hint: bad.Hint}
	}
	return []ProposalProblem{problem}
}

// different fills in the objects that are not the same, and what the cluster's
// schemas say of the new ones.
func (p *pass) different(ctx context.Context, before, after *rendered, out *Proposed) error {
	was := make(map[plan.Key]*desired, len(before.objects))
	for i := range before.objects {
		was[before.objects[i].key] = &before.objects[i]
	}
	for _, d := range after.objects {
		old := was[d.key]
		delete(was, d.key)
		if old != nil && old.digest == d.digest {
			out.Same++
			continue
		}
		o, err := d.object()
		if err != nil {
			return err
		}
		out.After = append(out.After, o)
		if err := validate(ctx, p.cluster.Schemas, plan.Change{Key: d.key, Desired: plan.Normalize(o.Unstructured), Options: p.objectOptions(o.Unstructured)}); err != nil {
			out.Problems = append(out.Problems, ProposalProblem{Error: manifest.Error{File: o.File, Line: o.Line, Message: fmt.Sprintf("%s: %s", d.key, strings.TrimSpace(err.Error()))}})
		}
		if old != nil {
			if o, err = old.object(); err != nil {
				return err
			}
			out.Before = append(out.Before, o)
		}
	}
	for _, d := range was {
		o, err := d.object()
		if err != nil {
			return err
		}
		out.Before = append(out.Before, o)
	}
	return nil
}
