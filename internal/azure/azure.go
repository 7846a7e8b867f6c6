// Package azure is Azure on one machine: Entra's token service, the resource
// manager and Key Vault, each behind its real host name.
//
// Input: HTTP requests that the gateway routes here by host, from unmodified
// clients (terraform, the SDKs, the az CLI). Output: their answers, events of
// [journal.StageSecret] for changes of secrets, and for the registry box the
// answer to who may push and pull.
//
// Invariants: what was acknowledged is durable; every call carries a token that
// this package issued and is checked against the role assignments; secret
// values are sealed at rest and appear in no log, error or event; what is not
// supported is refused by its name.
//
// Start reading at [New], then entra, arm and keyvault.
package azure

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/lockstep-gitops/lockstep/internal/azure/arm"
	"github.com/lockstep-gitops/lockstep/internal/azure/entra"
	"github.com/lockstep-gitops/lockstep/internal/azure/keyvault"
	"github.com/lockstep-gitops/lockstep/internal/azure/seal"
	"github.com/lockstep-gitops/lockstep/internal/azure/state"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// Config says which tenant and subscription this Azure is.
type Config struct {
	// Dir holds all state: azure.db, and the key files with mode 0600. It is
	// created with mode 0700.
	Dir string
	// TenantID and SubscriptionID are GUIDs. They must not change while Dir lives.
	TenantID, SubscriptionID string
	// SubscriptionName is shown to people. Default "Lockstep".
	SubscriptionName string
	// Region is the one location that is offered. Default "westeurope".
	Region string
}

var regionForm = regexp.MustCompile(`^[a-z0-9]{2,40}$`)

// Validate checks the ids and the region.
func (c Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("azure config: Dir is missing"))
	}
	for name, id := range map[string]string{"TenantID": c.TenantID, "SubscriptionID": c.SubscriptionID} {
		if uuid.Validate(id) != nil || len(id) != 36 {
			errs = append(errs, fmt.Errorf("azure config: %s %q is not a GUID", name, id))
		}
	}
	if c.Region != "" && !regionForm.MatchString(c.Region) {
		errs = append(errs, fmt.Errorf("azure config: Region %q is not the name of a region, such as %q", c.Region, "westeurope"))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	c.TenantID, c.SubscriptionID = strings.ToLower(c.TenantID), strings.ToLower(c.SubscriptionID)
	if c.SubscriptionName == "" {
		c.SubscriptionName = "Lockstep"
	}
	if c.Region == "" {
		c.Region = "westeurope"
	}
	return c
}

// Deps is what Azure needs from the other boxes.
type Deps struct {
	Log     *slog.Logger
	Journal journal.Appender
	Now     func() time.Time // default time.Now
	// ServiceAccountIssuer is the issuer URL of the cluster's service account
	// tokens, and ServiceAccountJWKS reads the keys that sign them. Without
	// them no service account can sign in.
	ServiceAccountIssuer string
	ServiceAccountJWKS   func(ctx context.Context) ([]byte, error)
	// IssuerJWKS reads the keys of any other token issuer that Lockstep knows,
	// such as the one of its workflow runs. It returns ErrUnknownIssuer for
	// those it does not know. Optional.
	IssuerJWKS func(ctx context.Context, issuer string) ([]byte, error)
}

// ErrUnknownIssuer is what Deps.IssuerJWKS returns for an issuer without keys.
var ErrUnknownIssuer = entra.ErrUnknownIssuer

// Azure is the whole of it. It is safe for concurrent use.
type Azure struct {
	cfg   Config
	deps  Deps
	db    *state.DB
	entra *entra.Server
	arm   *arm.Server
	vault *keyvault.Server
}

// New opens or creates the state in cfg.Dir. Close it at the end.
func New(cfg Config, deps Deps) (*Azure, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("azure state: %w", err)
	}
	keyring, err := seal.Open(filepath.Join(cfg.Dir, "master.key"))
	if err != nil {
		return nil, fmt.Errorf("azure state: %w", err)
	}
	ctx := context.Background() // opening is local and short
	db, err := state.Open(ctx, filepath.Join(cfg.Dir, "azure.db"), entra.Schema, arm.Schema, keyvault.Schema)
	if err != nil {
		return nil, err
	}
	a := &Azure{cfg: cfg, deps: deps, db: db}
	if err := a.open(ctx, keyring); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return a, nil
}

