package application

import (
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/dynamic"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/apply"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan/schema"
)

// LocalServer is the address by which Applications name the cluster that they
// are in.
const LocalServer = "https://kubernetes.default.svc"

// Clusters are the destinations that there are.
type Clusters interface {
	// Find returns the cluster of a destination, or says why there is none.
	Find(d v1alpha1.Destination) (*Cluster, error)
}

// Cluster is one destination. It must not be copied.
type Cluster struct {
	Server, Name string
	Project      string                      // that it is scoped to, "" for all
	Permits      func(namespace string) bool // nil for every namespace
	// As returns a writer that acts as a user.
	As func(user string) (*apply.Writer, error)
	// Schemas check objects without a request; nil for no check.
	Schemas *schema.Store
	Client  dynamic.Interface
	Mapper  *observe.Mapper
	Writer  *apply.Writer
	Live    *observe.Cache
	// Version and APIs are what charts ask for: "1.37.2", "apps/v1", "apps/v1/Deployment".
	Capabilities func() (version string, apis []string)

	mu    sync.Mutex
	until time.Time // do not try before
	pause time.Duration
	why   error
}

const (
	firstPause   = 2 * time.Second
	longestPause = time.Minute
)

// down returns an error while the cluster is left alone after a failure, so
// that a cluster that does not answer costs the others nothing.
func (c *Cluster) down(now time.Time) (wait time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == nil || !now.Before(c.until) {
		return 0, nil
	}
	return c.until.Sub(now), fmt.Errorf("cluster %s does not answer: %w", c.title(), c.why)
}

func (c *Cluster) title() string {
	if c.Name != "" {
		return c.Name
	}
	return c.Server
}

// failed notes that a request failed in a way that says nothing about the
// request. A nil error ends the pause.
func (c *Cluster) failed(now time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.why, c.pause = nil, 0
		return
	}
	c.pause = min(max(2*c.pause, firstPause), longestPause)
	c.why, c.until = err, now.Add(c.pause)
}
