package application

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/s2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8sjson "k8s.io/apimachinery/pkg/util/json"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// rendered is the outcome of one rendering: what is to be in the cluster.
type rendered struct {
	params    string
	revisions []string        // at which it holds, as far as moves tell
	verified  []string        // at which it was made, or its inputs looked at
	inputs    []source.Inputs // by source
	tools     []render.Tool
	objects   []desired
	warnings  []manifest.Warning
	repeated  []manifest.Warning
	told      []string // revisions that the status named when it told of these objects
	err       error
	fault     error // of reading, whatever became of it
	took      time.Duration
	serial    int // differs between renders with different inputs
	// volatile says that the outcome depends on more than the inputs: on the id
	// of the commit, or on what is fetched from other places. It is made anew
	// for every commit.
	volatile bool
	unsure   bool // a kind was not known to the cluster: namespaces may be missing
}

// desired is one object that is to be, compressed.
type desired struct {
	key     plan.Key
	version string
	file    string
	line    int
	hook    bool
	digest  plan.Digest
	raw     []byte
}

func pack(o manifest.Object) (desired, error) {
	data, err := json.Marshal(o.Object)
	if err != nil {
		return desired{}, fmt.Errorf("encode %s: %w", o.GetName(), err)
	}
	return packed(o.Unstructured, o.File, o.Line, data), nil
}

func packed(u *unstructured.Unstructured, file string, line int, data []byte) desired {
	d := desired{key: plan.KeyOf(u), version: u.GroupVersionKind().Version, file: file, line: line, hook: plan.IsHook(u)}
	sum := sha256.Sum256(data)
	copy(d.digest[:], sum[:])
	d.raw = slices.Clip(s2.Encode(nil, data))
	return d
}

// object returns a fresh copy.
func (d desired) object() (manifest.Object, error) {
	data, err := s2.Decode(nil, d.raw)
	if err != nil {
		return manifest.Object{}, fmt.Errorf("%s as rendered: %w", d.key, err)
	}
	o := manifest.Object{Unstructured: &unstructured.Unstructured{}, File: d.file, Line: d.line}
	if err := k8sjson.Unmarshal(data, &o.Object); err != nil {
		return manifest.Object{}, fmt.Errorf("%s as rendered: %w", d.key, err)
	}
	return o, nil
}

// rendered returns what the sources give, from the last rendering where its
// inputs are the same.
func (p *pass) rendered(ctx context.Context) (*rendered, error) {
	st := p.st
	p.pickMain()
	if st.rendered == nil {
		st.rendered = p.load()
	}
	st.mu.Lock()
	hard, dirty := st.hard, p.dirty
	st.hard = false
	st.mu.Unlock()
	undo := func() {
		st.mu.Lock()
		st.hard, st.dirty = st.hard || hard, st.dirty || dirty || hard
		st.mu.Unlock()
	}
	ids := idsOf(p.revs)
	if have := st.rendered; have != nil && have.params == st.params && !hard && have.lasts() {
		if !dirty && !have.volatile || slices.Equal(have.verified, ids) {
			p.keep(have, ids, false)
			return have, have.err
		}
		same, err := p.same(ctx, have)
		if err != nil {
			undo()
			return nil, err
		}
		if same {
			p.announceSkip(p.commit(), "no input of the application changed")
			p.keep(have, ids, true)
			return have, have.err
		}
	}
	now, err := p.fresh(ctx, p.sources, p.revs, true)
	if ctx.Err() != nil {
		undo()
		return nil, context.Cause(ctx)
	}
	if err != nil { // not the fault of the input
		undo()
		return nil, err
	}
	p.keep(now, ids, true)
	return now, now.err
}

// lasts reports whether the same inputs would give the same again: not when
// something failed that is not the input's fault.
func (r *rendered) lasts() bool {
	var bad *manifest.Error
	var invalid *specError
	return !r.unsure && r.fault == nil && (r.err == nil || errors.As(r.err, &bad) || errors.As(r.err, &invalid))
}

// keep makes a rendering the current one. verified says that its inputs were
// looked at; then the index learns of them.
func (p *pass) keep(r *rendered, ids []string, verified bool) {
	st := p.st
	if !slices.Equal(r.revisions, ids) {
		if st.last.commit == strings.Join(r.revisions, ",") {
			st.last.commit = strings.Join(ids, ",")
		}
	}
	next := *r
	next.revisions = ids
	if verified {
		next.verified = ids
	}
	fresh := st.rendered == nil || st.rendered.serial != next.serial
	st.rendered = &next
	if !verified && !fresh {
		return
	}
	for i, t := range st.tracks {
		if t == nil {
			continue
		}
		if i < len(next.inputs) {
			t.repo.index.Set(readerKey(p.key, i), next.inputs[i])
		}
		t.hold(p.key, p.hold != nil || next.volatile)
		if p.hold == nil && t.now() != ids[i] { // it moved while nobody could know that this application reads it
			p.lookAgain(p.key)
		}
	}
	if fresh && p.Saved != nil && next.err == nil {
		p.Saved.Save(p.key, next.saved(p.commit()))
	}
}

