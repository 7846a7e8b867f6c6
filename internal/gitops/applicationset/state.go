package applicationset

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/generate"
)

// state is what is kept of one ApplicationSet between passes. It is a cache:
// losing it costs work, not correctness. mu guards what watches and moves
// touch; the rest belongs to the worker that holds the key.
type state struct {
	mu        sync.Mutex
	reads     []generate.Read // of the last generation
	pulls     []string        // repositories whose pull requests it listed
	clusters  bool            // it asked for clusters
	moved     bool            // a repository moved in a way that may matter
	stale     bool            // generate, whatever the inputs say
	rolling   bool
	size      int
	checks    map[string]bool // Applications to compare again
	checkEach bool
	written   map[string]*unstructured.Unstructured // Applications as last written, until the watch has them

	uid        types.UID
	generation int64
	result     *generate.Result // of the last generation that worked
	desired    *desired         // result, after validation
	failure    error            // of the last generation
	failures   int
	due        time.Time                  // of the next generation; zero for never
	set        *unstructured.Unstructured // as last written
	looks      map[string]time.Time       // Application → when it was told to look anew
	asked      map[string]asked           // Application → the sync that it was asked for
	told       string                     // last failure in the log
}

type asked struct {
	mark string
	at   time.Time
}

func (c *Controller) state(key string) *state {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.states[key]
	if st == nil {
		st = &state{checks: map[string]bool{}, written: map[string]*unstructured.Unstructured{}, looks: map[string]time.Time{}, asked: map[string]asked{}}
		c.states[key] = st
	}
	return st
}

func (c *Controller) known(key string) *state {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.states[key]
}

func (c *Controller) forget(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.states, key)
}

// sawApp drops the written copy that the watch has caught up with, and reports
// whether what it saw is our own write.
func (st *state) sawApp(name string, o *unstructured.Unstructured) (rolling bool, size int, ours bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if w := st.written[name]; w != nil && o != nil && w.GetUID() == o.GetUID() {
		ours = w.GetResourceVersion() == o.GetResourceVersion()
		if !older(o, w) {
			delete(st.written, name)
		}
	} else if o == nil {
		delete(st.written, name)
	}
	return st.rolling, st.size, ours
}

func (st *state) check(name string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.checks[name] = true
}

func (st *state) checkAll() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.checkEach = true
}

// takeChecks returns which Applications to compare, and whether all.
func (st *state) takeChecks() (map[string]bool, bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	names, each := st.checks, st.checkEach
	st.checks, st.checkEach = map[string]bool{}, false
	return names, each
}

func (st *state) clustersMoved() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.stale = st.stale || st.clusters
	return st.clusters
}

func (st *state) wrote(o *unstructured.Unstructured) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.written[o.GetName()] = o
}

// newest is the younger of the watched Application and the one last written.
func (st *state) newest(name string, watched *unstructured.Unstructured) *unstructured.Unstructured {
	st.mu.Lock()
	defer st.mu.Unlock()
	w := st.written[name]
	if w == nil || watched != nil && (w.GetUID() != watched.GetUID() || !older(watched, w)) {
		return watched
	}
	return w
}

// older compares resource versions, which are numbers.
func older(a, b *unstructured.Unstructured) bool {
	x, y := a.GetResourceVersion(), b.GetResourceVersion()
	return len(x) < len(y) || len(x) == len(y) && x < y
}
