// Package health says how well one live object works, by what the object
// itself reports. It is pure.
//
// Input: an object as the API server returns it, and the settings. Output: a
// code and, where it is not healthy, the reason; or nothing, for a kind that
// has no health. What decides, the first that knows the kind:
//
//  1. Lua from the settings, resource.customizations.health
//  2. the rules of this package for kinds of well-known projects: rules/*.yaml
//  3. the checks for Kubernetes' own kinds, in Go
//  4. conditions, for kinds that the settings name in lockstep.genericHealth
//
// A kind that none of them knows has no health, as in Argo CD: most custom
// resources are plain configuration, and a guess would block syncs. An object
// whose controller has not seen its newest generation is never healthy.
//
// Start reading at [Assessor.Of]; to teach it a kind, read rules/README.md.
package health

import (
	"fmt"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// Status is the health of one object.
type Status struct {
	Code    v1alpha1.HealthCode
	Message string
	// AggregateAs, when not empty, is what counts for the application in the
	// place of Code: a suspended Job is shown as such, and bothers nobody.
	AggregateAs v1alpha1.HealthCode
}

// Counts is the code that counts for the application.
func (s Status) Counts() v1alpha1.HealthCode {
	if s.AggregateAs != "" {
		return s.AggregateAs
	}
	return s.Code
}

func healthy(msg string) Status { return Status{Code: v1alpha1.HealthHealthy, Message: msg} }
func progressing(format string, args ...any) Status {
	return Status{Code: v1alpha1.HealthProgressing, Message: fmt.Sprintf(format, args...)}
}
func degraded(format string, args ...any) Status {
	return Status{Code: v1alpha1.HealthDegraded, Message: fmt.Sprintf(format, args...)}
}
func suspended(msg string) Status { return Status{Code: v1alpha1.HealthSuspended, Message: msg} }
func unknown(msg string) Status   { return Status{Code: v1alpha1.HealthUnknown, Message: msg} }

var standard = sync.OnceValue(func() *Assessor {
	a, _ := New(nil)
	return a
})

// Of returns the health of a live object without any settings; ok is false for
// kinds that have none.
func Of(o *unstructured.Unstructured) (s Status, ok bool) { return standard().Of(o) }

// order from best to worst.
var order = []v1alpha1.HealthCode{
	v1alpha1.HealthHealthy, v1alpha1.HealthSuspended, v1alpha1.HealthProgressing,
	v1alpha1.HealthMissing, v1alpha1.HealthDegraded, v1alpha1.HealthUnknown,
}

// Worse reports whether a is worse than b.
func Worse(a, b v1alpha1.HealthCode) bool {
	return slices.Index(order, a) > slices.Index(order, b)
}

func known(code v1alpha1.HealthCode) bool { return slices.Contains(order, code) }
