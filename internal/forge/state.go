package forge

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	_ "modernc.org/sqlite" // the "sqlite" driver of database/sql
)

const schema = `
create table if not exists repository (
  id integer primary key autoincrement,
  key text not null unique,  -- lower-case "owner/name"
  owner text not null, name text not null, description text not null,
  private integer not null,
  created integer not null, pushed integer not null, -- microseconds since 1970
  deleting integer not null default 0
);
create table if not exists ref ( -- what the journal was last told
  repo text not null, name text not null, id text not null,
  primary key (repo, name)
) without rowid;
create table if not exists push ( -- accepted, its events not yet all written
  seq integer primary key autoincrement,
  id text not null unique, repo text not null, actor text not null, cause text not null,
  time integer not null
);
create table if not exists push_ref (
  push text not null, n integer not null, ref text not null, old text not null, new text not null,
  primary key (push, n)
) without rowid;
create table if not exists token (
  hash blob primary key, user text not null, repo text not null, write integer not null,
  actor text not null, cause text not null, expires integer not null -- 0: never
) without rowid;
create table if not exists status (
  id integer primary key autoincrement,
  repo text not null, sha text not null, context text not null, state text not null,
  description text not null, target_url text not null, creator text not null, created integer not null
);
create index if not exists status_commit on status (repo, sha, id);
`

// openState opens or creates the database at path. Every commit reaches the disk
// before it returns.
func openState(ctx context.Context, path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)")
	if err != nil {
		return nil, fmt.Errorf("forge: open state %s: %w", path, err)
	}
	db.SetMaxOpenConns(8)
	if _, err := db.ExecContext(ctx, schema+eventSchema+pullSchema+protectSchema+webhookSchema+releaseSchema+deploySchema+lfsSchema); err != nil {
		return nil, errors.Join(fmt.Errorf("forge: open state %s: %w", path, err), db.Close())
	}
	if err := migrate(ctx, db); err != nil {
		return nil, errors.Join(fmt.Errorf("forge: bring state %s up to date: %w", path, err), db.Close())
	}
	return db, nil
}

// migrate adds the columns that databases of earlier versions lack.
func migrate(ctx context.Context, db *sql.DB) error {
	for _, c := range []struct{ table, column, definition string }{
		{"repository", "settings", "text not null default '{}'"}, // JSON of settings
		{"repository", "parent", "integer not null default 0"},   // id of the repository that it is a fork of
		{"token", "scopes", "text not null default ''"},          // JSON object; "" is all
		{"token", "id", "integer not null default 0"},            // 0: a token that is not listed
		{"token", "kind", "text not null default ''"},            // "", "personal" or "deploy"
		{"token", "title", "text not null default ''"},
		{"token", "created", "integer not null default 0"},
	} {
		var n int
		if err := db.QueryRowContext(ctx, `select count(*) from pragma_table_info(?) where name = ?`, c.table, c.column).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			continue
		}
		if _, err := db.ExecContext(ctx, "alter table "+c.table+" add column "+c.column+" "+c.definition); err != nil {
			return err
		}
	}
	return nil
}

// transact runs fn in one transaction.
func (f *Forge) transact(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := f.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("forge state: %w", err)
	}
	if err := fn(tx); err != nil {
		return errors.Join(fmt.Errorf("forge state: %w", err), tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("forge state: %w", err)
	}
	return nil
}
