package gitops

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/application"
	"github.com/lockstep-gitops/lockstep/internal/gitops/render"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/remote"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/webhook"
)

// sources are the repositories of this machine, and through the service those
// of other places.
type sources struct{ *remote.Service }

var _ application.Sources = sources{}

// newSources returns the sources below the state directory.
func (e *Engine) newSources() sources {
	return sources{remote.New(remote.Config{Dir: filepath.Join(e.deps.StateDir, "sources"), Interval: e.cfg.PollInterval}, remote.Deps{
		Log: e.deps.Log, Now: e.deps.Now, Transport: e.deps.Transport,
		Local: func(ctx context.Context, repoURL string) (*git.Repository, string, bool) {
			if e.deps.Repositories == nil {
				return nil, "", false
			}
			repo, name, err := e.deps.Repositories.Open(ctx, repoURL)
			return repo, name, err == nil
		},
		Moved: func(m remote.Move) {
			e.moved(application.Move{Repo: m.Repo, Ref: m.Ref, Before: m.Before, After: m.After})
		},
		Health: func(name string, _ error) { e.controller.RepositoryChanged(name) },
	})}
}

// moved hands a move of a remote source to the applications.
func (e *Engine) moved(m application.Move) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e.controller.Moved(ctx, m)
}

// Resolve implements application.Sources.
func (s sources) Resolve(ctx context.Context, project string, src v1alpha1.ApplicationSource) (application.Revision, error) {
	r, err := s.ResolveSource(ctx, project, src)
	out := application.Revision{Repo: r.Name, ID: r.Revision, Git: r.Repo.Git, Local: r.Repo.Local, Chart: r.Kind != remote.Git}
	if err != nil {
		return out, fmt.Errorf("%s: %w", src.RepoURL, err)
	}
	if out.Git != nil && (source.Revision{Target: src.TargetRevision}).IsHead() {
		if head, err := out.Git.Run(ctx, "symbolic-ref", "HEAD"); err == nil {
			out.Head = strings.TrimSpace(string(head))
		}
	}
	return out, nil
}

// Tree implements application.Sources.
func (s sources) Tree(ctx context.Context, project string, src v1alpha1.ApplicationSource, r application.Revision) (*source.Tree, error) {
	if !r.Chart {
		return s.TreeAt(ctx, remote.Resolved{
			Kind: remote.Git, Repo: remote.Repository{Git: r.Git, Name: r.Repo, Local: r.Local}, Name: r.Repo,
			Revision: r.ID, Project: project, RepoURL: src.RepoURL,
		})
	}
	src.TargetRevision = r.ID
	at, err := s.ResolveSource(ctx, project, src)
	if err != nil {
		return nil, err
	}
	return s.TreeAt(ctx, at)
}

// Remote implements application.Sources.
func (s sources) Remote(project string) render.Remote { return s.For(project) }

// Follow implements application.Sources.
func (s sources) Follow(ctx context.Context, key, project string, list ...v1alpha1.ApplicationSource) {
	s.Track(ctx, key, project, list...)
}

const secretTTL = 30 * time.Second

// Webhook takes the push events that Git hosts send, as Argo CD's /api/webhook.
// It answers 503 while the engine has no remote sources.
func (e *Engine) Webhook() http.Handler {
	if e.sources.Service == nil {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "this engine reads no repositories of other places", http.StatusServiceUnavailable)
		})
	}
	secrets := &webhookSecrets{engine: e}
	return e.sources.Webhook(secrets.get)
}

// webhookSecrets are those of the Secret argocd-secret, asked for when a
// webhook comes.
type webhookSecrets struct {
	engine *Engine

	mu    sync.Mutex
	at    time.Time
	known webhook.Secrets
}

func (s *webhookSecrets) get() webhook.Secrets {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.engine.deps.Now()
	if now.Sub(s.at) < secretTTL {
		return s.known
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	o, err := s.engine.client.Resource(secretResource).Namespace(s.engine.cfg.Namespace).Get(ctx, "argocd-secret", metav1.GetOptions{})
	if err == nil {
		s.known = webhook.SecretsOf(secretData(o))
		s.at = now
	}
	return s.known
}

// secretData decodes the data of a Secret.
func secretData(o *unstructured.Unstructured) map[string][]byte {
	out := map[string][]byte{}
	data, _, _ := unstructured.NestedStringMap(o.Object, "data")
	for k, v := range data {
		if plain, err := base64.StdEncoding.DecodeString(v); err == nil {
			out[k] = plain
		}
	}
	return out
}
