package entra

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const registryTokenLife = 3 * time.Hour

// registryClaims are those of a registry's refresh token.
type registryClaims struct {
	jwt.RegisteredClaims
	OID       string `json:"oid"`
	AppID     string `json:"appid"`
	TID       string `json:"tid"`
	GrantType string `json:"grant_type"`
}

// RegistryToken signs a refresh token for p that only the registry with the
// login server takes.
func (s *Server) RegistryToken(p *Principal, loginServer string) (string, error) {
	now := s.deps.Now()
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, registryClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: s.issuer(), Subject: p.ObjectID, Audience: jwt.ClaimStrings{loginServer}, ID: hex.EncodeToString(id),
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(registryTokenLife)),
		},
		OID: p.ObjectID, AppID: p.AppID, TID: s.cfg.TenantID, GrantType: "refresh_token",
	})
	token.Header["kid"] = s.keyID
	signed, err := token.SignedString(s.key)
	if err != nil {
		return "", fmt.Errorf("sign registry token: %w", err)
	}
	return signed, nil
}

// VerifyRegistry returns the principal of a refresh token of the registry, or of
// an access token for registries.
func (s *Server) VerifyRegistry(ctx context.Context, token, loginServer string) (*Principal, error) {
	var c registryClaims
	if err := s.parse(token, &c); err != nil {
		return nil, err
	}
	if c.GrantType != "refresh_token" {
		return s.Verify(ctx, token, AudienceRegistry)
	}
	if !slices.Contains(c.Audience, loginServer) {
		return nil, refuseToken("the registry token is for %q, not for %q", []string(c.Audience), loginServer)
	}
	p, err := s.ByObjectID(ctx, c.OID)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, refuseToken("the principal of the registry token does not exist any more")
	}
	return p, nil
}
