package application

import (
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render"
)

// state is what the controller keeps of one Application between reconciles.
// It is a cache: losing it costs work, not correctness. The worker that holds
// the key holds busy and owns the fields; mu guards what others read, and is
// taken to write that.
type state struct {
	wake chan struct{} // tells a waiting operation to look again
	busy sync.Mutex    // held for a whole pass; never taken while mu is held

	mu      sync.Mutex
	repo    *git.Repository
	name    string // of the repository, "owner/name"
	commit  string // that targetRevision names, as far as known
	resolve bool   // commit must be found anew
	hard    bool   // the render must be done anew
	params  string // the part of the spec that commit and render depend on

	rendered    *rendered
	predictions map[plan.Key]predicted
	plan        *plan.Plan
	written     *unstructured.Unstructured // the Application as last written
	op          *operation
	state       *v1alpha1.OperationState // of the last operation of this process
	serial      int                      // of the last render
	last        attempt
	announced   string // commit whose render and plan are in the journal
	drift       string // last drift told
	ready       readiness
	watchers    map[chan struct{}]bool
	resync      time.Time
	retryAt     time.Time // of the next automated attempt
	looked      bool      // in the journal, for what an earlier process told
}

// rendered is the outcome of one rendering.
type rendered struct {
	commit string
	params string
	result render.Result
	err    error
	took   time.Duration
	serial int // differs between renders with different inputs
}

// predicted is a dry run and what it was made of.
type predicted struct {
	of string
	plan.Prediction
}

// attempt is the last sync of the application.
type attempt struct {
	commit, params string
	phase          v1alpha1.Phase
	failures       int64
	heals          int
	at             time.Time
	told           bool // that it is tried again
}

// readiness is what the journal says of the health at a commit.
type readiness struct {
	commit string
	told   string
}

func (c *Controller) state(key string) *state {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.states[key]
	if st == nil {
		st = &state{wake: make(chan struct{}, 1), resolve: true, predictions: map[plan.Key]predicted{}, watchers: map[chan struct{}]bool{}}
		c.states[key] = st
	}
	return st
}

func (c *Controller) forget(key string) {
	c.mu.Lock()
	st := c.states[key]
	delete(c.states, key)
	c.mu.Unlock()
	if st == nil {
		return
	}
	st.mu.Lock()
	name, op := st.name, st.op
	st.mu.Unlock()
	if op != nil {
		op.cancel(errDeleted)
	}
	if name != "" {
		c.index(name).Set(key, nil)
	}
	st.notify()
}

// notify wakes those who wait for a change of the application.
func (st *state) notify() {
	st.mu.Lock()
	defer st.mu.Unlock()
	for ch := range st.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func (st *state) watch(ch chan struct{}) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.watchers[ch] = true
}

func (st *state) unwatch(ch chan struct{}) {
	if st == nil {
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.watchers, ch)
}

// instance is the application's name in tracking annotations.
func (c *Controller) instance(namespace, name string) string {
	if namespace == c.Namespace {
		return name
	}
	return namespace + "_" + name
}

func (c *Controller) keyOf(instance string) string {
	if namespace, name, ok := strings.Cut(instance, "_"); ok {
		return namespace + "/" + name
	}
	return c.Namespace + "/" + instance
}

// target is the targetRevision of an application.
func (c *Controller) target(key string) (string, bool) {
	obj, ok, err := c.apps.GetStore().GetByKey(key)
	if err != nil || !ok {
		return "", false
	}
	var app v1alpha1.Application
	if v1alpha1.Decode(obj.(*unstructured.Unstructured), &app) != nil {
		return "", false
	}
	src := sourceOf(&app)
	if src == nil {
		return "", false
	}
	return src.TargetRevision, true
}

// move notes that another commit gives the same objects. busy is held.
func (st *state) move(to string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	moved := *st.rendered
	if st.last.commit == moved.commit {
		st.last.commit = to
	}
	moved.commit = to
	st.rendered, st.commit = &moved, to
}
