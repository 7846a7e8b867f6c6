package application

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/apply"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// planAt renders the source at a commit and plans it against the live state.
// current says that the commit is the one that the application follows: only
// then the render is kept and told.
func (p *pass) planAt(ctx context.Context, commit string, current bool) (*plan.Plan, error) {
	res, err := p.render(ctx, commit, current)
	if err != nil {
		return nil, err
	}
	instance := p.instance(p.app.Namespace, p.app.Name)
	objects, warnings, err := render.Target(res.Objects, instance, p.app.Spec.Destination.Namespace, p.Mapper)
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		p.condition(v1alpha1.ConditionRepeatedResource, w.String())
	}
	for _, w := range res.Warnings {
		p.condition(v1alpha1.ConditionManifestWarning, w.String())
	}
	if err := p.checkObjects(objects); err != nil {
		return nil, err
	}
	in, err := p.input(ctx, instance, objects)
	if err != nil {
		return nil, err
	}
	pl := plan.Make(in)
	if current {
		p.announcePlan(ctx, commit, pl)
	}
	return pl, nil
}

// render produces the objects of a commit, from the last render where its
// inputs are the same.
func (p *pass) render(ctx context.Context, commit string, current bool) (render.Result, error) {
	st := p.st
	have := st.rendered
	st.mu.Lock()
	hard := st.hard
	if current {
		st.hard = false
	}
	st.mu.Unlock()
	if have != nil && have.params == st.params && !hard {
		if have.commit == commit {
			return have.result, have.err
		}
		same, err := have.result.Inputs.Same(ctx, st.repo, commit)
		if err != nil {
			return render.Result{}, err
		}
		if same && current {
			p.announceSkip(ctx, commit, "no input of the application changed")
			st.move(commit)
		}
		if same {
			return have.result, have.err
		}
	}
	now := p.fresh(ctx, commit, current)
	if ctx.Err() != nil {
		return render.Result{}, context.Cause(ctx)
	}
	if current {
		st.mu.Lock()
		st.rendered = now
		st.mu.Unlock()
		p.index(st.name).Set(p.key, now.result.Inputs)
	}
	return now.result, now.err
}

func (p *pass) fresh(ctx context.Context, commit string, current bool) *rendered {
	if current {
		p.announceRenderStart(ctx, commit)
	}
	start := p.Now()
	p.st.serial++
	now := &rendered{commit: commit, params: p.st.params, serial: p.st.serial}
	now.result, now.err = p.Renderer.Render(ctx, source.NewTree(p.st.repo, commit), render.Request{
		App: p.app.Name, Namespace: p.app.Spec.Destination.Namespace, Project: p.app.Spec.Project, Source: *sourceOf(&p.app),
	})
	now.took = p.Now().Sub(start)
	if current && ctx.Err() == nil {
		p.announceRender(ctx, now)
	}
	return now
}

// input gathers the live side of a plan.
func (p *pass) input(ctx context.Context, instance string, objects []manifest.Object) (plan.Input, error) {
	in := plan.Input{
		Instance: instance, Manager: p.FieldManager, Desired: objects,
		Ignore: p.app.Spec.IgnoreDifferences, Options: p.options, Predicted: map[plan.Key]plan.Prediction{},
	}
	wait, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := p.live.Ensure(wait, p.life, p.kinds(objects)); err != nil {
		return in, err
	}
	in.Live = p.live.Tracked(instance)
	for _, o := range objects {
		key := plan.KeyOf(o.Unstructured)
		if in.Live[key] != nil || o.GetName() == "" {
			continue
		}
		live, err := p.live.Get(ctx, o.Unstructured)
		if err != nil {
			return in, err
		}
		if live != nil {
			in.Live[key] = live
		}
	}
	return in, p.predict(ctx, in)
}

// kinds are those of the rendered objects, and those of objects that the
// application had when it was last looked at.
func (p *pass) kinds(objects []manifest.Object) []schema.GroupVersionKind {
	seen := map[schema.GroupVersionKind]bool{}
	var out []schema.GroupVersionKind
	add := func(gvk schema.GroupVersionKind) {
		if !seen[gvk] {
			seen[gvk] = true
			out = append(out, gvk)
		}
	}
	groups := map[schema.GroupKind]bool{}
	for _, o := range objects {
		add(o.GroupVersionKind())
		groups[o.GroupVersionKind().GroupKind()] = true
	}
	for _, r := range p.app.Status.Resources {
		gvk := schema.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind}
		if !groups[gvk.GroupKind()] && gvk.Version != "" {
			add(gvk)
		}
	}
	return out
}

