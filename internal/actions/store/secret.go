package store

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/nacl/box"

	"github.com/lockstep-gitops/lockstep/internal/durable"
)

// Bounds as on GitHub.
const (
	maxSecret   = 48 << 10 // bytes of a value
	maxVariable = 48 << 10
	maxNames    = 500 // variables or secrets of a repository
)

// keys are what the key file holds: one for storage, a pair for sealed values
// that clients send.
type keys struct {
	storage         cipher.AEAD
	public, private *[32]byte
}

// openKeys reads the key file, or makes it.
func openKeys(path string) (keys, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = newKeys(path)
	}
	if err != nil {
		return keys{}, fmt.Errorf("key of the secrets: %w", err)
	}
	if len(data) != 96 {
		return keys{}, fmt.Errorf("key of the secrets: %s has %d bytes instead of 96; without the right file the stored secrets cannot be read", path, len(data))
	}
	block, err := aes.NewCipher(data[:32])
	if err != nil {
		return keys{}, err
	}
	k := keys{public: (*[32]byte)(data[32:64]), private: (*[32]byte)(data[64:96])}
	k.storage, err = cipher.NewGCM(block)
	return k, err
}

func newKeys(path string) ([]byte, error) {
	public, private, err := box.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	data := make([]byte, 32, 96)
	_, _ = rand.Read(data) // never fails
	data = append(append(data, public[:]...), private[:]...)
	return data, durable.WriteFile(path, data, 0o600)
}

// PublicKey is what a client seals a secret with, and the key's name.
func (s *Store) PublicKey() (id, key string) {
	return strconv.FormatUint(uint64(s.keys.public[0])<<16|uint64(s.keys.public[1])<<8|uint64(s.keys.public[2]), 10) + "0",
		base64.StdEncoding.EncodeToString(s.keys.public[:])
}

// Unseal opens a libsodium sealed box in base64.
func (s *Store) Unseal(sealed string) ([]byte, error) {
	data, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		return nil, errors.New("encrypted_value is not base64")
	}
	plain, ok := box.OpenAnonymous(nil, data, s.keys.public, s.keys.private)
	if !ok {
		return nil, errors.New("encrypted_value is not sealed with this repository's public key")
	}
	return plain, nil
}

var validName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// CheckName says why a name of a secret or variable is not allowed.
func CheckName(name string) error {
	if !validName.MatchString(name) || len(name) > 255 {
		return fmt.Errorf("name %q can only contain letters, digits and underscores and must not start with a digit", name)
	}
	if strings.HasPrefix(strings.ToUpper(name), "GITHUB_") {
		return fmt.Errorf("name %q must not start with GITHUB_", name)
	}
	return nil
}

// Named is a secret or variable; Value is empty for secrets.
type Named struct {
	Name             string
	Value            string
	Created, Updated time.Time
}

