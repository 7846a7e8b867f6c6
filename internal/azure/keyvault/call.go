package keyvault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/lockstep-gitops/lockstep/internal/azure/arm"
	"github.com/lockstep-gitops/lockstep/internal/azure/entra"
)

// maxBody holds the largest value, escaped, and the largest backup.
const maxBody = 8 << 20

// call is one request.
type call struct {
	s     *Server
	w     http.ResponseWriter
	r     *http.Request
	ctx   context.Context
	now   time.Time
	vault *arm.Vault
	who   *entra.Principal
}

// serve checks host, token and version, then routes by path.
func (c *call) serve() error {
	h := c.w.Header()
	h.Set("x-ms-request-id", uuid.NewString())
	h.Set("x-ms-keyvault-service-version", "lockstep")
	name := vaultName(c.r.Host)
	vault, err := c.s.deps.Resources.Vault(c.ctx, name)
	if err != nil {
		return err
	}
	if vault == nil {
		return &apiError{status: http.StatusNotFound, code: "VaultNotFound",
			message: fmt.Sprintf("There is no key vault %q: its host %s would not resolve in the real Azure. Create the Microsoft.KeyVault/vaults resource first, or correct the name.", name, c.r.Host)}
	}
	c.vault = vault
	h.Set("x-ms-keyvault-region", vault.Location)
	if err := c.authenticate(); err != nil {
		return err
	}
	rt, err := parseRoute(c.r.URL.EscapedPath())
	if err != nil {
		return err
	}
	if c.r.URL.Query().Get("api-version") == "" {
		return badParameter("api-version must be specified")
	}
	return c.route(rt)
}

// authenticate reads the bearer token; without a good one it sends the challenge,
// whose tenant and resource tell clients how to get one.
func (c *call) authenticate() error {
	challenge := func(extra, message string) error {
		c.w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer authorization="https://%s/%s", resource="https://vault.azure.net"%s`, entra.Host, c.s.deps.TenantID, extra))
		return &apiError{status: http.StatusUnauthorized, code: "Unauthorized", message: message}
	}
	scheme, token, _ := strings.Cut(c.r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || strings.TrimSpace(token) == "" {
		return challenge("", "AKV10000: Request is missing a Bearer or PoP token.")
	}
	who, err := c.s.deps.Principals.Verify(c.ctx, strings.TrimSpace(token), entra.AudienceVault)
	var refused *entra.TokenError
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	if err != nil {
		return challenge(`, error="invalid_token"`, "AKV10022: Invalid token: "+err.Error()+".")
	}
	c.who = who
	return nil
}

// route picks the operation.
func (c *call) route(rt route) error {
	m := c.r.Method
	switch rt.Collection {
	case "secrets":
		switch {
		case rt.Name == "" && m == http.MethodGet:
			return c.listSecrets()
		case rt.Verb == "restore" && m == http.MethodPost:
			return c.restore()
		case rt.Name == "":
		case rt.Verb == "versions" && m == http.MethodGet:
			return c.listVersions(rt.Name)
		case rt.Verb == "backup" && m == http.MethodPost:
			return c.backup(rt.Name)
		case rt.Verb != "" && rt.Verb != "restore":
		case m == http.MethodGet:
			return c.getSecret(rt.Name, rt.Version)
		case m == http.MethodPatch:
			return c.updateSecret(rt.Name, rt.Version)
		case m == http.MethodPut && rt.Version == "":
			return c.setSecret(rt.Name)
		case m == http.MethodDelete && rt.Version == "":
			return c.deleteSecret(rt.Name)
		}
	case "deletedsecrets":
		switch {
		case rt.Name == "" && m == http.MethodGet:
			return c.listDeleted()
		case rt.Name == "" || rt.Version != "":
		case rt.Verb == "recover" && m == http.MethodPost:
			return c.recoverSecret(rt.Name)
		case rt.Verb != "":
		case m == http.MethodGet:
			return c.getDeleted(rt.Name)
		case m == http.MethodDelete:
			return c.purgeSecret(rt.Name)
		}
	case "keys", "certificates", "deletedkeys", "deletedcertificates", "storage", "rng":
		return &apiError{status: http.StatusNotImplemented, code: "NotSupported",
			message: fmt.Sprintf("This local Key Vault holds secrets only; '%s' is not supported.", rt.Collection)}
	default:
		return &apiError{status: http.StatusNotFound, code: "ResourceNotFound",
			message: fmt.Sprintf("%s %s is no operation of Key Vault.", m, clip(c.r.URL.Path))}
	}
	return &apiError{status: http.StatusMethodNotAllowed, code: "MethodNotAllowed",
		message: fmt.Sprintf("%s is not an operation of %s.", m, clip(c.r.URL.Path))}
}

// operation is what a caller needs to be allowed.
type operation struct {
	action     string // data action of role assignments, after "Microsoft.KeyVault/vaults/secrets/"
	permission string // of access policies
}

var (
	opGet     = operation{"getSecret/action", "get"}
	opSet     = operation{"setSecret/action", "set"}
	opUpdate  = operation{"update/action", "set"}
	opList    = operation{"readMetadata/action", "list"}
	opDelete  = operation{"delete", "delete"}
	opBackup  = operation{"backup/action", "backup"}
	opRestore = operation{"restore/action", "restore"}
	opRecover = operation{"recover/action", "recover"}
	opPurge   = operation{"purge/action", "purge"}
	// Reading one deleted secret is "get" for policies, metadata for roles.
	opGetDeleted = operation{"readMetadata/action", "get"}
)

// require fails unless the caller may do op on the secret ("" means any).
func (c *call) require(op operation, name string) error {
	caller := fmt.Sprintf("appid=%s;oid=%s;iss=%s", c.who.AppID, c.who.ObjectID, c.who.Issuer)
	if !c.vault.RBAC {
		if c.vault.PolicyAllows(c.who.ObjectID, "secrets", op.permission) {
			return nil
		}
		return forbidden("ForbiddenByPolicy", "The user, group or application '%s' does not have secrets %s permission on key vault '%s;location=%s'. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125287",
			strings.Replace(caller, ";iss=", ";numgroups=0;iss=", 1), op.permission, c.vault.Name, c.vault.Location)
	}
	action := "Microsoft.KeyVault/vaults/secrets/" + op.action
	scope := c.vault.ID
	if name != "" {
		scope += "/secrets/" + name
	}
	ok, err := c.s.deps.Resources.Allowed(c.ctx, c.who.ObjectID, action, scope, true)
	if err != nil {
		return err
	}
	if ok {
		return nil
	}
	return forbidden("ForbiddenByRbac", "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\nCaller: %s\r\nAction: '%s'\r\nResource: '%s'\r\nAssignment: (not found)\r\nDenyAssignmentId: null\r\nDecisionReason: null \r\nVault: %s;location=%s\r\n",
		caller, action, strings.ToLower(scope), c.vault.Name, c.vault.Location)
}

// body reads the request's JSON object into v.
func (c *call) body(v any) error {
	if err := json.NewDecoder(http.MaxBytesReader(c.w, c.r.Body, maxBody)).Decode(v); err != nil {
		// The decoder's own words could quote the value.
		return badParameter("The request body is not a JSON object of the form that this operation takes.")
	}
	return nil
}

// wrote tells the watchers and the log.
func (c *call) wrote(action, name, version string) {
	actor := c.who.Name
	if actor == "" {
		actor = c.who.AppID
	}
	c.s.changed(context.WithoutCancel(c.ctx), Change{Vault: c.vault.Name, Name: name, Version: version, Action: action, Actor: actor, Time: c.now})
}
