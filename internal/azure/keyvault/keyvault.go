// Package keyvault is the data plane of the local Key Vault: the secrets of
// https://<vault>.vault.azure.net.
//
// Input: requests of the Key Vault REST API (any api-version) with a bearer
// token, for vaults that the resource manager holds. Output: secrets with
// versions, soft delete, backup and paging as the service has them; a [Change]
// for every write.
//
// Invariants: a request without a token is answered with the challenge before
// anything else is read; a value is sealed at rest, bound to vault, name and
// version, and never in a log, an error or an event; what a write acknowledged
// is durable; ids are written with the host that the client used.
//
// Start reading at [Server.Handler], then parseRoute.
package keyvault

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/azure/arm"
	"github.com/lockstep-gitops/lockstep/internal/azure/entra"
	"github.com/lockstep-gitops/lockstep/internal/azure/seal"
	"github.com/lockstep-gitops/lockstep/internal/azure/state"
)

// Domain is the suffix of every vault's host name.
const Domain = ".vault.azure.net"

// Principals checks tokens.
type Principals interface {
	Verify(ctx context.Context, token string, audiences []string) (*entra.Principal, error)
}

// Resources answers for the vaults and who may do what in them.
type Resources interface {
	Vault(ctx context.Context, name string) (*arm.Vault, error)
	Allowed(ctx context.Context, principalID, action, scope string, data bool) (bool, error)
}

// Change is one write to a secret. It has no value.
type Change struct {
	Vault, Name string
	Version     string // "" where all versions are meant
	Action      string // "set", "updated", "deleted", "recovered", "purged", "restored"
	Actor       string // who did it, for people
	Time        time.Time
}

// Deps is what the data plane needs from others.
type Deps struct {
	Log        *slog.Logger
	DB         *state.DB
	Keyring    *seal.Keyring
	Principals Principals
	Resources  Resources
	Now        func() time.Time
	TenantID   string
}

// Server is the data plane of all vaults. It is safe for concurrent use.
type Server struct {
	deps Deps

	mu       sync.Mutex
	watchers map[int]func(context.Context, Change)
	nextID   int
}

// New makes a data plane on an open state file.
func New(deps Deps) *Server {
	return &Server{deps: deps, watchers: map[int]func(context.Context, Change){}}
}

// OnChange calls fn after every durable write, before it is acknowledged, until
// cancel is called. fn must not block.
func (s *Server) OnChange(fn func(context.Context, Change)) (cancel func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.nextID
	s.nextID++
	s.watchers[id] = fn
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, id)
	}
}

func (s *Server) changed(ctx context.Context, c Change) {
	s.mu.Lock()
	fns := make([]func(context.Context, Change), 0, len(s.watchers))
	for id := range s.nextID {
		if fn := s.watchers[id]; fn != nil {
			fns = append(fns, fn)
		}
	}
	s.mu.Unlock()
	for _, fn := range fns {
		fn(ctx, c)
	}
}

// Handler serves *.vault.azure.net.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{s: s, w: w, r: r, ctx: r.Context(), now: s.deps.Now().UTC()}
		if err := c.serve(); err != nil {
			c.fail(err)
		}
	})
}

// vaultName is the first label of a vault's host, "" for another host.
func vaultName(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	name, ok := strings.CutSuffix(strings.ToLower(host), Domain)
	if !ok || strings.Contains(name, ".") {
		return ""
	}
	return name
}
