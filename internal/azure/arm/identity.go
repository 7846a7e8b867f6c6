package arm

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/azure/entra"
)

const (
	identityType  = "Microsoft.ManagedIdentity/userAssignedIdentities"
	federatedType = identityType + "/federatedIdentityCredentials"
	maxFederated  = 20
)

var identityVersions = []string{"2024-11-30", "2023-01-31"}

var identityKind = &kind{
	Type: identityType, Versions: identityVersions,
	Name:     regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{2,127}$`),
	NameRule: "3 to 128 letters, digits, '-' and '_', beginning with a letter or digit",
	Prepare:  prepareIdentity,
	Removed: func(ctx context.Context, _ *Server, tx *sql.Tx, r *resource) error {
		// The principal id depends on the resource id: a later identity of the
		// same name must not inherit what this one was allowed.
		if _, err := tx.ExecContext(ctx, `delete from arm_role_assignment where principal = ?`, strings.ToLower(text(r.prop("principalId")))); err != nil {
			return fmt.Errorf("delete role assignments of %s: %w", r.key, err)
		}
		return nil
	},
}

// prepareIdentity gives the identity its ids, which depend on its resource id only.
func prepareIdentity(_ context.Context, u *update) error {
	props, err := u.props()
	if err != nil {
		return err
	}
	props["tenantId"] = u.s.cfg.TenantID
	props["principalId"] = entra.StableID(u.s.cfg.TenantID, "principal", u.id)
	props["clientId"] = entra.StableID(u.s.cfg.TenantID, "client", u.id)
	setDefault(props, "isolationScope", "None")
	return nil
}

var federatedKind = &kind{
	Type: federatedType, Versions: identityVersions, Child: true,
	Name:     regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{2,119}$`),
	NameRule: "3 to 120 letters, digits, '-' and '_', beginning with a letter or digit",
	Prepare:  prepareFederated,
}

func prepareFederated(ctx context.Context, u *update) error {
	props, err := u.props()
	if err != nil {
		return err
	}
	issuer, subject := text(props["issuer"]), text(props["subject"])
	if parsed, err := url.Parse(issuer); err != nil || parsed.Scheme != "https" || parsed.Host == "" || parsed.RawQuery != "" || parsed.Fragment != "" {
		return badRequest("InvalidIssuer", "The issuer '%s' of the federated credential must be an https URL without query.", issuer)
	}
	if subject == "" || len(subject) > 600 {
		return badRequest("InvalidSubject", "The subject of the federated credential must have 1 to 600 characters.")
	}
	list, _ := props["audiences"].([]any)
	if len(list) != 1 || text(list[0]) == "" {
		return badRequest("InvalidAudiences", "'audiences' of the federated credential must be one string, usually \"api://AzureADTokenExchange\".")
	}
	others, err := resources(ctx, u.tx, below+`and type = ?`, likeArg(key(u.path.parent().id())), strings.ToLower(federatedType))
	if err != nil {
		return err
	}
	for _, o := range others {
		if o.key != key(u.id) && text(o.prop("issuer")) == issuer && text(o.prop("subject")) == subject {
			return refuse(http.StatusConflict, "Conflict", "Issuer and subject combination already exists for this Managed Identity, in the federated credential '%s'.", text(o.body["name"]))
		}
	}
	if u.old == nil && len(others) >= maxFederated {
		return badRequest("BadRequest", "Too many Federated Identity Credentials: an identity has at most %d.", maxFederated)
	}
	return nil
}

// IdentityByClientID implements entra.Identities.
func (s *Server) IdentityByClientID(ctx context.Context, clientID string) (*entra.Identity, error) {
	return s.identity(ctx, "clientId", clientID)
}

// IdentityByPrincipalID implements entra.Identities.
func (s *Server) IdentityByPrincipalID(ctx context.Context, principalID string) (*entra.Identity, error) {
	return s.identity(ctx, "principalId", principalID)
}

func (s *Server) identity(ctx context.Context, property, value string) (*entra.Identity, error) {
	list, err := resources(ctx, s.deps.DB, `where type = ? and json_extract(body, ?) = lower(?)`, strings.ToLower(identityType), "$.properties."+property, value)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	r := list[0]
	id := &entra.Identity{
		Name: text(r.body["name"]), ResourceID: r.id(),
		ClientID: text(r.prop("clientId")), PrincipalID: text(r.prop("principalId")),
	}
	credentials, err := resources(ctx, s.deps.DB, below+`and type = ?`, likeArg(r.key), strings.ToLower(federatedType))
	if err != nil {
		return nil, err
	}
	for _, f := range credentials {
		fc := entra.FederatedCredential{Name: text(f.body["name"]), Issuer: text(f.prop("issuer")), Subject: text(f.prop("subject"))}
		audiences, _ := f.prop("audiences").([]any)
		for _, a := range audiences {
			fc.Audiences = append(fc.Audiences, text(a))
		}
		id.Federated = append(id.Federated, fc)
	}
	return id, nil
}
