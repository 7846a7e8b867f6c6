package forge

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/json"
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
	// Scopes are GitHub's permissions, "contents" to "read" or "write". With
	// nil everything is allowed that Repo and Write allow; otherwise Write is not looked at
	// and what is not named is not allowed. What is public can be read all the same.
	Scopes map[string]string
}

// Identity is who makes a request. The zero Identity is anonymous.
type Identity struct {
	User  string // login
	Actor string // as in push events
	Repo  string // lower-case "owner/name" that the token is for; "" is every repository
	Write bool
	Cause string // commit, as in TokenSpec
	// Scopes are as in TokenSpec: nil means all.
	Scopes map[string]string
	// Deploy says that the token is a deploy key: it is for Git alone.
	Deploy bool
}

// Anonymous reports whether no token was given.
func (id Identity) Anonymous() bool { return id.User == "" }

// Scopes that routes ask for, as in the permissions of a workflow. "administration"
// is not to be had there.
const (
	scopeContents    = "contents"
	scopePulls       = "pull-requests"
	scopeIssues      = "issues"
	scopeStatuses    = "statuses"
	scopeChecks      = "checks"
	scopeDeployments = "deployments"
	scopeActions     = "actions"
	scopeAdmin       = "administration"
)

type scopeKey struct{}

// scopeOf is what the route of the request asks for.
func scopeOf(r *http.Request) string {
	scope, _ := r.Context().Value(scopeKey{}).(string)
	return scope
}

// allows reports whether the identity's scopes have one of those in scope,
// which are separated by commas, at the level "read" or "write". "" is allowed to all.
func (id Identity) allows(scope, level string) bool {
	if scope == "" {
		return true
	}
	if id.Deploy {
		return scope == scopeContents
	}
	if id.Scopes == nil {
		return true
	}
	for one := range strings.SplitSeq(scope, ",") {
		if has := id.Scopes[one]; has == "write" || has == level {
			return true
		}
	}
	return false
}

// mayRead reports whether the identity may see a repository.
func (id Identity) mayRead(r *repository) bool {
	return !r.private || !id.Anonymous() && (id.Repo == "" || id.Repo == r.key)
}

// mayFetch reports whether the identity may read the content of a repository it may see.
func (id Identity) mayFetch(r *repository) bool {
	return !r.private || id.allows(scopeContents, "read")
}

// mayWrite reports whether the identity may push to the repository with the key.
func (id Identity) mayWrite(key string) bool { return id.mayChange(key, scopeContents) }

// mayChange reports whether the identity may change what the scope is about in
// the repository with the key. Without a scope any right to write will do.
func (id Identity) mayChange(key, scope string) bool {
	return id.Write && (id.Repo == "" || id.Repo == key) && id.allows(scope, "write")
}

// mayCreate reports whether the identity may make repositories.
func (id Identity) mayCreate() bool {
	return id.Write && id.Repo == "" && id.allows(scopeAdmin, "write")
}

// mayAdminister reports whether branch protection need not hold for the identity.
func (id Identity) mayAdminister(key string) bool { return id.mayChange(key, scopeAdmin) }

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
	if err := f.storeToken(ctx, hash, spec, listed{}); err != nil {
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

// listed is what a token that people see in a list has beside its TokenSpec.
type listed struct {
	id          int64
	kind, title string
}

func (f *Forge) storeToken(ctx context.Context, hash []byte, spec TokenSpec, as listed) error {
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
	scopes, write, err := encodeScopes(spec)
	if err != nil {
		return fmt.Errorf("issue token for %s: %w", spec.User, err)
	}
	var expires int64
	if !spec.Expires.IsZero() {
		expires = spec.Expires.UnixMicro()
	}
	err = f.transact(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `delete from token where expires != 0 and expires <= ?`, f.deps.Now().UnixMicro()); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `insert or replace into token (hash, user, repo, write, actor, cause, expires, scopes, id, kind, title, created) values (?,?,?,?,?,?,?,?,?,?,?,?)`,
			hash, spec.User, strings.ToLower(spec.Repo), write, spec.Actor, spec.Cause, expires, scopes, as.id, as.kind, as.title, f.deps.Now().UnixMicro())
		return err
	})
	if err != nil {
		return fmt.Errorf("issue token for %s: %w", spec.User, err)
	}
	return nil
}

// encodeScopes is the stored form of a token's scopes, and whether it may write
// anything.
func encodeScopes(spec TokenSpec) (scopes string, write bool, err error) {
	if spec.Scopes == nil {
		return "", spec.Write, nil
	}
	for name, level := range spec.Scopes {
		switch level {
		case "read", "none":
		case "write":
			write = true
		default:
			return "", false, fmt.Errorf("scope %s: %q is not read, write or none", name, level)
		}
	}
	data, err := json.Marshal(spec.Scopes)
	return string(data), write, err
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
	return token, f.storeToken(ctx, hashToken(token), TokenSpec{User: f.cfg.User, Write: true}, listed{})
}

var errBadToken = errors.New("the token isn't known here")

// identify returns whose token it is, or errBadToken.
func (f *Forge) identify(ctx context.Context, token string) (Identity, error) {
	var id Identity
	var expires int64
	var scopes, kind string
	err := f.db.QueryRowContext(ctx, `select user, actor, repo, write, cause, expires, scopes, kind from token where hash = ?`, hashToken(token)).
		Scan(&id.User, &id.Actor, &id.Repo, &id.Write, &id.Cause, &expires, &scopes, &kind)
	if errors.Is(err, sql.ErrNoRows) || err == nil && expires != 0 && expires <= f.deps.Now().UnixMicro() {
		return Identity{}, errBadToken
	}
	if err != nil {
		return Identity{}, fmt.Errorf("forge state: %w", err)
	}
	id.Deploy = kind == kindDeploy
	if scopes != "" {
		if err := json.Unmarshal([]byte(scopes), &id.Scopes); err != nil {
			return Identity{}, fmt.Errorf("forge state: scopes of a token: %w", err)
		}
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
