package application

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/apply"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render/manifest"
)

// compareWith plans a rendering against the live state. current says that the
// rendering is the one that the application follows: only then verdicts are
// kept and the plan is told. It returns nil while the live state is not known.
func (p *pass) compareWith(ctx context.Context, want *rendered, current bool) (*plan.Plan, error) {
	if current {
		for _, w := range want.repeated {
			p.condition(v1alpha1.ConditionRepeatedResource, w.String())
		}
		for _, w := range want.warnings {
			p.condition(v1alpha1.ConditionManifestWarning, w.String())
		}
	}
	if err := p.checkObjects(want); err != nil {
		return nil, err
	}
	instance := p.instance(p.app.Namespace, p.app.Name)
	ready, why, err := p.cluster.Live.Ensure(instance, p.kinds(want))
	if err != nil {
		p.cluster.leave(p.Now(), false, err)
		return nil, p.cluster.reach(p.Now)
	}
	if !ready {
		p.waiting = why
		return nil, nil
	}
	c := &comparison{pass: p, want: want, instance: instance, current: current}
	pl, err := c.plan(ctx)
	if err == nil && current {
		p.tellShared(want, pl)
		p.announcePlan(p.commit(), pl)
	}
	return pl, err
}

// kinds are those of the rendered objects, and those of objects that the
// application had when it was last looked at.
func (p *pass) kinds(want *rendered) []schema.GroupVersionKind {
	seen := map[schema.GroupKind]bool{}
	var out []schema.GroupVersionKind
	add := func(gvk schema.GroupVersionKind) {
		if gvk.Version != "" && !seen[gvk.GroupKind()] {
			seen[gvk.GroupKind()] = true
			out = append(out, gvk)
		}
	}
	for _, d := range want.objects {
		add(schema.GroupVersionKind{Group: d.key.Group, Version: d.version, Kind: d.key.Kind})
	}
	for _, r := range p.app.Status.Resources {
		add(schema.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind})
	}
	return out
}

// comparison is one comparison of what is to be with what is.
type comparison struct {
	*pass
	want     *rendered
	instance string
	current  bool
	in       plan.Input
	live     map[plan.Key]*observe.Object
	wanted   map[plan.Key]*desired
}

// plan compares the objects of which no verdict holds, and takes the others
// as they were found last.
func (c *comparison) plan(ctx context.Context) (*plan.Plan, error) {
	c.live, c.wanted = map[plan.Key]*observe.Object{}, map[plan.Key]*desired{}
	for _, o := range c.cluster.Live.Objects(c.instance) {
		c.live[o.Key] = o
	}
	c.in = plan.Input{
		Instance: c.instance, Manager: c.FieldManager, Ignore: c.app.Spec.IgnoreDifferences, Policy: c.set.Plan, Options: c.options,
		Live: map[plan.Key]*unstructured.Unstructured{}, Predicted: map[plan.Key]plan.Prediction{}, Accepted: map[plan.Key]*unstructured.Unstructured{},
	}
	rules := fmt.Sprintf("%p %p %v %+v", c.cluster, c.set, c.options, c.app.Spec.IgnoreDifferences)
	if c.st.rules != rules {
		c.st.rules, c.st.verdicts = rules, nil
	}
	for i := range c.want.objects {
		if err := c.add(ctx, &c.want.objects[i]); err != nil {
			return nil, err
		}
	}
	for key, o := range c.live {
		if c.wanted[key] != nil {
			continue
		}
		u, err := c.cluster.Live.Load(ctx, o)
		if err != nil {
			return nil, err
		}
		if u != nil {
			c.in.Live[key] = u
		}
	}
	if err := c.predict(ctx); err != nil {
		return nil, err
	}
	pl := plan.Make(c.in)
	if c.current {
		c.remember(pl)
	}
	return pl, nil
}

