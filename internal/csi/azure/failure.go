package azure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"google.golang.org/grpc/codes"

	"github.com/lockstep-gitops/lockstep/internal/csi/provider"
)

// maxAzureText bounds how much of Azure's own text an error repeats; kubelet
// puts the whole into an event.
const maxAzureText = 500

// explain turns a failed read into words for the team that owns the pod.
func (p *Provider) explain(err error, vault string, o object, id *identity) error {
	var known *provider.Error
	if errors.As(err, &known) {
		return known
	}
	if auth, ok := errors.AsType[*azidentity.AuthenticationFailedError](err); ok && auth.RawResponse != nil {
		return explainEntra(auth.RawResponse, id)
	}
	if resp, ok := errors.AsType[*azcore.ResponseError](err); ok {
		if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
			p.identities.forget(id)
		}
		return explainVault(resp, vault, o, id)
	}
	what := fmt.Sprintf("read secret %q from key vault %q as client id %s: ", o.Name, vault, id.clientID)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &provider.Error{Code: codes.DeadlineExceeded, Message: what + "no answer in time", Hint: "it is tried again"}
	case errors.Is(err, context.Canceled):
		return &provider.Error{Code: codes.Canceled, Message: what + "cancelled"}
	}
	return &provider.Error{Code: codes.Unavailable, Message: what + oneLine(err.Error()),
		Hint: fmt.Sprintf("check that key vault %q exists; it is tried again", vault)}
}

// explainEntra says why Entra issued no token.
func explainEntra(resp *http.Response, id *identity) *provider.Error {
	var body struct {
		Code        string `json:"error"`
		Description string `json:"error_description"`
	}
	text := resp.Status
	if raw, err := runtime.Payload(resp); err == nil && json.Unmarshal(raw, &body) == nil && body.Description != "" {
		// Only the first line is about the cause; trace ids follow it.
		text, _, _ = strings.Cut(body.Description, "\n")
	}
	text = oneLine(text)
	who := fmt.Sprintf("service account %s", id.serviceAccount)
	if id.subject == "" {
		who = "the client secret of nodePublishSecretRef"
	}
	e := &provider.Error{Code: codes.Unauthenticated,
		Message: fmt.Sprintf("Microsoft Entra gave %s no token as client id %s in tenant %s: %s", who, id.clientID, id.tenant, text)}
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500 {
		e.Code, e.Hint = codes.Unavailable, "it is tried again"
		return e
	}
	switch {
	case containsAny(text, "AADSTS70021"): // also 700211, 700212, 700213
		e.Hint = fmt.Sprintf("trust it: az identity federated-credential create --name %s --identity-name <identity of the client id> --resource-group <its group> --issuer %s --subject %s --audiences %s",
			strings.ReplaceAll(id.serviceAccount, "/", "-"), orElse(id.issuer, "<cluster issuer>"), orElse(id.subject, "<subject>"), Audience)
	case containsAny(text, "AADSTS700016", "AADSTS90002"):
		e.Hint = "check clientID and tenantId in the SecretProviderClass (az identity list --query \"[].{name:name,clientId:clientId}\")"
	case containsAny(text, "AADSTS7000215", "AADSTS7000222"):
		e.Hint = "put the application's current secret into the Secret that nodePublishSecretRef names"
	}
	return e
}

// vaultError is the body of Key Vault's errors.
type vaultError struct {
	Error struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Inner   *struct {
			Code string `json:"code"`
		} `json:"innererror"`
	} `json:"error"`
}