// predict asks the API server about the objects that look different or are
// new. Answers are kept while both sides stay the same.
func (p *pass) predict(ctx context.Context, in plan.Input) error {
	ask := map[plan.Key]bool{}
	for _, k := range plan.Suspects(in) {
		ask[k] = true
	}
	var mu sync.Mutex
	kept := map[plan.Key]predicted{}
	var g errgroup.Group
	made := kindsMade(in.Desired)
	for _, o := range in.Desired {
		key := plan.KeyOf(o.Unstructured)
		_, hook := o.GetAnnotations()[v1alpha1.AnnotationHook]
		live := in.Live[key]
		if hook || live != nil && !ask[key] {
			continue
		}
		g.Go(func() error {
			of := fingerprint(o.Unstructured, live)
			got, ok := p.st.predictions[key]
			if !ok || got.of != of || got.Err != nil {
				desired := plan.Normalize(o.Unstructured)
				object, err := p.Writer.Predict(ctx, desired, p.objectOptions(o.Unstructured))
				got = predicted{of, plan.Prediction{Object: object, Err: p.tolerate(err, o.Unstructured, made)}}
			}
			mu.Lock()
			defer mu.Unlock()
			kept[key] = got
			in.Predicted[key] = got.Prediction
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p.st.predictions = kept
	return nil
}

func (p *pass) objectOptions(o *unstructured.Unstructured) plan.ObjectOptions {
	return plan.OptionsOf(o, p.options)
}

type promised struct {
	kinds      map[schema.GroupKind]bool
	namespaces map[string]bool
}

// kindsMade are the kinds and namespaces that the objects themselves bring.
func kindsMade(objects []manifest.Object) promised {
	out := promised{map[schema.GroupKind]bool{}, map[string]bool{}}
	for _, o := range objects {
		switch o.GetKind() {
		case "Namespace":
			out.namespaces[o.GetName()] = true
		case "CustomResourceDefinition":
			group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
			kind, _, _ := unstructured.NestedString(o.Object, "spec", "names", "kind")
			out.kinds[schema.GroupKind{Group: group, Kind: kind}] = true
		}
	}
	return out
}

// tolerate drops refusals that the sync itself will remove.
func (p *pass) tolerate(err error, o *unstructured.Unstructured, made promised) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, apply.ErrUnknownKind):
		if made.kinds[o.GroupVersionKind().GroupKind()] || p.objectOptions(o).SkipMissingDryRun {
			return nil
		}
		return fmt.Errorf("%w; install its CustomResourceDefinition, or set SkipDryRunOnMissingResource=true", err)
	case apierrors.IsNotFound(err) && missingNamespace(err, o):
		if made.namespaces[o.GetNamespace()] || p.options.CreateNamespace && o.GetNamespace() == p.app.Spec.Destination.Namespace {
			return nil
		}
		return fmt.Errorf("namespace %s does not exist; add syncOptions: [CreateNamespace=true], or the Namespace to the source", o.GetNamespace())
	}
	return err
}

func missingNamespace(err error, o *unstructured.Unstructured) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	d := status.Status().Details
	return d.Kind == "namespaces" && d.Name == o.GetNamespace()
}

// fingerprint names what a prediction depends on: both sides without what
// changes by itself.
func fingerprint(desired, live *unstructured.Unstructured) string {
	h := sha256.New()
	enc := json.NewEncoder(h)
	for _, o := range []*unstructured.Unstructured{desired, live} {
		if o == nil {
			continue
		}
		flat := plan.Normalize(o)
		if err := enc.Encode(flat.Object); err != nil {
			return ""
		}
		for _, e := range o.GetManagedFields() {
			if e.Subresource == "" && e.FieldsV1 != nil {
				h.Write([]byte(e.Manager))
				h.Write(e.FieldsV1.GetRawBytes())
			}
		}
		h.Write([]byte(o.GetUID()))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