// open makes the three services on the open state.
func (a *Azure) open(ctx context.Context, keyring *seal.Keyring) error {
	a.arm = arm.New(
		arm.Config{TenantID: a.cfg.TenantID, SubscriptionID: a.cfg.SubscriptionID, SubscriptionName: a.cfg.SubscriptionName, Region: a.cfg.Region},
		arm.Deps{Log: a.deps.Log, DB: a.db, Keyring: keyring, Now: a.deps.Now, VaultPurged: keyvault.PurgeVault})
	var err error
	a.entra, err = entra.New(ctx,
		entra.Config{Dir: a.cfg.Dir, TenantID: a.cfg.TenantID, SubscriptionID: a.cfg.SubscriptionID},
		entra.Deps{Log: a.deps.Log, DB: a.db, Identities: a.arm, Now: a.deps.Now, IssuerKeys: a.issuerKeys, ClusterIssuer: a.deps.ServiceAccountIssuer})
	if err != nil {
		return err
	}
	a.arm.Use(a.entra)
	if err := a.arm.GrantOwner(ctx, a.entra.Owner().ObjectID); err != nil {
		return err
	}
	a.vault = keyvault.New(keyvault.Deps{Log: a.deps.Log, DB: a.db, Keyring: keyring, Principals: a.entra, Resources: a.arm, Now: a.deps.Now, TenantID: a.cfg.TenantID})
	a.vault.OnChange(a.record)
	return nil
}

// Close releases the state file. No handler may run any more.
func (a *Azure) Close() error { return a.db.Close() }

// issuerKeys finds the keys of a federated issuer.
func (a *Azure) issuerKeys(ctx context.Context, issuer string) ([]byte, error) {
	switch {
	case a.deps.ServiceAccountJWKS != nil && issuer != "" && issuer == a.deps.ServiceAccountIssuer:
		return a.deps.ServiceAccountJWKS(ctx)
	case a.deps.IssuerJWKS != nil:
		return a.deps.IssuerJWKS(ctx, issuer)
	}
	return nil, ErrUnknownIssuer
}

// Hosts returns the handler of each host pattern, for the gateway.
func (a *Azure) Hosts() map[string]http.Handler {
	login := a.entra.Login()
	return map[string]http.Handler{
		"management.azure.com":      a.arm.Handler(),
		"login.microsoftonline.com": login,
		"login.windows.net":         login,
		"sts.windows.net":           login,
		"graph.microsoft.com":       a.entra.Graph(),
		"*.oic.prod-aks.azure.com":  a.entra.ClusterIssuer(),
		"*" + keyvault.Domain:       a.vault.Handler(),
	}
}

// Credentials are those of a service principal.
type Credentials = entra.Owner

// OwnerCredentials are those of the platform's own service principal, which has
// the role Owner on the subscription. They are also in owner.json (0600) in Dir.
func (a *Azure) OwnerCredentials() Credentials { return a.entra.Owner() }

// SecretChange tells of a write to a Key Vault secret. It never has the value.
type SecretChange = keyvault.Change

// OnSecretChange calls fn after every durable write to a secret, until cancel is
// called. fn must not block: the client's answer waits for it.
func (a *Azure) OnSecretChange(fn func(SecretChange)) (cancel func()) {
	return a.vault.OnChange(func(_ context.Context, c keyvault.Change) { fn(c) })
}

// record writes a change of a secret to the journal.
func (a *Azure) record(ctx context.Context, c keyvault.Change) {
	a.deps.Log.Info("secret "+c.Action, "vault", c.Vault, "secret", c.Name, "version", c.Version, "by", c.Actor)
	if a.deps.Journal == nil {
		return
	}
	data := map[string]string{"action": c.Action, "vault": c.Vault, "secret": c.Name, journal.DataActor: c.Actor,
		journal.DataURL: "https://" + c.Vault + keyvault.Domain + "/secrets/" + c.Name}
	if c.Version != "" {
		data["version"] = c.Version
	}
	_, err := a.deps.Journal.Append(ctx, journal.Event{
		Time: c.Time, Stage: journal.StageSecret, Subject: c.Vault + "/" + c.Name, Status: journal.StatusSucceeded,
		Message: fmt.Sprintf("Secret %s of vault %s was %s by %s.", c.Name, c.Vault, c.Action, c.Actor), Data: data,
	})
	if err != nil {
		// The write itself is durable; only its trace is missing.
		a.deps.Log.Error("record the change of a secret", "vault", c.Vault, "secret", c.Name, "err", err)
	}
}
