// Package gitops is the loop, in Argo CD's place: it keeps a cluster as the
// Applications' repositories say.
//
// Input: Applications (argoproj.io/v1alpha1) in the cluster, pushes from the
// journal, repositories. Output: the objects in the cluster, the status of the
// Applications, and one event per stage, commit and application.
//
// The five stages are packages, in this order:
//
//	source       commit → tree, with a record of what is read
//	render       tree → objects, with their files and lines
//	plan         desired × live → changes; pure
//	apply        changes → cluster: waves, hooks, prune
//	observe      live objects, health and its reason
//
// application drives them. Start reading at [Engine.Run], then there.
package gitops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
	"github.com/lockstep-gitops/lockstep/internal/gitops/destination"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe/health"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render"
	"github.com/lockstep-gitops/lockstep/internal/gitops/settings"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// Config is how the engine works. Zero fields have defaults.
type Config struct {
	Namespace      string        // home of Applications and projects; "argocd"
	FieldManager   string        // name in managedFields; "argocd-controller"
	ResyncInterval time.Duration // how often an application is looked at without cause; 30 minutes
	MaxParallel    int           // requests to the API server at a time; 32
	Workers        int           // applications looked at at a time; 8
	PollInterval   time.Duration // between looks at a remote repository; 120 s
}

func (c Config) withDefaults() Config {
	if c.Namespace == "" {
		c.Namespace = "argocd"
	}
	if c.FieldManager == "" {
		c.FieldManager = "argocd-controller"
	}
	if c.ResyncInterval == 0 {
		c.ResyncInterval = 30 * time.Minute
	}
	if c.MaxParallel == 0 {
		c.MaxParallel = 32
	}
	if c.Workers == 0 {
		c.Workers = 8
	}
	return c
}

// Validate says what is wrong with the configuration.
func (c Config) Validate() error {
	switch {
	case c.ResyncInterval < 0 || c.ResyncInterval > 0 && c.ResyncInterval < time.Second:
		return fmt.Errorf("gitops: ResyncInterval is %s; at least 1s is needed", c.ResyncInterval)
	case c.MaxParallel < 0 || c.Workers < 0:
		return errors.New("gitops: MaxParallel and Workers must not be negative")
	case len(c.FieldManager) > 128:
		return errors.New("gitops: FieldManager has more than 128 characters")
	}
	return nil
}

// Repositories finds the repository of a repoURL; see
// [application.Repositories].
type Repositories = application.Repositories

// Deps is what the engine works with.
type Deps struct {
	Log     *slog.Logger
	Journal interface {
		application.Journal
		journal.Reader
	}
	Rest         *rest.Config // rights to everything that Applications may hold
	Repositories Repositories
	// StateDir holds what is fetched from other places: mirrors of remote
	// repositories, charts. It can be deleted. "" for Repositories alone.
	StateDir  string
	Transport *http.Transport   // for remote sources; nil for Go's own
	Saved     application.Saved // nil to keep renders in memory only
	// Forge lists the pull requests of repositories of this machine for
	// ApplicationSets; nil for none.
	Forge Forge
	Now   func() time.Time // nil for time.Now
}

// Engine is the loop for one cluster.
type Engine struct {
	cfg        Config
	deps       Deps
	client     dynamic.Interface
	controller *application.Controller
	clusters   *clusters
	sources    sources // its Service is nil without a StateDir
	list       application.Sources
	sets       *sets
	assess     atomic.Pointer[health.Assessor]
	ready      chan struct{}
}

// New returns an engine that has started nothing.
func New(cfg Config, deps Deps) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if deps.Now == nil {
		deps.Now = time.Now
	}
	httpClient, config, err := clientFor(deps.Rest)
	if err != nil {
		return nil, err
	}
	client, err := dynamic.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("gitops: client: %w", err)
	}
	e := &Engine{cfg: cfg, deps: deps, client: client, ready: make(chan struct{})}
	e.clusters = &clusters{engine: e, all: destination.NewSet(deps.Rest, nil), known: map[string]*connected{}}
	assessor, _ := health.New(settings.Default())
	e.assess.Store(assessor)
	e.list = application.Local(deps.Repositories)
	if deps.StateDir != "" {
		e.sources = e.newSources()
		e.list = e.sources
	}
	if e.sets, err = e.newSets(); err != nil {
		return nil, err
	}
	e.controller, err = application.New(application.Config{
		Namespace: cfg.Namespace, FieldManager: cfg.FieldManager, ResyncInterval: cfg.ResyncInterval, Workers: cfg.Workers,
	}, application.Deps{
		Log: deps.Log, Journal: deps.Journal, Events: deps.Journal, Client: client, Clusters: e.clusters,
		Renderer: render.New(), Sources: e.list, Saved: deps.Saved, Now: deps.Now, OnMove: e.sets.moved,
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// clientFor lifts client-go's rate limit: the engine bounds itself by
// MaxParallel.
func clientFor(config *rest.Config) (*http.Client, *rest.Config, error) {
	if config == nil {
		return nil, nil, errors.New("gitops: Deps.Rest is missing")
	}
	c := rest.CopyConfig(config)
	c.QPS, c.Burst, c.RateLimiter = -1, -1, nil
	c.UserAgent = "lockstep-gitops"
	c.WarningHandler = rest.NoWarnings{}
	httpClient, err := rest.HTTPClientFor(c)
	if err != nil {
		return nil, nil, fmt.Errorf("gitops: client: %w", err)
	}
	return httpClient, c, nil
}

// Ready is closed when the CRDs are there and Applications are being handled.
func (e *Engine) Ready() <-chan struct{} { return e.ready }

// Run installs the CRDs, the namespace and the default project as soon as the
// cluster takes them, and works until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	if !e.installUntilDone(ctx) {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e.clusters.life = ctx
	configuration, err := newConfiguration(e)
	if err != nil {
		return err
	}
	var watches sync.WaitGroup
	defer watches.Wait()
	defer e.clusters.wait()
	defer cancel()
	if err := configuration.run(ctx, &watches); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	watches.Go(func() { e.sets.run(ctx) })
	if e.sources.Service != nil {
		watches.Go(func() {
			if err := e.sources.Run(ctx); err != nil {
				e.deps.Log.Error("remote sources are no longer looked at", "error", err)
			}
		})
		defer e.sources.Close()
	}
	go func() {
		select {
		case <-e.controller.Ready():
			close(e.ready)
		case <-ctx.Done():
		}
	}()
	return e.controller.Run(ctx)
}

// installUntilDone repeats install until the cluster takes it, for an API server
// may be starting, or be gone for a while. It returns false when ctx ended first.
func (e *Engine) installUntilDone(ctx context.Context) bool {
	for wait := 250 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		err := e.install(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() == nil {
			e.deps.Log.Warn("the cluster did not take the kinds of Applications; trying again", "error", err, "after", wait)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return false
		}
	}
}

// Renders is how often manifests were rendered since the start.
func (e *Engine) Renders() int64 { return e.controller.Renders() }

// Applications is the door for the server and the command line.
func (e *Engine) Applications() *application.Controller { return e.controller }
