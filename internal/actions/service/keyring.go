package service

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/lockstep-gitops/lockstep/internal/durable"
)

// keyring holds the keys that sign ID tokens: the newest signs, older ones are
// still shown until the last token that they signed is over.
type keyring struct {
	path string
	now  func() time.Time

	mu   sync.RWMutex
	keys []signingKey // newest first
}

type signingKey struct {
	id      string
	key     *rsa.PrivateKey
	created time.Time
}

// keyFile is the file, mode 0600.
type keyFile struct {
	Keys []storedKey `json:"keys"`
}

type storedKey struct {
	PEM     string    `json:"pem"` // PKCS #8
	Created time.Time `json:"created"`
}

func openKeyring(path string, now func() time.Time) (*keyring, error) {
	k := &keyring{path: path, now: now}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("make OIDC keys: %w", err)
		}
		return k, k.rotate()
	}
	if err != nil {
		return nil, fmt.Errorf("read OIDC keys: %w", err)
	}
	var file keyFile
	if err := json.Unmarshal(data, &file); err != nil || len(file.Keys) == 0 {
		return nil, fmt.Errorf("read OIDC keys: %s holds no keys; delete it to make new ones: %w", path, errors.Join(err, ErrInvalid))
	}
	for i, stored := range file.Keys {
		key, err := parseKey(stored.PEM)
		if err != nil {
			return nil, fmt.Errorf("read OIDC keys: key %d of %s: %w; delete the file to make new ones", i+1, path, err)
		}
		k.keys = append(k.keys, signingKey{keyID(key), key, stored.Created})
	}
	return k, nil
}

func parseKey(text string) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("it is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	if key, ok := key.(*rsa.PrivateKey); ok {
		return key, nil
	}
	return nil, errors.New("it is not an RSA key")
}

// keyID is the key's thumbprint (RFC 7638).
func keyID(key *rsa.PrivateKey) string {
	n, e := publicNumbers(key)
	sum := sha256.Sum256(fmt.Appendf(nil, `{"e":"%s","kty":"RSA","n":"%s"}`, e, n))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func publicNumbers(key *rsa.PrivateKey) (n, e string) {
	enc := base64.RawURLEncoding.EncodeToString
	return enc(key.N.Bytes()), enc(big.NewInt(int64(key.E)).Bytes())
}

// RotateKeys makes a new key for ID tokens. The former ones stay visible while
// tokens that they signed are valid.
func (s *Service) RotateKeys() error { return s.keys.rotate() }

func (k *keyring) rotate() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("make OIDC key: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now().UTC()
	keys := []signingKey{{keyID(key), key, now}}
	for i, old := range k.keys {
		// A key signed until the next one came.
		if i == 0 || now.Sub(k.keys[i-1].created) < 2*idTokenLife {
			keys = append(keys, old)
		}
	}
	var file keyFile
	for _, key := range keys {
		der, err := x509.MarshalPKCS8PrivateKey(key.key)
		if err != nil {
			return fmt.Errorf("write OIDC keys: %w", err)
		}
		file.Keys = append(file.Keys, storedKey{string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), key.created})
	}
	data, err := json.Marshal(file)
	if err != nil {
		return fmt.Errorf("write OIDC keys: %w", err)
	}
	if err := durable.WriteFile(k.path, data, 0o600); err != nil {
		return fmt.Errorf("write OIDC keys: %w", err)
	}
	k.keys = keys
	return nil
}

func (k *keyring) sign(claims jwt.MapClaims) (string, error) {
	k.mu.RLock()
	key := k.keys[0]
	k.mu.RUnlock()
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	t.Header["kid"] = key.id
	token, err := t.SignedString(key.key)
	if err != nil {
		return "", fmt.Errorf("sign ID token: %w", err)
	}
	return token, nil
}

type jwk struct {
	Kty string `json:"kty"`
	Alg string `json:"alg"`
	Use string `json:"use"`
	Kid string `json:"kid"`
	N   string `json:"n"`
	E   string `json:"e"`
}

type jwkSet struct {
	Keys []jwk `json:"keys"`
}

// public is the JWKS document.
func (k *keyring) public() jwkSet {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var set jwkSet
	for _, key := range k.keys {
		n, e := publicNumbers(key.key)
		set.Keys = append(set.Keys, jwk{"RSA", "RS256", "sig", key.id, n, e})
	}
	return set
}

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}
