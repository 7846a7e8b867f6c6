package saved

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // the "sqlite" driver of database/sql
)

// version is that of the file; another one is replaced.
const version = 1

// file is the table of rows.
type file struct{ db *sql.DB }

// open opens or creates the file and reads all rows.
func open(ctx context.Context, path string) (f *file, rows map[string][]byte, err error) {
	// SQLite gives its -wal and -shm files the mode of the file itself.
	made, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(made.Chmod(0o600), made.Close()); err != nil {
		return nil, nil, err
	}
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: path,
		RawQuery: "_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)"}
	if !filepath.IsAbs(path) {
		dsn.Path, dsn.Opaque = "", (&url.URL{Path: path}).EscapedPath()
	}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, nil, err
	}
	db.SetMaxOpenConns(1) // one reads at the start, then one writes
	f = &file{db}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	var have int
	if err := db.QueryRowContext(ctx, `pragma user_version`).Scan(&have); err != nil {
		return nil, nil, err
	}
	switch have {
	case 0:
		// A row takes a few kB: larger pages waste less.
		if _, err := db.ExecContext(ctx, fmt.Sprintf(`pragma journal_mode = delete; pragma page_size = 16384; vacuum; pragma journal_mode = wal;
			create table render (key text primary key, body blob not null); pragma user_version = %d`, version)); err != nil {
			return nil, nil, err
		}
	case version:
	default:
		return nil, nil, fmt.Errorf("it has format %d, this program reads %d", have, version)
	}
	rows, err = f.read(ctx)
	return f, rows, err
}

// read returns all rows. They are as compact as they get, so they are kept
// until they are asked for: a query for each application would take longer.
func (f *file) read(ctx context.Context) (map[string][]byte, error) {
	result, err := f.db.QueryContext(ctx, `select key, body from render`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = result.Close() }()
	rows := map[string][]byte{}
	for result.Next() {
		var key string
		var body []byte
		if err := result.Scan(&key, &body); err != nil {
			return nil, err
		}
		rows[key] = body
	}
	return rows, result.Err()
}

// write stores rows in one transaction; a nil one is deleted.
func (f *file) write(ctx context.Context, rows map[string][]byte) error {
	tx, err := f.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	put, err := tx.PrepareContext(ctx, `insert into render (key, body) values (?, ?) on conflict (key) do update set body = excluded.body`)
	if err != nil {
		return err
	}
	defer func() { _ = put.Close() }()
	drop, err := tx.PrepareContext(ctx, `delete from render where key = ?`)
	if err != nil {
		return err
	}
	defer func() { _ = drop.Close() }()
	for key, body := range rows {
		if body == nil {
			_, err = drop.ExecContext(ctx, key)
		} else {
			_, err = put.ExecContext(ctx, key, body)
		}
		if err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Close releases the file.
func (f *file) Close() error { return f.db.Close() }

// remove deletes the file and what SQLite has beside it.
func remove(path string) error {
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
