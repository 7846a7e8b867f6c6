package forge

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

type lfsLockJSON struct {
	ID       string            `json:"id"`
	Path     string            `json:"path"`
	LockedAt time.Time         `json:"locked_at"`
	Owner    map[string]string `json:"owner"`
}

// locksOf returns a page of locks, by id, from a cursor on, and the next cursor.
func (f *Forge) locksOf(r *http.Request, repo *repository, path, id, cursor string, limit int) ([]lfsLockJSON, string, error) {
	if limit <= 0 || limit > 100 {
		limit = 100
	}
	after, _ := strconv.ParseInt(cursor, 10, 64)
	rows, err := f.db.QueryContext(r.Context(), `select id, path, owner, created from lfs_lock
		where repo = ?1 and (?2 = '' or path = ?2) and (?3 = '' or id = ?3) and id > ?4 order by id limit ?5`, repo.key, path, id, after, limit+1)
	if err != nil {
		return nil, "", fmt.Errorf("forge state: %w", err)
	}
	defer func() { _ = rows.Close() }()
	locks := []lfsLockJSON{}
	for rows.Next() {
		var l lfsLockJSON
		var owner string
		var created int64
		if err := rows.Scan(&l.ID, &l.Path, &owner, &created); err != nil {
			return nil, "", fmt.Errorf("forge state: %w", err)
		}
		l.LockedAt, l.Owner = time.UnixMicro(created).UTC(), map[string]string{"name": owner}
		locks = append(locks, l)
	}
	if err := rows.Err(); err != nil {
		return nil, "", fmt.Errorf("forge state: %w", err)
	}
	if len(locks) > limit {
		return locks[:limit], locks[limit-1].ID, nil
	}
	return locks, "", nil
}

func (f *Forge) lfsLocks(r *http.Request, repo *repository) (any, error) {
	q := r.URL.Query()
	limit, _ := strconv.Atoi(q.Get("limit"))
	locks, next, err := f.locksOf(r, repo, q.Get("path"), q.Get("id"), q.Get("cursor"), limit)
	return map[string]any{"locks": locks, "next_cursor": next}, err
}

func (f *Forge) lfsVerifyLocks(r *http.Request, repo *repository, id Identity) (any, error) {
	var in struct {
		Cursor string `json:"cursor"`
		Limit  int    `json:"limit"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, maxLFSBody)).Decode(&in); err != nil {
		return nil, fail(http.StatusUnprocessableEntity, "the request is no JSON: %s", err)
	}
	locks, next, err := f.locksOf(r, repo, "", "", in.Cursor, in.Limit)
	ours, theirs := []lfsLockJSON{}, []lfsLockJSON{}
	for _, l := range locks {
		if strings.EqualFold(l.Owner["name"], id.User) {
			ours = append(ours, l)
		} else {
			theirs = append(theirs, l)
		}
	}
	return map[string]any{"ours": ours, "theirs": theirs, "next_cursor": next}, err
}

func (f *Forge) lfsLock(w http.ResponseWriter, r *http.Request, repo *repository, id Identity) error {
	var in struct {
		Path string `json:"path"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, maxLFSBody)).Decode(&in); err != nil {
		return fail(http.StatusUnprocessableEntity, "the request is no JSON: %s", err)
	}
	if reason := hostilePath(in.Path); reason != "" {
		return fail(http.StatusUnprocessableEntity, "%s", reason)
	}
	status := http.StatusCreated
	err := f.transact(r.Context(), func(tx *sql.Tx) error {
		var n, same int
		if err := tx.QueryRowContext(r.Context(), `select count(*), coalesce(sum(path = ?), 0) from lfs_lock where repo = ?`, in.Path, repo.key).Scan(&n, &same); err != nil {
			return err
		}
		switch {
		case same > 0:
			status = http.StatusConflict
			return nil
		case n >= maxLFSLocks:
			return fail(http.StatusUnprocessableEntity, "there are %d locks already", n)
		}
		_, err := tx.ExecContext(r.Context(), `insert into lfs_lock (repo, path, owner, created) values (?,?,?,?)`, repo.key, in.Path, id.User, f.deps.Now().UnixMicro())
		return err
	})
	if err != nil {
		return err
	}
	locks, _, err := f.locksOf(r, repo, in.Path, "", "", 1)
	if err != nil || len(locks) == 0 {
		return errors.Join(err, fail(http.StatusConflict, "the lock is gone"))
	}
	answer := map[string]any{"lock": locks[0]}
	if status == http.StatusConflict {
		answer["message"] = "already created lock"
	}
	writeLFS(w, status, answer)
	return nil
}

func (f *Forge) lfsUnlock(r *http.Request, repo *repository, id Identity, lock string) (any, error) {
	var in struct {
		Force bool `json:"force"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, maxLFSBody)).Decode(&in); err != nil {
		return nil, fail(http.StatusUnprocessableEntity, "the request is no JSON: %s", err)
	}
	locks, _, err := f.locksOf(r, repo, "", lock, "", 1)
	if err != nil {
		return nil, err
	}
	if len(locks) == 0 || lock == "" {
		return nil, fail(http.StatusNotFound, "there is no such lock")
	}
	if !in.Force && !strings.EqualFold(locks[0].Owner["name"], id.User) {
		return nil, fail(http.StatusForbidden, "%s is locked by %s: use --force", locks[0].Path, locks[0].Owner["name"])
	}
	if _, err := f.db.ExecContext(r.Context(), `delete from lfs_lock where repo = ? and id = ?`, repo.key, locks[0].ID); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	return map[string]any{"lock": locks[0]}, nil
}
