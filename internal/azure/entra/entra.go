// Package entra is the token service of the local Azure: what
// login.microsoftonline.com, the cluster's OIDC issuer host and the few calls
// of graph.microsoft.com are for a program that signs in by itself.
//
// Input: client secrets of service principals, and federated tokens (of
// Kubernetes service accounts, of workflow runs) of managed identities. Output:
// RS256 access tokens like Entra's version 1.0, and [Server.Verify] for the
// services that get them.
//
// Invariants: a token is only issued for a principal that exists now; a
// federated token must be signed by its issuer and match a federated credential
// of the client id exactly in issuer, subject and audience; secrets are stored
// hashed, the signing key in a 0600 file; no error holds a secret or a token.
//
// Start reading at [New], then Server.token.
package entra

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/lockstep-gitops/lockstep/internal/azure/state"
)

// Schema creates the tables of this package.
const Schema = `
create table if not exists entra_service_principal (
  client_id text primary key, object_id text not null unique, name text not null,
  secret_hash blob not null -- SHA-256; the secret is random, so no salt is needed
);`

// Config says which tenant it is.
type Config struct {
	Dir      string // holds entra-signing.key and owner.json, both 0600
	TenantID string // lower case GUID
	// SubscriptionID is only named in owner.json.
	SubscriptionID string
}

// Identity is a managed identity as the token service sees it.
type Identity struct {
	Name        string
	ResourceID  string
	ClientID    string
	PrincipalID string
	Federated   []FederatedCredential
}

// FederatedCredential is one outside identity that may act as an [Identity].
type FederatedCredential struct {
	Name, Issuer, Subject string
	Audiences             []string
}

// Identities finds managed identities. It returns nil for an unknown id.
type Identities interface {
	IdentityByClientID(ctx context.Context, clientID string) (*Identity, error)
	IdentityByPrincipalID(ctx context.Context, principalID string) (*Identity, error)
}

// Deps is what the token service needs from others.
type Deps struct {
	Log        *slog.Logger
	DB         *state.DB
	Identities Identities
	Now        func() time.Time
	// IssuerKeys returns the JWKS document of a federated issuer.
	// ErrUnknownIssuer means that Lockstep does not know it.
	IssuerKeys func(ctx context.Context, issuer string) ([]byte, error)
	// ClusterIssuer is the issuer URL that the OIDC host serves.
	ClusterIssuer string
}

// ErrUnknownIssuer is returned by Deps.IssuerKeys for an issuer without keys.
var ErrUnknownIssuer = errors.New("unknown token issuer")

// Server is the token service. It is safe for concurrent use.
type Server struct {
	cfg   Config
	deps  Deps
	key   *rsa.PrivateKey
	keyID string
	owner Owner
}

// New opens the signing key and the owner's service principal, and makes them
// when they are missing.
func New(ctx context.Context, cfg Config, deps Deps) (*Server, error) {
	cfg.TenantID = strings.ToLower(cfg.TenantID)
	s := &Server{cfg: cfg, deps: deps}
	var err error
	if s.key, s.keyID, err = openSigningKey(filepath.Join(cfg.Dir, "entra-signing.key")); err != nil {
		return nil, fmt.Errorf("entra: %w", err)
	}
	if s.owner, err = s.openOwner(ctx); err != nil {
		return nil, fmt.Errorf("entra: %w", err)
	}
	return s, nil
}

// StableID is a GUID that depends on the tenant and the parts only.
func (s *Server) StableID(parts ...string) string { return StableID(s.cfg.TenantID, parts...) }

// StableID is a GUID (version 5) that depends on the tenant and the parts only,
// without regard to case.
func StableID(tenantID string, parts ...string) string {
	name := "lockstep|" + strings.ToLower(tenantID+"|"+strings.Join(parts, "|"))
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte(name)).String()
}

// Login serves login.microsoftonline.com.
func (s *Server) Login() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.Trim(r.URL.Path, "/")
		if strings.EqualFold(path, "common/discovery/instance") {
			s.instance(w, r)
			return
		}
		tenant, rest, _ := strings.Cut(path, "/")
		if !strings.EqualFold(tenant, s.cfg.TenantID) && !isPlaceholderTenant(tenant) {
			s.fail(w, r, &oauthError{status: http.StatusBadRequest, code: "invalid_request", number: 90002,
				text: fmt.Sprintf("Tenant '%s' not found. This local Azure has the one tenant '%s': set AZURE_TENANT_ID, ARM_TENANT_ID or the tenantId of the SecretProviderClass to it.", tenant, s.cfg.TenantID)})
			return
		}
		switch strings.ToLower(rest) {
		case "v2.0/.well-known/openid-configuration":
			s.openIDConfiguration(w, r, tenant, true)
		case ".well-known/openid-configuration":
			s.openIDConfiguration(w, r, tenant, false)
		case "discovery/v2.0/keys", "discovery/keys":
			writeJSON(w, http.StatusOK, s.jwks())
		case "oauth2/v2.0/token":
			s.token(w, r, tenant, true)
		case "oauth2/token":
			s.token(w, r, tenant, false)
		default:
			s.fail(w, r, &oauthError{status: http.StatusNotFound, code: "invalid_request", number: 900561,
				text: fmt.Sprintf("Lockstep's sign-in has no endpoint '%s': it serves openid-configuration, discovery keys and the token endpoints. There is no sign-in for people; use the service principal that `lockstep env` prints.", r.URL.Path)})
		}
	})
}

// isPlaceholderTenant tells the path segments that mean no tenant in particular.
func isPlaceholderTenant(tenant string) bool {
	return strings.EqualFold(tenant, "common") || strings.EqualFold(tenant, "organizations")
}

// ClusterIssuer serves *.oic.prod-aks.azure.com: the discovery document and the
// keys of the cluster's service account tokens.
func (s *Server) ClusterIssuer() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		issuer := s.deps.ClusterIssuer
		base := strings.TrimSuffix(issuer, "/")
		switch "https://" + r.Host + r.URL.Path {
		case base + "/.well-known/openid-configuration":
			writeJSON(w, http.StatusOK, map[string]any{
				"issuer":                                issuer,
				"jwks_uri":                              base + "/openid/v1/jwks",
				"response_types_supported":              []string{"id_token"},
				"subject_types_supported":               []string{"public"},
				"id_token_signing_alg_values_supported": []string{"RS256"},
			})
		case base + "/openid/v1/jwks":
			keys, err := s.deps.IssuerKeys(r.Context(), issuer)
			if err != nil {
				s.deps.Log.Warn("read the cluster's signing keys", "err", err)
				http.Error(w, "the cluster's signing keys are not there yet; try again when it is up", http.StatusServiceUnavailable)
				return
			}
			w.Header().Set("Content-Type", "application/jwk-set+json")
			_, _ = w.Write(keys) // the client went away otherwise
		default:
			http.Error(w, fmt.Sprintf("no such issuer document; the cluster's issuer is %q", issuer), http.StatusNotFound)
		}
	})
}
