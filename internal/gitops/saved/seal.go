package saved

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/lockstep-gitops/lockstep/internal/durable"
)

// sealer encrypts what may hold secrets: the whole of a row. Renders of Secrets
// would else be on disk in clear, and whether an object is one cannot be told
// from its kind alone (a ConfigMap with a password, an operator's own kind).
// The key is in a file of mode 0600 beside: it keeps secrets out of backups,
// copies and dumps of the database alone; who can read both files owns the
// platform anyway. AES-GCM costs nothing next to the disk, and notices damage.
type sealer struct{ aead cipher.AEAD }

const keySize = 32

// openKey reads the key of a file, or makes one. One that is damaged is
// replaced: what it sealed is rendered anew.
func openKey(path string) (*sealer, error) {
	key, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if len(key) != keySize {
		key = make([]byte, keySize)
		if _, err := rand.Read(key); err != nil {
			return nil, err
		}
		if err := durable.WriteFile(path, key, 0o600); err != nil {
			return nil, err
		}
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &sealer{aead}, err
}

// seal encrypts a row for its application: one of another is not opened.
func (s *sealer) seal(key string, plain []byte) ([]byte, error) {
	nonce := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+len(plain)+s.aead.Overhead())
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return s.aead.Seal(nonce, nonce, plain, bound(key)), nil
}

func (s *sealer) open(key string, sealed []byte) ([]byte, error) {
	n := s.aead.NonceSize()
	if len(sealed) < n {
		return nil, errors.New("it is cut short")
	}
	return s.aead.Open(nil, sealed[:n], sealed[n:], bound(key))
}

func bound(key string) []byte {
	sum := sha256.Sum256([]byte(key))
	return sum[:]
}
