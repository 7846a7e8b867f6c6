package applicationset

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/generate"
)

const (
	reasonValidation = "ApplicationValidationError"
	reasonUpdate     = "UpdateApplicationError"
	reasonDelete     = "DeleteApplicationError"

	retryFirst = time.Second
	retryLast  = 3 * time.Minute
)

// pass is one reconcile of one ApplicationSet.
type pass struct {
	*Controller
	key     string
	st      *state
	object  *unstructured.Unstructured
	set     v1alpha1.ApplicationSet
	current map[string]*unstructured.Unstructured // owned by the set, by name
	pruned  map[string]bool                       // deleted in this pass
	problem *problem                              // what goes into the conditions
	look    bool                                  // the refresh annotation was heeded
}

// problem is a failure of a stage.
type problem struct {
	reason    string
	message   string
	generated bool // the parameters were generated
}

// reconcile brings one ApplicationSet a step further. It returns an error only
// for faults of the surroundings; faults of the input become conditions.
func (c *Controller) reconcile(ctx context.Context, key string) error {
	obj, ok, err := c.sets.GetStore().GetByKey(key)
	if err != nil {
		return fmt.Errorf("look up the ApplicationSet: %w", err)
	}
	if !ok {
		c.forget(key)
		return nil
	}
	st := c.state(key)
	p := &pass{Controller: c, key: key, st: st, object: obj.(*unstructured.Unstructured), pruned: map[string]bool{}}
	if st.set != nil && st.set.GetUID() == p.object.GetUID() && older(p.object, st.set) {
		p.object = st.set
	}
	if err := v1alpha1.Decode(p.object, &p.set); err != nil {
		p.set = v1alpha1.ApplicationSet{ObjectMeta: metav1.ObjectMeta{Namespace: p.object.GetNamespace(), Name: p.object.GetName()}}
		p.problem = &problem{generate.ReasonParams, "the spec cannot be read: " + err.Error(), false}
		return p.writeStatus(ctx, nil)
	}
	p.loadCurrent()
	if p.set.DeletionTimestamp != nil {
		return p.finalize(ctx)
	}
	if err := p.ensureFinalizer(ctx); err != nil {
		return err
	}
	if err := p.generate(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return nil
	}
	if st.failure == nil {
		return p.apply(ctx)
	}
	if err := p.writeStatus(ctx, nil); err != nil || !p.look {
		return err
	}
	return p.removeAnnotation(ctx, v1alpha1.AnnotationApplicationSetRefresh)
}

// loadCurrent collects the Applications that the set owns.
func (p *pass) loadCurrent() {
	p.current = map[string]*unstructured.Unstructured{}
	list, err := p.apps.GetIndexer().ByIndex(ownerIndex, p.key)
	if err != nil {
		return
	}
	for _, obj := range list {
		if o := unwrap(obj); o != nil && p.owns(o) {
			p.current[o.GetName()] = p.st.newest(o.GetName(), o)
		}
	}
	p.st.mu.Lock()
	defer p.st.mu.Unlock()
	for name, w := range p.st.written {
		if p.current[name] == nil && p.owns(w) {
			p.current[name] = w
		}
	}
}

func (p *pass) owns(o *unstructured.Unstructured) bool {
	ref := controllerOf(o)
	return ref != nil && ref.UID == p.set.UID
}

// generate makes the Applications anew when something says so, and leaves the
// outcome in the state.
func (p *pass) generate(ctx context.Context) error {
	st, now := p.st, p.Now()
	st.mu.Lock()
	moved, stale := st.moved, st.stale
	st.moved, st.stale = false, false
	st.mu.Unlock()
	_, refresh := p.set.Annotations[v1alpha1.AnnotationApplicationSetRefresh]
	p.look = refresh
	due := !st.due.IsZero() && !now.Before(st.due)
	changed := st.uid != p.set.UID || st.generation != p.set.Generation
	if st.result != nil && !changed && !refresh && !stale && st.failure == nil {
		if !moved && !due {
			return nil
		}
		if !due || !st.result.Remote {
			same, err := p.sameInputs(ctx, st)
			if err != nil {
				st.stale = true
				return fmt.Errorf("compare what was read: %w", err)
			}
			if same {
				p.schedule(st.result.Requeue)
				return nil
			}
		}
	} else if st.failure != nil && !changed && !refresh && !stale && !moved && !due {
		return nil
	}
	cfg, deps := p.generator()
	news := p.news.Load()
	result, err := generate.Run(ctx, cfg, deps, &p.set)
	if ctx.Err() != nil {
		return nil
	}
	st.uid, st.generation = p.set.UID, p.set.Generation
	st.mu.Lock()
	st.reads, st.pulls, st.clusters = result.Reads, result.Pulls, result.UsesClusters
	st.checkEach = true
	if len(result.Pulls) > 0 && p.news.Load() != news { // perhaps after they were listed, and nobody could know who lists them
		st.stale = true
		p.queue.Add(p.key)
	}
	st.mu.Unlock()
	if err != nil {
		p.failed(err, result.Requeue)
		return nil
	}
	st.failure, st.failures, st.told = nil, 0, ""
	st.result = result
	p.schedule(result.Requeue)
	return nil
}

