// Package application drives the five stages for each Application and writes
// its status.
//
// Input: Applications, pushes from the journal, changes of live objects, and
// a slow resync. Output: writes to the cluster, the status of each
// Application, and events in the journal.
//
// How it works: one keyed queue; [Controller.reconcile] is level-triggered and
// never waits for the cluster to get healthy. A sync that has to wait runs in
// a goroutine of its own ([operation]) and is cancelled when a newer commit
// comes. All state in memory can be rebuilt.
//
// Invariants: a commit that does not render leaves live objects alone; one
// automated attempt per commit and parameters, more only by retry or
// selfHeal; an Application whose status did not change is not written.
//
// Start reading at [Controller.Run], then [Controller.reconcile].
package application

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/apply"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// Repositories finds the repository of a repoURL.
type Repositories interface {
	// Open returns the repository and its name, "owner/name", as push events
	// have it.
	Open(ctx context.Context, repoURL string) (repo *git.Repository, name string, err error)
}

// Config is how the controller works.
type Config struct {
	Namespace      string // home of Applications and projects
	FieldManager   string
	ResyncInterval time.Duration
	Workers        int
}

// Deps is what the controller works with.
type Deps struct {
	Log          *slog.Logger
	Journal      journal.Appender
	Events       journal.Reader
	Client       dynamic.Interface
	Mapper       *observe.Mapper
	Writer       *apply.Writer
	Renderer     *render.Renderer
	Repositories Repositories
	Now          func() time.Time
}

// Controller drives all Applications of a cluster.
type Controller struct {
	Config
	Deps
	live     *observe.Cache
	apps     cache.SharedIndexInformer
	projects cache.SharedIndexInformer
	queue    workqueue.TypedRateLimitingInterface[string] // "namespace/name"
	ready    chan struct{}

	mu      sync.Mutex
	states  map[string]*state
	indexes map[string]*source.Index // by repository name

	life context.Context // of Run; operations and watches end with it
	ops  sync.WaitGroup
}

// New returns a controller that has started nothing.
func New(cfg Config, deps Deps) (*Controller, error) {
	c := &Controller{
		Config: cfg, Deps: deps, ready: make(chan struct{}),
		states: map[string]*state{}, indexes: map[string]*source.Index{},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](200*time.Millisecond, 2*time.Minute)),
	}
	c.live = observe.New(observe.Deps{Log: deps.Log, Client: deps.Client, Mapper: deps.Mapper, Now: deps.Now, Changed: c.liveChanged})
	c.apps = dynamicinformer.NewFilteredDynamicInformer(deps.Client, v1alpha1.ApplicationResource, metav1.NamespaceAll, 0, cache.Indexers{}, nil).Informer()
	c.projects = dynamicinformer.NewFilteredDynamicInformer(deps.Client, v1alpha1.AppProjectResource, cfg.Namespace, 0, cache.Indexers{}, nil).Informer()
	for _, i := range []cache.SharedIndexInformer{c.apps, c.projects} {
		if err := i.SetTransform(dropManagedFields); err != nil {
			return nil, fmt.Errorf("watch Applications: %w", err)
		}
	}
	return c, nil
}

func dropManagedFields(obj any) (any, error) {
	if o, ok := obj.(*unstructured.Unstructured); ok {
		o.SetManagedFields(nil)
	}
	return obj, nil
}

// Ready is closed when every Application was looked at once.
func (c *Controller) Ready() <-chan struct{} { return c.ready }

// Run works until ctx ends. The CRDs must exist.
func (c *Controller) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.life = ctx
	after, err := c.Events.Last(ctx)
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	if _, err := c.apps.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { c.appChanged(nil, obj) }, UpdateFunc: c.appChanged, DeleteFunc: func(obj any) { c.appChanged(obj, nil) },
	}); err != nil {
		return fmt.Errorf("watch Applications: %w", err)
	}
	if _, err := c.projects.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(_, _ any) { c.enqueueAll() }, DeleteFunc: func(any) { c.enqueueAll() },
		AddFunc: func(any) { c.enqueueAll() },
	}); err != nil {
		return fmt.Errorf("watch projects: %w", err)
	}
	var wg sync.WaitGroup
	defer func() {
		cancel()
		c.queue.ShutDown()
		wg.Wait()
		c.ops.Wait()
		c.live.Wait()
	}()
	wg.Go(func() { c.projects.RunWithContext(ctx) })
	wg.Go(func() { c.apps.RunWithContext(ctx) })
	wg.Go(func() {
		if err := c.Renderer.Warm(); err != nil {
			c.Log.Warn("warm the renderer", "error", err)
		}
	})
	if !cache.WaitForCacheSync(ctx.Done(), c.projects.HasSynced, c.apps.HasSynced) {
		return nil
	}
	for range c.Workers {
		wg.Go(func() {
			for c.work(ctx) {
			}
		})
	}
	wg.Go(func() { c.followPushes(ctx, after) })
	close(c.ready)
	<-ctx.Done()
	return nil
}

func (c *Controller) work(ctx context.Context) bool {
	key, quit := c.queue.Get()
	if quit {
		return false
	}
	defer c.queue.Done(key)
	err := c.reconcile(ctx, key)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		c.Log.Error("reconcile application", "app", key, "error", err)
		c.queue.AddRateLimited(key)
	default:
		c.queue.Forget(key)
	}
	return true
}

// appChanged reacts to what people and other programs change; the controller's
// own status writes are not among it.
func (c *Controller) appChanged(old, obj any) {
	if gone, ok := old.(cache.DeletedFinalStateUnknown); ok {
		old = gone.Obj
	}
	before, _ := old.(*unstructured.Unstructured)
	after, _ := obj.(*unstructured.Unstructured)
	if before != nil && after != nil && sameWish(before, after) {
		return
	}
	o := after
	if o == nil {
		o = before
	}
	if o != nil {
		c.queue.Add(o.GetNamespace() + "/" + o.GetName())
	}
}

func sameWish(a, b *unstructured.Unstructured) bool {
	return a.GetUID() == b.GetUID() && reflect.DeepEqual(a.Object["spec"], b.Object["spec"]) &&
		reflect.DeepEqual(a.Object["operation"], b.Object["operation"]) &&
		reflect.DeepEqual(a.GetAnnotations(), b.GetAnnotations()) &&
		reflect.DeepEqual(a.GetFinalizers(), b.GetFinalizers()) &&
		(a.GetDeletionTimestamp() == nil) == (b.GetDeletionTimestamp() == nil)
}

// liveChanged is called for each change of an object of an application.
func (c *Controller) liveChanged(instance string) {
	key := c.keyOf(instance)
	c.mu.Lock()
	st := c.states[key]
	c.mu.Unlock()
	if st == nil {
		return
	}
	select {
	case st.wake <- struct{}{}:
	default:
	}
	c.queue.Add(key)
}

func (c *Controller) enqueueAll() {
	for _, key := range c.apps.GetStore().ListKeys() {
		c.queue.Add(key)
	}
}

// jittered spreads the resyncs.
func jittered(d time.Duration) time.Duration {
	return d - d/5 + rand.N(2*d/5+1)
}

func (c *Controller) index(repo string) *source.Index {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.indexes[repo]
	if x == nil {
		x = source.NewIndex()
		c.indexes[repo] = x
	}
	return x
}
