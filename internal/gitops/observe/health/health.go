// Package health says how well one live object works, by what the object
// itself reports. It is pure.
//
// Input: an object as the API server returns it. Output: a code and, where it
// is not healthy, the reason. The rules are those of Argo CD's built-in checks,
// with one difference: an object whose controller has not seen its newest
// generation is never healthy.
//
// Start reading at [Of].
package health

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// Status is the health of one object.
type Status struct {
	Code    v1alpha1.HealthCode
	Message string
}

func healthy(msg string) Status { return Status{v1alpha1.HealthHealthy, msg} }
func progressing(format string, args ...any) Status {
	return Status{v1alpha1.HealthProgressing, fmt.Sprintf(format, args...)}
}
func degraded(format string, args ...any) Status {
	return Status{v1alpha1.HealthDegraded, fmt.Sprintf(format, args...)}
}

type check func(o *unstructured.Unstructured) Status

func checkFor(gk schema.GroupKind) check {
	switch gk {
	case schema.GroupKind{Group: "apps", Kind: "Deployment"}:
		return deployment
	case schema.GroupKind{Group: "apps", Kind: "StatefulSet"}:
		return statefulSet
	case schema.GroupKind{Group: "apps", Kind: "DaemonSet"}:
		return daemonSet
	case schema.GroupKind{Group: "apps", Kind: "ReplicaSet"}:
		return replicaSet
	case schema.GroupKind{Kind: "Pod"}:
		return pod
	case schema.GroupKind{Group: "batch", Kind: "Job"}:
		return job
	case schema.GroupKind{Kind: "Service"}:
		return service
	case schema.GroupKind{Group: "networking.k8s.io", Kind: "Ingress"}:
		return ingress
	case schema.GroupKind{Kind: "PersistentVolumeClaim"}:
		return claim
	case schema.GroupKind{Group: "autoscaling", Kind: "HorizontalPodAutoscaler"}:
		return autoscaler
	case schema.GroupKind{Group: "apiregistration.k8s.io", Kind: "APIService"}:
		return apiService
	case schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}:
		return definition
	}
	return nil
}

// Of returns the health of a live object; ok is false for kinds that have none.
func Of(o *unstructured.Unstructured) (s Status, ok bool) {
	if o.GetDeletionTimestamp() != nil && !isHook(o) {
		return progressing("being deleted"), true
	}
	f := checkFor(o.GroupVersionKind().GroupKind())
	if f == nil {
		return Status{}, false
	}
	return f(o), true
}

func isHook(o *unstructured.Unstructured) bool {
	_, ok := o.GetAnnotations()[v1alpha1.AnnotationHook]
	return ok
}

// order from best to worst.
var order = []v1alpha1.HealthCode{
	v1alpha1.HealthHealthy, v1alpha1.HealthSuspended, v1alpha1.HealthProgressing,
	v1alpha1.HealthMissing, v1alpha1.HealthDegraded, v1alpha1.HealthUnknown,
}

// Worse reports whether a is worse than b.
func Worse(a, b v1alpha1.HealthCode) bool {
	return slices.Index(order, a) > slices.Index(order, b)
}

func number(o *unstructured.Unstructured, missing int64, path ...string) int64 {
	v, ok, err := unstructured.NestedFieldNoCopy(o.Object, path...)
	if !ok || err != nil {
		return missing
	}
	switch n := v.(type) {
	case int64:
		return n
	case float64:
		return int64(n)
	}
	return missing
}

func text(o *unstructured.Unstructured, path ...string) string {
	s, _, _ := unstructured.NestedString(o.Object, path...)
	return s
}

type condition struct{ status, reason, message string }

func conditions(o *unstructured.Unstructured) map[string]condition {
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	out := map[string]condition{}
	for _, item := range list {
		m, _ := item.(map[string]any)
		str := func(k string) string { s, _ := m[k].(string); return s }
		out[str("type")] = condition{str("status"), str("reason"), str("message")}
	}
	return out
}

// seen reports whether the controller of o has seen its newest generation.
func seen(o *unstructured.Unstructured) bool {
	return number(o, 0, "status", "observedGeneration") >= o.GetGeneration()
}
