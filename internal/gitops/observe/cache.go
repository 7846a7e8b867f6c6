// Package observe keeps the live state of the objects that applications hold,
// and says how well they work.
//
// Input: watches of only the kinds that applications use, and of the kinds
// that those own (ReplicaSet, Pod, Job) with the warnings about pods. Output:
// objects by application, by owner and by key; health with the reason; a call
// for each application whose objects changed.
//
// Invariants: an [Object] is kept compressed, and of objects that no
// application tracks only what lists need; what this process has written is
// seen at once ([Cache.Wrote]), and its echo in the watch is no change;
// nothing is polled; no caller waits for a listing ([Cache.Ensure]).
//
// Start reading at [Cache].
package observe

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/lockstep-gitops/lockstep/internal/gitops/observe/health"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// The kinds that are watched besides those of the sources.
var (
	podKind        = schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	replicaSetKind = schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "ReplicaSet"}
	jobKind        = schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: "Job"}
	eventResource  = schema.GroupVersionResource{Version: "v1", Resource: "events"}
)

// Deps is what a cache works with.
type Deps struct {
	Log     *slog.Logger
	Client  dynamic.Interface
	Mapper  *Mapper
	Now     func() time.Time
	Changed func(instance string)                                  // an object of the application changed; must not block
	Assess  func(*unstructured.Unstructured) (health.Status, bool) // nil for health.Of
	Life    context.Context                                        // watches end with it
	// Namespaces are those that are watched; none means all. Cluster says that
	// cluster-scoped objects are watched although Namespaces are named.
	Namespaces []string
	Cluster    bool
}

// Cache is the live state of one cluster. It is safe for concurrent use.
type Cache struct {
	Deps
	strings sync.Map
	wg      sync.WaitGroup

	mu         sync.RWMutex
	kinds      map[schema.GroupKind]*kind
	byInstance map[string]map[plan.Key]*Object
	byOwner    map[types.UID][]*Object
	loose      map[string]map[plan.Key]*Object // by namespace: neither tracked nor owned
	events     map[string]podEvent             // pod "namespace/name" → last warning
	started    bool                            // the watch of events
}

// New returns a cache that watches nothing yet.
func New(d Deps) *Cache {
	return &Cache{
		Deps: d, kinds: map[schema.GroupKind]*kind{}, byInstance: map[string]map[plan.Key]*Object{},
		byOwner: map[types.UID][]*Object{}, loose: map[string]map[plan.Key]*Object{}, events: map[string]podEvent{},
	}
}

func (c *Cache) assess(o *unstructured.Unstructured) (health.Status, bool) {
	if c.Assess != nil {
		return c.Assess(o)
	}
	return health.Of(o)
}

// Ensure watches the kinds and those that they own. Until every first listing
// is here, ready is false, and instance is told of as changed when it is; why
// says what is missing, with the last error. Kinds that the cluster does not
// have are left out.
func (c *Cache) Ensure(instance string, kinds []schema.GroupVersionKind) (ready bool, why string, err error) {
	ready = true
	for _, gvk := range withOwned(kinds) {
		c.mu.RLock()
		k := c.kinds[gvk.GroupKind()]
		c.mu.RUnlock()
		if k == nil {
			r, known, err := c.Mapper.Resource(gvk)
			if err != nil {
				return false, "", err
			}
			if !known {
				continue
			}
			k = c.watch(r)
		}
		if listed, last := k.wait(instance); !listed {
			ready = false
			why = "the first listing of " + gvk.Kind
			if last != nil {
				why += ": " + last.Error()
			}
		}
	}
	return ready, why, nil
}

