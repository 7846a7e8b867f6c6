package azure

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/codes"

	"github.com/lockstep-gitops/lockstep/internal/csi/provider"
)

// Audience is what a service account token must be issued for, so that Entra
// exchanges it.
const Audience = "api://AzureADTokenExchange"

// Annotations of a service account that stand in for missing parameters.
const (
	annotationClientID = "azure.workload.identity/client-id"
	annotationTenantID = "azure.workload.identity/tenant-id"
)

// maxIdentities bounds the credentials, and so the access tokens, in memory.
const maxIdentities = 256

// identity is who a pod is towards Azure.
type identity struct {
	tenant, clientID string
	// serviceAccount is "namespace/name" of the pod's account.
	serviceAccount string
	// issuer and subject are the claims of the service account's token; empty
	// when the identity is a client secret.
	issuer, subject string

	credential azcore.TokenCredential
	expires    time.Time // when the service account's token does

	mu       sync.Mutex
	objectID string // the principal, known once Entra issued a token
}

var _ azcore.TokenCredential = (*identity)(nil)

// GetToken implements azcore.TokenCredential and notes the principal, which
// errors name.
func (id *identity) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := id.credential.GetToken(ctx, o)
	if err != nil {
		return token, err
	}
	if claims := claimsOf(token.Token); claims["oid"] != "" {
		id.mu.Lock()
		id.objectID = claims["oid"]
		id.mu.Unlock()
	}
	return token, nil
}

func (id *identity) principal() string {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.objectID
}

// claimsOf reads a token's string claims without checking its signature: they
// are shown to people and decide nothing.
func claimsOf(token string) map[string]string {
	claims := jwt.MapClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(token, claims); err != nil {
		return nil
	}
	text := make(map[string]string, len(claims))
	for k, v := range claims {
		if s, ok := v.(string); ok {
			text[k] = s
		}
	}
	return text
}

// identify finds out who the pod is. By precedence: clientID of the class with
// the pod's service account token; clientid and clientsecret of
// nodePublishSecretRef; the service account's annotation with its token.
func (p *Provider) identify(ctx context.Context, params parameters, req provider.Request) (*identity, error) {
	namespace, account := req.Attributes[provider.AttrPodNamespace], req.Attributes[provider.AttrServiceAccount]
	id := &identity{tenant: params.tenant, clientID: params.clientID, serviceAccount: namespace + "/" + account}
	secretID, secret := clientSecret(req.Secrets)
	if id.clientID == "" && secretID == "" || id.tenant == "" {
		if err := p.fillFromAccount(ctx, id, namespace, account, secretID == ""); err != nil {
			return nil, err
		}
	}
	if id.tenant == "" {
		id.tenant = p.config.TenantID
	}
	if id.tenant == "" {
		return nil, invalid("parameter tenantId is not set; give the id of the Entra tenant that owns key vault %q", params.vault)
	}
	switch {
	case id.clientID != "":
		return p.federated(id, req)
	case secretID != "" && secret != "":
		id.clientID = secretID
		return p.withSecret(id, secret)
	}
	return nil, invalid("nothing says which identity pod %s/%s has; set parameter clientID in the SecretProviderClass, or annotate service account %s with %s",
		namespace, req.Attributes[provider.AttrPodName], id.serviceAccount, annotationClientID)
}

// fillFromAccount fills what the class left out from the service account.
func (p *Provider) fillFromAccount(ctx context.Context, id *identity, namespace, account string, wantClient bool) error {
	if account == "" || p.accounts == nil {
		return nil
	}
	annotations, err := p.accounts(ctx, namespace, account)
	if err != nil {
		return &provider.Error{Code: codes.Unavailable, Message: fmt.Sprintf("read service account %s/%s for its identity: %v", namespace, account, err)}
	}
	if id.tenant == "" {
		id.tenant = annotations[annotationTenantID]
	}
	if id.clientID == "" && wantClient {
		id.clientID = annotations[annotationClientID]
	}
	return nil
}

