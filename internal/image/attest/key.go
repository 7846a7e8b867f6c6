package attest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/lockstep-gitops/lockstep/internal/durable"
)

// Key is an ECDSA key on P-256 that signs SHA-256 digests, as cosign's keys do.
type Key struct {
	private *ecdsa.PrivateKey
	id      string
}

var _ dsse.SignerVerifier = (*Key)(nil)

// OpenKey reads the key of a file, PKCS #8 in PEM, or makes one that only the
// owner of the process can read.
func OpenKey(file string) (*Key, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(file)
	}
	if err != nil {
		return nil, fmt.Errorf("read the signing key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("read the signing key: %s is not PEM; move it away to have a new key made", file)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the signing key: %s is not PKCS #8: %w", file, err)
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || private.Curve != elliptic.P256() {
		return nil, fmt.Errorf("read the signing key: %s is not an ECDSA key on P-256", file)
	}
	return newKey(private)
}

func makeKey(file string) (*Key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	if err := durable.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	return newKey(private)
}

func newKey(private *ecdsa.PrivateKey) (*Key, error) {
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("read the signing key: %w", err)
	}
	sum := sha256.Sum256(der)
	return &Key{private: private, id: base64.StdEncoding.EncodeToString(sum[:])}, nil
}

// KeyID is the SHA-256 of the public key (SubjectPublicKeyInfo) in base64, the
// hint that cosign writes.
func (k *Key) KeyID() (string, error) { return k.id, nil }

// Public is the key that verifies.
func (k *Key) Public() crypto.PublicKey { return &k.private.PublicKey }

// PublicPEM is the public key as `cosign verify-attestation --key FILE` reads it.
func (k *Key) PublicPEM() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(&k.private.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("write the public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// Sign implements dsse.Signer: ECDSA over the SHA-256 of data, ASN.1.
func (k *Key) Sign(_ context.Context, data []byte) ([]byte, error) {
	sum := sha256.Sum256(data)
	return ecdsa.SignASN1(rand.Reader, k.private, sum[:])
}

// Verify implements dsse.Verifier.
func (k *Key) Verify(_ context.Context, data, signature []byte) error {
	sum := sha256.Sum256(data)
	if !ecdsa.VerifyASN1(&k.private.PublicKey, sum[:], signature) {
		return errors.New("the signature is of another key or another text")
	}
	return nil
}
