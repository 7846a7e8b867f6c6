package service

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Cache is one cache entry. Entries never change.
type Cache struct {
	ID       int64
	Repo     string
	Ref      string // of the run that wrote it
	Key      string
	Version  string
	Size     int64
	Digest   string // "sha256:…"
	Created  time.Time
	Accessed time.Time

	blob string
}

// The bounds of keys on GitHub.
const (
	maxKey  = 512 // characters
	maxKeys = 10
)

func checkKey(key string) error {
	if key == "" || len([]rune(key)) > maxKey || strings.ContainsAny(key, ",\x00") {
		return fmt.Errorf("cache key %.80q: it has to be 1 to %d characters without a comma: %w", key, maxKey, ErrInvalid)
	}
	return nil
}

func checkVersion(v string) error {
	if v == "" || len(v) > 512 {
		return fmt.Errorf("cache version %.80q: it has to be 1 to 512 bytes: %w", v, ErrInvalid)
	}
	return nil
}

// The compressions that [CacheVersion] knows.
const (
	CompressionZstd = "zstd-without-long" // what @actions/cache calls zstd
	CompressionGzip = "gzip"
)

// CacheVersion is the version that @actions/cache gives an archive of these
// paths: entries of one key with other paths or another compression never
// match. The paths are the patterns as written in the workflow.
func CacheVersion(paths []string, compression string) string {
	parts := append(slices.Clone(paths), compression, "1.0") // the salt of the format
	sum := sha256.Sum256([]byte(strings.Join(parts, "|")))
	return hex.EncodeToString(sum[:])
}

// newCache begins an upload of a cache entry for the scope's own ref.
func (s *Service) newCache(ctx context.Context, owner string, scope Scope, key, version string) (*upload, error) {
	if err := errors.Join(checkKey(key), checkVersion(version)); err != nil {
		return nil, err
	}
	if !scope.writesCache() || scope.Ref == "" {
		return nil, fmt.Errorf("cache write denied: this run may only read caches: %w", ErrDenied)
	}
	stale, err := s.deleteCaches(ctx, `repo = ? and ref = ? and version = ? and key = ? and accessed <= ?`,
		scope.Repo, scope.Ref, version, key, millis(s.now().AddDate(0, 0, -s.cfg.CacheDays)))
	if err != nil {
		return nil, err
	}
	if len(stale) > 0 {
		s.log.Debug("an unused cache entry made place", "repo", scope.Repo, "key", key)
	}
	var n int
	if err := s.db.QueryRowContext(ctx, `select count(*) from cache where repo = ? and ref = ? and version = ? and key = ?`, scope.Repo, scope.Ref, version, key).Scan(&n); err != nil {
		return nil, fmt.Errorf("look for cache entry: %w", err)
	}
	if n > 0 {
		return nil, keyTaken(scope, key)
	}
	u := &upload{owner: owner, scope: scope, account: account{kind: kindCache}, name: key, version: version}
	return u, s.begin(u)
}

func keyTaken(scope Scope, key string) error {
	return fmt.Errorf("a cache entry with the key %q exists for %s: entries do not change; save under another key: %w", key, scope.Ref, ErrExists)
}

// finalizeCache makes the uploaded content a cache entry and lets the entries
// that were not used for longest go, until all fit the quota.
func (s *Service) finalizeCache(ctx context.Context, u *upload, size int64) (Cache, error) {
	if err := u.check(size, ""); err != nil {
		return Cache{}, err
	}
	s.finalizing.RLock()
	defer s.finalizing.RUnlock()
	id, b, err := s.keep(u)
	if err != nil {
		return Cache{}, err
	}
	now := millis(s.now())
	c := Cache{Repo: u.scope.Repo, Ref: u.scope.Ref, Key: u.name, Version: u.version, Size: b.size, Digest: b.digest, Created: fromMillis(now), Accessed: fromMillis(now), blob: id}
	err = s.db.QueryRowContext(ctx, `insert into cache (repo, ref, key, version, size, digest, blob, created, accessed)
		values (?,?,?,?,?,?,?,?,?) on conflict (repo, ref, version, key) do nothing returning id`,
		c.Repo, c.Ref, c.Key, c.Version, c.Size, c.Digest, c.blob, now, now).Scan(&c.ID)
	if err != nil {
		s.removeBlobs([]string{id})
		if errors.Is(err, sql.ErrNoRows) {
			return Cache{}, keyTaken(u.scope, u.name)
		}
		return Cache{}, fmt.Errorf("store cache entry %q: %w", u.name, err)
	}
	s.drop(u)
	return c, s.evict(ctx, c)
}

