package forge

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// kindDeploy and kindPersonal are the tokens that people see in lists. There is no SSH server:
// a deploy key is a token that git sends over HTTP, made here and shown once.
const (
	kindDeploy   = "deploy"
	kindPersonal = "personal"
)

// ListedToken is a token of a person or a deploy key, without its secret.
type ListedToken struct {
	ID      int64
	Title   string
	Repo    string // lower-case "owner/name"; "" is every repository
	Write   bool
	User    string
	Created time.Time
	Expires time.Time // zero: never
}

// CreatePersonalToken makes a token that ListPersonalTokens shows. The secret is
// returned once and not stored.
func (f *Forge) CreatePersonalToken(ctx context.Context, title string, spec TokenSpec) (token string, listed ListedToken, err error) {
	return f.createListed(ctx, kindPersonal, title, spec)
}

// ListPersonalTokens returns the personal tokens, oldest first.
func (f *Forge) ListPersonalTokens(ctx context.Context) ([]ListedToken, error) {
	return f.listTokens(ctx, `kind = ?`, kindPersonal)
}

// RevokePersonalToken ends a personal token. It returns an error that matches
// ErrNotFound when there is none with the id.
func (f *Forge) RevokePersonalToken(ctx context.Context, id int64) error {
	return f.revokeListed(ctx, `kind = ? and id = ?`, kindPersonal, id)
}

func (f *Forge) createListed(ctx context.Context, kind, title string, spec TokenSpec) (string, ListedToken, error) {
	if !spec.Expires.IsZero() && !spec.Expires.After(f.deps.Now()) {
		return "", ListedToken{}, fmt.Errorf("create token %q: it would have expired at %s already", title, spec.Expires)
	}
	f.create.Lock()
	defer f.create.Unlock()
	var id int64
	if err := f.db.QueryRowContext(ctx, `select coalesce(max(id), 0) + 1 from token`).Scan(&id); err != nil {
		return "", ListedToken{}, fmt.Errorf("forge state: %w", err)
	}
	token, hash := newToken()
	if err := f.storeToken(ctx, hash, spec, listed{id: id, kind: kind, title: title}); err != nil {
		return "", ListedToken{}, err
	}
	all, err := f.listTokens(ctx, `id = ?`, id)
	if err != nil || len(all) == 0 {
		return "", ListedToken{}, errors.Join(err, errBadToken)
	}
	return token, all[0], nil
}

func (f *Forge) listTokens(ctx context.Context, where string, args ...any) ([]ListedToken, error) {
	rows, err := f.db.QueryContext(ctx, `select id, title, repo, write, user, created, expires from token where id != 0 and `+where+` order by id`, args...)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var all []ListedToken
	for rows.Next() {
		var t ListedToken
		var created, expires int64
		if err := rows.Scan(&t.ID, &t.Title, &t.Repo, &t.Write, &t.User, &created, &expires); err != nil {
			return nil, fmt.Errorf("forge state: %w", err)
		}
		t.Created = time.UnixMicro(created).UTC()
		if expires != 0 {
			t.Expires = time.UnixMicro(expires).UTC()
		}
		all = append(all, t)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	return all, nil
}

func (f *Forge) revokeListed(ctx context.Context, where string, args ...any) error {
	return f.transact(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `delete from token where id != 0 and `+where, args...)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fmt.Errorf("token: %w", ErrNotFound))
		}
		return nil
	})
}

func (f *Forge) keyRoutes(rt routes) {
	const base = "/repos/{owner}/{repo}/keys"
	rt.handle("GET "+base, scopeAdmin, f.apiKeys)
	rt.handle("POST "+base, scopeAdmin, f.apiCreateKey)
	rt.handle("GET "+base+"/{id}", scopeAdmin, f.apiKey)
	rt.handle("DELETE "+base+"/{id}", scopeAdmin, f.apiDeleteKey)
	rt.handle("GET /repos/{owner}/{repo}/collaborators", "", f.apiCollaborators)
	rt.handle("GET /repos/{owner}/{repo}/collaborators/{login}/permission", "", f.apiPermission)
}

func keyJSON(r *http.Request, repo *repository, t ListedToken) map[string]any {
	return map[string]any{
		"id": t.ID, "key": "", "title": t.Title, "read_only": !t.Write, "verified": true, "added_by": t.User, "created_at": t.Created.Truncate(time.Second), "enabled": true,
		"last_used": nil, "url": apiBase(r) + "/repos/" + repo.full() + "/keys/" + strconv.FormatInt(t.ID, 10),
	}
}

func (f *Forge) apiKeys(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.administered(r)
	if err != nil {
		return nil, err
	}
	all, err := f.listTokens(r.Context(), `kind = ? and repo = ?`, kindDeploy, repo.key)
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, t := range cutPage(w, r, all) {
		list = append(list, keyJSON(r, repo, t))
	}
	return list, nil
}

// apiCreateKey makes a deploy key. A public key of the client has no use without SSH, so one
// that is sent is refused; the answer's field "token" is what git sends as its password.
func (f *Forge) apiCreateKey(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.administered(r)
	if err != nil {
		return nil, err
	}
	in := struct {
		Title    string `json:"title"`
		Key      string `json:"key"`
		ReadOnly bool   `json:"read_only"`
	}{}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if in.Key != "" {
		return nil, invalid("PublicKey", "custom", "key", "Lockstep's forge has no SSH server: leave out key, and use the token of the answer over HTTP")
	}
	spec := TokenSpec{User: IdentityFrom(r.Context()).User, Actor: "deploy-key", Repo: repo.full(), Write: !in.ReadOnly}
	token, made, err := f.createListed(r.Context(), kindDeploy, cut(in.Title, 255), spec)
	if err != nil {
		return nil, err
	}
	j := keyJSON(r, repo, made)
	j["token"] = token
	writeJSON(w, http.StatusCreated, j)
	return nil, nil
}

func (f *Forge) apiKey(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.administered(r)
	if err != nil {
		return nil, err
	}
	all, err := f.listTokens(r.Context(), `kind = ? and repo = ? and id = ?`, kindDeploy, repo.key, r.PathValue("id"))
	if err == nil && len(all) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return keyJSON(r, repo, all[0]), nil
}

func (f *Forge) apiDeleteKey(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.administered(r)
	if err != nil {
		return nil, err
	}
	if err := f.revokeListed(r.Context(), `kind = ? and repo = ? and id = ?`, kindDeploy, repo.key, r.PathValue("id")); err != nil {
		return nil, err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil, nil
}

// apiCollaborators names the owner of this machine, who is the only person here.
func (f *Forge) apiCollaborators(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := f.writable(r); err != nil {
		return nil, err
	}
	return []accountJSON{f.account(apiBase(r), f.cfg.User)}, nil
}

func (f *Forge) apiPermission(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	login, permission := r.PathValue("login"), "read"
	if login == f.cfg.User {
		permission = "admin"
	} else if repo.private {
		permission = "none"
	}
	return map[string]any{"permission": permission, "role_name": permission, "user": f.account(apiBase(r), login)}, nil
}
