package service

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Times are milliseconds since 1970, in UTC.
const schema = `
create table if not exists artifact (
  id integer primary key autoincrement,
  repo text not null collate nocase, run integer not null, attempt integer not null, job integer not null,
  name text not null, mime text not null, size integer not null, digest text not null, blob text not null,
  branch text not null, sha text not null, repo_id integer not null,
  created integer not null, expires integer not null);
create unique index if not exists artifact_name on artifact (run, attempt, name);
create index if not exists artifact_repo on artifact (repo, id);
create table if not exists cache (
  id integer primary key autoincrement,
  repo text not null collate nocase, ref text not null, key text not null, version text not null,
  size integer not null, digest text not null, blob text not null,
  created integer not null, accessed integer not null);
create unique index if not exists cache_key on cache (repo, ref, version, key);
create index if not exists cache_used on cache (repo, accessed);
`

func openDatabase(path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.SetMaxOpenConns(1) // one writer; reads are short
	if _, err := db.Exec(schema); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return db, nil
}

func millis(t time.Time) int64     { return t.UnixMilli() }
func fromMillis(n int64) time.Time { return time.UnixMilli(n).UTC() }

// collect runs a query and turns each row into a T.
func collect[T any](ctx context.Context, db *sql.DB, scan func(scan func(...any) error) (T, error), query string, args ...any) (list []T, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		v, err := scan(rows.Scan)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}

func scanString(scan func(...any) error) (v string, err error) { return v, scan(&v) }

func (s *Service) blobPath(id string) string { return filepath.Join(s.blobDir(), id[:2], id) }

// removeBlobs deletes the files of rows that are gone. A file that stays is
// removed by the next sweep.
func (s *Service) removeBlobs(ids []string) {
	for _, id := range ids {
		if err := os.Remove(s.blobPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("delete blob", "blob", id, "err", err)
		}
	}
}

// Sweep deletes artifacts past their retention, cache entries that nobody has
// used for long, and files that no row names (a crash can leave them).
func (s *Service) Sweep(ctx context.Context) error {
	now := s.now()
	expired, err := collect(ctx, s.db, scanString, `delete from artifact where expires <= ? returning blob`, millis(now))
	if err != nil {
		return fmt.Errorf("delete expired artifacts: %w", err)
	}
	s.removeBlobs(expired)
	unused, err := collect(ctx, s.db, scanString, `delete from cache where accessed <= ? returning blob`, millis(now.AddDate(0, 0, -s.cfg.CacheDays)))
	if err != nil {
		return fmt.Errorf("delete unused cache entries: %w", err)
	}
	s.removeBlobs(unused)
	return s.removeOrphans(ctx)
}

func (s *Service) removeOrphans(ctx context.Context) error {
	s.finalizing.Lock() // a file that is being finalized has no row yet
	defer s.finalizing.Unlock()
	names, err := collect(ctx, s.db, scanString, `select blob from artifact union select blob from cache`)
	if err != nil {
		return fmt.Errorf("list blobs: %w", err)
	}
	known := make(map[string]bool, len(names))
	for _, n := range names {
		known[n] = true
	}
	err = filepath.WalkDir(s.blobDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || known[d.Name()] {
			return err
		}
		return os.Remove(path)
	})
	if err != nil {
		return fmt.Errorf("delete files without owner: %w", err)
	}
	return nil
}
