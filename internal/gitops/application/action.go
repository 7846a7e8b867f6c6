package application

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/internal/gitops/observe"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe/action"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// ObjectActions are what one live object offers.
type ObjectActions struct {
	plan.Key
	Actions []action.Action
}

// Actions returns what the live objects of an Application offer that fit a
// pattern. Of the pattern, fields that are "" fit everything. Objects that
// offer nothing are left out.
func (c *Controller) Actions(ctx context.Context, namespace, name string, pattern plan.Key) ([]ObjectActions, error) {
	p, err := c.reach(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	known, _ := action.New(p.set.Settings, c.Now) // warnings are told when the settings are read
	var out []ObjectActions
	for _, o := range p.live(pattern) {
		u, err := p.cluster.Live.Load(ctx, o)
		if err != nil {
			return nil, err
		}
		if u == nil {
			continue
		}
		list, err := known.List(u)
		if err != nil {
			return nil, &Refusal{Message: err.Error(), Hint: "see resource.customizations in the settings"}
		}
		if len(list) > 0 {
			out = append(out, ObjectActions{o.Key, list})
		}
	}
	return out, nil
}

// reach finds the cluster and the rules of an application, for what follows
// outside of a pass.
func (c *Controller) reach(ctx context.Context, namespace, name string) (*pass, error) {
	var out *pass
	err := c.inspect(ctx, namespace, name, func(p *pass) error {
		out = p
		return p.checkSpec()
	})
	return out, err
}

// live returns the live objects of the application that fit a pattern, with
// those that they own.
func (p *pass) live(pattern plan.Key) []*observe.Object {
	var out []*observe.Object
	seen := map[plan.Key]bool{}
	var walk func(o *observe.Object, depth int)
	walk = func(o *observe.Object, depth int) {
		if seen[o.Key] {
			return
		}
		seen[o.Key] = true
		if fits(pattern, o.Key) {
			out = append(out, o)
		}
		if depth < maxDepth {
			for _, child := range p.cluster.Live.Children(o.UID) {
				walk(child, depth+1)
			}
		}
	}
	for _, o := range p.cluster.Live.Objects(p.instance(p.app.Namespace, p.app.Name)) {
		walk(o, 0)
	}
	slices.SortFunc(out, func(a, b *observe.Object) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	return out
}

func fits(pattern, k plan.Key) bool {
	same := func(want, have string) bool { return want == "" || strings.EqualFold(want, have) }
	return same(pattern.Group, k.Group) && same(pattern.Kind, k.Kind) && same(pattern.Namespace, k.Namespace) && same(pattern.Name, k.Name)
}

// one finds the one live object that a pattern means, whole.
func (p *pass) one(ctx context.Context, pattern plan.Key) (*unstructured.Unstructured, error) {
	found := p.live(pattern)
	switch {
	case pattern.Kind == "" || pattern.Name == "":
		return nil, refuse("such as Deployment/web", "name the kind and the name of the object")
	case len(found) == 0:
		return nil, refuse("see `lockstep app resources`", "%s has no live object %s", p.key, pattern)
	case len(found) > 1:
		return nil, refuse("name the group or the namespace as well", "%s means %s and %s", pattern, found[0].Key, found[1].Key)
	}
	o := found[0]
	u, err := p.cluster.Live.Load(ctx, o)
	if err == nil && u == nil {
		err = refuse("", "%s is gone", o.Key)
	}
	if err != nil {
		return nil, err
	}
	return u, p.mayWrite(u)
}

// mayWrite holds an object against the project and the cluster.
func (p *pass) mayWrite(o *unstructured.Unstructured) error {
	if v := p.rules.CheckObject(o.GroupVersionKind(), o.GetNamespace(), o.GetName(), p.cluster.project()); v != nil {
		return refuse(v.Hint, "%v", v)
	}
	if p.cluster.Permits != nil && !p.cluster.Permits(o.GetNamespace()) {
		return refuse("", "%s is outside the namespaces that cluster %s is registered with", plan.KeyOf(o), p.cluster.title())
	}
	return nil
}

// RunAction runs an action of the one live object that a pattern means.
func (c *Controller) RunAction(ctx context.Context, namespace, name string, pattern plan.Key, act string, params map[string]string) error {
	p, err := c.reach(ctx, namespace, name)
	if err != nil {
		return err
	}
	writer, err := p.writer()
	if err != nil {
		return err
	}
	live, err := p.one(ctx, pattern)
	if err != nil {
		return err
	}
	known, _ := action.New(p.set.Settings, c.Now)
	for attempt := 1; ; attempt++ {
		if live, err = writer.Get(ctx, live); err != nil {
			return err
		}
		if live == nil {
			return refuse("", "%s is gone", pattern)
		}
		changes, err := known.Run(live, act, params)
		if err != nil {
			return &Refusal{Message: err.Error(), Hint: "see `lockstep app actions`"}
		}
		err = p.change(ctx, live, changes)
		if attempt < maxAttempts && apierrors.IsConflict(err) {
			continue // somebody wrote it meanwhile
		}
		if err != nil {
			return fmt.Errorf("run %s: %w", act, err)
		}
		return nil
	}
}

const maxAttempts = 3

// change writes what an action asks for.
func (p *pass) change(ctx context.Context, live *unstructured.Unstructured, changes []action.Change) error {
	writer, err := p.writer()
	if err != nil {
		return err
	}
	for _, ch := range changes {
		if err := p.mayWrite(ch.Object); err != nil {
			return err
		}
	}
	from := live
	for _, ch := range changes {
		var got *unstructured.Unstructured
		switch ch.Operation {
		case action.Create:
			got, err = writer.Create(ctx, ch.Object)
		case action.Patch:
			if got, err = writer.Merge(ctx, from, ch.Object, ch.Subresource); err == nil {
				from = from.DeepCopy()
				from.SetResourceVersion(got.GetResourceVersion())
			}
		default:
			err = errors.New("an action asked for " + string(ch.Operation))
		}
		if err != nil {
			return err
		}
		p.cluster.Live.Wrote(got)
	}
	return nil
}

// DeleteResource deletes the one live object that a pattern means. Its
// propagation is "foreground", "background" or "orphan"; "" is foreground.
func (c *Controller) DeleteResource(ctx context.Context, namespace, name string, pattern plan.Key, propagation string) error {
	if !slices.Contains([]string{"", "foreground", "background", "orphan"}, propagation) {
		return refuse("foreground, background or orphan", "there is no propagation %q", propagation)
	}
	p, err := c.reach(ctx, namespace, name)
	if err != nil {
		return err
	}
	writer, err := p.writer()
	if err != nil {
		return err
	}
	live, err := p.one(ctx, pattern)
	if err != nil {
		return err
	}
	return writer.Delete(ctx, live, propagation)
}