func idsOf(revs []Revision) []string {
	out := make([]string, len(revs))
	for i, r := range revs {
		out[i] = r.ID
	}
	return out
}

// pickMain chooses the source that the trace follows: the first with objects
// in Git.
func (p *pass) pickMain() {
	p.main = 0
	for _, objects := range []bool{true, false} {
		for i, r := range p.revs {
			if r.Git != nil && (!objects || !refOnly(p.sources[i])) {
				p.main = i
				return
			}
		}
	}
}

func refOnly(src *v1alpha1.ApplicationSource) bool {
	return src.Ref != "" && src.Path == "" && src.Chart == ""
}

// same reports whether every input of a rendering is the same now.
func (p *pass) same(ctx context.Context, r *rendered) (bool, error) {
	if len(r.inputs) != len(p.revs) || r.volatile {
		return false, nil
	}
	for i, in := range r.inputs {
		if r.verified[i] == p.revs[i].ID {
			continue
		}
		if len(in) == 0 && !refOnly(p.sources[i]) {
			return false, nil
		}
		tree, err := p.Sources.Tree(ctx, p.project(), *p.sources[i], p.revs[i])
		if err != nil {
			return false, err
		}
		if same, err := in.SameIn(ctx, tree); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

// fresh renders the sources. A fault of the input is in the result, any other
// is returned. current says that it is what the application follows: only
// then it is told.
func (p *pass) fresh(ctx context.Context, sources []*v1alpha1.ApplicationSource, revs []Revision, current bool) (*rendered, error) {
	start := p.Now()
	p.st.serial++
	p.renders.Add(1)
	now := &rendered{params: p.st.params, revisions: idsOf(revs), serial: p.st.serial, inputs: make([]source.Inputs, len(revs)), tools: make([]render.Tool, len(revs))}
	trees := make([]*source.Tree, len(sources))
	refs := map[string]*source.Tree{}
	for i, src := range sources {
		tree, err := p.Sources.Tree(ctx, p.project(), *src, revs[i])
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", src.RepoURL, err)
		}
		trees[i] = tree
		if src.Ref != "" {
			refs["$"+src.Ref] = tree
		}
	}
	var objects []manifest.Object
	for i, src := range sources {
		if refOnly(src) {
			continue
		}
		version, apis := p.cluster.Capabilities()
		res, err := p.Renderer.Render(ctx, trees[i], render.Request{
			App: p.instance(p.app.Namespace, p.app.Name), Namespace: p.app.Spec.Destination.Namespace, Project: p.project(), Source: *src,
			Refs: refs, KubeVersion: version, APIVersions: apis, Remote: p.Sources.Remote(p.project()),
			KustomizeOptions: p.set.Settings.KustomizeBuildOptions,
		})
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		now.tools[i] = res.Tool
		now.volatile = now.volatile || len(res.Fetched) > 0 || render.DependsOnRevision(res.Source)
		now.warnings = append(now.warnings, res.Warnings...)
		objects = append(objects, res.Objects...)
		if err != nil {
			now.err = err
			break
		}
	}
	for i, t := range trees {
		now.inputs[i] = t.Inputs()
		if fault := t.Fault(); fault != nil {
			now.fault = fault
		}
	}
	if now.fault != nil && now.err == nil { // it was taken for a file that is not there
		now.err = fmt.Errorf("read the sources: %w", now.fault)
	}
	if now.err == nil {
		now.err = p.targeted(now, objects)
	}
	now.took = p.Now().Sub(start)
	if current {
		p.announceRender(revs[p.main].ID, now)
	}
	return now, nil
}

// targeted makes the objects what is to be in the cluster.
func (p *pass) targeted(r *rendered, objects []manifest.Object) error {
	scopes := &noted{Mapper: p.cluster.Mapper}
	out, repeated, err := render.Target(objects, p.instance(p.app.Namespace, p.app.Name), p.app.Spec.Destination.Namespace, scopes)
	if err != nil {
		return err
	}
	r.repeated, r.unsure = repeated, scopes.unknown
	r.objects = make([]desired, 0, len(out))
	for _, o := range out {
		d, err := pack(o)
		if err != nil {
			return err
		}
		r.objects = append(r.objects, d)
	}
	return nil
}

// announceSkip tells that a commit changes nothing for the application.
func (p *pass) announceSkip(commit, why string) {
	if !p.news(commit) {
		return
	}
	p.tellAt(commit, journal.Event{Stage: journal.StageRender, Status: journal.StatusSkipped, Message: why})
	p.st.announced = commit
}
