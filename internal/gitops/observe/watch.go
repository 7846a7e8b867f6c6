package observe

import (
	"context"
	"errors"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
)

// kind is one watched kind.
type kind struct {
	*Cache
	resource Resource
	objects  map[string]*Object // "namespace/name"; guarded by Cache.mu
	scopes   []*scope           // never changed after watch

	mu      sync.Mutex
	waiting map[string]bool // applications to tell when the first listings are here
}

// scope is where a reflector puts its objects: those of a kind in all
// namespaces, or in one.
type scope struct {
	*kind
	namespace string // "" for all
	seen      string // the youngest version that the watch or a listing brought; guarded by Cache.mu

	mu     sync.Mutex
	listed bool
	last   error // of listing or watching, nil when it works
}

var _ cache.TransformingStore = (*scope)(nil)

// watch starts the watch of a kind, once.
func (c *Cache) watch(r Resource) *kind {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k, ok := c.kinds[r.Kind.GroupKind()]; ok {
		return k
	}
	k := &kind{Cache: c, resource: r, objects: map[string]*Object{}, waiting: map[string]bool{}}
	c.kinds[r.Kind.GroupKind()] = k
	for _, namespace := range c.namespaces(r) {
		k.scopes = append(k.scopes, &scope{kind: k, namespace: namespace})
	}
	for _, s := range k.scopes {
		expected := &unstructured.Unstructured{}
		expected.SetGroupVersionKind(r.Kind)
		reflector := cache.NewReflectorWithOptions(s.listWatch(), expected, s, cache.ReflectorOptions{Name: "observe " + r.Kind.Kind + " " + s.namespace})
		reflector.WatchListPageSize = 500
		c.wg.Go(func() { reflector.RunWithContext(c.Life) })
	}
	if r.Kind == podKind && !c.started {
		c.started = true
		for _, namespace := range c.namespaces(r) {
			c.watchEvents(namespace)
		}
	}
	return k
}

// namespaces are those in which a kind is watched, "" for all or for none.
func (c *Cache) namespaces(r Resource) []string {
	switch {
	case len(c.Namespaces) == 0:
		return []string{""}
	case r.Namespaced:
		return c.Namespaces
	case c.Cluster:
		return []string{""}
	}
	return nil
}

// listWatch notes the errors of listing and watching for those who wait.
func (s *scope) listWatch() cache.ListerWatcher {
	var client dynamic.ResourceInterface = s.Client.Resource(s.resource.GroupVersionResource)
	if s.namespace != "" {
		client = s.Client.Resource(s.resource.GroupVersionResource).Namespace(s.namespace)
	}
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := client.List(ctx, o)
			s.note(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			w, err := client.Watch(ctx, o)
			s.note(err)
			return w, err
		},
	}, s.Client)
}

func (s *scope) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = err
}

// state reports whether the first listing is here, and the last error.
func (s *scope) state() (listed bool, last error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listed, s.last
}

// wait reports whether the first listings are here; if not, instance is told
// when they are.
func (k *kind) wait(instance string) (listed bool, last error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.scopes {
		if here, err := s.state(); !here {
			k.waiting[instance] = true
			return false, err
		}
	}
	return true, nil
}

// Transformer makes the reflector keep a first listing in the small form.
func (s *scope) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		if u, ok := obj.(*unstructured.Unstructured); ok {
			return s.compact(u)
		}
		return obj, nil
	}
}

// Add implements cache.ReflectorStore.
func (s *scope) Add(obj any) error {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil
	}
	s.saw(u.GetResourceVersion())
	if s.echo(u) {
		return nil
	}
	o, err := s.compact(u)
	if err != nil {
		return err
	}
	s.tell(s.put(s.kind, o))
	return nil
}

// saw notes how far the watch is; before what it brought is put or dropped, so
// that [Cache.Wrote] cannot bring back an object whose end was seen.
func (s *scope) saw(version string) {
	s.Cache.mu.Lock()
	defer s.Cache.mu.Unlock()
	if s.seen == "" || newerThan(version, s.seen) {
		s.seen = version
	}
}

// passed reports whether the watch has been at or after the version of an
// object. Cache.mu is held.
func (k *kind) passed(o *Object) bool {
	for _, s := range k.scopes {
		if s.namespace == "" || s.namespace == o.Key.Namespace {
			return s.seen != "" && !newerThan(o.ResourceVersion, s.seen)
		}
	}
	return false
}

// echo reports whether the cache has this very state already.
func (s *scope) echo(u *unstructured.Unstructured) bool {
	s.Cache.mu.RLock()
	defer s.Cache.mu.RUnlock()
	old := s.objects[u.GetNamespace()+"/"+u.GetName()]
	return old != nil && old.ResourceVersion == u.GetResourceVersion() && old.UID == u.GetUID() && old.Deleting == (u.GetDeletionTimestamp() != nil)
}

// Update implements cache.ReflectorStore.
func (s *scope) Update(obj any) error { return s.Add(obj) }

// Delete implements cache.ReflectorStore.
func (s *scope) Delete(obj any) error {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		s.saw(u.GetResourceVersion())
		s.tell(s.drop(s.kind, u.GetNamespace(), u.GetName(), u.GetUID()))
	}
	return nil
}

// Resync implements cache.ReflectorStore.
func (s *scope) Resync() error { return nil }

// Replace implements cache.ReflectorStore: the list as of a resource version.
func (s *scope) Replace(list []any, version string) error {
	s.saw(version)
	here := make(map[string]bool, len(list))
	var errs []error
	for _, item := range list {
		o, ok := item.(*Object)
		if u, whole := item.(*unstructured.Unstructured); whole {
			var err error
			if o, err = s.compact(u); err != nil {
				errs = append(errs, err)
				continue
			}
		} else if !ok {
			errs = append(errs, fmt.Errorf("a listing of %s has a %T", s.resource.Kind.Kind, item))
			continue
		}
		here[o.Key.Namespace+"/"+o.Key.Name] = true
		s.tell(s.put(s.kind, o))
	}
	for _, o := range s.missing(here, version) {
		s.tell(s.drop(s.kind, o.Key.Namespace, o.Key.Name, o.UID))
	}
	s.mu.Lock()
	s.listed, s.last = true, nil
	s.mu.Unlock()
	s.complete()
	return errors.Join(errs...)
}

// complete tells those who wait when every first listing is here.
func (k *kind) complete() {
	k.mu.Lock()
	for _, s := range k.scopes {
		if here, _ := s.state(); !here {
			k.mu.Unlock()
			return
		}
	}
	waiting := k.waiting
	k.waiting = map[string]bool{}
	k.mu.Unlock()
	for instance := range waiting {
		k.Changed(instance)
	}
}

// missing are the objects that a listing does not have, but for those that
// this process wrote after it.
func (s *scope) missing(here map[string]bool, version string) (out []*Object) {
	s.Cache.mu.RLock()
	defer s.Cache.mu.RUnlock()
	for name, o := range s.objects {
		if !here[name] && (s.namespace == "" || s.namespace == o.Key.Namespace) && !newerThan(o.ResourceVersion, version) {
			out = append(out, o)
		}
	}
	return out
}
