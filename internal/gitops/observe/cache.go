// Package observe keeps the live state of the objects that applications hold,
// and says how well they work.
//
// Input: watches of only the kinds that applications use, and of the kinds
// that those own (ReplicaSet, Pod, Job) with the warnings about pods. Output:
// objects by application, by owner and by key; health with the reason; a call
// for each application whose objects changed.
//
// Invariants: of objects that no application tracks only the metadata is
// kept; what this process has written is seen at once, before the watch
// brings it ([Cache.Wrote]); nothing is polled.
//
// Start reading at [Cache].
package observe

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render"
)

// The kinds that are watched besides those of the sources.
var (
	podKind        = schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	replicaSetKind = schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "ReplicaSet"}
	jobKind        = schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: "Job"}
	eventResource  = schema.GroupVersionResource{Version: "v1", Resource: "events"}
)

const (
	byInstance = "instance"
	byOwner    = "owner"
	overlayTTL = 30 * time.Second
	stripMark  = "lockstep.dev/only-metadata" // a top-level field that no object has
)

// Deps is what a cache works with.
type Deps struct {
	Log     *slog.Logger
	Client  dynamic.Interface
	Mapper  *Mapper
	Now     func() time.Time
	Changed func(instance string) // an object of the application changed; must not block
}

// Cache is the live state. It is safe for concurrent use.
type Cache struct {
	Deps
	mu      sync.Mutex
	watches map[schema.GroupVersionResource]*watch
	overlay map[plan.Key]written
	events  map[string]podEvent // pod "namespace/name" → last warning
	started bool                // the watch of events
	wg      sync.WaitGroup
}

type watch struct {
	resource Resource
	informer cache.SharedIndexInformer
	cancel   context.CancelFunc
}

type written struct {
	object  *unstructured.Unstructured
	deleted bool // object is the one whose deletion was asked for
	at      time.Time
}

// passedBy reports whether what the watch has is younger than what was written.
func (w written) passedBy(seen *unstructured.Unstructured) bool {
	if w.deleted {
		return seen.GetResourceVersion() != w.object.GetResourceVersion()
	}
	return newer(seen, w.object)
}

// New returns a cache that watches nothing yet.
func New(d Deps) *Cache {
	return &Cache{Deps: d, watches: map[schema.GroupVersionResource]*watch{}, overlay: map[plan.Key]written{}, events: map[string]podEvent{}}
}

// Ensure watches the kinds and those that they own, until life ends, and waits
// until their first listing is here. Kinds that the cluster does not have are
// returned.
func (c *Cache) Ensure(ctx, life context.Context, kinds []schema.GroupVersionKind) (missing []schema.GroupVersionKind, err error) {
	var wait []cache.InformerSynced
	for _, gvk := range withOwned(kinds) {
		r, known, err := c.Mapper.Resource(gvk)
		if err != nil {
			return nil, err
		}
		if !known {
			missing = append(missing, gvk)
			continue
		}
		w, err := c.watch(life, r)
		if err != nil {
			return nil, err
		}
		wait = append(wait, w.informer.HasSynced)
	}
	if !cache.WaitForCacheSync(ctx.Done(), wait...) {
		return nil, fmt.Errorf("wait for the first listing of live objects: %w", context.Cause(ctx))
	}
	return missing, nil
}

func withOwned(kinds []schema.GroupVersionKind) []schema.GroupVersionKind {
	out := append([]schema.GroupVersionKind{}, kinds...)
	for _, k := range kinds {
		switch k.Kind {
		case "Deployment":
			out = append(out, replicaSetKind, podKind)
		case "StatefulSet", "DaemonSet", "ReplicaSet", "Job":
			out = append(out, podKind)
		case "CronJob":
			out = append(out, jobKind, podKind)
		}
	}
	return out
}

