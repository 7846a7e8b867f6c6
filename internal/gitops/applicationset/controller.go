// Package applicationset makes, changes and deletes Applications as
// ApplicationSets ask for it.
//
// Input: ApplicationSets, moves of repositories, cluster Secrets, changes of
// the Applications, a timer where a generator asks something remote. Output:
// Applications, syncs of a rolling sync, the status of each ApplicationSet.
//
// The parts, in the order of the work:
//
//	generate     ApplicationSet → Applications as they should be
//	template     fills templates; used by generate
//	scm          lists pull requests and repositories; used by generate
//	rollout      which Application of a rolling sync is next; pure
//
// How it works: one keyed queue. A pass generates only when the spec, an input
// or the time says so; otherwise it uses the last result. It compares only
// what may differ, and writes only what does.
//
// Invariants: nothing is created, changed or deleted by a generation that
// failed; a generation with the same outcome writes nothing; an Application
// that another controller owns is left alone; the status is written only when
// it differs.
//
// Start reading at [Controller.Run], then [Controller.reconcile].
package applicationset

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/generate"
)

// Config is how the controller works. Zero fields have defaults.
type Config struct {
	Namespace            string   // the engine's: projects, clusters, ConfigMaps of generators; "argocd"
	Namespaces           []string // patterns of further namespaces with ApplicationSets
	FieldManager         string   // name in managedFields; "argocd-applicationset-controller"
	Policy               string   // applicationsSync where an ApplicationSet does not say; "sync"
	PreservedAnnotations []string // left alone on all Applications
	PreservedLabels      []string
	StrictFileGlobs      bool     // --enable-new-git-file-globbing
	AllowedSCMProviders  []string // API addresses of pullRequest and scmProvider; empty allows all
	Workers              int      // ApplicationSets at a time; 4
	MaxParallel          int      // writes of one ApplicationSet at a time; 8
	MaxResources         int      // in status.resources; 5000
}

func (c Config) withDefaults() Config {
	if c.Namespace == "" {
		c.Namespace = "argocd"
	}
	if c.FieldManager == "" {
		c.FieldManager = "argocd-applicationset-controller"
	}
	if c.Policy == "" {
		c.Policy = v1alpha1.ApplicationsSyncSync
	}
	if c.Workers == 0 {
		c.Workers = 4
	}
	if c.MaxParallel == 0 {
		c.MaxParallel = 8
	}
	if c.MaxResources == 0 {
		c.MaxResources = 5000
	}
	return c
}

// Validate says what is wrong with the configuration.
func (c Config) Validate() error {
	switch {
	case c.Workers < 0 || c.MaxParallel < 0 || c.MaxResources < 0:
		return errors.New("applicationset: Workers, MaxParallel and MaxResources must not be negative")
	case c.Policy != "" && !known(c.Policy):
		return fmt.Errorf("applicationset: Policy %q is not known; create-only, create-update, create-delete and sync are", c.Policy)
	}
	return nil
}

// Deps is what the controller works with.
type Deps struct {
	Log          *slog.Logger
	Client       dynamic.Interface
	Repositories generate.Repositories
	Clusters     generate.Clusters         // nil for the cluster Secrets of Config.Namespace and the engine's own
	Applications cache.SharedIndexInformer // of all namespaces, run by the caller; nil for one of its own
	Forge        generate.Forge            // lists pull requests of this machine; nil for none
	HTTP         *http.Client              // for pull requests, providers and plugins; nil for one with a timeout
	Now          func() time.Time          // nil for time.Now
}

// Controller drives all ApplicationSets of a cluster.
type Controller struct {
	Config
	Deps
	sets     cache.SharedIndexInformer
	apps     cache.SharedIndexInformer
	projects cache.SharedIndexInformer
	secrets  cache.SharedIndexInformer // of clusters, without credentials
	ownApps  bool
	queue    workqueue.TypedRateLimitingInterface[string] // "namespace/name"
	ready    chan struct{}
	news     atomic.Int64 // of pull requests, counted

	mu     sync.Mutex
	states map[string]*state
}

