// Package arm is the resource manager of the local Azure: what
// management.azure.com is for terraform, the SDKs and the az CLI.
//
// Input: ARM requests with a bearer token. Output: resources in the state file,
// stored as the client sent them plus the defaults that the service would add,
// and the answer to [Server.Allowed], on which Key Vault and the registry rely.
//
// Invariants: every write is checked against the role assignments and is
// durable before it is answered; every operation is finished when it is
// answered (no polling); a resource type, action or role that is not there is
// refused by its name; ids are matched without regard to case and shown in the
// case they were created with.
//
// Start reading at [Server.Handler], then kind.
package arm

import (
	"context"
	"database/sql"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/azure/entra"
	"github.com/lockstep-gitops/lockstep/internal/azure/seal"
	"github.com/lockstep-gitops/lockstep/internal/azure/state"
)

// Config says which subscription it is.
type Config struct {
	TenantID         string // lower case GUID
	SubscriptionID   string // lower case GUID
	SubscriptionName string
	Region           string // "westeurope": default of what has no location
}

// Principals is what the resource manager needs of the token service.
type Principals interface {
	Verify(ctx context.Context, token string, audiences []string) (*entra.Principal, error)
	ByObjectID(ctx context.Context, objectID string) (*entra.Principal, error)
}

// Deps is what the resource manager needs from others.
type Deps struct {
	Log     *slog.Logger
	DB      *state.DB
	Keyring *seal.Keyring
	Now     func() time.Time
	// VaultPurged removes a vault's contents for good, within the transaction.
	VaultPurged func(ctx context.Context, tx *sql.Tx, vaultUID string) error
}

// Server is the resource manager. It is safe for concurrent use.
type Server struct {
	cfg        Config
	deps       Deps
	principals Principals
	kinds      map[string]*kind // by lower-case type
}

// New makes a resource manager on an open state file. Principals are given
// later, by Use: the token service needs this server's identities first.
func New(cfg Config, deps Deps) *Server {
	s := &Server{cfg: cfg, deps: deps}
	s.kinds = map[string]*kind{}
	for _, k := range []*kind{groupKind, vaultKind, registryKind, identityKind, federatedKind} {
		s.kinds[strings.ToLower(k.Type)] = k
	}
	return s
}

// Use gives the server its principals. Call it before the first request.
func (s *Server) Use(p Principals) { s.principals = p }

// Handler serves management.azure.com.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.EqualFold(strings.Trim(r.URL.Path, "/"), "metadata/endpoints") {
			s.metadata(w)
			return
		}
		c := &call{s: s, w: w, r: r, ctx: r.Context(), now: s.deps.Now().UTC()}
		if err := c.serve(); err != nil {
			c.fail(err)
		}
	})
}

// metadata tells clients the names of this cloud: those of the public one.
func (s *Server) metadata(w http.ResponseWriter) {
	writeJSON(w, http.StatusOK, map[string]any{
		"name":                     "AzureCloud",
		"portal":                   "https://portal.azure.com",
		"resourceManager":          "https://management.azure.com/",
		"microsoftGraphResourceId": "https://graph.microsoft.com/",
		"graph":                    "https://graph.microsoft.com/",
		"graphAudience":            "https://graph.microsoft.com/",
		"authentication": map[string]any{
			"loginEndpoint":    "https://login.microsoftonline.com",
			"audiences":        []string{"https://management.core.windows.net/", "https://management.azure.com/"},
			"tenant":           "common",
			"identityProvider": "AAD",
		},
		"suffixes": map[string]any{
			"acrLoginServer": "azurecr.io",
			"keyVaultDns":    "vault.azure.net",
			"storage":        "core.windows.net",
		},
	})
}