func (c *Cache) watch(life context.Context, r Resource) (*watch, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w, ok := c.watches[r.GroupVersionResource]; ok {
		return w, nil
	}
	informer := dynamicinformer.NewFilteredDynamicInformer(c.Client, r.GroupVersionResource, metav1.NamespaceAll, 0, cache.Indexers{
		byInstance: func(obj any) ([]string, error) {
			if instance, ok := render.Tracked(obj.(*unstructured.Unstructured)); ok {
				return []string{instance}, nil
			}
			return nil, nil
		},
		byOwner: func(obj any) (uids []string, _ error) {
			for _, ref := range obj.(*unstructured.Unstructured).GetOwnerReferences() {
				uids = append(uids, string(ref.UID))
			}
			return uids, nil
		},
	}, nil).Informer()
	if err := informer.SetTransform(strip); err != nil {
		return nil, fmt.Errorf("watch %s: %w", r.Kind.Kind, err)
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { c.changed(nil, obj) },
		UpdateFunc: func(old, obj any) { c.changed(old, obj) },
		DeleteFunc: func(obj any) { c.changed(obj, nil) },
	}); err != nil {
		return nil, fmt.Errorf("watch %s: %w", r.Kind.Kind, err)
	}
	ctx, cancel := context.WithCancel(life)
	w := &watch{resource: r, informer: informer, cancel: cancel}
	c.watches[r.GroupVersionResource] = w
	c.wg.Go(func() { informer.RunWithContext(ctx) })
	if r.Kind == podKind && !c.started {
		c.started = true
		if err := c.watchEvents(life); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Wait returns when every watch has ended, after the life given to Ensure.
func (c *Cache) Wait() { c.wg.Wait() }

// strip keeps of an object only what is needed.
func strip(obj any) (any, error) {
	o, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return obj, nil
	}
	if _, tracked := render.Tracked(o); tracked {
		return o, nil
	}
	o.SetManagedFields(nil)
	switch o.GroupVersionKind() {
	case podKind, replicaSetKind, jobKind:
		delete(o.Object, "spec")
		return o, nil
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": o.GetAPIVersion(), "kind": o.GetKind(), "metadata": o.Object["metadata"], stripMark: true,
	}}, nil
}

func (c *Cache) changed(old, obj any) {
	if gone, ok := old.(cache.DeletedFinalStateUnknown); ok {
		old = gone.Obj
	}
	before, _ := old.(*unstructured.Unstructured)
	after, _ := obj.(*unstructured.Unstructured)
	c.settle(before, after)
	if after == nil && before != nil && before.GetKind() == "Pod" {
		c.mu.Lock()
		delete(c.events, before.GetNamespace()+"/"+before.GetName())
		c.mu.Unlock()
	}
	told := map[string]bool{}
	for _, o := range []*unstructured.Unstructured{before, after} {
		if o == nil {
			continue
		}
		if instance, ok := c.instanceOf(o, 0); ok && !told[instance] {
			told[instance] = true
			c.Changed(instance)
		}
	}
}

// settle drops what was written here once the watch has caught up.
func (c *Cache) settle(before, after *unstructured.Unstructured) {
	o := after
	if o == nil {
		o = before
	}
	if o == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := plan.KeyOf(o)
	w, ok := c.overlay[key]
	if !ok {
		return
	}
	// The end of a predecessor of the same name says nothing of what was
	// written in its place.
	ended := after == nil && before.GetUID() == w.object.GetUID()
	if ended || after != nil && w.passedBy(after) {
		delete(c.overlay, key)
	}
}

// newer reports whether a is b or later.
func newer(a, b *unstructured.Unstructured) bool {
	x, xerr := strconv.ParseUint(a.GetResourceVersion(), 10, 64)
	y, yerr := strconv.ParseUint(b.GetResourceVersion(), 10, 64)
	return xerr != nil || yerr != nil || x >= y
}

// instanceOf finds the application of an object, by its tracking annotation
// or that of an owner.
func (c *Cache) instanceOf(o *unstructured.Unstructured, depth int) (string, bool) {
	if instance, ok := render.Tracked(o); ok {
		return instance, true
	}
	if depth > 4 {
		return "", false
	}
	for _, ref := range o.GetOwnerReferences() {
		gv, err := schema.ParseGroupVersion(ref.APIVersion)
		if err != nil {
			continue
		}
		owner := c.cached(gv.WithKind(ref.Kind), o.GetNamespace(), ref.Name)
		if owner == nil {
			continue
		}
		if instance, ok := c.instanceOf(owner, depth+1); ok {
			return instance, true
		}
	}
	return "", false
}