func withOwned(kinds []schema.GroupVersionKind) []schema.GroupVersionKind {
	out := append(make([]schema.GroupVersionKind, 0, len(kinds)+2), kinds...)
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

// Wait returns when every watch has ended, after Life.
func (c *Cache) Wait() { c.wg.Wait() }

// put stores an object unless a younger one is there. It returns who is to be
// told.
func (c *Cache) put(k *kind, o *Object) (told []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.store(k, o)
}

// store is put while c.mu is held.
func (c *Cache) store(k *kind, o *Object) (told []string) {
	name := o.Key.Namespace + "/" + o.Key.Name
	old := k.objects[name]
	if old != nil && old.UID == o.UID && !newerThan(o.ResourceVersion, old.ResourceVersion) {
		return nil
	}
	if old != nil && old.UID != o.UID && !newerThan(o.ResourceVersion, old.ResourceVersion) {
		return nil // late news of a predecessor
	}
	if old != nil {
		c.unlink(old)
	}
	k.objects[name] = o
	c.link(o)
	return c.concerned(old, o)
}

// drop removes an object, if it is the one that the caller means.
func (c *Cache) drop(k *kind, namespace, name string, uid types.UID) (told []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := k.objects[namespace+"/"+name]
	if old == nil || uid != "" && old.UID != uid {
		return nil
	}
	told = c.concerned(old, nil)
	delete(k.objects, namespace+"/"+name)
	c.unlink(old)
	if old.Key.Kind == "Pod" {
		delete(c.events, namespace+"/"+name)
	}
	return told
}

func (c *Cache) tell(instances []string) {
	for _, i := range instances {
		c.Changed(i)
	}
}

// Wrote tells the cache what a write of this process gave, so that it is seen
// before the watch brings it.
func (c *Cache) Wrote(u *unstructured.Unstructured) {
	c.mu.RLock()
	k := c.kinds[u.GroupVersionKind().GroupKind()]
	c.mu.RUnlock()
	if k == nil {
		return
	}
	o, err := c.compact(u)
	if err != nil {
		c.Log.Error("keep a written object", "error", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.objects[o.Key.Namespace+"/"+o.Key.Name] == nil && k.passed(o) {
		return // deleted meanwhile, and the watch was quicker than the answer
	}
	c.store(k, o)
}

// Deleted tells the cache that this process asked for the deletion of a live
// object. Until the watch brings what became of it, it is shown as being
// deleted.
func (c *Cache) Deleted(live *unstructured.Unstructured) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.kinds[live.GroupVersionKind().GroupKind()]
	if k == nil {
		return
	}
	old := k.objects[live.GetNamespace()+"/"+live.GetName()]
	if old == nil || old.UID != live.GetUID() || old.Deleting {
		return
	}
	going := *old
	going.Deleting = true
	c.unlink(old)
	k.objects[live.GetNamespace()+"/"+live.GetName()] = &going
	c.link(&going)
}

// Lookup returns what the cache has of an object, or nil.
func (c *Cache) Lookup(key plan.Key) *Object {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if k := c.kinds[schema.GroupKind{Group: key.Group, Kind: key.Kind}]; k != nil {
		return k.objects[key.Namespace+"/"+key.Name]
	}
	return nil
}

// Objects returns the objects whose annotation names the instance.
func (c *Cache) Objects(instance string) []*Object {
	c.mu.RLock()
	defer c.mu.RUnlock()
	m := c.byInstance[instance]
	out := make([]*Object, 0, len(m))
	for _, o := range m {
		out = append(out, o)
	}
	return out
}

// Loose returns the objects of a namespace that no application tracks and no
// object owns, in the watched kinds, sorted.
func (c *Cache) Loose(namespace string) []*Object {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []*Object
	for _, o := range c.loose[namespace] {
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b *Object) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	return out
}

// Children returns the objects that name an owner, in any watched kind.
func (c *Cache) Children(owner types.UID) []*Object {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return append([]*Object(nil), c.byOwner[owner]...)
}

// Get returns the live object of a desired one, or nil. An object of which the
// cache keeps less is fetched whole.
func (c *Cache) Get(ctx context.Context, desired *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	o := c.Lookup(plan.KeyOf(desired))
	if o == nil {
		return nil, nil
	}
	if gvk := desired.GroupVersionKind(); gvk.Version != o.Version {
		return c.fetch(ctx, o.Key, gvk) // watched in another version
	}
	return c.Load(ctx, o)
}

func (c *Cache) fetch(ctx context.Context, key plan.Key, gvk schema.GroupVersionKind) (*unstructured.Unstructured, error) {
	r, known, err := c.Mapper.Resource(gvk)
	if err != nil || !known {
		return nil, err
	}
	full, err := client(c.Client, r, key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	if err != nil {
		return nil, ignoreGone(fmt.Errorf("read %s: %w", key, err), err)
	}
	return full, nil
}

// Load returns a cached object whole, or nil when it is gone meanwhile.
func (c *Cache) Load(ctx context.Context, o *Object) (*unstructured.Unstructured, error) {
	if !o.Whole() {
		return c.fetch(ctx, o.Key, o.GVK())
	}
	u, err := o.Unstructured()
	if err == nil && o.Deleting && u.GetDeletionTimestamp() == nil {
		now := metav1.NewTime(c.Now())
		u.SetDeletionTimestamp(&now)
	}
	return u, err
}

// Tracked returns the objects whose annotation names the instance, whole.
func (c *Cache) Tracked(ctx context.Context, instance string) (map[plan.Key]*unstructured.Unstructured, error) {
	out := map[plan.Key]*unstructured.Unstructured{}
	for _, o := range c.Objects(instance) {
		u, err := c.Load(ctx, o)
		if err != nil {
			return nil, err
		}
		if u != nil {
			out[o.Key] = u
		}
	}
	return out, nil
}

// Reassess computes the health of every whole object anew: the rules changed.
func (c *Cache) Reassess() {
	c.mu.RLock()
	var all []*Object
	for _, m := range c.byInstance {
		for _, o := range m {
			all = append(all, o)
		}
	}
	c.mu.RUnlock()
	for _, o := range all {
		u, err := o.Unstructured()
		if err != nil {
			continue
		}
		s, has := c.assess(u)
		if s == o.Health && has == o.HasHealth {
			continue
		}
		c.replaceHealth(o, s, has)
		c.Changed(o.Instance)
	}
}

func (c *Cache) replaceHealth(o *Object, s health.Status, has bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.kinds[schema.GroupKind{Group: o.Key.Group, Kind: o.Key.Kind}]
	name := o.Key.Namespace + "/" + o.Key.Name
	if k == nil || k.objects[name] != o {
		return
	}
	next := *o
	next.Health, next.HasHealth = s, has
	c.unlink(o)
	k.objects[name] = &next
	c.link(&next)
}

// Stats are the numbers of watched kinds and kept objects, and the bytes of
// their content.
func (c *Cache) Stats() (kinds, objects, bytes int) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, k := range c.kinds {
		objects += len(k.objects)
		for _, o := range k.objects {
			bytes += len(o.raw)
		}
	}
	return len(c.kinds), objects, bytes
}