const ownerIndex = "applicationset"

// New returns a controller that has started nothing.
func New(cfg Config, deps Deps) (*Controller, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Log == nil || deps.Client == nil || deps.Repositories == nil {
		return nil, errors.New("applicationset: Deps needs Log, Client and Repositories")
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.HTTP == nil {
		deps.HTTP = &http.Client{Timeout: time.Minute}
	}
	c := &Controller{
		Config: cfg.withDefaults(), Deps: deps, ready: make(chan struct{}), states: map[string]*state{},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](200*time.Millisecond, 2*time.Minute)),
	}
	if err := c.makeInformers(); err != nil {
		return nil, err
	}
	if c.Clusters == nil {
		c.Clusters = secretClusters{c.secrets}
	}
	return c, nil
}

func (c *Controller) makeInformers() error {
	c.sets = dynamicinformer.NewFilteredDynamicInformer(c.Client, v1alpha1.ApplicationSetResource, metav1.NamespaceAll, 0, cache.Indexers{}, nil).Informer()
	c.projects = dynamicinformer.NewFilteredDynamicInformer(c.Client, v1alpha1.AppProjectResource, c.Namespace, 0, cache.Indexers{}, nil).Informer()
	c.secrets = dynamicinformer.NewFilteredDynamicInformer(c.Client, secretResource, c.Namespace, 0, cache.Indexers{}, func(o *metav1.ListOptions) {
		o.LabelSelector = v1alpha1.LabelSecretType + "=" + v1alpha1.SecretTypeCluster
	}).Informer()
	c.apps = c.Applications
	if c.apps == nil {
		c.ownApps = true
		c.apps = dynamicinformer.NewFilteredDynamicInformer(c.Client, v1alpha1.ApplicationResource, metav1.NamespaceAll, 0, cache.Indexers{}, nil).Informer()
	}
	transforms := map[cache.SharedIndexInformer]cache.TransformFunc{c.sets: dropManagedFields, c.projects: dropManagedFields, c.secrets: withoutCredentials}
	if c.ownApps {
		transforms[c.apps] = slim
	}
	for informer, f := range transforms {
		if err := informer.SetTransform(f); err != nil {
			return fmt.Errorf("applicationset: watch: %w", err)
		}
	}
	if err := c.apps.AddIndexers(cache.Indexers{ownerIndex: ownerKeys}); err != nil {
		return fmt.Errorf("applicationset: index the Applications: %w", err)
	}
	return nil
}

// Ready is closed when every ApplicationSet is in the queue.
func (c *Controller) Ready() <-chan struct{} { return c.ready }

// Run works until ctx ends. The CRDs must exist.
func (c *Controller) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop, err := c.listen()
	defer stop()
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer func() {
		cancel()
		c.queue.ShutDown()
		wg.Wait()
	}()
	informers := []cache.SharedIndexInformer{c.projects, c.secrets, c.sets}
	if c.ownApps {
		informers = append(informers, c.apps)
	}
	for _, i := range informers {
		wg.Go(func() { i.RunWithContext(ctx) })
	}
	if !cache.WaitForCacheSync(ctx.Done(), c.projects.HasSynced, c.secrets.HasSynced, c.apps.HasSynced, c.sets.HasSynced) {
		return nil
	}
	for range c.Workers {
		wg.Go(func() {
			for c.work(ctx) {
			}
		})
	}
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
		c.Log.Error("reconcile the ApplicationSet", "applicationset", key, "error", err)
		c.queue.AddRateLimited(key)
	default:
		c.queue.Forget(key)
	}
	return true
}

// generator is what the generators read from.
func (c *Controller) generator() (generate.Config, generate.Deps) {
	return generate.Config{Namespace: c.Namespace, StrictFileGlobs: c.StrictFileGlobs, AllowedSCMProviders: c.AllowedSCMProviders},
		generate.Deps{Repositories: c.Repositories, Clusters: c.Clusters, Objects: objects{c.Client}, Forge: c.Forge, HTTP: c.HTTP}
}