func (c *Cache) cached(gvk schema.GroupVersionKind, namespace, name string) *unstructured.Unstructured {
	for _, w := range c.all() {
		if w.resource.Kind != gvk {
			continue
		}
		key := name
		if w.resource.Namespaced {
			key = namespace + "/" + name
		}
		if obj, ok, err := w.informer.GetStore().GetByKey(key); ok && err == nil {
			return obj.(*unstructured.Unstructured)
		}
	}
	return nil
}

func (c *Cache) all() []*watch {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]*watch, 0, len(c.watches))
	for _, w := range c.watches {
		out = append(out, w)
	}
	return out
}

// Wrote tells the cache what a write of this process gave, so that it is seen
// before the watch brings it.
func (c *Cache) Wrote(o *unstructured.Unstructured) { c.note(o, false) }

// Deleted tells the cache that this process asked for the deletion of a live
// object. Until the watch brings what became of it, it is shown as being
// deleted.
func (c *Cache) Deleted(live *unstructured.Unstructured) {
	o := live.DeepCopy()
	if o.GetDeletionTimestamp() == nil {
		now := metav1.NewTime(c.Now())
		o.SetDeletionTimestamp(&now)
	}
	c.note(o, true)
}

func (c *Cache) note(o *unstructured.Unstructured, deleted bool) {
	key := plan.KeyOf(o)
	seen := c.cached(o.GroupVersionKind(), o.GetNamespace(), o.GetName())
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.Now()
	for k, w := range c.overlay { // few at a time: they leave as watches catch up
		if now.Sub(w.at) > overlayTTL {
			delete(c.overlay, k)
		}
	}
	w := written{o, deleted, now}
	if seen != nil && w.passedBy(seen) || seen == nil && deleted {
		delete(c.overlay, key)
		return
	}
	c.overlay[key] = w
}

func (c *Cache) over(key plan.Key, seen *unstructured.Unstructured) *unstructured.Unstructured {
	c.mu.Lock()
	defer c.mu.Unlock()
	w, ok := c.overlay[key]
	if !ok || c.Now().Sub(w.at) > overlayTTL {
		return seen
	}
	if seen != nil && w.passedBy(seen) {
		return seen
	}
	return w.object
}

// Get returns the live object of a desired one, or nil. An object that no
// application tracks is fetched whole, because the cache keeps less.
func (c *Cache) Get(ctx context.Context, desired *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	gvk := desired.GroupVersionKind()
	o := c.over(plan.KeyOf(desired), c.cached(gvk, desired.GetNamespace(), desired.GetName()))
	if o == nil || o.Object[stripMark] == nil && o.GroupVersionKind() != podKind && o.GroupVersionKind() != replicaSetKind && o.GroupVersionKind() != jobKind {
		return o, nil
	}
	if _, tracked := render.Tracked(o); tracked {
		return o, nil
	}
	r, known, err := c.Mapper.Resource(gvk)
	if err != nil || !known {
		return nil, err
	}
	full, err := client(c.Client, r, o.GetNamespace()).Get(ctx, o.GetName(), metav1.GetOptions{})
	if err != nil {
		return nil, ignoreGone(fmt.Errorf("read %s: %w", plan.KeyOf(o), err), err)
	}
	return full, nil
}

// Tracked returns the objects whose annotation names the instance.
func (c *Cache) Tracked(instance string) map[plan.Key]*unstructured.Unstructured {
	out := map[plan.Key]*unstructured.Unstructured{}
	for _, w := range c.all() {
		objs, err := w.informer.GetIndexer().ByIndex(byInstance, instance)
		if err != nil {
			c.Log.Error("index of live objects", "kind", w.resource.Kind.Kind, "error", err)
			continue
		}
		for _, obj := range objs {
			o := obj.(*unstructured.Unstructured)
			key := plan.KeyOf(o)
			out[key] = c.over(key, o)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, w := range c.overlay {
		if _, has := out[key]; has {
			continue
		}
		if is, ok := render.Tracked(w.object); ok && is == instance && c.Now().Sub(w.at) <= overlayTTL {
			out[key] = w.object
		}
	}
	return out
}

// Children returns the objects that name o as an owner, in any watched kind.
func (c *Cache) Children(o *unstructured.Unstructured) []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	for _, w := range c.all() {
		objs, err := w.informer.GetIndexer().ByIndex(byOwner, string(o.GetUID()))
		if err != nil {
			continue
		}
		for _, obj := range objs {
			out = append(out, obj.(*unstructured.Unstructured))
		}
	}
	return out
}
