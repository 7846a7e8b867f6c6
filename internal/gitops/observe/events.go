package observe

import (
	"context"
	"fmt"
	"sort"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe/health"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// podEvent is the last warning about a pod.
type podEvent struct{ uid, reason, message, at string }

// mountReasons are warnings that explain why a pod does not start. Others,
// like a failing probe, are shown by the pod's own status.
var mountReasons = map[string]bool{
	"FailedMount": true, "FailedAttachVolume": true, "FailedMapVolume": true, "FailedCreatePodSandBox": true,
	"FailedScheduling": true, "Failed": true, "FailedPreStopHook": true, "Unhealthy": true, "BackOff": false,
}

const maxEvents = 5000 // pods with a warning that are remembered

// watchEvents follows the warnings about pods. Only the last of each pod is
// kept. c.mu is held.
func (c *Cache) watchEvents(namespace string) {
	var client dynamic.ResourceInterface = c.Client.Resource(eventResource)
	if namespace != "" {
		client = c.Client.Resource(eventResource).Namespace(namespace)
	}
	only := func(o *metav1.ListOptions) { o.FieldSelector = "involvedObject.kind=Pod,type=Warning" }
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			only(&o)
			return client.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			only(&o)
			return client.Watch(ctx, o)
		},
	}, c.Client)
	reflector := cache.NewReflectorWithOptions(lw, &unstructured.Unstructured{}, warnings{c}, cache.ReflectorOptions{Name: "observe warnings"})
	c.wg.Go(func() { reflector.RunWithContext(c.Life) })
}

// warnings is where the reflector of events puts them.
type warnings struct{ *Cache }

func (w warnings) Add(obj any) error {
	if o, ok := obj.(*unstructured.Unstructured); ok {
		w.noteEvent(o)
	}
	return nil
}
func (w warnings) Update(obj any) error { return w.Add(obj) }
func (w warnings) Delete(any) error     { return nil }
func (w warnings) Resync() error        { return nil }
func (w warnings) Replace(list []any, _ string) error {
	for _, obj := range list {
		if err := w.Add(obj); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cache) noteEvent(o *unstructured.Unstructured) {
	str := func(path ...string) string { s, _, _ := unstructured.NestedString(o.Object, path...); return s }
	e := podEvent{uid: str("involvedObject", "uid"), reason: str("reason"), message: str("message"), at: str("lastTimestamp")}
	if e.at == "" {
		e.at = str("eventTime")
	}
	if !mountReasons[e.reason] {
		return
	}
	pod := str("involvedObject", "namespace") + "/" + str("involvedObject", "name")
	c.mu.Lock()
	if have, ok := c.events[pod]; !ok && len(c.events) >= maxEvents || ok && have.uid == e.uid && have.at > e.at {
		c.mu.Unlock()
		return
	}
	c.events[pod] = e
	namespace, name, _ := strings.Cut(pod, "/")
	instance := ""
	if k := c.kinds[podKind.GroupKind()]; k != nil {
		if p := k.objects[namespace+"/"+name]; p != nil {
			instance = c.instanceOf(p, 0)
		}
	}
	c.mu.Unlock()
	if instance != "" {
		c.Changed(instance)
	}
}

// Health is the health of a live object with the problem of its pods, where
// they have one: the reason is what people look for.
func (c *Cache) Health(u *unstructured.Unstructured) (health.Status, bool) {
	if o := c.Lookup(plan.KeyOf(u)); o != nil && o.UID == u.GetUID() && o.ResourceVersion == u.GetResourceVersion() {
		return c.HealthOf(o)
	}
	return c.assess(u)
}

// HealthOf is [Cache.Health] of a cached object.
func (c *Cache) HealthOf(o *Object) (health.Status, bool) {
	s := o.Health
	if !o.HasHealth || s.Code == v1alpha1.HealthHealthy || s.Code == v1alpha1.HealthSuspended {
		return s, o.HasHealth
	}
	if pod, why := c.Problem(o); why != "" {
		if o.Key.Kind == "Pod" {
			s.Message = why
		} else {
			s.Message += fmt.Sprintf("; pod %s: %s", pod, why)
		}
	}
	return s, true
}

// Problem finds the newest pod below o that has a problem, and the reason.
func (c *Cache) Problem(o *Object) (pod, why string) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	pods := c.pods(o, 0)
	sort.Slice(pods, func(i, j int) bool { return pods[j].Created.Before(pods[i].Created) })
	for _, p := range pods {
		if why := c.podProblem(p); why != "" {
			return p.Key.Name, why
		}
	}
	return "", ""
}

// pods are those at or below o. c.mu is held.
func (c *Cache) pods(o *Object, depth int) []*Object {
	if o.Key.Kind == "Pod" {
		return []*Object{o}
	}
	if depth > 3 {
		return nil
	}
	var out []*Object
	for _, child := range c.byOwner[o.UID] {
		out = append(out, c.pods(child, depth+1)...)
	}
	return out
}

// podProblem is why a pod does not run, "" when it does. c.mu is held.
func (c *Cache) podProblem(p *Object) string {
	if p.Deleting || p.Health.Code == v1alpha1.HealthHealthy {
		return ""
	}
	e, ok := c.events[p.Key.Namespace+"/"+p.Key.Name]
	if ok && e.uid == string(p.UID) && (p.Problem == "" || e.reason == "FailedMount") {
		return e.reason + ": " + e.message
	}
	return p.Problem
}
