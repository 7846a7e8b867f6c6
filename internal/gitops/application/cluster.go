package application

import (
	"errors"
	"fmt"
	"sync"
	"time"

	kubeschema "k8s.io/apimachinery/pkg/runtime/schema"
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

	mu      sync.Mutex
	known   bool      // it answered, and nothing failed since
	probing bool      // somebody finds out whether it answers
	until   time.Time // do not try before
	pause   time.Duration
	why     error
}

const (
	firstPause   = 2 * time.Second
	longestPause = time.Minute
	probePause   = time.Second // until somebody else's probe has an answer
)

// enter permits a look at the cluster. One that does not answer costs the
// others nothing: until it has answered one application asks it at a time, and
// after a failure nobody does for a while. When it is not known, and there is no
// error, the caller asks and says by leave what came of it.
func (c *Cluster) enter(now time.Time) (known bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.known:
		return true, nil
	case now.Before(c.until):
		return false, &laterError{c.until.Sub(now), fmt.Errorf("cluster %s does not answer: %w", c.title(), c.why)}
	case c.probing && c.why != nil:
		return false, &laterError{probePause, fmt.Errorf("cluster %s does not answer: %w", c.title(), c.why)}
	case c.probing:
		return false, &laterError{probePause, fmt.Errorf("cluster %s %w", c.title(), errConnecting)}
	}
	c.probing = true
	return false, nil
}

// errConnecting says that nothing is known of a cluster yet: no fault.
var errConnecting = errors.New("is being connected to")

// reach returns nil when the cluster answers, or what is known of why it does
// not. It asks the cluster only when that is not known.
func (c *Cluster) reach(now func() time.Time) error {
	known, err := c.enter(now())
	if known || err != nil {
		return err
	}
	_, _, err = c.Mapper.Resource(everywhere)
	c.leave(now(), err == nil, err)
	if err != nil {
		_, err = c.enter(now())
	}
	return err
}

// everywhere is a kind that every cluster has.
var everywhere = kubeschema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}

func (c *Cluster) title() string {
	if c.Name != "" {
		return c.Name
	}
	return c.Server
}

// leave ends a look. answered says that the cluster did; err that it failed in a
// way that says nothing about the request. Neither leaves what is known.
func (c *Cluster) leave(now time.Time, answered bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.probing = false
	switch {
	case err != nil:
		c.pause = min(max(2*c.pause, firstPause), longestPause)
		c.known, c.why, c.until = false, err, now.Add(c.pause)
	case answered:
		c.known, c.why, c.pause = true, nil, 0
	}
}
