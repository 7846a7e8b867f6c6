package entra

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lockstep-gitops/lockstep/internal/durable"
)

// Principal is who a token speaks for.
type Principal struct {
	ObjectID string // oid: what role assignments name
	AppID    string // client id
	Name     string // for people
	Issuer   string // of the token it came with, "" without one
	// Managed tells a managed identity from a service principal.
	Managed bool
}

// Owner is the platform's own service principal. Its secret is also in the file
// owner.json (0600) of the state folder.
type Owner struct {
	TenantID       string `json:"tenantId"`
	SubscriptionID string `json:"subscriptionId"`
	ClientID       string `json:"clientId"`
	ClientSecret   string `json:"clientSecret"`
	ObjectID       string `json:"objectId"`
}

// Owner returns the credentials of the platform's service principal.
func (s *Server) Owner() Owner { return s.owner }

// openOwner reads owner.json, or makes it, and registers the principal.
func (s *Server) openOwner(ctx context.Context) (Owner, error) {
	path := filepath.Join(s.cfg.Dir, "owner.json")
	want := Owner{
		TenantID: s.cfg.TenantID, SubscriptionID: s.cfg.SubscriptionID,
		ClientID: s.StableID("owner", "application"), ObjectID: s.StableID("owner", "service principal"),
	}
	text, err := os.ReadFile(path)
	switch {
	case err == nil:
		var old Owner
		if err := json.Unmarshal(text, &old); err != nil || old.ClientSecret == "" {
			return Owner{}, fmt.Errorf("%s is damaged; delete it to make a new owner secret", path)
		}
		want.ClientSecret = old.ClientSecret
		if want == old {
			return want, s.putServicePrincipal(ctx, want.ClientID, want.ObjectID, "lockstep-owner", want.ClientSecret)
		}
	case errors.Is(err, fs.ErrNotExist):
		secret := make([]byte, 30)
		_, _ = rand.Read(secret) // never fails
		want.ClientSecret = "lks~" + base64.RawURLEncoding.EncodeToString(secret)
	default:
		return Owner{}, fmt.Errorf("read owner credentials: %w", err)
	}
	text, err = json.MarshalIndent(want, "", "  ")
	if err != nil {
		return Owner{}, fmt.Errorf("write owner credentials: %w", err)
	}
	if err := durable.WriteFile(path, append(text, '\n'), 0o600); err != nil {
		return Owner{}, fmt.Errorf("write owner credentials: %w", err)
	}
	return want, s.putServicePrincipal(ctx, want.ClientID, want.ObjectID, "lockstep-owner", want.ClientSecret)
}

// putServicePrincipal creates the principal or replaces its secret.
func (s *Server) putServicePrincipal(ctx context.Context, clientID, objectID, name, secret string) error {
	hash := sha256.Sum256([]byte(secret))
	return s.deps.DB.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `insert into entra_service_principal (client_id, object_id, name, secret_hash) values (?,?,?,?)
			on conflict (client_id) do update set object_id = excluded.object_id, name = excluded.name, secret_hash = excluded.secret_hash`,
			clientID, objectID, name, hash[:])
		if err != nil {
			return fmt.Errorf("register service principal %s: %w", name, err)
		}
		return nil
	})
}

// servicePrincipal finds one by a column; nil when there is none. The hash is
// that of its secret.
func (s *Server) servicePrincipal(ctx context.Context, column, value string) (*Principal, []byte, error) {
	var p Principal
	var hash []byte
	err := s.deps.DB.QueryRowContext(ctx, `select client_id, object_id, name, secret_hash from entra_service_principal where `+column+` = lower(?)`, value).
		Scan(&p.AppID, &p.ObjectID, &p.Name, &hash)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read service principal: %w", err)
	}
	return &p, hash, nil
}

// ByClientID finds a service principal or managed identity; nil when unknown.
func (s *Server) ByClientID(ctx context.Context, clientID string) (*Principal, error) {
	p, _, err := s.servicePrincipal(ctx, "client_id", clientID)
	if err != nil || p != nil {
		return p, err
	}
	id, err := s.deps.Identities.IdentityByClientID(ctx, clientID)
	return managed(id), err
}

// ByObjectID finds a service principal or managed identity; nil when unknown.
func (s *Server) ByObjectID(ctx context.Context, objectID string) (*Principal, error) {
	p, _, err := s.servicePrincipal(ctx, "object_id", objectID)
	if err != nil || p != nil {
		return p, err
	}
	id, err := s.deps.Identities.IdentityByPrincipalID(ctx, objectID)
	return managed(id), err
}

func managed(id *Identity) *Principal {
	if id == nil {
		return nil
	}
	return &Principal{ObjectID: id.PrincipalID, AppID: id.ClientID, Name: id.Name, Managed: true}
}

// CheckSecret returns the service principal whose client id and secret these
// are, or an error in Entra's words.
func (s *Server) CheckSecret(ctx context.Context, clientID, secret string) (*Principal, error) {
	p, hash, err := s.servicePrincipal(ctx, "client_id", clientID)
	if err != nil {
		return nil, err
	}
	if p == nil {
		id, err := s.deps.Identities.IdentityByClientID(ctx, clientID)
		if err != nil {
			return nil, err
		}
		if id != nil {
			return nil, invalidClient(7000215, "Invalid client secret provided: '%s' is the managed identity '%s', which has no secret; it signs in with a federated token.", clientID, id.Name)
		}
		return nil, s.unknownClient(clientID)
	}
	got := sha256.Sum256([]byte(secret))
	if subtle.ConstantTimeCompare(got[:], hash) != 1 {
		return nil, invalidClient(7000215, "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '%s'.", p.AppID)
	}
	return p, nil
}

func (s *Server) unknownClient(clientID string) *oauthError {
	e := invalidRequest(700016, "Application with identifier '%s' was not found in the directory '%s'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant.", clientID, s.cfg.TenantID)
	e.code = "unauthorized_client"
	return e
}
