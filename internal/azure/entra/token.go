package entra

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	tokenLife   = time.Hour
	maxFormSize = 64 << 10
	clockSkew   = 5 * time.Minute
)

// resources are the audiences for which tokens are issued, without trailing slash.
var resources = []string{
	"https://management.azure.com", "https://management.core.windows.net",
	"https://vault.azure.net", "https://graph.microsoft.com", "https://graph.windows.net",
	"https://storage.azure.com", "https://containerregistry.azure.net",
	"6dae42f8-4368-4678-94ff-3960e28e3630", // AKS AAD server
	"00000003-0000-0000-c000-000000000000", // Microsoft Graph
	"cfa8b339-82a2-471a-a3c9-0fc0be7a4093", // Key Vault
}

// Audiences of the services here, for Verify.
var (
	AudienceARM      = []string{"https://management.azure.com", "https://management.core.windows.net"}
	AudienceVault    = []string{"https://vault.azure.net", "cfa8b339-82a2-471a-a3c9-0fc0be7a4093"}
	AudienceGraph    = []string{"https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000"}
	AudienceRegistry = []string{"https://containerregistry.azure.net", "https://management.azure.com", "https://management.core.windows.net"}
)

// token answers the token endpoint: version 2 takes scope, version 1 resource.
func (s *Server) token(w http.ResponseWriter, r *http.Request, tenant string, v2 bool) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		e := invalidRequest(900561, "The endpoint only accepts POST requests. Received a %s request.", r.Method)
		e.status = http.StatusMethodNotAllowed
		s.fail(w, r, e)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxFormSize)
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, invalidRequest(900144, "The request body is not a form of at most %d bytes: %v", maxFormSize, err))
		return
	}
	form := r.PostForm
	if id, secret, ok := r.BasicAuth(); ok && form.Get("client_id") == "" {
		form.Set("client_id", unescape(id))
		form.Set("client_secret", unescape(secret))
	}
	p, resource, err := s.signIn(r.Context(), form, tenant, v2)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	how := "2" // by assertion
	if form.Get("client_secret") != "" {
		how = "1"
	}
	now := s.deps.Now()
	token, err := s.mint(p, resource, how, now)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	seconds := int(tokenLife/time.Second) - 1
	if v2 {
		writeJSON(w, http.StatusOK, map[string]any{
			"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token,
		})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"token_type": "Bearer", "expires_in": strconv.Itoa(seconds), "ext_expires_in": strconv.Itoa(seconds),
		"expires_on": strconv.FormatInt(now.Add(tokenLife).Unix(), 10), "not_before": strconv.FormatInt(now.Unix(), 10),
		"resource": resource, "access_token": token,
	})
}

func unescape(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}

// signIn checks the credentials in form and returns who they are and the
// resource that they want a token for.
func (s *Server) signIn(ctx context.Context, form url.Values, tenant string, v2 bool) (*Principal, string, error) {
	grant := form.Get("grant_type")
	if grant == "" {
		return nil, "", invalidRequest(900144, "The request body must contain the following parameter: 'grant_type'.")
	}
	if grant != "client_credentials" {
		e := invalidRequest(70003, "The app requested an unsupported grant type '%s'. This local Azure signs in programs only, by 'client_credentials' with a client_secret or a client_assertion.", grant)
		e.code = "unsupported_grant_type"
		return nil, "", e
	}
	if isPlaceholderTenant(tenant) {
		return nil, "", invalidRequest(50059, "No tenant-identifying information found: client credentials need a tenant in the URL, not '%s': use '%s'.", tenant, s.cfg.TenantID)
	}
	clientID := form.Get("client_id")
	if clientID == "" {
		return nil, "", invalidRequest(900144, "The request body must contain the following parameter: 'client_id'.")
	}
	resource, err := wantedResource(form, v2)
	if err != nil {
		return nil, "", err
	}
	assertion, secret := form.Get("client_assertion"), form.Get("client_secret")
	var p *Principal
	switch {
	case assertion != "":
		if t := form.Get("client_assertion_type"); t != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
			return nil, "", invalidRequest(900144, "'client_assertion_type' must be 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer', not '%s'.", t)
		}
		p, err = s.checkAssertion(ctx, clientID, assertion)
	case secret != "":
		p, err = s.CheckSecret(ctx, clientID, secret)
	default:
		err = invalidClient(7000216, "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type.")
	}
	return p, resource, err
}

