package arm

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
create table if not exists arm_resource (
  key text primary key,      -- lower-case id
  uid text not null unique,  -- of this incarnation
  type text not null,        -- lower-case type
  name text not null,        -- lower-case own name
  body text not null         -- the whole resource as JSON
);
create index if not exists arm_resource_type on arm_resource (type, key);
create table if not exists arm_deleted_vault (
  name text primary key, uid text not null, body text not null,
  deleted integer not null, purge_at integer not null -- seconds since 1970
);
create table if not exists arm_role_assignment (
  key text primary key,      -- lower-case id
  scope text not null, scope_key text not null,
  principal text not null, role text not null, -- lower-case GUIDs
  body text not null
);
create index if not exists arm_role_assignment_principal on arm_role_assignment (principal);
`

// maxResources bounds the state file.
const maxResources = 20_000

// resource is a stored one.
type resource struct {
	key, uid, typeKey, name string
	body                    map[string]any
}

func (r *resource) id() string { return text(r.body["id"]) }

// prop is a member of "properties", or nil.
func (r *resource) prop(name string) any {
	props, _ := r.body["properties"].(map[string]any)
	return props[name]
}

func decodeBody(body string) (map[string]any, error) {
	d := json.NewDecoder(strings.NewReader(body))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("read stored resource: %w", err)
	}
	return m, nil
}

const resourceColumns = `select key, uid, type, name, body from arm_resource `

// find returns the resource with the id, or nil.
func find(ctx context.Context, q state.Querier, id string) (*resource, error) {
	list, err := resources(ctx, q, `where key = ?`, key(id))
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

// resources reads those that match a condition, by key.
func resources(ctx context.Context, q state.Querier, where string, args ...any) ([]*resource, error) {
	rows, err := q.QueryContext(ctx, resourceColumns+where+` order by key`, args...)
	if err != nil {
		return nil, fmt.Errorf("read resources: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var list []*resource
	for rows.Next() {
		var r resource
		var body string
		if err := rows.Scan(&r.key, &r.uid, &r.typeKey, &r.name, &body); err != nil {
			return nil, fmt.Errorf("read resources: %w", err)
		}
		if r.body, err = decodeBody(body); err != nil {
			return nil, err
		}
		list = append(list, &r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read resources: %w", err)
	}
	return list, nil
}

// below is the condition for the resources inside key k; likeArg is its argument.
const below = `where key like ? escape '\' `

func likeArg(k string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(k) + "/%"
}

// save writes the resource.
func save(ctx context.Context, tx *sql.Tx, r *resource, fresh bool) error {
	body, err := json.Marshal(r.body)
	if err != nil {
		return fmt.Errorf("store %s: %w", r.key, err)
	}
	if fresh {
		var n int
		if err := tx.QueryRowContext(ctx, `select count(*) from arm_resource`).Scan(&n); err != nil {
			return fmt.Errorf("store %s: %w", r.key, err)
		}
		if n >= maxResources {
			return refuse(409, "QuotaExceeded", "This local Azure holds %d resources, the most it takes; delete some.", n)
		}
	}
	_, err = tx.ExecContext(ctx, `insert into arm_resource (key, uid, type, name, body) values (?,?,?,?,?)
		on conflict (key) do update set body = excluded.body`, r.key, r.uid, r.typeKey, r.name, string(body))
	if err != nil {
		return fmt.Errorf("store %s: %w", r.key, err)
	}
	return nil
}

// remove deletes a resource, everything inside it and their role assignments.
func (s *Server) remove(ctx context.Context, tx *sql.Tx, r *resource) error {
	inside, err := resources(ctx, tx, below, likeArg(r.key))
	if err != nil {
		return err
	}
	for _, gone := range append(inside, r) {
		if k := s.kinds[gone.typeKey]; k != nil && k.Removed != nil {
			if err := k.Removed(ctx, s, tx, gone); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `delete from arm_resource where key = ?`, gone.key); err != nil {
			return fmt.Errorf("delete %s: %w", gone.key, err)
		}
	}
	_, err = tx.ExecContext(ctx, `delete from arm_role_assignment where scope_key = ? or scope_key like ? escape '\'`, r.key, likeArg(r.key))
	if err != nil {
		return fmt.Errorf("delete role assignments of %s: %w", r.key, err)
	}
	return nil
}

// deletedVault is a soft-deleted one.
type deletedVault struct {
	name, uid        string
	body             map[string]any
	deleted, purgeAt int64
}

func findDeletedVault(ctx context.Context, q state.Querier, name string) (*deletedVault, error) {
	v := deletedVault{name: strings.ToLower(name)}
	var body string
	err := q.QueryRowContext(ctx, `select uid, body, deleted, purge_at from arm_deleted_vault where name = ?`, v.name).
		Scan(&v.uid, &body, &v.deleted, &v.purgeAt)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read deleted vault %s: %w", v.name, err)
	}
	if v.body, err = decodeBody(body); err != nil {
		return nil, err
	}
	return &v, nil
}
