package observe

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

func job(uid, version string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion("batch/v1")
	o.SetKind("Job")
	o.SetNamespace("shop")
	o.SetName("migrate")
	o.SetUID(types.UID(uid))
	o.SetResourceVersion(version)
	return o
}

// A hook is deleted and made anew within milliseconds: the watch's word of the
// first one's end must not hide the second.
func TestTheEndOfAPredecessorDoesNotHideItsSuccessor(t *testing.T) {
	old, made := job("one", "10"), job("two", "12")
	c := &Cache{Deps: Deps{Now: time.Now}, overlay: map[plan.Key]written{}}
	c.overlay[plan.KeyOf(made)] = written{object: made, at: time.Now()}

	c.settle(old, nil)
	if got := c.over(plan.KeyOf(made), nil); got == nil || got.GetUID() != "two" {
		t.Fatalf("after the end of the first the second is %v", got)
	}
	c.settle(made, nil)
	if got := c.over(plan.KeyOf(made), nil); got != nil {
		t.Errorf("after its own end it is still there: %v", got)
	}
}
