package gitops

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
	"github.com/lockstep-gitops/lockstep/internal/gitops/apply"
	"github.com/lockstep-gitops/lockstep/internal/gitops/destination"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe/health"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan/schema"
)

// clusters are the destinations: the engine's own cluster, and those of
// cluster Secrets. A cluster is connected to when an application first names
// it; connecting makes no request.
type clusters struct {
	engine *Engine

	mu    sync.Mutex
	life  context.Context
	all   *destination.Set
	known map[string]*connected // by server
}

type connected struct {
	*application.Cluster
	version string
	end     context.CancelFunc
}

var _ application.Clusters = (*clusters)(nil)

// set puts the clusters of now in place. Those that changed or went are let go.
func (c *clusters) set(all *destination.Set) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = all
	for _, p := range all.Problems() {
		c.engine.deps.Log.Warn("a cluster Secret cannot be used", "secret", p.Secret, "error", p.Err)
	}
	versions := map[string]string{}
	for _, d := range all.All() {
		versions[d.Server] = d.Version
	}
	for server, known := range c.known {
		if v, ok := versions[server]; !ok || v != known.version {
			known.end()
			delete(c.known, server)
		}
	}
}

// Find implements application.Clusters.
func (c *clusters) Find(d v1alpha1.Destination) (*application.Cluster, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, err := c.all.Find(d)
	if err != nil {
		return nil, err
	}
	if known := c.known[found.Server]; known != nil {
		return known.Cluster, nil
	}
	life, end := context.WithCancel(c.life)
	cluster, err := c.engine.connect(life, found)
	if err != nil {
		end()
		return nil, err
	}
	c.known[found.Server] = &connected{cluster, found.Version, end}
	return cluster, nil
}

// reassess computes the health of live objects anew.
func (c *clusters) reassess() {
	c.mu.Lock()
	var all []*application.Cluster
	for _, k := range c.known {
		all = append(all, k.Cluster)
	}
	c.mu.Unlock()
	for _, k := range all {
		k.Live.Reassess()
	}
}

// wait returns when all watches have ended.
func (c *clusters) wait() {
	c.mu.Lock()
	known := c.known
	c.mu.Unlock()
	for _, k := range known {
		k.Live.Wait()
	}
}

// Clusters are the registered clusters, for generators of ApplicationSets and
// for people.
func (e *Engine) Clusters() []*destination.Cluster {
	e.clusters.mu.Lock()
	defer e.clusters.mu.Unlock()
	if e.clusters.all == nil {
		return nil
	}
	return e.clusters.all.All()
}

// connect returns the cluster of a destination. Its watches end with life.
func (e *Engine) connect(life context.Context, d *destination.Cluster) (*application.Cluster, error) {
	httpClient, config, err := clientFor(d.Config)
	if err != nil {
		return nil, err
	}
	client, err := dynamic.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("gitops: client: %w", err)
	}
	disco, err := discovery.NewDiscoveryClientForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("gitops: discovery client: %w", err)
	}
	mapper := observe.NewMapper(disco, e.deps.Now)
	live := observe.New(observe.Deps{
		Log: e.deps.Log, Client: client, Mapper: mapper, Now: e.deps.Now, Life: life, Namespaces: d.Namespaces, Cluster: d.ClusterResources,
		Changed: func(instance string) { e.controller.LiveChanged(instance) },
		Assess:  func(o *unstructured.Unstructured) (health.Status, bool) { return e.assess.Load().Of(o) },
	})
	writers := &writers{config: config, mapper: mapper, manager: e.cfg.FieldManager, parallel: e.cfg.MaxParallel, known: map[string]*apply.Writer{}}
	return &application.Cluster{
		Server: d.Server, Name: d.Name, Project: d.Project, Permits: d.Permits, Client: client, Mapper: mapper, Live: live,
		Writer: apply.NewWriter(client, mapper, e.cfg.FieldManager, e.cfg.MaxParallel), As: writers.as,
		Schemas: schema.NewStore(documents{disco.RESTClient()}), Capabilities: (&capabilities{client: disco}).get,
	}, nil
}

// documents fetches what the API server says of itself.
type documents struct{ client rest.Interface }

// Fetch implements schema.Documents.
func (d documents) Fetch(ctx context.Context, path string) ([]byte, error) {
	return d.client.Get().RequestURI(path).SetHeader("Accept", "application/json").Do(ctx).Raw()
}

// writers act as service accounts.
type writers struct {
	config   *rest.Config
	mapper   *observe.Mapper
	manager  string
	parallel int

	mu    sync.Mutex
	known map[string]*apply.Writer
}

const maxWriters = 1000

func (w *writers) as(user string) (*apply.Writer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if known := w.known[user]; known != nil {
		return known, nil
	}
	config := rest.CopyConfig(w.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("act as %s: %w", user, err)
	}
	if len(w.known) >= maxWriters {
		clear(w.known)
	}
	w.known[user] = apply.NewWriter(client, w.mapper, w.manager, w.parallel)
	return w.known[user], nil
}

// capabilities are the version and the APIs of a cluster, asked for once.
type capabilities struct {
	client discovery.DiscoveryInterface

	mu      sync.Mutex
	version string
	apis    []string
}

func (c *capabilities) get() (version string, apis []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version == "" {
		v, err := c.client.ServerVersion()
		if err != nil {
			return "", nil // charts see Helm's default; the comparison says what is wrong
		}
		c.version = strings.TrimPrefix(v.GitVersion, "v")
		_, lists, _ := c.client.ServerGroupsAndResources() // what is known counts
		for _, l := range lists {
			c.apis = append(c.apis, l.GroupVersion)
			for _, r := range l.APIResources {
				if !strings.Contains(r.Name, "/") {
					c.apis = append(c.apis, l.GroupVersion+"/"+r.Kind)
				}
			}
		}
	}
	return c.version, c.apis
}
