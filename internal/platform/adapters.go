package platform

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/azure"
	"github.com/lockstep-gitops/lockstep/internal/cluster"
	"github.com/lockstep-gitops/lockstep/internal/forge"
	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/registry"
)

// lateHandler is a handler that is known only after its user was made.
type lateHandler struct{ handler atomic.Pointer[http.Handler] }

func (l *lateHandler) bind(h http.Handler) { l.handler.Store(&h) }

// ServeHTTP implements http.Handler.
func (l *lateHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := l.handler.Load()
	if h == nil {
		http.Error(w, "still starting", http.StatusServiceUnavailable)
		return
	}
	(*h).ServeHTTP(w, r)
}

// registryUsers are who may use a registry: for *.azurecr.io whoever Azure says,
// for the registry at localhost the owner of this machine.
type registryUsers struct{ s *system }

// Login implements registry.Authorizer.
func (u registryUsers) Login(ctx context.Context, host, user, password string) (registry.Principal, error) {
	if host == registry.DefaultHost {
		token, err := u.s.forge.OwnerToken(ctx)
		if err != nil {
			return registry.Principal{}, err
		}
		if subtle.ConstantTimeCompare([]byte(token), []byte(password)) != 1 {
			return registry.Principal{}, registry.ErrBadCredentials
		}
		return registry.Principal{Name: user}, nil
	}
	principal, err := u.s.azure.VerifyRegistryLogin(ctx, host, user, password)
	if errors.Is(err, azure.ErrRegistryLogin) {
		return registry.Principal{}, errors.Join(registry.ErrBadCredentials, err)
	}
	return registry.Principal{Name: principal}, err
}

// Allowed implements registry.Authorizer.
func (u registryUsers) Allowed(ctx context.Context, p registry.Principal, host, _, action string) bool {
	if host == registry.DefaultHost {
		return true // whoever could log in owns it
	}
	if action == registry.ActionCatalog {
		action = registry.ActionPull
	}
	allowed, err := u.s.azure.AllowedRegistry(ctx, p.Name, host, action)
	return err == nil && allowed
}

// registries are the container registries that Azure knows.
type registries struct{ azure *azure.Azure }

// Exists implements registry.Registries.
func (r registries) Exists(ctx context.Context, host string) (bool, error) {
	return r.azure.RegistryExists(ctx, host)
}

// repositories are the forge's, as the GitOps engine asks for them.
type repositories struct{ forge *forge.Forge }

// Open returns the repository that an Application's repoURL means.
func (r repositories) Open(ctx context.Context, repoURL string) (*git.Repository, string, error) {
	name, err := r.forge.ResolveURL(ctx, repoURL)
	if err != nil {
		return nil, "", err
	}
	repo, err := r.forge.Repository(ctx, name)
	return repo, name, err
}

func portOf(cfg Config) string { return strconv.Itoa(cfg.Port) }

// removeContext takes the platform's context out of the user's kubeconfig.
func removeContext(ctx context.Context, cfg Config) error {
	subnet, err := cluster.PickSubnet(cfg.path("cluster"))
	if err != nil {
		return err
	}
	return cluster.RemoveContext(ctx, clusterConfig(cfg, subnet), cfg.UserKubeconfig)
}

// pause waits for a moment, or returns the context's error.
func pause(ctx context.Context) error {
	select {
	case <-time.After(200 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *system) removeContext() error {
	if s.cfg.UserKubeconfig == "" || s.cfg.Kubeconfig != "" {
		return nil
	}
	return removeContext(context.Background(), s.cfg)
}