// explainVault says why the vault gave no secret.
func explainVault(resp *azcore.ResponseError, vault string, o object, id *identity) *provider.Error {
	var body vaultError
	if resp.RawResponse != nil {
		if raw, err := runtime.Payload(resp.RawResponse); err == nil {
			_ = json.Unmarshal(raw, &body) // whatever it is, the status remains
		}
	}
	inner := ""
	if body.Error.Inner != nil {
		inner = body.Error.Inner.Code
	}
	code := orElse(body.Error.Code, http.StatusText(resp.StatusCode))
	if inner != "" {
		code += "/" + inner
	}
	azure := fmt.Sprintf("Azure says %d %s: %s", resp.StatusCode, code, withoutAdvice(oneLine(body.Error.Message)))
	what := fmt.Sprintf("secret %q of key vault %q", o.Name, vault)
	if o.Version != "" {
		what = fmt.Sprintf("version %s of %s", o.Version, what)
	}
	switch resp.StatusCode {
	case http.StatusForbidden:
		return forbidden(what, azure, inner, body.Error.Message, vault, o, id)
	case http.StatusNotFound:
		return notFound(what, azure, body.Error.Code, vault, o)
	case http.StatusUnauthorized:
		return &provider.Error{Code: codes.Unauthenticated,
			Message: fmt.Sprintf("key vault %q does not accept the token of %s (%s)", vault, id.describe(), azure),
			Hint:    "check that tenantId is the tenant of the vault (az keyvault show --name " + vault + " --query properties.tenantId)"}
	case http.StatusTooManyRequests:
		return &provider.Error{Code: codes.ResourceExhausted, Message: fmt.Sprintf("%s: the vault is throttled (%s)", what, azure), Hint: "it is tried again"}
	case http.StatusBadRequest:
		return &provider.Error{Code: codes.InvalidArgument, Message: fmt.Sprintf("%s: %s", what, azure)}
	}
	return &provider.Error{Code: codes.Unavailable, Message: fmt.Sprintf("%s: %s", what, azure), Hint: "it is tried again"}
}

// vaultScope finds the vault's resource id in Azure's text.
var vaultScope = regexp.MustCompile(`(?i)/subscriptions/[0-9a-z-]+/resourcegroups/[^/\s'";,]+/providers/microsoft\.keyvault/vaults/[0-9a-z-]+`)

func forbidden(what, azure, inner, message, vault string, o object, id *identity) *provider.Error {
	e := &provider.Error{Code: codes.PermissionDenied}
	assignee := orElse(id.principal(), id.clientID)
	switch inner {
	case "SecretDisabled":
		e.Message = fmt.Sprintf("%s is disabled (%s)", what, azure)
		e.Hint = fmt.Sprintf("enable it: az keyvault secret set-attributes --vault-name %s --name %s --enabled true", vault, o.Name)
	case "AccessDenied":
		e.Message = fmt.Sprintf("%s may not read %s: the vault's access policies do not give it the secret permission get (%s)", id.describe(), what, azure)
		e.Hint = fmt.Sprintf("grant it: az keyvault set-policy --name %s --object-id %s --secret-permissions get", vault, assignee)
	case "ForbiddenByFirewall", "ForbiddenByConnection", "ForbiddenByPolicy":
		e.Message = fmt.Sprintf("%s may not read %s: the vault refuses the connection (%s)", id.describe(), what, azure)
		e.Hint = "allow it in the vault's networking: az keyvault network-rule list --name " + vault
	default:
		scope := orElse(vaultScope.FindString(message), fmt.Sprintf("$(az keyvault show --name %s --query id -o tsv)", vault))
		e.Message = fmt.Sprintf("%s may not read %s: it lacks the role \"Key Vault Secrets User\" on the vault (%s)", id.describe(), what, azure)
		e.Hint = fmt.Sprintf("grant it: az role assignment create --role \"Key Vault Secrets User\" --assignee %s --scope %s", assignee, scope)
	}
	return e
}

func notFound(what, azure, code, vault string, o object) *provider.Error {
	e := &provider.Error{Code: codes.NotFound, Message: fmt.Sprintf("there is no %s (%s)", what, azure)}
	switch {
	case code != "" && !strings.EqualFold(code, "SecretNotFound"):
		e.Hint = fmt.Sprintf("check keyvaultName %q (az keyvault list --query \"[].name\")", vault)
	case o.Version != "":
		e.Hint = fmt.Sprintf("leave out objectVersion for the latest, or choose one of: az keyvault secret list-versions --vault-name %s --name %s", vault, o.Name)
	default:
		e.Hint = fmt.Sprintf("create it: lockstep secret set %s/%s, or on Azure az keyvault secret set --vault-name %s --name %s", vault, o.Name, vault, o.Name)
	}
	return e
}

// describe names the identity for people.
func (id *identity) describe() string {
	if oid := id.principal(); oid != "" {
		return fmt.Sprintf("service account %s (client id %s, principal %s)", id.serviceAccount, id.clientID, oid)
	}
	return fmt.Sprintf("service account %s (client id %s)", id.serviceAccount, id.clientID)
}

func containsAny(s string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// oneLine makes text fit into an event.
// withoutAdvice leaves out what Azure adds about recovery and documentation: our
// own hint says what to do.
func withoutAdvice(s string) string {
	s, _, _ = strings.Cut(s, " If you recently deleted this secret")
	return s
}

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxAzureText {
		s = strings.ToValidUTF8(s[:maxAzureText], "") + "…"
	}
	return s
}