// SetSecret stores a secret, encrypted. created tells a new one.
func (s *Store) SetSecret(ctx context.Context, repo, name string, value []byte) (created bool, err error) {
	if len(value) > maxSecret {
		return false, fmt.Errorf("secret %s has %d bytes; at most %d are stored", name, len(value), maxSecret)
	}
	name = strings.ToUpper(name)
	nonce := make([]byte, s.keys.storage.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	sealed := s.keys.storage.Seal(nonce, nonce, value, secretPlace(repo, name))
	return s.set(ctx, "secret", "sealed", repo, name, sealed)
}

// secretPlace binds a sealed value to where it is stored.
func secretPlace(repo, name string) []byte { return []byte(strings.ToLower(repo) + "\x00" + name) }

// SetVariable stores a variable.
func (s *Store) SetVariable(ctx context.Context, repo, name, value string) (created bool, err error) {
	if len(value) > maxVariable {
		return false, fmt.Errorf("variable %s has %d bytes; at most %d are stored", name, len(value), maxVariable)
	}
	return s.set(ctx, "variable", "value", repo, strings.ToUpper(name), value)
}

// set writes one row; table and column are constants of this file.
func (s *Store) set(ctx context.Context, table, column, repo, name string, value any) (created bool, err error) {
	if err := CheckName(name); err != nil {
		return false, err
	}
	repo = strings.ToLower(repo)
	err = s.update(ctx, func(tx *sql.Tx) error {
		now := s.now().Unix()
		res, err := tx.ExecContext(ctx, `update `+table+` set `+column+` = ?, updated = ? where repo = ? and name = ?`, value, now, repo, name)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n > 0 {
			return err
		}
		var n int
		if err := tx.QueryRowContext(ctx, `select count(*) from `+table+` where repo = ?`, repo).Scan(&n); err != nil {
			return err
		}
		if n >= maxNames {
			return fmt.Errorf("%s has %d of them already, which is the most", repo, n)
		}
		created = true
		_, err = tx.ExecContext(ctx, `insert into `+table+` (repo, name, `+column+`, created, updated) values (?,?,?,?,?)`, repo, name, value, now, now)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("store %s %s: %w", table, name, err)
	}
	return created, nil
}

// Secrets returns the values of a repository's secrets by name.
func (s *Store) Secrets(ctx context.Context, repo string) (map[string]string, error) {
	rows, err := s.read.QueryContext(ctx, `select name, sealed from secret where repo = ?`, strings.ToLower(repo))
	if err != nil {
		return nil, fmt.Errorf("read secrets: %w", err)
	}
	defer func() { _ = rows.Close() }()
	out := map[string]string{}
	for rows.Next() {
		var name string
		var sealed []byte
		if err := rows.Scan(&name, &sealed); err != nil {
			return nil, fmt.Errorf("read secrets: %w", err)
		}
		n := s.keys.storage.NonceSize()
		if len(sealed) < n {
			return nil, fmt.Errorf("secret %s is damaged; set it again", name)
		}
		value, err := s.keys.storage.Open(nil, sealed[:n], sealed[n:], secretPlace(repo, name))
		if err != nil {
			return nil, fmt.Errorf("secret %s cannot be decrypted with this key file; set it again", name)
		}
		out[name] = string(value)
	}
	return out, rows.Err()
}

// Variables returns a repository's variables by name.
func (s *Store) Variables(ctx context.Context, repo string) (map[string]string, error) {
	list, err := s.ListVariables(ctx, repo)
	out := map[string]string{}
	for _, v := range list {
		out[v.Name] = v.Value
	}
	return out, err
}

// ListSecrets names the secrets of a repository.
func (s *Store) ListSecrets(ctx context.Context, repo string) ([]Named, error) {
	return s.list(ctx, `select name, '', created, updated from secret where repo = ? order by name`, repo)
}

// ListVariables lists the variables of a repository.
func (s *Store) ListVariables(ctx context.Context, repo string) ([]Named, error) {
	return s.list(ctx, `select name, value, created, updated from variable where repo = ? order by name`, repo)
}

func (s *Store) list(ctx context.Context, query, repo string) ([]Named, error) {
	rows, err := s.read.QueryContext(ctx, query, strings.ToLower(repo))
	if err != nil {
		return nil, fmt.Errorf("read names: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var out []Named
	for rows.Next() {
		var n Named
		var created, updated int64
		if err := rows.Scan(&n.Name, &n.Value, &created, &updated); err != nil {
			return nil, fmt.Errorf("read names: %w", err)
		}
		n.Created, n.Updated = time.Unix(created, 0).UTC(), time.Unix(updated, 0).UTC()
		out = append(out, n)
	}
	return out, rows.Err()
}

// DeleteSecret removes a secret, or returns ErrNotFound.
func (s *Store) DeleteSecret(ctx context.Context, repo, name string) error {
	return s.remove(ctx, "secret", repo, name)
}

// DeleteVariable removes a variable, or returns ErrNotFound.
func (s *Store) DeleteVariable(ctx context.Context, repo, name string) error {
	return s.remove(ctx, "variable", repo, name)
}

func (s *Store) remove(ctx context.Context, table, repo, name string) error {
	err := s.update(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `delete from `+table+` where repo = ? and name = ?`, strings.ToLower(repo), strings.ToUpper(name))
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err == nil && n == 0 {
			return ErrNotFound
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete %s %s: %w", table, name, err)
	}
	return nil
}

// Repositories lists where secrets are stored.
func (s *Store) Repositories(ctx context.Context) ([]string, error) {
	rows, err := s.read.QueryContext(ctx, `select distinct repo from secret where instr(repo, ?) = 0 order by repo`, environmentMark)
	if err != nil {
		return nil, fmt.Errorf("read names: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var out []string
	for rows.Next() {
		var repo string
		if err := rows.Scan(&repo); err != nil {
			return nil, fmt.Errorf("read names: %w", err)
		}
		out = append(out, repo)
	}
	return out, rows.Err()
}
