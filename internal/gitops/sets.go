package gitops

import (
	"context"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/credential"
)

// sets drives ApplicationSets. Its watches of Applications start with the
// first ApplicationSet: who has none does not pay for them.
type sets struct {
	*Engine
	controller *applicationset.Controller
	started    chan struct{} // closed when there is an ApplicationSet
}

func (e *Engine) newSets() (*sets, error) {
	s := &sets{Engine: e, started: make(chan struct{})}
	var err error
	s.controller, err = applicationset.New(applicationset.Config{Namespace: e.cfg.Namespace}, applicationset.Deps{
		Log: e.deps.Log, Client: e.client, Repositories: s, Forge: e.deps.Forge, Now: e.deps.Now,
	})
	return s, err
}

// run waits for an ApplicationSet, then drives them until ctx ends.
func (s *sets) run(ctx context.Context) {
	s.await(ctx)
	// Without an ApplicationSet ctx has ended: then this only ends its queue.
	if err := s.controller.Run(ctx); err != nil {
		s.deps.Log.Error("ApplicationSets are no longer handled", "error", err)
	}
}

// await returns true when there is an ApplicationSet.
func (s *sets) await(ctx context.Context) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	informer := dynamicinformer.NewFilteredDynamicInformer(s.client, v1alpha1.ApplicationSetResource, metav1.NamespaceAll, 0, cache.Indexers{}, nil).Informer()
	var once sync.Once
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) { once.Do(func() { close(s.started) }) }}); err != nil {
		s.deps.Log.Error("ApplicationSets are not watched", "error", err)
		return false
	}
	var watch sync.WaitGroup
	watch.Go(func() { informer.RunWithContext(ctx) })
	defer watch.Wait()
	defer cancel()
	select {
	case <-s.started:
		return true
	case <-ctx.Done():
		return false
	}
}

// moved hands a move on, once there is an ApplicationSet.
func (s *sets) moved(m application.Move, changed func() []string) {
	select {
	case <-s.started:
		s.controller.Moved(applicationset.Move{Repo: m.Repo, Ref: m.Ref, Before: m.Before, After: m.After, Changed: changed()})
	default:
	}
}

// Tree implements generate.Repositories.
func (s *sets) Tree(ctx context.Context, project, repoURL, revision string) (*source.Tree, error) {
	src := v1alpha1.ApplicationSource{RepoURL: repoURL, TargetRevision: revision}
	list := s.list
	r, err := list.Resolve(ctx, project, src)
	if err != nil {
		return nil, fmt.Errorf("repoURL: %w", err)
	}
	// So that its moves are looked for. The number of such readers is that of
	// the repositories and revisions that generators name.
	list.Follow(ctx, "applicationsets\x00"+project+"\x00"+repoURL+"\x00"+revision, project, src)
	return list.Tree(ctx, project, src, r)
}

// Name implements generate.Repositories.
func (s *sets) Name(repoURL string) string {
	if s.deps.Repositories != nil {
		if _, name, err := s.deps.Repositories.Open(context.Background(), repoURL); err == nil {
			return name
		}
	}
	if at, err := credential.Parse(repoURL); err == nil {
		return at.Name()
	}
	return repoURL
}
