package forge

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/durable"
)

// TokenSpec says what a token may do.
type TokenSpec struct {
	User    string    // login whose token it is
	Repo    string    // "owner/name" that it is for; "" is every repository
	Write   bool      // may push and write through the API
	Actor   string    // who its pushes are said to be by; default User
	Cause   string    // commit whose workflow run it belongs to, put into its push events
	Expires time.Time // zero: never
}

// Identity is who makes a request. The zero Identity is anonymous.
type Identity struct {
	User  string // login
	Actor string // as in push events
	Repo  string // lower-case "owner/name" that the token is for; "" is every repository
	Write bool
	Cause string // commit, as in TokenSpec
}

// Anonymous reports whether no token was given.
func (id Identity) Anonymous() bool { return id.User == "" }

// mayRead reports whether the identity may see a repository.
func (id Identity) mayRead(r *repository) bool {
	return !r.private || !id.Anonymous() && (id.Repo == "" || id.Repo == r.key)
}

// mayWrite reports whether the identity may change the repository with the key.
func (id Identity) mayWrite(key string) bool {
	return id.Write && (id.Repo == "" || id.Repo == key)
}

// mayCreate reports whether the identity may make repositories.
func (id Identity) mayCreate() bool { return id.Write && id.Repo == "" }

type identityKey struct{}

// IdentityFrom returns who makes the request with this context, for handlers
// behind Deps.Fallback.
func IdentityFrom(ctx context.Context) Identity {
	id, _ := ctx.Value(identityKey{}).(Identity)
	return id
}

func withIdentity(r *http.Request, id Identity) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), identityKey{}, id))
}

const tokenPrefix = "lockstep_"

// newToken makes a secret with 256 random bits and its stored form.
func newToken() (token string, hash []byte) {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails: crypto/rand ends the program instead
	token = tokenPrefix + base64.RawURLEncoding.EncodeToString(secret[:])
	return token, hashToken(token)
}

func hashToken(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// IssueToken makes a token and a func that revokes it. The forge keeps only the
// token's hash.
func (f *Forge) IssueToken(ctx context.Context, spec TokenSpec) (token string, revoke func(context.Context) error, err error) {
	if !spec.Expires.IsZero() && !spec.Expires.After(f.deps.Now()) {
		return "", nil, fmt.Errorf("issue token for %s: it would have expired at %s already", spec.User, spec.Expires)
	}
	token, hash := newToken()
	if err := f.storeToken(ctx, hash, spec); err != nil {
		return "", nil, err
	}
	revoke = func(ctx context.Context) error {
		if _, err := f.db.ExecContext(ctx, `delete from token where hash = ?`, hash); err != nil {
			return fmt.Errorf("revoke token of %s: %w", spec.User, err)
		}
		return nil
	}
	return token, revoke, nil
}

func (f *Forge) storeToken(ctx context.Context, hash []byte, spec TokenSpec) error {
	if spec.User == "" {
		return errors.New("issue token: User is empty")
	}
	if spec.Repo != "" {
		if _, _, err := splitName(spec.Repo); err != nil {
			return fmt.Errorf("issue token: %w", err)
		}
	}
	if spec.Actor == "" {
		spec.Actor = spec.User
	}
	var expires int64
	if !spec.Expires.IsZero() {
		expires = spec.Expires.UnixMicro()
	}
	err := f.transact(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `delete from token where expires != 0 and expires <= ?`, f.deps.Now().UnixMicro()); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `insert or replace into token (hash, user, repo, write, actor, cause, expires) values (?,?,?,?,?,?,?)`,
			hash, spec.User, strings.ToLower(spec.Repo), spec.Write, spec.Actor, spec.Cause, expires)
		return err
	})
	if err != nil {
		return fmt.Errorf("issue token for %s: %w", spec.User, err)
	}
	return nil
}

// OwnerToken returns the token of the person whose machine this is: all
// repositories, read and write. It is made once and kept in the file
// owner-token, mode 0600, in the state directory.
func (f *Forge) OwnerToken(ctx context.Context) (string, error) {
	f.create.Lock()
	defer f.create.Unlock()
	file := filepath.Join(f.cfg.Dir, "owner-token")
	data, err := os.ReadFile(file)
	token := strings.TrimSpace(string(data))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !strings.HasPrefix(token, tokenPrefix) {
		token, _ = newToken()
		err = durable.WriteFile(file, []byte(token+"\n"), 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("owner token: %w", err)
	}
	if _, err := f.identify(ctx, token); err == nil {
		return token, nil
	}
	return token, f.storeToken(ctx, hashToken(token), TokenSpec{User: f.cfg.User, Write: true})
}

var errBadToken = errors.New("the token isn't known here")

// identify returns whose token it is, or errBadToken.
func (f *Forge) identify(ctx context.Context, token string) (Identity, error) {
	var id Identity
	var expires int64
	err := f.db.QueryRowContext(ctx, `select user, actor, repo, write, cause, expires from token where hash = ?`, hashToken(token)).
		Scan(&id.User, &id.Actor, &id.Repo, &id.Write, &id.Cause, &expires)
	if errors.Is(err, sql.ErrNoRows) || err == nil && expires != 0 && expires <= f.deps.Now().UnixMicro() {
		return Identity{}, errBadToken
	}
	if err != nil {
		return Identity{}, fmt.Errorf("forge state: %w", err)
	}
	return id, nil
}

// authenticate returns who makes the request: the zero Identity without a
// token, errBadToken with one that isn't valid.
func (f *Forge) authenticate(r *http.Request) (Identity, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return Identity{}, nil
	}
	token := ""
	scheme, rest, _ := strings.Cut(header, " ")
	switch strings.ToLower(scheme) {
	case "bearer", "token":
		token = strings.TrimSpace(rest)
	case "basic":
		user, password, ok := r.BasicAuth()
		if !ok {
			return Identity{}, errBadToken
		}
		if token = password; password == "" || password == "x-oauth-basic" {
			token = user
		}
	}
	if token == "" {
		return Identity{}, errBadToken
	}
	return f.identify(r.Context(), token)
}
