package keyvault

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/azure/state"
)

// Schema creates the tables of this package.
const Schema = `
create table if not exists kv_secret (
  seq integer primary key autoincrement, -- order of the versions
  vault text not null,       -- uid of the vault's incarnation
  key text not null,         -- lower-case name: names are unique without regard to case
  name text not null, version text not null,
  sealed blob not null,      -- the value
  meta text not null,        -- JSON of type meta
  unique (vault, key, version)
);
create table if not exists kv_deleted_secret (
  vault text not null, key text not null,
  deleted integer not null, purge_at integer not null, -- seconds since 1970
  primary key (vault, key)
);`

// meta is all of a version but its value.
type meta struct {
	ContentType *string           `json:"contentType,omitempty"`
	Enabled     bool              `json:"enabled"`
	NotBefore   *int64            `json:"nbf,omitempty"` // seconds since 1970
	Expires     *int64            `json:"exp,omitempty"`
	Created     int64             `json:"created"`
	Updated     int64             `json:"updated"`
	Tags        map[string]string `json:"tags,omitempty"`
}

// version is a stored version of a secret.
type version struct {
	seq           int64
	name, version string
	sealed        []byte
	meta          meta
	// Of a deleted secret, else 0.
	deleted, purgeAt int64
}

func aad(vaultUID, name, version string) string {
	return "secret|" + vaultUID + "|" + strings.ToLower(name) + "|" + version
}

const versionColumns = `select s.seq, s.name, s.version, s.sealed, s.meta, coalesce(d.deleted, 0), coalesce(d.purge_at, 0)
	from kv_secret s left join kv_deleted_secret d on d.vault = s.vault and d.key = s.key `

// versions reads those that match a condition.
func versions(ctx context.Context, q state.Querier, where string, args ...any) ([]version, error) {
	rows, err := q.QueryContext(ctx, versionColumns+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read secrets: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var list []version
	for rows.Next() {
		var v version
		var text []byte
		if err := rows.Scan(&v.seq, &v.name, &v.version, &v.sealed, &text, &v.deleted, &v.purgeAt); err != nil {
			return nil, fmt.Errorf("read secrets: %w", err)
		}
		if err := json.Unmarshal(text, &v.meta); err != nil {
			return nil, fmt.Errorf("read secret %s: %w", v.name, err)
		}
		list = append(list, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read secrets: %w", err)
	}
	return list, nil
}

// findVersion returns one version, the latest for "", or nil. It finds those of
// deleted secrets too.
func findVersion(ctx context.Context, q state.Querier, vaultUID, name, ver string) (*version, error) {
	where, args := `where s.vault = ? and s.key = ? `, []any{vaultUID, strings.ToLower(name)}
	if ver != "" {
		where, args = where+`and s.version = ? `, append(args, ver)
	}
	list, err := versions(ctx, q, where+`order by s.seq desc limit 1`, args...)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

// insertVersion adds a version.
func insertVersion(ctx context.Context, tx *sql.Tx, vaultUID string, v version) error {
	text, err := json.Marshal(v.meta)
	if err != nil {
		return fmt.Errorf("store secret %s: %w", v.name, err)
	}
	_, err = tx.ExecContext(ctx, `insert into kv_secret (vault, key, name, version, sealed, meta) values (?,?,?,?,?,?)`,
		vaultUID, strings.ToLower(v.name), v.name, v.version, v.sealed, string(text))
	if err != nil {
		return fmt.Errorf("store secret %s: %w", v.name, err)
	}
	return nil
}

func updateMeta(ctx context.Context, tx *sql.Tx, v *version) error {
	text, err := json.Marshal(v.meta)
	if err != nil {
		return fmt.Errorf("store secret %s: %w", v.name, err)
	}
	if _, err := tx.ExecContext(ctx, `update kv_secret set meta = ? where seq = ?`, string(text), v.seq); err != nil {
		return fmt.Errorf("store secret %s: %w", v.name, err)
	}
	return nil
}

// removeSecret erases a secret and its deletion mark.
func removeSecret(ctx context.Context, tx *sql.Tx, vaultUID, name string) error {
	for _, table := range []string{"kv_secret", "kv_deleted_secret"} {
		if _, err := tx.ExecContext(ctx, `delete from `+table+` where vault = ? and key = ?`, vaultUID, strings.ToLower(name)); err != nil {
			return fmt.Errorf("erase secret %s: %w", name, err)
		}
	}
	return nil
}

// purgeExpired erases the deleted secrets of a vault whose time is over.
func purgeExpired(ctx context.Context, tx *sql.Tx, vaultUID string, now int64) error {
	for _, statement := range []string{
		`delete from kv_secret where vault = ?1 and key in (select key from kv_deleted_secret where vault = ?1 and purge_at <= ?2)`,
		`delete from kv_deleted_secret where vault = ?1 and purge_at <= ?2`,
	} {
		if _, err := tx.ExecContext(ctx, statement, vaultUID, now); err != nil {
			return fmt.Errorf("purge expired secrets: %w", err)
		}
	}
	return nil
}

// PurgeVault erases everything in a vault, within the caller's transaction.
func PurgeVault(ctx context.Context, tx *sql.Tx, vaultUID string) error {
	var errs []error
	for _, table := range []string{"kv_secret", "kv_deleted_secret"} {
		_, err := tx.ExecContext(ctx, `delete from `+table+` where vault = ?`, vaultUID)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("purge vault: %w", err)
	}
	return nil
}