// evict deletes the least recently used entries beyond the quota, never the
// one that was just written.
func (s *Service) evict(ctx context.Context, keep Cache) error {
	blobs, err := collect(ctx, s.db, scanString, `delete from cache where id in (
		select id from (select id, sum(size) over (order by id = ? desc, accessed desc, id desc) as total from cache where repo = ?)
		where total > ? and id <> ?) returning blob`, keep.ID, keep.Repo, s.cfg.CacheQuota, keep.ID)
	if err != nil {
		return fmt.Errorf("evict cache entries: %w", err)
	}
	s.removeBlobs(blobs)
	return nil
}

// SaveCache stores what write writes under the key, for the scope's ref. It is
// for built-in actions; errors wrap [ErrExists], [ErrQuota], [ErrInvalid] and
// [ErrDenied]. The content has to be an archive as package archive makes it.
func (s *Service) SaveCache(ctx context.Context, scope Scope, key, version string, write func(io.Writer) error) (Cache, error) {
	u, err := s.newCache(ctx, "", scope, key, version)
	if err != nil {
		return Cache{}, err
	}
	defer s.drop(u)
	if err := s.fill(ctx, u, write); err != nil {
		return Cache{}, err
	}
	return s.finalizeCache(ctx, u, -1)
}

// FindCache looks for an entry as GitHub does: in the run's own ref, then in
// the pull request's base, then in the default branch; in each the key itself,
// then the newest entry that begins with the key, then with each restore key.
// found is false when there is none. A found entry counts as used.
func (s *Service) FindCache(ctx context.Context, scope Scope, key string, restore []string, version string) (c Cache, found bool, err error) {
	if len(restore)+1 > maxKeys {
		return c, false, fmt.Errorf("%d cache keys: at most %d are looked for: %w", len(restore)+1, maxKeys, ErrInvalid)
	}
	keys := append([]string{key}, restore...)
	for _, k := range keys {
		if err := checkKey(k); err != nil {
			return c, false, err
		}
	}
	if err := checkVersion(version); err != nil {
		return c, false, err
	}
	if !scope.readsCache() {
		return c, false, fmt.Errorf("cache read denied: this run may not read caches: %w", ErrDenied)
	}
	for _, ref := range scope.refs() {
		if c, found, err = s.findIn(ctx, scope.Repo, ref, keys, version); found || err != nil {
			break
		}
	}
	if !found || err != nil {
		return Cache{}, false, err
	}
	c.Accessed = fromMillis(millis(s.now()))
	if _, err := s.db.ExecContext(ctx, `update cache set accessed = ? where id = ?`, millis(c.Accessed), c.ID); err != nil {
		return Cache{}, false, fmt.Errorf("note use of cache entry: %w", err)
	}
	return c, true, nil
}

func (s *Service) findIn(ctx context.Context, repo, ref string, keys []string, version string) (Cache, bool, error) {
	const query = `select ` + cacheColumns + ` from cache where repo = ? and ref = ? and version = ? and accessed > ? and `
	args := []any{repo, ref, version, millis(s.now().AddDate(0, 0, -s.cfg.CacheDays))}
	list, err := collect(ctx, s.db, scanCache, query+`key = ?`, append(args, keys[0])...)
	for i := 0; len(list) == 0 && err == nil && i < len(keys); i++ {
		list, err = collect(ctx, s.db, scanCache, query+`key >= ? and substr(key, 1, length(?)) = ? order by created desc, id desc limit 1`, append(args, keys[i], keys[i], keys[i])...)
	}
	if err != nil || len(list) == 0 {
		return Cache{}, false, err
	}
	return list[0], true, nil
}

