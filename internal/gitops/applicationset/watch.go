package applicationset

import (
	"fmt"
	"reflect"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

func dropManagedFields(obj any) (any, error) {
	if o, ok := obj.(*unstructured.Unstructured); ok {
		o.SetManagedFields(nil)
	}
	return obj, nil
}

// slim keeps of an Application what this package looks at.
func slim(obj any) (any, error) {
	o, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return obj, nil
	}
	o.SetManagedFields(nil)
	status, _ := o.Object["status"].(map[string]any)
	if status == nil {
		return o, nil
	}
	kept := map[string]any{}
	for _, k := range []string{"sync", "health", "conditions", "reconciledAt"} {
		if v, ok := status[k]; ok {
			kept[k] = v
		}
	}
	if op, ok := status["operationState"].(map[string]any); ok {
		state := map[string]any{}
		for _, k := range []string{"phase", "startedAt", "operation"} {
			if v, ok := op[k]; ok {
				state[k] = v
			}
		}
		kept["operationState"] = state
	}
	o.Object["status"] = kept
	return o, nil
}

// ownerKeys indexes Applications by the ApplicationSet that owns them.
func ownerKeys(obj any) ([]string, error) {
	o, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil, nil
	}
	if ref := controllerOf(o); ref != nil && ref.Kind == v1alpha1.ApplicationSetKind.Kind {
		return []string{o.GetNamespace() + "/" + ref.Name}, nil
	}
	return nil, nil
}

func controllerOf(o *unstructured.Unstructured) *metav1.OwnerReference {
	refs := o.GetOwnerReferences()
	for i, r := range refs {
		if r.Controller != nil && *r.Controller {
			return &refs[i]
		}
	}
	return nil
}

// listen adds the handlers; the returned function takes them away again.
func (c *Controller) listen() (stop func(), err error) {
	var added []func()
	stop = func() {
		for _, f := range added {
			f()
		}
	}
	all := func(any) { c.projectsChanged() }
	for _, l := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandlerFuncs
	}{
		{c.sets, cache.ResourceEventHandlerFuncs{AddFunc: func(o any) { c.setChanged(nil, o) }, UpdateFunc: c.setChanged, DeleteFunc: func(o any) { c.setChanged(o, nil) }}},
		{c.apps, cache.ResourceEventHandlerFuncs{AddFunc: func(o any) { c.appChanged(nil, o) }, UpdateFunc: c.appChanged, DeleteFunc: func(o any) { c.appChanged(o, nil) }}},
		{c.projects, cache.ResourceEventHandlerFuncs{AddFunc: all, UpdateFunc: func(_, o any) { all(o) }, DeleteFunc: all}},
		{c.secrets, cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { c.ClustersChanged() },
			UpdateFunc: func(a, b any) { c.clusterChanged(a, b) }, DeleteFunc: func(any) { c.ClustersChanged() },
		}},
	} {
		reg, err := l.informer.AddEventHandler(l.handler)
		if err != nil {
			return stop, fmt.Errorf("applicationset: watch: %w", err)
		}
		added = append(added, func() { _ = l.informer.RemoveEventHandler(reg) })
	}
	return stop, nil
}

func unwrap(obj any) *unstructured.Unstructured {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	o, _ := obj.(*unstructured.Unstructured)
	return o
}

// setChanged leaves out what changes only the status.
func (c *Controller) setChanged(old, obj any) {
	before, after := unwrap(old), unwrap(obj)
	if before != nil && after != nil && before.GetUID() == after.GetUID() && before.GetGeneration() == after.GetGeneration() &&
		reflect.DeepEqual(before.GetAnnotations(), after.GetAnnotations()) && reflect.DeepEqual(before.GetFinalizers(), after.GetFinalizers()) &&
		(before.GetDeletionTimestamp() == nil) == (after.GetDeletionTimestamp() == nil) {
		return
	}
	o := after
	if o == nil {
		o = before
	}
	if o != nil && c.handles(o.GetNamespace()) {
		c.queue.Add(o.GetNamespace() + "/" + o.GetName())
	}
}

const statusDelay = time.Second // gathers changes of status.resources

// appChanged wakes the ApplicationSet of an Application: at once when somebody
// changed what the set decides on, or when a rollout looks at it; a little
// later when only its health or sync did.
func (c *Controller) appChanged(old, obj any) {
	before, after := unwrap(old), unwrap(obj)
	told := ""
	for _, o := range []*unstructured.Unstructured{before, after} {
		if o == nil {
			continue
		}
		if keys, _ := ownerKeys(o); len(keys) > 0 && keys[0] != told {
			told = keys[0]
			c.appChangedFor(told, o.GetName(), before, after)
		}
	}
}

func (c *Controller) appChangedFor(key, name string, before, after *unstructured.Unstructured) {
	st := c.known(key)
	if st == nil {
		return
	}
	rolling, size, ours := st.sawApp(name, after)
	switch {
	case after == nil:
		st.checkAll() // perhaps it was in the way of another of its name
		c.queue.Add(key)
	case before == nil || !sameDecided(before, after):
		if !ours {
			st.check(name)
		}
		if !ours || rolling {
			c.queue.Add(key)
		} else {
			c.queue.AddAfter(key, statusDelay)
		}
	case rolling:
		c.queue.Add(key)
	case !sameSeen(before, after):
		c.queue.AddAfter(key, statusDelay+time.Duration(size)*2*time.Millisecond)
	}
}

func sameDecided(a, b *unstructured.Unstructured) bool {
	return a.GetUID() == b.GetUID() && reflect.DeepEqual(a.Object["spec"], b.Object["spec"]) &&
		reflect.DeepEqual(a.GetLabels(), b.GetLabels()) && reflect.DeepEqual(a.GetAnnotations(), b.GetAnnotations()) &&
		reflect.DeepEqual(a.GetFinalizers(), b.GetFinalizers()) && reflect.DeepEqual(a.GetOwnerReferences(), b.GetOwnerReferences()) &&
		(a.GetDeletionTimestamp() == nil) == (b.GetDeletionTimestamp() == nil)
}

// sameSeen reports whether status.resources shows the same.
func sameSeen(a, b *unstructured.Unstructured) bool {
	x, y := seenOf(a), seenOf(b)
	return x == y
}

// projectsChanged lets every ApplicationSet check its Applications again.
func (c *Controller) projectsChanged() {
	for _, key := range c.sets.GetStore().ListKeys() {
		if st := c.known(key); st != nil {
			st.checkAll()
			c.queue.Add(key)
		}
	}
}

func (c *Controller) clusterChanged(old, obj any) {
	before, after := unwrap(old), unwrap(obj)
	if before != nil && after != nil && reflect.DeepEqual(before.Object["cluster"], after.Object["cluster"]) &&
		reflect.DeepEqual(before.GetLabels(), after.GetLabels()) && reflect.DeepEqual(before.GetAnnotations(), after.GetAnnotations()) {
		return
	}
	c.ClustersChanged()
}

// ClustersChanged tells that [generate.Clusters] gives another list. It is
// needed only for lists that are not of cluster Secrets.
func (c *Controller) ClustersChanged() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, st := range c.states {
		if st.clustersMoved() {
			c.queue.Add(key)
		}
	}
}
