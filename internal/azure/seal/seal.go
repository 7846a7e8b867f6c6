// Package seal encrypts what the local Azure keeps at rest.
//
// Input: plaintext and the associated data that says where it belongs. Output:
// a sealed blob: a data key of its own, wrapped by the master key, and the
// AES-256-GCM ciphertext under that data key.
//
// Invariants: the master key exists only in its 0600 file and in memory; a blob
// opens only with the associated data it was sealed with, so a row that is
// moved to another vault, name or version does not open.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/durable"
)

const (
	keyBytes = 32
	version  = 1
	// A wrapped data key is nonce, key and tag.
	wrappedBytes = 12 + keyBytes + 16
)

// Keyring holds the master key. It is safe for concurrent use.
type Keyring struct{ master []byte }

// Open reads the master key from the file at path, or makes one.
func Open(path string) (*Keyring, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return create(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read master key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != keyBytes {
		return nil, fmt.Errorf("master key file %s is damaged: it must hold %d hexadecimal digits; restore it, or delete the azure state folder and lose its secrets", path, 2*keyBytes)
	}
	return &Keyring{master: key}, nil
}

func create(path string) (*Keyring, error) {
	key := make([]byte, keyBytes)
	_, _ = rand.Read(key) // never fails
	if err := durable.WriteFile(path, []byte(hex.EncodeToString(key)+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("create master key: %w", err)
	}
	return &Keyring{master: key}, nil
}

// Seal encrypts plaintext bound to aad.
func (k *Keyring) Seal(plaintext []byte, aad string) ([]byte, error) {
	dataKey := make([]byte, keyBytes)
	_, _ = rand.Read(dataKey)
	out, err := encrypt(k.master, dataKey, "key|"+aad, []byte{version})
	if err != nil {
		return nil, err
	}
	return encrypt(dataKey, plaintext, "value|"+aad, out)
}

// Open decrypts a blob of Seal. It fails when the blob or aad was changed.
func (k *Keyring) Open(blob []byte, aad string) ([]byte, error) {
	if len(blob) < 1+wrappedBytes || blob[0] != version {
		return nil, errors.New("sealed value is damaged: unknown format")
	}
	dataKey, err := decrypt(k.master, blob[1:1+wrappedBytes], "key|"+aad)
	if err != nil {
		return nil, err
	}
	return decrypt(dataKey, blob[1+wrappedBytes:], "value|"+aad)
}

// Derive returns n secret bytes that depend on the master key and label only.
func (k *Keyring) Derive(label string, n int) ([]byte, error) {
	out, err := hkdf.Key(sha256.New, k.master, nil, label, n)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	return out, nil
}

// encrypt appends nonce and ciphertext to dst.
func encrypt(key, plaintext []byte, aad string, dst []byte) ([]byte, error) {
	gcm, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, gcm.NonceSize())
	_, _ = rand.Read(nonce)
	return gcm.Seal(append(dst, nonce...), nonce, plaintext, []byte(aad)), nil
}

func decrypt(key, blob []byte, aad string) ([]byte, error) {
	gcm, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	if len(blob) < gcm.NonceSize() {
		return nil, errors.New("sealed value is damaged: too short")
	}
	plaintext, err := gcm.Open(nil, blob[:gcm.NonceSize()], blob[gcm.NonceSize():], []byte(aad))
	if err != nil {
		return nil, errors.New("sealed value does not open: it was changed, moved, or sealed with another master key")
	}
	return plaintext, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
