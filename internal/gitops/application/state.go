package application

import (
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// state is what the controller keeps of one Application between reconciles.
// It is a cache: losing it costs work, not correctness. The worker that holds
// the key holds busy and owns the fields; mu guards what others read, and is
// taken to write that.
type state struct {
	wake chan struct{} // tells a waiting operation to look again
	busy sync.Mutex    // held for a whole pass; never taken while mu is held

	mu       sync.Mutex
	tracks   []*track // of the sources; nil for those that no move tells of
	revs     []Revision
	dirty    bool                  // the sources must be resolved anew
	looking  bool                  // a pass does so at this moment
	hard     bool                  // the render must be done anew
	params   string                // names the part of the spec that sources and render depend on
	started  bool                  // the first pass has been
	written  *v1alpha1.Application // as last written
	op       *operation
	retryAt  time.Time // of the next automated attempt
	watchers map[chan struct{}]bool
	plan     *plan.Plan // of the last comparison
	looked   time.Time  // last pass for a live change

	rendered    *rendered
	verdicts    map[plan.Key]verdict
	rules       string // names what verdicts depend on besides the objects
	accepted    map[plan.Key]accepted
	predictions map[plan.Key]predicted
	state       *v1alpha1.OperationState // of the last operation of this process
	serial      int                      // of the last render
	last        attempt
	announced   string              // commit whose render and plan are in the journal
	drift       string              // last drift told
	shared      map[plan.Key]string // objects that another application was seen to hold
	deleting    plan.Phase          // of the deletion: what was done
	ready       readiness
	resync      time.Time
	owes        time.Time      // since when a changed status waits to be written
	signed      map[int]string // by source: the commit whose signature was verified
}

// verdict is the outcome of comparing one object, and what it was made of.
type verdict struct {
	want   plan.Digest // of the desired object
	live   string      // resource version; "" when there was none
	change plan.Change // without the objects
}

// accepted is what the API server made of a desired object.
type accepted struct {
	want   plan.Digest
	object *unstructured.Unstructured
}

// predicted is a dry run and what it was made of.
type predicted struct {
	want plan.Digest
	live string
	plan.Prediction
}

// attempt is the last sync of the application.
type attempt struct {
	commit, params string
	phase          v1alpha1.Phase
	failures       int64
	heals          int
	at             time.Time
	told           bool   // that it is tried again
	why            string // it failed
	hook           bool   // a hook that ran failed: whatever it does is not done again
}

// readiness is what the journal says of the health at a commit.
type readiness struct {
	commit string
	told   string
}

func newState() *state {
	return &state{wake: make(chan struct{}, 1), dirty: true, watchers: map[chan struct{}]bool{}}
}

func (c *Controller) state(key string) *state {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.states[key]
	if st == nil {
		st = newState()
		c.states[key] = st
	}
	return st
}

func (c *Controller) forget(key string) {
	c.mu.Lock()
	st := c.states[key]
	delete(c.states, key)
	delete(c.unresolved, key)
	c.mu.Unlock()
	if st == nil {
		return
	}
	st.mu.Lock()
	op, tracks := st.op, st.tracks
	st.tracks = nil
	st.mu.Unlock()
	if op != nil {
		op.cancel(errDeleted)
	}
	for i, t := range tracks {
		if t != nil {
			t.repo.index.Set(readerKey(key, i), nil)
			c.leave(key, t)
		}
	}
	c.Sources.Follow(c.life, key, "")
	if c.Saved != nil {
		c.Saved.Delete(key)
	}
	c.wakeDependents(key)
	st.notify()
}

// commit is what the first source names now, as far as known.
func (st *state) commit() string {
	heads := st.heads()
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.revs) == 0 {
		return ""
	}
	if !st.dirty && !st.looking && len(heads) > 0 && heads[0] != "" {
		return heads[0]
	}
	return st.revs[0].ID
}

// heads are what the tracks of the sources name, "" where there is none. A
// move marks the applications that it affects before its head can be seen, so
// dirty is looked at after heads. A track is never locked while mu is held.
func (st *state) heads() []string {
	st.mu.Lock()
	tracks := st.tracks
	st.mu.Unlock()
	out := make([]string, len(tracks))
	for i, t := range tracks {
		if t != nil {
			out[i] = t.now()
		}
	}
	return out
}

// repo is the name of the repository of the first source.
func (st *state) repo() string {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.revs) == 0 {
		return ""
	}
	return st.revs[0].Repo
}

// calmDown is how long passes for live changes of one application are apart.
const calmDown = 100 * time.Millisecond

// calm reports whether the application may be looked at at once for a live
// change; the next within calmDown is not.
func (st *state) calm(now time.Time) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if now.Sub(st.looked) < calmDown {
		return false
	}
	st.looked = now
	return true
}

// stir makes a sync that waits look again.
func (st *state) stir() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
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
