package observe

import (
	"context"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
)

// kind is one watched kind: where a reflector puts its objects.
type kind struct {
	*Cache
	resource Resource
	objects  map[string]*Object // "namespace/name"; guarded by Cache.mu

	mu      sync.Mutex
	listed  bool
	last    error           // of listing or watching, nil when it works
	waiting map[string]bool // applications to tell when the first listing is here
}

var _ cache.TransformingStore = (*kind)(nil)

// watch starts the watch of a kind, once.
func (c *Cache) watch(r Resource) *kind {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k, ok := c.kinds[r.Kind.GroupKind()]; ok {
		return k
	}
	k := &kind{Cache: c, resource: r, objects: map[string]*Object{}, waiting: map[string]bool{}}
	c.kinds[r.Kind.GroupKind()] = k
	expected := &unstructured.Unstructured{}
	expected.SetGroupVersionKind(r.Kind)
	reflector := cache.NewReflectorWithOptions(k.listWatch(c.Client.Resource(r.GroupVersionResource)), expected, k, cache.ReflectorOptions{Name: "observe " + r.Kind.Kind})
	reflector.WatchListPageSize = 500
	c.wg.Go(func() { reflector.RunWithContext(c.Life) })
	if r.Kind == podKind && !c.started {
		c.started = true
		c.watchEvents()
	}
	return k
}

// listWatch notes the errors of listing and watching for those who wait.
func (k *kind) listWatch(client dynamic.NamespaceableResourceInterface) cache.ListerWatcher {
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := client.List(ctx, o)
			k.note(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			w, err := client.Watch(ctx, o)
			k.note(err)
			return w, err
		},
	}, k.Client)
}

func (k *kind) note(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last = err
}

// wait reports whether the first listing is here; if not, instance is told
// when it is.
func (k *kind) wait(instance string) (listed bool, last error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.listed {
		k.waiting[instance] = true
	}
	return k.listed, k.last
}

// Transformer makes the reflector keep a first listing in the small form.
func (k *kind) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		if u, ok := obj.(*unstructured.Unstructured); ok {
			return k.compact(u)
		}
		return obj, nil
	}
}

// Add implements cache.ReflectorStore.
func (k *kind) Add(obj any) error {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil
	}
	if k.echo(u) {
		return nil
	}
	o, err := k.compact(u)
	if err != nil {
		return err
	}
	k.tell(k.put(k, o))
	return nil
}

// echo reports whether the cache has this very state already.
func (k *kind) echo(u *unstructured.Unstructured) bool {
	k.Cache.mu.RLock()
	defer k.Cache.mu.RUnlock()
	old := k.objects[u.GetNamespace()+"/"+u.GetName()]
	return old != nil && old.ResourceVersion == u.GetResourceVersion() && old.UID == u.GetUID() && old.Deleting == (u.GetDeletionTimestamp() != nil)
}

// Update implements cache.ReflectorStore.
func (k *kind) Update(obj any) error { return k.Add(obj) }

// Delete implements cache.ReflectorStore.
func (k *kind) Delete(obj any) error {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		k.tell(k.drop(k, u.GetNamespace(), u.GetName(), u.GetUID()))
	}
	return nil
}

// Resync implements cache.ReflectorStore.
func (k *kind) Resync() error { return nil }

// Replace implements cache.ReflectorStore: the list as of a resource version.
func (k *kind) Replace(list []any, version string) error {
	here := make(map[string]bool, len(list))
	for _, item := range list {
		var o *Object
		switch v := item.(type) {
		case *Object:
			o = v
		case *unstructured.Unstructured:
			var err error
			if o, err = k.compact(v); err != nil {
				return err
			}
		}
		here[o.Key.Namespace+"/"+o.Key.Name] = true
		k.tell(k.put(k, o))
	}
	for _, o := range k.missing(here, version) {
		k.tell(k.drop(k, o.Key.Namespace, o.Key.Name, o.UID))
	}
	k.mu.Lock()
	k.listed, k.last = true, nil
	waiting := k.waiting
	k.waiting = map[string]bool{}
	k.mu.Unlock()
	for instance := range waiting {
		k.Changed(instance)
	}
	return nil
}

// missing are the objects that a listing does not have, but for those that
// this process wrote after it.
func (k *kind) missing(here map[string]bool, version string) (out []*Object) {
	k.Cache.mu.RLock()
	defer k.Cache.mu.RUnlock()
	for name, o := range k.objects {
		if !here[name] && !newerThan(o.ResourceVersion, version) {
			out = append(out, o)
		}
	}
	return out
}