// failed notes a failure. The Applications stay as they are; the next attempt
// comes by a change, or after a while.
func (p *pass) failed(err error, requeue time.Duration) {
	st := p.st
	st.failure = err
	wait := min(retryFirst<<min(st.failures, 10), retryLast)
	st.failures++
	if requeue > 0 {
		wait = min(wait, requeue)
	}
	var g *generate.Error
	if errors.As(err, &g) && g.Reason == generate.ReasonTemplate && st.failures > 1 {
		wait = retryLast // only another input helps
	}
	p.schedule(wait)
	if msg := err.Error(); msg != st.told {
		st.told = msg
		p.Log.Warn("the ApplicationSet cannot be generated; its Applications stay as they are", "applicationset", p.key, "error", err)
	}
}

// schedule asks for a pass after d, a little spread.
func (p *pass) schedule(d time.Duration) {
	if d <= 0 {
		p.st.due = time.Time{}
		return
	}
	d += rand.N(d/10 + 1)
	p.st.due = p.Now().Add(d)
	p.queue.AddAfter(p.key, d+time.Millisecond)
}

// apply brings the Applications to what was generated, as far as the policy
// and the strategy allow.
func (p *pass) apply(ctx context.Context) error {
	st := p.st
	names, each := st.takeChecks()
	if each || st.desired == nil {
		st.desired = p.desiredOf(st.result.Applications)
		gone := func(name string) bool { return !st.desired.named[name] }
		maps.DeleteFunc(st.looks, func(name string, _ time.Time) bool { return gone(name) })
		maps.DeleteFunc(st.asked, func(name string, _ asked) bool { return gone(name) })
	}
	d := st.desired
	st.mu.Lock()
	st.rolling, st.size = rolling(&p.set), len(d.apps)
	st.mu.Unlock()
	todo := p.changes(d, names, each)
	turn := p.turn(d, todo)
	err := p.write(ctx, todo)
	if err == nil && p.policy().deletes {
		err = p.prune(ctx, d)
	}
	if err != nil {
		st.checkAll() // what was not written is looked at again
		if p.problem == nil {
			p.problem = &problem{reasonUpdate, err.Error(), true}
		}
	}
	if msg := strategyProblem(&p.set); p.problem == nil && msg != "" {
		p.problem = &problem{reasonValidation, msg, true}
	}
	if p.problem == nil && len(d.invalid) > 0 {
		p.problem = &problem{reasonValidation, d.message(), true}
	}
	if serr := p.writeStatus(ctx, turn); serr != nil {
		return errors.Join(err, serr)
	}
	if err == nil && turn != nil {
		err = p.trigger(ctx, d, turn)
	}
	if err == nil && p.look {
		err = p.removeAnnotation(ctx, v1alpha1.AnnotationApplicationSetRefresh)
	}
	return err
}

func (p *pass) removeAnnotation(ctx context.Context, name string) error {
	return p.patchSet(ctx, map[string]any{"metadata": map[string]any{"annotations": map[string]any{name: nil}}})
}

// policy is what the controller may do with Applications.
type policy struct{ updates, deletes bool }

func (p *pass) policy() policy {
	name := p.Policy
	if s := p.set.Spec.SyncPolicy; s != nil && s.ApplicationsSync != "" {
		name = s.ApplicationsSync
	}
	return policy{
		updates: name == v1alpha1.ApplicationsSyncSync || name == v1alpha1.ApplicationsSyncCreateUpdate,
		deletes: name == v1alpha1.ApplicationsSyncSync || name == v1alpha1.ApplicationsSyncCreateDelete,
	}
}

func known(policy string) bool {
	switch policy {
	case v1alpha1.ApplicationsSyncSync, v1alpha1.ApplicationsSyncCreateOnly, v1alpha1.ApplicationsSyncCreateUpdate, v1alpha1.ApplicationsSyncCreateDelete:
		return true
	}
	return false
}

// handles reports whether ApplicationSets of a namespace are this controller's.
func (c *Controller) handles(namespace string) bool {
	if namespace == c.Namespace {
		return true
	}
	for _, pattern := range c.Namespaces {
		if ok, err := path.Match(pattern, namespace); err == nil && ok {
			return true
		}
	}
	return false
}

func rolling(set *v1alpha1.ApplicationSet) bool {
	s := set.Spec.Strategy
	return s != nil && s.Type == "RollingSync" && s.RollingSync != nil && len(s.RollingSync.Steps) > 0
}

// strategyProblem says what of the strategy is not carried out.
func strategyProblem(set *v1alpha1.ApplicationSet) string {
	s := set.Spec.Strategy
	switch {
	case s == nil || s.Type == "" || s.Type == "AllAtOnce" || rolling(set):
	case s.Type == "RollingSync":
		return "spec.strategy: RollingSync needs rollingSync.steps; all Applications are synced at once"
	default:
		return fmt.Sprintf("spec.strategy.type %q is not known; AllAtOnce and RollingSync are; all Applications are synced at once", s.Type)
	}
	if s != nil && strings.EqualFold(s.DeletionOrder, "Reverse") && !rolling(set) {
		return "spec.strategy.deletionOrder: Reverse needs the steps of a RollingSync; all Applications are deleted at once"
	}
	return ""
}

func now(c *Controller) metav1.Time { return metav1.NewTime(c.Now()).Rfc3339Copy() }