// clientSecret finds the two keys of a nodePublishSecretRef, in any case.
func clientSecret(secrets map[string]string) (id, secret string) {
	for k, v := range secrets {
		switch strings.ToLower(k) {
		case "clientid":
			id = strings.TrimSpace(v)
		case "clientsecret":
			secret = v
		}
	}
	return id, secret
}

// accountToken returns the pod's service account token for Entra and when it
// expires. Kubelet's own words in the secrets win over the attributes, which
// hold what the pod's author wrote when kubelet adds nothing.
func accountToken(req provider.Request) (string, time.Time, error) {
	text := req.Secrets[provider.Tokens]
	if text == "" {
		text = req.Attributes[provider.Tokens]
	}
	if text == "" {
		return "", time.Time{}, &provider.Error{Code: codes.Unavailable,
			Message: "kubelet sent no service account token: it has not seen the CSIDriver object's tokenRequests yet",
			Hint:    "it tries again by itself"}
	}
	var tokens map[string]struct {
		Token   string    `json:"token"`
		Expires time.Time `json:"expirationTimestamp"`
	}
	if err := json.Unmarshal([]byte(text), &tokens); err != nil {
		// The JSON error could quote a piece of a token.
		return "", time.Time{}, invalid("attribute %s is not a JSON map of tokens", provider.Tokens)
	}
	token, ok := tokens[Audience]
	if !ok || token.Token == "" {
		return "", time.Time{}, invalid("no service account token for audience %s; the CSIDriver object must list it under tokenRequests", Audience)
	}
	return token.Token, token.Expires, nil
}

// federated makes an identity that proves itself by the pod's token. The same
// token gives the same identity, so that republishing does not ask Entra each
// time; a token that nobody has shown before never finds a cached one.
func (p *Provider) federated(id *identity, req provider.Request) (*identity, error) {
	token, expires, err := accountToken(req)
	if err != nil {
		return nil, err
	}
	key := sha256.Sum256([]byte(strings.Join([]string{id.tenant, id.clientID, token}, "\x00")))
	return p.identities.get(key, p.now(), func() (*identity, error) {
		claims := claimsOf(token)
		id.issuer, id.subject, id.expires = claims["iss"], claims["sub"], expires
		id.credential, err = azidentity.NewClientAssertionCredential(id.tenant, id.clientID,
			func(context.Context) (string, error) { return token, nil },
			&azidentity.ClientAssertionCredentialOptions{ClientOptions: p.options(), DisableInstanceDiscovery: true})
		if err != nil {
			return nil, invalid("identity of client id %q in tenant %q: %v", id.clientID, id.tenant, err)
		}
		return id, nil
	})
}

func (p *Provider) withSecret(id *identity, secret string) (*identity, error) {
	var err error
	id.credential, err = azidentity.NewClientSecretCredential(id.tenant, id.clientID, secret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: p.options(), DisableInstanceDiscovery: true})
	if err != nil {
		return nil, invalid("identity of client id %q in tenant %q: %v", id.clientID, id.tenant, err)
	}
	return id, nil
}

// identityCache keeps identities until their tokens expire.
type identityCache struct {
	mu sync.Mutex
	by map[[sha256.Size]byte]*identity
}

func (c *identityCache) get(key [sha256.Size]byte, now time.Time, build func() (*identity, error)) (*identity, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id, ok := c.by[key]; ok && now.Before(id.expires) {
		return id, nil
	}
	id, err := build()
	if err != nil {
		return nil, err
	}
	if c.by == nil {
		c.by = map[[sha256.Size]byte]*identity{}
	}
	for k, old := range c.by { // expired ones, then any, to stay bounded
		if !now.Before(old.expires) || len(c.by) >= maxIdentities {
			delete(c.by, k)
		}
	}
	c.by[key] = id
	return id, nil
}

// forget drops an identity whose tokens a store refused, so that the next
// mount asks Entra again.
func (c *identityCache) forget(id *identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, other := range c.by {
		if other == id {
			delete(c.by, k)
		}
	}
}

func invalid(format string, args ...any) *provider.Error {
	return &provider.Error{Code: codes.InvalidArgument, Message: fmt.Sprintf(format, args...)}
}