// wantedResource returns the audience of the token, just as the client wrote it.
func wantedResource(form url.Values, v2 bool) (string, error) {
	if !v2 {
		resource := form.Get("resource")
		if resource == "" {
			return "", invalidRequest(900144, "The request body must contain the following parameter: 'resource'.")
		}
		return knownResource(resource)
	}
	var wanted string
	for scope := range strings.FieldsSeq(form.Get("scope")) {
		switch scope {
		case "openid", "profile", "offline_access", "email":
			continue
		}
		resource, ok := strings.CutSuffix(scope, "/.default")
		if !ok || wanted != "" {
			e := invalidRequest(1002012, "The provided value for scope %s is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI).", form.Get("scope"))
			e.code = "invalid_scope"
			return "", e
		}
		wanted = resource
	}
	if wanted == "" {
		return "", invalidRequest(900144, "The request body must contain the following parameter: 'scope'.")
	}
	return knownResource(wanted)
}

func knownResource(resource string) (string, error) {
	if slices.Contains(resources, strings.ToLower(strings.TrimSuffix(resource, "/"))) {
		return resource, nil
	}
	e := invalidRequest(500011, "The resource principal named %s was not found in the tenant. This local Azure issues tokens for: %s.", resource, strings.Join(resources, ", "))
	e.code = "invalid_resource"
	return "", e
}

// issuer is that of all tokens.
func (s *Server) issuer() string { return "https://sts.windows.net/" + s.cfg.TenantID + "/" }

// claims are those of Entra's version 1.0 tokens for applications.
type claims struct {
	jwt.RegisteredClaims
	AppID    string `json:"appid"`
	AppIDACR string `json:"appidacr"`
	IDP      string `json:"idp"`
	IDType   string `json:"idtyp"`
	OID      string `json:"oid"`
	TID      string `json:"tid"`
	UTI      string `json:"uti"`
	Version  string `json:"ver"`
	Resource string `json:"xms_mirid,omitempty"`
}

// mint signs a token for p.
func (s *Server) mint(p *Principal, audience, how string, now time.Time) (string, error) {
	unique := make([]byte, 16)
	_, _ = rand.Read(unique) // never fails
	issuer := s.issuer()
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: issuer, Subject: p.ObjectID, Audience: jwt.ClaimStrings{audience},
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(tokenLife)),
		},
		AppID: p.AppID, AppIDACR: how, IDP: issuer, IDType: "app", OID: p.ObjectID, TID: s.cfg.TenantID,
		UTI: base64.RawURLEncoding.EncodeToString(unique), Version: "1.0",
	})
	token.Header["kid"], token.Header["x5t"] = s.keyID, s.keyID
	signed, err := token.SignedString(s.key)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return signed, nil
}

// TokenError refuses a token: its text is a sentence for the answer 401.
type TokenError struct{ Reason string }

func (e *TokenError) Error() string { return e.Reason }

func refuseToken(format string, args ...any) error {
	return &TokenError{Reason: fmt.Sprintf(format, args...)}
}

// Verify returns the principal of an access token that this service issued for
// one of the audiences. It refuses with a TokenError; other errors are this
// machine's own.
func (s *Server) Verify(ctx context.Context, token string, audiences []string) (*Principal, error) {
	var c claims
	if err := s.parse(token, &c); err != nil {
		return nil, err
	}
	if len(c.Audience) != 1 || !slices.Contains(audiences, strings.ToLower(strings.TrimSuffix(c.Audience[0], "/"))) {
		return nil, refuseToken("the access token is for the audience %q, not for %q", []string(c.Audience), audiences[0])
	}
	p, err := s.ByObjectID(ctx, c.OID)
	if err != nil {
		return nil, err
	}
	if p == nil || p.AppID != c.AppID {
		return nil, refuseToken("the principal %s of the access token does not exist any more", c.OID)
	}
	p.Issuer = c.Issuer
	return p, nil
}

// parse checks signature, times and issuer.
func (s *Server) parse(token string, c jwt.Claims) error {
	_, err := jwt.ParseWithClaims(token, c, func(*jwt.Token) (any, error) { return &s.key.PublicKey, nil },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithIssuer(s.issuer()),
		jwt.WithExpirationRequired(), jwt.WithLeeway(clockSkew), jwt.WithTimeFunc(s.deps.Now))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jwt.ErrTokenExpired):
		return refuseToken("the access token is expired")
	case errors.Is(err, jwt.ErrTokenSignatureInvalid), errors.Is(err, jwt.ErrTokenUnverifiable):
		return refuseToken("the access token was not issued by this local Azure (signature check failed); sign in again, and mind that tokens of the real Azure do not work here")
	default:
		return refuseToken("the access token is not valid: %v", jwtReason(err))
	}
}

// jwtReason keeps token content out of messages.
func jwtReason(err error) string {
	for _, known := range []error{jwt.ErrTokenMalformed, jwt.ErrTokenNotValidYet, jwt.ErrTokenInvalidIssuer, jwt.ErrTokenRequiredClaimMissing,
		jwt.ErrTokenExpired, jwt.ErrTokenInvalidAudience, jwt.ErrTokenUsedBeforeIssued, jwt.ErrTokenSignatureInvalid} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "it cannot be read"
}
