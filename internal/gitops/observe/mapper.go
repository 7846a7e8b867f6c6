package observe

import (
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/restmapper"
)

// Mapper knows the kinds of the cluster. It is safe for concurrent use.
type Mapper struct {
	mapper *restmapper.DeferredDiscoveryRESTMapper
	now    func() time.Time

	mu    sync.Mutex
	reset time.Time
}

// refetch bounds how often an unknown kind makes the mapper ask the server anew.
const refetch = time.Second

// NewMapper returns a mapper that asks the server when it is first used.
func NewMapper(d discovery.DiscoveryInterface, now func() time.Time) *Mapper {
	return &Mapper{mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(d)), now: now}
}

// Reset forgets what the server said: its kinds have changed.
func (m *Mapper) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reset = m.now()
	m.mapper.Reset()
}

// Resource returns the resource of a kind; known is false when the cluster
// does not have the kind.
func (m *Mapper) Resource(gvk schema.GroupVersionKind) (r Resource, known bool, err error) {
	mapping, err := m.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if meta.IsNoMatchError(err) && m.stale() {
		mapping, err = m.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	}
	if meta.IsNoMatchError(err) {
		return Resource{}, false, nil
	}
	if err != nil {
		return Resource{}, false, fmt.Errorf("ask the cluster about %s: %w", gvk, err)
	}
	return Resource{mapping.Resource, gvk, mapping.Scope.Name() == meta.RESTScopeNameNamespace}, true, nil
}

// Namespaced implements render.Scoper.
func (m *Mapper) Namespaced(gvk schema.GroupVersionKind) (namespaced, known bool, err error) {
	r, known, err := m.Resource(gvk)
	return r.Namespaced, known, err
}

func (m *Mapper) stale() bool {
	m.mu.Lock()
	old := m.now().Sub(m.reset) > refetch
	m.mu.Unlock()
	if old {
		m.Reset()
	}
	return old
}

// Resource is how a kind is addressed.
type Resource struct {
	schema.GroupVersionResource
	Kind       schema.GroupVersionKind
	Namespaced bool
}