// OpenCache opens the archive of an entry. ErrNotFound says that it was
// evicted since it was found.
func (s *Service) OpenCache(c Cache) (Blob, error) { return s.openBlob(c.blob) }

const cacheColumns = `id, repo, ref, key, version, size, digest, blob, created, accessed`

func scanCache(scan func(...any) error) (c Cache, err error) {
	var created, accessed int64
	err = scan(&c.ID, &c.Repo, &c.Ref, &c.Key, &c.Version, &c.Size, &c.Digest, &c.blob, &created, &accessed)
	c.Created, c.Accessed = fromMillis(created), fromMillis(accessed)
	return c, err
}

// CacheFilter chooses cache entries of a repository. Zero values choose all.
type CacheFilter struct {
	Repo   string
	Ref    string // exactly
	Key    string // prefix, or exactly
	Exact  bool
	Sort   string // "created_at", "size_in_bytes"; otherwise last use
	Asc    bool
	Offset int
	Limit  int // at most 1000, which is also the meaning of 0
}

func (f CacheFilter) where() (string, []any) {
	where, args := `repo = ?`, []any{f.Repo}
	if f.Ref != "" {
		where, args = where+` and ref = ?`, append(args, f.Ref)
	}
	switch {
	case f.Key != "" && f.Exact:
		where, args = where+` and key = ?`, append(args, f.Key)
	case f.Key != "":
		where, args = where+` and substr(key, 1, length(?)) = ?`, append(args, f.Key, f.Key)
	}
	return where, args
}

// Caches lists entries, and how many there are without Offset and Limit.
func (s *Service) Caches(ctx context.Context, f CacheFilter) ([]Cache, int, error) {
	where, args := f.where()
	order := map[string]string{"created_at": "created", "size_in_bytes": "size"}[f.Sort]
	if order == "" {
		order = "accessed"
	}
	direction := " desc"
	if f.Asc {
		direction = " asc"
	}
	var total int
	if err := s.db.QueryRowContext(ctx, `select count(*) from cache where `+where, args...).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count cache entries: %w", err)
	}
	list, err := collect(ctx, s.db, scanCache, `select `+cacheColumns+` from cache where `+where+` order by `+order+direction+`, id`+direction+` limit ? offset ?`,
		append(args, pageSize(f.Limit), f.Offset)...)
	if err != nil {
		return nil, 0, fmt.Errorf("list cache entries: %w", err)
	}
	return list, total, nil
}

// DeleteCache deletes one entry.
func (s *Service) DeleteCache(ctx context.Context, repo string, id int64) error {
	list, err := s.deleteCaches(ctx, `repo = ? and id = ?`, repo, id)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("cache entry %d of %s: %w", id, repo, ErrNotFound)
	}
	return err
}

// DeleteCaches deletes the entries with exactly this key, of one ref or, when
// ref is empty, of all, and returns them.
func (s *Service) DeleteCaches(ctx context.Context, repo, key, ref string) ([]Cache, error) {
	where, args := CacheFilter{Repo: repo, Key: key, Ref: ref, Exact: true}.where()
	if key == "" {
		return nil, fmt.Errorf("delete cache entries: the key is empty: %w", ErrInvalid)
	}
	list, err := s.deleteCaches(ctx, where, args...)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("cache entries of %s with the key %q: %w", repo, key, ErrNotFound)
	}
	return list, err
}

func (s *Service) deleteCaches(ctx context.Context, where string, args ...any) ([]Cache, error) {
	list, err := collect(ctx, s.db, scanCache, `delete from cache where `+where+` returning `+cacheColumns, args...)
	if err != nil {
		return nil, fmt.Errorf("delete cache entries: %w", err)
	}
	for _, c := range list {
		s.removeBlobs([]string{c.blob})
	}
	return list, nil
}

// CacheUsage counts the entries of a repository and their bytes.
func (s *Service) CacheUsage(ctx context.Context, repo string) (count int, bytes int64, err error) {
	err = s.db.QueryRowContext(ctx, `select count(*), coalesce(sum(size), 0) from cache where repo = ?`, repo).Scan(&count, &bytes)
	if err != nil {
		return 0, 0, fmt.Errorf("count cache entries: %w", err)
	}
	return count, bytes, nil
}
