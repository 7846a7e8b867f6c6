// Package state is the one SQLite file in which the local Azure keeps its
// resources, principals and (sealed) secrets.
//
// Input: the schema of each part. Output: [DB], a plain *sql.DB for reads and
// [DB.Write] for changes.
//
// Invariants: a Write that returned nil survives kill -9 and a power cut, one
// that did not left nothing; writes are one at a time and wait fairly; the file
// is readable only by its owner.
package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // the "sqlite" driver of database/sql
)

// DB is an open state file. It is safe for concurrent use.
type DB struct {
	*sql.DB
	writing chan struct{} // holds one token while a Write runs
}

// Open opens or creates the file at path and applies the schemas, each a list
// of "create … if not exists" statements.
func Open(ctx context.Context, path string, schemas ...string) (*DB, error) {
	// SQLite gives its -wal and -shm files the mode of the file itself.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open azure state: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open azure state: %w", err)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open azure state: %w", err)
	}
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: abs,
		RawQuery: "_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=secure_delete(1)"}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open azure state %s: %w", path, err)
	}
	for _, schema := range schemas {
		if _, err := db.ExecContext(ctx, schema); err != nil {
			return nil, errors.Join(fmt.Errorf("open azure state %s: %w", path, err), db.Close())
		}
	}
	return &DB{DB: db, writing: make(chan struct{}, 1)}, nil
}

// Write runs fn in one transaction, and commits it when fn returns nil. fn must
// use only tx: the DB itself would wait for this very transaction.
func (db *DB) Write(ctx context.Context, fn func(tx *sql.Tx) error) error {
	select {
	case db.writing <- struct{}{}:
		defer func() { <-db.writing }()
	case <-ctx.Done():
		return fmt.Errorf("write azure state: %w", ctx.Err())
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("write azure state: %w", err)
	}
	if err := fn(tx); err != nil {
		_ = tx.Rollback() // the reason for it is err
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("write azure state: %w", err)
	}
	return nil
}

// Querier reads: the DB, or the transaction of a Write.
type Querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}
