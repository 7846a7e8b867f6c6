package entra

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

const (
	maxAssertion = 32 << 10
	checkHint    = "Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
)

// checkAssertion returns the managed identity clientID when assertion is a valid
// token of an outside identity that is federated with it.
func (s *Server) checkAssertion(ctx context.Context, clientID, assertion string) (*Principal, error) {
	if len(assertion) > maxAssertion {
		return nil, invalidClient(50027, "JWT token is invalid or malformed: it is longer than %d bytes.", maxAssertion)
	}
	id, err := s.deps.Identities.IdentityByClientID(ctx, clientID)
	if err != nil {
		return nil, err
	}
	var presented jwt.RegisteredClaims
	unverified, _, err := jwt.NewParser().ParseUnverified(assertion, &presented)
	if err != nil {
		return nil, invalidClient(50027, "JWT token is invalid or malformed.")
	}
	if id == nil {
		sp, err := s.ByClientID(ctx, clientID)
		if err != nil {
			return nil, err
		}
		if sp != nil {
			return nil, invalidClient(700211, "No matching federated identity record found for presented assertion issuer '%s': '%s' is the service principal '%s', which has no federated credentials here; use a user-assigned managed identity. %s", presented.Issuer, clientID, sp.Name, checkHint)
		}
		return nil, s.unknownClient(clientID)
	}
	if err := match(id, presented); err != nil {
		return nil, err
	}
	if err := s.verifyAssertion(ctx, presented.Issuer, unverified, assertion); err != nil {
		return nil, err
	}
	return managed(id), nil
}

// match finds a federated credential for the presented claims. Its errors quote
// what was presented and what the identity expects.
func match(id *Identity, presented jwt.RegisteredClaims) error {
	var issuers, subjects, audiences []string
	for _, f := range id.Federated {
		issuers = append(issuers, f.Issuer)
		if f.Issuer != presented.Issuer {
			continue
		}
		subjects = append(subjects, f.Subject)
		if f.Subject != presented.Subject {
			continue
		}
		audiences = append(audiences, f.Audiences...)
		if slices.ContainsFunc(f.Audiences, func(a string) bool { return slices.Contains(presented.Audience, a) }) {
			return nil
		}
	}
	switch {
	case len(subjects) == 0:
		return invalidClient(700211, "No matching federated identity record found for presented assertion issuer '%s'. The managed identity '%s' expects %s. %s",
			presented.Issuer, id.Name, quoted("the issuer", issuers), checkHint)
	case len(audiences) == 0:
		return invalidClient(700213, "No matching federated identity record found for presented assertion subject '%s'. The managed identity '%s' expects %s. %s",
			presented.Subject, id.Name, quoted("the subject", subjects), checkHint)
	default:
		return invalidClient(700212, "No matching federated identity record found for presented assertion audience '%s'. The managed identity '%s' expects %s. %s",
			strings.Join(presented.Audience, "', '"), id.Name, quoted("the audience", audiences), checkHint)
	}
}

// quoted lists what a credential expects, without repeats.
func quoted(what string, values []string) string {
	if len(values) == 0 {
		return what + " of a federated credential, but has none"
	}
	slices.Sort(values)
	return what + " '" + strings.Join(slices.Compact(values), "' or '") + "'"
}

// verifyAssertion checks the signature with the issuer's keys, and the times.
func (s *Server) verifyAssertion(ctx context.Context, issuer string, unverified *jwt.Token, assertion string) error {
	doc, err := s.deps.IssuerKeys(ctx, issuer)
	if errors.Is(err, ErrUnknownIssuer) {
		return invalidClient(50166, "Request to External OIDC endpoint failed: this local Azure has no keys of the issuer '%s'. It trusts its own cluster's issuer '%s' and its own workflow runs.", issuer, s.deps.ClusterIssuer)
	}
	if err != nil {
		return fmt.Errorf("read the keys of the issuer %s: %w", issuer, err)
	}
	keys, err := parseKeys(doc)
	if err != nil {
		return fmt.Errorf("read the keys of the issuer %s: %w", issuer, err)
	}
	kid, _ := unverified.Header["kid"].(string)
	_, err = jwt.Parse(assertion, func(t *jwt.Token) (any, error) { return pickKey(keys, kid, t.Method) },
		jwt.WithValidMethods([]string{"RS256", "ES256"}), jwt.WithExpirationRequired(), jwt.WithLeeway(clockSkew), jwt.WithTimeFunc(s.deps.Now))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jwt.ErrTokenExpired), errors.Is(err, jwt.ErrTokenNotValidYet):
		return invalidClient(700024, "Client assertion is not within its valid time range: %s. Current time: %s.", jwtReason(err), s.deps.Now().UTC().Format("2006-01-02T15:04:05Z"))
	case errors.Is(err, errNoKey):
		return invalidClient(700027, "Client assertion contains an invalid signature: the issuer '%s' has no key with the id '%s' of the presented token.", issuer, kid)
	default:
		return invalidClient(700027, "Client assertion contains an invalid signature: %s.", jwtReason(err))
	}
}

var errNoKey = errors.New("no such key")

// pickKey finds the key of a token; a token without a key id takes the only key.
func pickKey(keys map[string]crypto.PublicKey, kid string, method jwt.SigningMethod) (crypto.PublicKey, error) {
	key, ok := keys[kid]
	if !ok && kid == "" && len(keys) == 1 {
		for _, key = range keys {
			ok = true
		}
	}
	if !ok {
		return nil, errNoKey
	}
	switch key.(type) {
	case *rsa.PublicKey:
		ok = method.Alg() == "RS256"
	case *ecdsa.PublicKey:
		ok = method.Alg() == "ES256"
	}
	if !ok {
		return nil, errNoKey
	}
	return key, nil
}
