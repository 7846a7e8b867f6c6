package apply

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/observe/health"
	"github.com/lockstep-gitops/lockstep/internal/gitops/plan"
)

// slowFinalizer keeps an object that is being deleted for the ticks of its
// script.
const slowFinalizer = "example.com/slow"

// tick lets time go by: everything comes one step nearer to its health.
func (s *server) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, n := range s.left {
		s.left[k] = max(0, n-1)
	}
	for k, o := range s.objects {
		if o.GetDeletionTimestamp() != nil && s.left[k] == 0 && slices.Contains(o.GetFinalizers(), slowFinalizer) {
			o = o.DeepCopy()
			o.SetFinalizers(nil)
			s.objects[k] = o
			s.sweep(k)
		}
	}
}

// run ticks each time somebody looks for a change; after the context's end,
// ticker says when it has ended.
func (s *server) run(ctx context.Context) <-chan struct{} {
	changed := make(chan struct{})
	s.ticker.Go(func() {
		for {
			s.tick()
			select {
			case changed <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	})
	return changed
}

// The server is its own live state.

func (s *server) Get(_ context.Context, desired *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.objects[plan.KeyOf(desired)]; o != nil {
		return o.DeepCopy(), nil
	}
	return nil, nil
}

func (s *server) Health(o *unstructured.Unstructured) (health.Status, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := plan.KeyOf(o)
	if o.GetKind() == "ConfigMap" || o.GetKind() == "Secret" {
		return health.Status{}, false
	}
	switch {
	case s.left[key] > 0:
		return health.Status{Code: v1alpha1.HealthProgressing, Message: fmt.Sprintf("%d to go", s.left[key])}, true
	case s.scripts[key].fails:
		return health.Status{Code: v1alpha1.HealthDegraded, Message: "broken"}, true
	}
	return health.Status{Code: v1alpha1.HealthHealthy}, true
}

func (s *server) Wrote(*unstructured.Unstructured)   {}
func (s *server) Deleted(*unstructured.Unstructured) {}
