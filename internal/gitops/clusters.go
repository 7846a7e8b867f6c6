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
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe/health"
)

// clusters are the destinations: the engine's own cluster, and those of
// cluster Secrets.
type clusters struct {
	engine *Engine

	mu   sync.Mutex
	here *application.Cluster
}

var _ application.Clusters = (*clusters)(nil)

// Find implements application.Clusters.
func (c *clusters) Find(d v1alpha1.Destination) (*application.Cluster, error) {
	if d.Server != "" && d.Server != application.LocalServer || d.Server == "" && d.Name != "in-cluster" {
		at := d.Server
		if at == "" {
			at = d.Name
		}
		return nil, fmt.Errorf("cluster %q is not known; this engine writes to its own cluster: server %s or name in-cluster", at, application.LocalServer)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.here, nil
}

// connect returns the cluster that a configuration leads to. Its watches end
// with life.
func (e *Engine) connect(life context.Context, server, name string, config *rest.Config) (*application.Cluster, error) {
	httpClient, config, err := clientFor(config)
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
		Log: e.deps.Log, Client: client, Mapper: mapper, Now: e.deps.Now, Life: life,
		Changed: func(instance string) { e.controller.LiveChanged(instance) },
		Assess:  func(o *unstructured.Unstructured) (health.Status, bool) { return health.Of(o) },
	})
	return &application.Cluster{
		Server: server, Name: name, Client: client, Mapper: mapper, Live: live,
		Writer: apply.NewWriter(client, mapper, e.cfg.FieldManager, e.cfg.MaxParallel), Capabilities: (&capabilities{client: disco, mapper: mapper}).get,
	}, nil
}

// capabilities are the version and the APIs of a cluster, asked for once.
type capabilities struct {
	client discovery.DiscoveryInterface
	mapper *observe.Mapper

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
