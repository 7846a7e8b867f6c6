package observe

import (
	"context"
	"fmt"
	"sort"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe/health"
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

// watchEvents follows the warnings about pods. c.mu is held.
func (c *Cache) watchEvents(life context.Context) error {
	informer := dynamicinformer.NewFilteredDynamicInformer(c.Client, eventResource, metav1.NamespaceAll, 0, cache.Indexers{},
		func(o *metav1.ListOptions) { o.FieldSelector = "involvedObject.kind=Pod,type=Warning" }).Informer()
	if err := informer.SetTransform(func(obj any) (any, error) {
		if o, ok := obj.(*unstructured.Unstructured); ok {
			o.SetManagedFields(nil)
		}
		return obj, nil
	}); err != nil {
		return fmt.Errorf("watch events: %w", err)
	}
	note := func(obj any) {
		if o, ok := obj.(*unstructured.Unstructured); ok {
			c.noteEvent(o)
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: note, UpdateFunc: func(_, obj any) { note(obj) },
	}); err != nil {
		return fmt.Errorf("watch events: %w", err)
	}
	c.wg.Go(func() { informer.RunWithContext(life) })
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
	c.mu.Unlock()
	namespace, name, _ := strings.Cut(pod, "/")
	if p := c.cached(podKind, namespace, name); p != nil {
		if instance, ok := c.instanceOf(p, 0); ok {
			c.Changed(instance)
		}
	}
}

// Health is the health of a live object with the problem of its pods, where
// they have one: the reason is what people look for.
func (c *Cache) Health(o *unstructured.Unstructured) (health.Status, bool) {
	s, ok := health.Of(o)
	if !ok || s.Code == v1alpha1.HealthHealthy || s.Code == v1alpha1.HealthSuspended {
		return s, ok
	}
	if pod, why := c.Problem(o); why != "" {
		if o.GetKind() == "Pod" {
			s.Message = why
		} else {
			s.Message += fmt.Sprintf("; pod %s: %s", pod, why)
		}
	}
	return s, ok
}

// Problem finds the newest pod below o that has a problem, and the reason.
func (c *Cache) Problem(o *unstructured.Unstructured) (pod, why string) {
	pods := c.pods(o, 0)
	sort.Slice(pods, func(i, j int) bool {
		a, b := pods[i].GetCreationTimestamp(), pods[j].GetCreationTimestamp()
		return b.Before(&a)
	})
	for _, p := range pods {
		if why := c.podProblem(p); why != "" {
			return p.GetName(), why
		}
	}
	return "", ""
}

func (c *Cache) pods(o *unstructured.Unstructured, depth int) []*unstructured.Unstructured {
	if o.GetKind() == "Pod" {
		return []*unstructured.Unstructured{o}
	}
	if depth > 3 {
		return nil
	}
	var out []*unstructured.Unstructured
	for _, child := range c.Children(o) {
		out = append(out, c.pods(child, depth+1)...)
	}
	return out
}

func (c *Cache) podProblem(p *unstructured.Unstructured) string {
	if p.GetDeletionTimestamp() != nil {
		return ""
	}
	if s, _ := health.Of(p); s.Code == v1alpha1.HealthHealthy {
		return ""
	}
	c.mu.Lock()
	e, ok := c.events[p.GetNamespace()+"/"+p.GetName()]
	c.mu.Unlock()
	own := health.PodProblem(p)
	if ok && e.uid == string(p.GetUID()) && (own == "" || e.reason == "FailedMount") {
		return e.reason + ": " + e.message
	}
	return own
}