// add puts one desired object into the input, or its verdict.
func (c *comparison) add(ctx context.Context, d *desired) error {
	if d.hook {
		o, err := d.object()
		c.in.Desired = append(c.in.Desired, o)
		return err
	}
	c.wanted[d.key] = d
	if c.set.Settings.Excluded(d.key.Group, d.key.Kind, c.cluster.Server) {
		delete(c.live, d.key) // a condition says so
		return nil
	}
	live := c.live[d.key]
	if live == nil {
		live = c.cluster.Live.Lookup(d.key)
	}
	version := ""
	if live != nil {
		c.live[d.key] = live
		version = live.ResourceVersion
	}
	if v, ok := c.st.verdicts[d.key]; ok && c.current && v.want == d.digest && v.live == version && live != nil && !live.Deleting {
		c.in.Unchanged = append(c.in.Unchanged, v.change)
		return nil
	}
	o, err := d.object()
	if err != nil {
		return err
	}
	c.in.Desired = append(c.in.Desired, o)
	if live == nil {
		return c.knownKind(o)
	}
	u, err := c.cluster.Live.Get(ctx, o.Unstructured)
	if err != nil {
		return err
	}
	if u != nil {
		c.in.Live[d.key] = u
	}
	if a, ok := c.st.accepted[d.key]; ok && a.want == d.digest {
		c.in.Accepted[d.key] = a.object
	}
	return nil
}

// knownKind notes when the cluster does not have the kind of a new object, so
// that the sync fails before it writes anything.
func (c *comparison) knownKind(o manifest.Object) error {
	_, known, err := c.cluster.Mapper.Resource(o.GroupVersionKind())
	if err != nil || known {
		return err
	}
	err = fmt.Errorf("%w: %s", apply.ErrUnknownKind, o.GroupVersionKind())
	if err = c.tolerate(err, o.Unstructured, c.made()); err != nil {
		c.in.Predicted[plan.KeyOf(o.Unstructured)] = plan.Prediction{Err: err}
	}
	return nil
}

// made is what the rendered objects bring to the cluster.
func (c *comparison) made() promised {
	var objects []manifest.Object
	for _, d := range c.want.objects {
		if d.key.Kind != "Namespace" && d.key.Kind != "CustomResourceDefinition" {
			continue
		}
		if o, err := d.object(); err == nil {
			objects = append(objects, o)
		}
	}
	return kindsMade(objects)
}

// remember keeps the verdicts of objects that are as desired.
func (c *comparison) remember(pl *plan.Plan) {
	verdicts := make(map[plan.Key]verdict, len(pl.Changes))
	for i, ch := range pl.Changes {
		d, live := c.wanted[ch.Key], c.live[ch.Key]
		if ch.Action != plan.None || d == nil || live == nil || ch.SharedWith != "" {
			continue
		}
		ch.Desired, ch.Live, ch.Predicted = nil, nil, nil
		pl.Changes[i] = ch
		verdicts[ch.Key] = verdict{d.digest, live.ResourceVersion, ch}
	}
	c.st.verdicts = verdicts
	for key, a := range c.st.accepted {
		if d := c.wanted[key]; d == nil || d.digest != a.want {
			delete(c.st.accepted, key)
		}
	}
}

// predict asks the API server about objects that look different or are new,
// where the answer matters: a sync that follows would ask again. It follows
// unless nobody syncs by itself, or this commit was applied and something
// looks different all the same.
func (c *comparison) predict(ctx context.Context) error {
	applied := c.st.last.phase == v1alpha1.PhaseSucceeded && c.st.last.commit == c.revision()
	if !c.exact && (!c.current || automated(&c.app) && !applied) {
		return nil
	}
	ask := map[plan.Key]bool{}
	for _, k := range plan.Suspects(c.in) {
		ask[k] = c.in.Accepted[k] == nil
	}
	var mu sync.Mutex
	kept := map[plan.Key]predicted{}
	var g errgroup.Group
	made := c.made()
	for _, o := range c.in.Desired {
		key := plan.KeyOf(o.Unstructured)
		d := c.wanted[key]
		if d == nil || c.in.Live[key] != nil && !ask[key] || c.in.Live[key] == nil && automated(&c.app) {
			continue
		}
		version := ""
		if live := c.in.Live[key]; live != nil {
			version = live.GetResourceVersion()
		}
		g.Go(func() error {
			mu.Lock()
			got, ok := c.st.predictions[key]
			mu.Unlock()
			if !ok || got.want != d.digest || got.live != version || got.Err != nil {
				object, err := c.cluster.Writer.Predict(ctx, plan.Normalize(o.Unstructured), c.objectOptions(o.Unstructured))
				got = predicted{d.digest, version, plan.Prediction{Object: object, Err: c.tolerate(err, o.Unstructured, made)}}
			}
			mu.Lock()
			defer mu.Unlock()
			kept[key] = got
			c.in.Predicted[key] = got.Prediction
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if c.current {
		c.st.predictions = kept
	}
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
