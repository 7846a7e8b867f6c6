package forge

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// ErrNotFound says that the forge has no such repository.
var ErrNotFound error = notFound{}

type notFound struct{}

// Error implements error.
func (notFound) Error() string { return "the forge has no such repository" }

// Is makes it a kind of fs.ErrNotExist, without that error's words.
func (notFound) Is(target error) bool { return target == fs.ErrNotExist }

// ErrExists says that a repository of that name is there already.
var ErrExists = errors.New("name already exists")

var (
	ownerName = regexp.MustCompile(`^[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}$`)
	repoName  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}$`)
)

// repository is a hosted repository. Its facts are those of the time at which it
// was read; git and pushing are shared by all.
type repository struct {
	id          int64
	key         string // lower-case "owner/name"
	owner, name string
	description string
	private     bool
	created     time.Time
	pushed      time.Time // last push, zero when none
	parent      int64     // id of the repository that it is a fork of, 0 for none
	settings    settings

	git     *git.Repository
	pushing chan struct{} // holds one token while a push moves refs
	touched time.Time     // last push that is not tidied up after, of the shared one
}

func (r *repository) full() string { return r.owner + "/" + r.name }

// lock waits until no push moves refs of the repository.
func (r *repository) lock(ctx context.Context) error {
	select {
	case r.pushing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *repository) unlock() { <-r.pushing }

// splitName checks "owner/name" and gives its parts.
func splitName(full string) (owner, name string, err error) {
	owner, name, _ = strings.Cut(full, "/")
	if !ownerName.MatchString(owner) || strings.EqualFold(owner, "api") {
		return "", "", fmt.Errorf("%q: the owner must be 1 to 39 letters, digits and single hyphens, and not \"api\"", full)
	}
	if !repoName.MatchString(name) || name == "." || name == ".." || strings.HasSuffix(strings.ToLower(name), ".git") {
		return "", "", fmt.Errorf("%q: the name must be 1 to 100 letters, digits, '-', '_' and '.', and not end in .git", full)
	}
	return owner, name, nil
}

func (f *Forge) dir(key string) string {
	return filepath.Join(f.cfg.Dir, "repositories", filepath.FromSlash(key)+".git")
}

const repositoryColumns = `id, key, owner, name, description, private, created, pushed, parent, settings`

func scanRepository(row interface{ Scan(...any) error }) (*repository, error) {
	r := &repository{settings: defaultSettings()}
	var created, pushed int64
	var text string
	if err := row.Scan(&r.id, &r.key, &r.owner, &r.name, &r.description, &r.private, &created, &pushed, &r.parent, &text); err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(text), &r.settings); err != nil {
		return nil, fmt.Errorf("settings of %s: %w", r.key, err)
	}
	r.created = time.UnixMicro(created).UTC()
	if pushed > 0 {
		r.pushed = time.UnixMicro(pushed).UTC()
	}
	return r, nil
}

// find returns the repository "owner/name", in any case, or ErrNotFound.
func (f *Forge) find(ctx context.Context, full string) (*repository, error) {
	key := strings.ToLower(full)
	if _, _, err := splitName(key); err != nil {
		return nil, fmt.Errorf("%s: %w", full, ErrNotFound)
	}
	r, err := scanRepository(f.db.QueryRowContext(ctx, `select `+repositoryColumns+` from repository where key = ? and deleting = 0`, key))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%s: %w", full, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	return f.attach(r)
}

// attach gives r the handle that all share.
func (f *Forge) attach(r *repository) (*repository, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errors.New("forge is closed")
	}
	known := f.open[r.key]
	if known == nil || known.id != r.id {
		handle, err := git.Open(f.dir(r.key))
		if err != nil {
			return nil, fmt.Errorf("forge: %w", err)
		}
		known = &repository{id: r.id, git: handle, pushing: make(chan struct{}, 1)}
		f.open[r.key] = known
	}
	r.git, r.pushing = known.git, known.pushing
	return r, nil
}

// list returns the repositories of an owner ("" for all), by name.
func (f *Forge) list(ctx context.Context, owner string) ([]*repository, error) {
	rows, err := f.db.QueryContext(ctx, `select `+repositoryColumns+` from repository where deleting = 0 and (? = '' or lower(owner) = lower(?)) order by key`, owner, owner)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var all []*repository
	for rows.Next() {
		r, err := scanRepository(rows)
		if err != nil {
			return nil, fmt.Errorf("forge state: %w", err)
		}
		if r, err = f.attach(r); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	return all, nil
}

// RepositorySpec is what a new repository is made of.
type RepositorySpec struct {
	Name        string // "owner/name"
	Description string
	Private     bool // readable only with a token
}

// CreateRepository makes an empty repository, or returns ErrExists.
func (f *Forge) CreateRepository(ctx context.Context, spec RepositorySpec) error {
	_, err := f.createRepository(ctx, spec)
	return err
}

func (f *Forge) createRepository(ctx context.Context, spec RepositorySpec) (*repository, error) {
	owner, name, err := splitName(spec.Name)
	if err != nil {
		return nil, err
	}
	f.create.Lock()
	defer f.create.Unlock()
	key := strings.ToLower(spec.Name)
	if _, err := f.find(ctx, key); err == nil {
		return nil, fmt.Errorf("create %s: %w", spec.Name, ErrExists)
	} else if !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	if err := f.initDir(ctx, key); err != nil {
		return nil, fmt.Errorf("create %s: %w", spec.Name, err)
	}
	_, err = f.db.ExecContext(ctx, `insert into repository (key, owner, name, description, private, created, pushed) values (?,?,?,?,?,?,0)`,
		key, owner, name, spec.Description, spec.Private, f.deps.Now().UnixMicro())
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", spec.Name, err)
	}
	f.log.Info("repository created", "repo", spec.Name, "private", spec.Private)
	repo, err := f.find(ctx, key)
	if err != nil {
		return nil, err
	}
	return repo, f.addDefaultLabels(ctx, repo)
}

// initDir makes the bare repository beside its place and moves it there. What
// lies there already has no row, so it is what a crash left.
func (f *Forge) initDir(ctx context.Context, key string) error {
	if err := f.finishDeletion(ctx, key); err != nil {
		return err
	}
	place := f.dir(key)
	if err := os.MkdirAll(filepath.Dir(place), 0o700); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(f.tmp(), "new-")
	if err != nil {
		return err
	}
	if _, err := git.Init(ctx, fresh, f.cfg.DefaultBranch); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	return os.Rename(fresh, place)
}

// DeleteRepository removes a repository and all that is known of it, or returns
// ErrNotFound. A push that is under way is finished first.
func (f *Forge) DeleteRepository(ctx context.Context, full string) error {
	f.create.Lock()
	defer f.create.Unlock()
	r, err := f.find(ctx, full)
	if err != nil {
		return err
	}
	if err := r.lock(ctx); err != nil {
		return fmt.Errorf("delete %s: %w", full, err)
	}
	defer r.unlock()
	// From here on the repository is gone; a crash leaves the rest to the next start.
	if _, err := f.db.ExecContext(ctx, `update repository set deleting = 1 where key = ?`, r.key); err != nil {
		return fmt.Errorf("delete %s: %w", full, err)
	}
	if err := f.finishDeletion(ctx, r.key); err != nil {
		return fmt.Errorf("delete %s: %w", full, err)
	}
	f.log.Info("repository deleted", "repo", full)
	return nil
}

// finishDeletion removes what remains of a repository without a live row.
func (f *Forge) finishDeletion(ctx context.Context, key string) error {
	f.mu.Lock()
	if known := f.open[key]; known != nil {
		known.git.Close()
		delete(f.open, key)
	}
	f.mu.Unlock()
	if err := f.removeFiles(ctx, key); err != nil {
		return err
	}
	return f.transact(ctx, func(tx *sql.Tx) error {
		if err := forgetPulls(ctx, tx, key); err != nil {
			return err
		}
		statements := []string{
			`delete from push_ref where push in (select id from push where repo = ?)`,
			`delete from token where kind = '` + kindDeploy + `' and repo = ?`,
		}
		tables, err := tablesOfRepository(ctx, tx)
		if err != nil {
			return err
		}
		for _, table := range tables {
			statements = append(statements, `delete from "`+table+`" where repo = ?`)
		}
		for _, statement := range append(statements, `delete from repository where key = ?`) {
			if _, err := tx.ExecContext(ctx, statement, key); err != nil {
				return err
			}
		}
		return nil
	})
}

// removeFiles removes what a repository has on disk.
func (f *Forge) removeFiles(ctx context.Context, key string) error {
	dirs := []string{f.dir(key)}
	rows, err := f.db.QueryContext(ctx, `select id from repository where key = ?`, key)
	if err != nil {
		return fmt.Errorf("forge state: %w", err)
	}
	ids, err := scanStrings(rows)
	for _, id := range ids {
		dirs = append(dirs, filepath.Join(f.cfg.Dir, "assets", id), filepath.Join(f.cfg.Dir, "lfs", id))
	}
	for _, dir := range dirs {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// tablesOfRepository are the tables whose column repo holds the key of a
// repository, but for tokens and events: a token may be older than its repository, and an
// event tells of the past.
func tablesOfRepository(ctx context.Context, tx *sql.Tx) ([]string, error) {
	rows, err := tx.QueryContext(ctx, `select m.name from sqlite_master m join pragma_table_info(m.name) c
		where m.type = 'table' and c.name = 'repo' and m.name not in ('token', 'event') order by m.name`)
	if err != nil {
		return nil, err
	}
	return scanStrings(rows)
}

// Repository returns the handle of "owner/name", shared by all callers, or
// ErrNotFound. The caller doesn't close it.
func (f *Forge) Repository(ctx context.Context, full string) (*git.Repository, error) {
	r, err := f.find(ctx, full)
	if err != nil {
		return nil, err
	}
	return r.git, nil
}

// Repositories lists the names "owner/name", sorted.
func (f *Forge) Repositories(ctx context.Context) ([]string, error) {
	all, err := f.list(ctx, "")
	if err != nil {
		return nil, err
	}
	names := make([]string, len(all))
	for i, r := range all {
		names[i] = r.full()
	}
	return names, nil
}

// ResolveURL returns the "owner/name" that a repository's URL means here:
// https://github.com/o/r, git@github.com:o/r.git, or the forge's own URL. It
// returns ErrNotFound when the URL is of another host or the forge has no such
// repository.
func (f *Forge) ResolveURL(ctx context.Context, repoURL string) (string, error) {
	full, ok := f.nameInURL(repoURL)
	if !ok {
		return "", fmt.Errorf("%s is not a GitHub URL: %w", repoURL, ErrNotFound)
	}
	r, err := f.find(ctx, full)
	if err != nil {
		return "", err
	}
	return r.full(), nil
}

func (f *Forge) nameInURL(s string) (string, bool) {
	if rest, ok := strings.CutPrefix(s, "git@"); ok && !strings.Contains(s, "://") {
		s = "ssh://git@" + strings.Replace(rest, ":", "/", 1)
	}
	u, err := url.Parse(s)
	if err != nil {
		return "", false
	}
	own, err := url.Parse(f.cfg.URL)
	if err != nil {
		return "", false
	}
	switch host := strings.ToLower(u.Hostname()); host {
	case "github.com", "www.github.com", "ssh.github.com", "github.localhost":
	case strings.ToLower(own.Hostname()):
		if u.Port() != own.Port() {
			return "", false
		}
	default:
		return "", false
	}
	full := strings.TrimSuffix(strings.Trim(u.Path, "/"), ".git")
	_, _, err = splitName(full)
	return full, err == nil
}
