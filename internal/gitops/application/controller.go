// Package application drives the five stages for each Application and writes
// its status.
//
// Input: Applications, moves of refs, changes of live objects, and a slow
// resync. Output: writes to the clusters, the status of each Application, and
// events in the journal.
//
// How it works: one keyed queue; [Controller.reconcile] is level-triggered and
// never waits for a cluster. A sync that has to wait runs in a goroutine of its
// own ([operation]) and is cancelled when a newer commit comes. What is in
// memory of an application ([state]) is small, and can be rebuilt; renders are
// also kept on disk ([Saved]), so that a restart renders nothing anew.
//
// How cost follows the change: a push moves the head that all applications of
// a branch share ([track]) and wakes those that read one of its files; an
// object is compared again only when it, or what is wanted of it, changed
// ([verdict]); a status that is the same is not written.
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
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// Config is how the controller works.
type Config struct {
	Namespace      string // home of Applications and projects
	FieldManager   string
	ResyncInterval time.Duration
	Workers        int
}

// Journal is where events go; see [journal.Journal].
type Journal interface {
	AppendAll(ctx context.Context, events []journal.Event) (int64, error)
}

// Deps is what the controller works with.
type Deps struct {
	Log      *slog.Logger
	Journal  Journal
	Events   journal.Reader
	Client   dynamic.Interface // of the cluster that has the Applications
	Clusters Clusters
	Renderer *render.Renderer
	Sources  Sources
	Saved    Saved // nil to keep renders in memory only
	Now      func() time.Time
	// OnMove is told of each move, with what it changed (nil when that is not
	// known); it may be nil.
	OnMove func(m Move, changed func() []string)
}

// Controller drives all Applications of a cluster.
type Controller struct {
	Config
	Deps
	apps     cache.SharedIndexInformer // of *v1alpha1.Application
	projects cache.SharedIndexInformer
	queue    workqueue.TypedRateLimitingInterface[string] // "namespace/name"
	ready    chan struct{}
	active   chan struct{} // one token per sync that is not waiting
	outbox   chan outgoing
	silent   chan struct{} // closed when nobody reads the outbox any more

	mu         sync.Mutex
	states     map[string]*state
	repos      map[string]*repository
	unresolved map[string]bool            // applications whose repository is not there
	dependents map[string]map[string]bool // application → those that wait for it
	set        *Policies
	compiled   map[string]compiled // projects by name
	renders    atomic.Int64
	burst      atomic.Int64 // when many syncs last wrote at a time, ns since 1970

	moves atomic.Int64 // of tracks, counted

	life context.Context // of Run; operations and watches end with it
	ops  sync.WaitGroup
}

// maxActive bounds the syncs that write at the same time; those that wait for
// health do not count, so that they cannot block the others.
const maxActive = 128

// New returns a controller that has started nothing.
func New(cfg Config, deps Deps) (*Controller, error) {
	c := &Controller{
		Config: cfg, Deps: deps, ready: make(chan struct{}), active: make(chan struct{}, maxActive), outbox: make(chan outgoing, 4096), silent: make(chan struct{}),
		states: map[string]*state{}, repos: map[string]*repository{}, unresolved: map[string]bool{}, dependents: map[string]map[string]bool{}, set: DefaultPolicies(), compiled: map[string]compiled{},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](200*time.Millisecond, 2*time.Minute)),
	}
	c.apps = dynamicinformer.NewFilteredDynamicInformer(deps.Client, v1alpha1.ApplicationResource, metav1.NamespaceAll, 0, cache.Indexers{}, nil).Informer()
	c.projects = dynamicinformer.NewFilteredDynamicInformer(deps.Client, v1alpha1.AppProjectResource, cfg.Namespace, 0, cache.Indexers{}, nil).Informer()
	if err := c.apps.SetTransform(decoded); err != nil {
		return nil, fmt.Errorf("watch Applications: %w", err)
	}
	if err := c.projects.SetTransform(dropManagedFields); err != nil {
		return nil, fmt.Errorf("watch projects: %w", err)
	}
	return c, nil
}

// decoded makes the informer keep typed Applications, which are smaller.
func decoded(obj any) (any, error) {
	o, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return obj, nil
	}
	o.SetManagedFields(nil)
	app := &v1alpha1.Application{}
	if err := v1alpha1.Decode(o, app); err != nil {
		return nil, err
	}
	return app, nil
}

func dropManagedFields(obj any) (any, error) {
	if o, ok := obj.(*unstructured.Unstructured); ok {
		o.SetManagedFields(nil)
	}
	return obj, nil
}

// Ready is closed when the Applications are known and being handled.
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
	if err := c.handleEvents(); err != nil {
		return err
	}
	var wg, writer sync.WaitGroup
	ended := make(chan struct{})
	writer.Go(func() { c.writeEvents(ended) })
	defer func() {
		cancel()
		c.queue.ShutDown()
		wg.Wait()
		c.ops.Wait()
		close(ended)
		writer.Wait()
		close(c.silent)
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

func (c *Controller) handleEvents() error {
	if _, err := c.apps.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { c.appChanged(nil, obj) }, UpdateFunc: c.appChanged, DeleteFunc: func(obj any) { c.appChanged(obj, nil) },
	}); err != nil {
		return fmt.Errorf("watch Applications: %w", err)
	}
	if _, err := c.projects.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(old, obj any) {
			if !reflect.DeepEqual(specOf(old), specOf(obj)) {
				c.projectsChanged()
			}
		}, DeleteFunc: func(any) { c.projectsChanged() },
		AddFunc: func(any) { c.projectsChanged() },
	}); err != nil {
		return fmt.Errorf("watch projects: %w", err)
	}
	return nil
}

func specOf(obj any) any {
	if o, ok := obj.(*unstructured.Unstructured); ok {
		return o.Object["spec"]
	}
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
	before, _ := old.(*v1alpha1.Application)
	after, _ := obj.(*v1alpha1.Application)
	c.caughtUp(after)
	if before != nil && after != nil && sameWish(before, after) {
		return
	}
	o := after
	if o == nil {
		o = before
	}
	if o == nil {
		return
	}
	key := o.Namespace + "/" + o.Name
	c.mu.Lock()
	st := c.states[key]
	c.mu.Unlock()
	if st != nil {
		st.stir() // a sync may wait for an annotation
	}
	c.queue.Add(key)
}

// caughtUp lets go of what was written when the watch has it, or more.
func (c *Controller) caughtUp(app *v1alpha1.Application) {
	if app == nil {
		return
	}
	c.mu.Lock()
	st := c.states[app.Namespace+"/"+app.Name]
	c.mu.Unlock()
	if st == nil {
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.written != nil && newest(app, st.written) == app {
		st.written = nil
	}
}

func sameWish(a, b *v1alpha1.Application) bool {
	return a.UID == b.UID && terminates(a) == terminates(b) && reflect.DeepEqual(a.Operation, b.Operation) &&
		reflect.DeepEqual(a.Annotations, b.Annotations) && reflect.DeepEqual(a.Finalizers, b.Finalizers) &&
		(a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) && reflect.DeepEqual(&a.Spec, &b.Spec)
}

// terminates reports whether somebody asked for the end of the sync under way,
// as Argo CD's clients do.
func terminates(a *v1alpha1.Application) bool {
	return a.Status.OperationState != nil && a.Status.OperationState.Phase == v1alpha1.PhaseTerminating
}

// LiveChanged is called for each change of a live object of an application,
// with the application's name in tracking annotations. It does not block.
func (c *Controller) LiveChanged(instance string) {
	key := c.keyOf(instance)
	c.mu.Lock()
	st := c.states[key]
	c.mu.Unlock()
	if st == nil {
		return
	}
	st.stir()
	if st.calm(c.Now()) {
		c.queue.Add(key)
	} else {
		c.queue.AddAfter(key, calmDown)
	}
}

// EnqueueAll looks at every application.
func (c *Controller) EnqueueAll() {
	for _, key := range c.apps.GetStore().ListKeys() {
		c.queue.Add(key)
	}
}

// application returns the younger of the watched Application and the one last
// written. Nobody may change it.
func (c *Controller) application(key string) (*v1alpha1.Application, *state) {
	obj, ok, err := c.apps.GetStore().GetByKey(key)
	if err != nil || !ok {
		return nil, nil
	}
	app := obj.(*v1alpha1.Application)
	c.mu.Lock()
	st := c.states[key]
	c.mu.Unlock()
	if st == nil {
		return app, nil
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return newest(app, st.written), st
}

func newest(watched, written *v1alpha1.Application) *v1alpha1.Application {
	if written == nil || written.UID != watched.UID || !older(watched.ResourceVersion, written.ResourceVersion) {
		return watched
	}
	return written
}

func older(x, y string) bool { return len(x) < len(y) || len(x) == len(y) && x < y }

// Renders is how often manifests were rendered since the start.
func (c *Controller) Renders() int64 { return c.renders.Load() }

// jittered spreads the resyncs.
func jittered(d time.Duration) time.Duration {
	return d - d/5 + rand.N(2*d/5+1)
}
