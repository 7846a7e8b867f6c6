package forge

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

const releaseSchema = `
create table if not exists release (
  id integer primary key autoincrement,
  repo text not null, tag text not null, target text not null, name text not null, body text not null,
  draft integer not null, prerelease integer not null, author text not null, created integer not null, published integer not null
);
create index if not exists release_repo on release (repo, id);
create table if not exists release_asset (
  id integer primary key autoincrement,
  repo text not null, release integer not null, name text not null, label text not null, type text not null,
  size integer not null, digest text not null, uploader text not null, downloads integer not null, created integer not null
);
create unique index if not exists release_asset_name on release_asset (release, name);
`

// release is a release of a repository, with its assets.
type release struct {
	id                      int64
	tag, target, name, body string
	draft, prerelease       bool
	author                  string
	created, published      time.Time
	assets                  []*asset
}

type asset struct {
	id, release, size, downloads int64
	name, label, kind            string
	digest, uploader             string
	created                      time.Time
}

func (f *Forge) assetFile(repo *repository, id int64) string {
	return filepath.Join(f.cfg.Dir, "assets", strconv.FormatInt(repo.id, 10), strconv.FormatInt(id, 10))
}

// releases returns the releases of a repository that where picks, newest first.
func (f *Forge) releases(ctx context.Context, repo *repository, where string, args ...any) ([]*release, error) {
	rows, err := f.db.QueryContext(ctx, `select id, tag, target, name, body, draft, prerelease, author, created, published
		from release where repo = ? and `+where+` order by created desc, id desc`, append([]any{repo.key}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var all []*release
	for rows.Next() {
		l := &release{}
		var created, published int64
		if err := rows.Scan(&l.id, &l.tag, &l.target, &l.name, &l.body, &l.draft, &l.prerelease, &l.author, &created, &published); err != nil {
			return nil, fmt.Errorf("forge state: %w", err)
		}
		l.created = time.UnixMicro(created).UTC()
		if published != 0 {
			l.published = time.UnixMicro(published).UTC()
		}
		all = append(all, l)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	for _, l := range all {
		if l.assets, err = f.assets(ctx, repo, `release = ?`, l.id); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (f *Forge) assets(ctx context.Context, repo *repository, where string, args ...any) ([]*asset, error) {
	rows, err := f.db.QueryContext(ctx, `select id, release, name, label, type, size, digest, uploader, downloads, created
		from release_asset where repo = ? and `+where+` order by id`, append([]any{repo.key}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var all []*asset
	for rows.Next() {
		a := &asset{}
		var created int64
		if err := rows.Scan(&a.id, &a.release, &a.name, &a.label, &a.kind, &a.size, &a.digest, &a.uploader, &a.downloads, &created); err != nil {
			return nil, fmt.Errorf("forge state: %w", err)
		}
		a.created = time.UnixMicro(created).UTC()
		all = append(all, a)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	return all, nil
}

// storeRelease inserts or updates a release and tells of it. When it is published its tag
// is made if there is none.
func (f *Forge) storeRelease(r *http.Request, repo *repository, l *release) error {
	ctx, id := r.Context(), IdentityFrom(r.Context())
	publish := !l.draft && l.published.IsZero()
	if publish {
		if err := f.makeTag(ctx, repo, id, l); err != nil {
			return err
		}
		l.published = f.deps.Now().UTC()
	}
	action := "edited"
	if l.id == 0 {
		action, l.created = "created", f.deps.Now().UTC()
	}
	var published int64
	if !l.published.IsZero() {
		published = l.published.UnixMicro()
	}
	return f.publish(ctx, func(tx *sql.Tx, out *outbox) error {
		if l.id == 0 {
			result, err := tx.ExecContext(ctx, `insert into release (repo, tag, target, name, body, draft, prerelease, author, created, published) values (?,?,?,?,?,?,?,?,?,?)`,
				repo.key, l.tag, l.target, l.name, l.body, l.draft, l.prerelease, l.author, l.created.UnixMicro(), published)
			if err != nil {
				return err
			}
			if l.id, err = result.LastInsertId(); err != nil {
				return err
			}
		} else if _, err := tx.ExecContext(ctx, `update release set tag = ?, target = ?, name = ?, body = ?, draft = ?, prerelease = ?, published = ? where id = ?`,
			l.tag, l.target, l.name, l.body, l.draft, l.prerelease, published, l.id); err != nil {
			return err
		}
		if l.draft && action == "edited" {
			return nil // GitHub tells nobody of drafts that change
		}
		actions := []string{action}
		if publish {
			actions = append(actions, "published")
			if l.prerelease {
				actions = append(actions, "prereleased")
			} else {
				actions = append(actions, "released")
			}
		}
		for _, action := range actions {
			if err := f.tellRelease(ctx, out, repo, id, l, action); err != nil {
				return err
			}
		}
		return nil
	})
}

// tellRelease puts an event about a release into the outbox.
func (f *Forge) tellRelease(ctx context.Context, out *outbox, repo *repository, id Identity, l *release, action string) error {
	payload, err := f.payload(ctx, repo, id.Actor, action, map[string]any{"release": f.releaseJSON(f.asEvent(ctx), repo, l)})
	if err != nil {
		return err
	}
	commit, err := repo.git.Resolve(ctx, "refs/tags/"+l.tag)
	if err != nil && !errors.Is(err, git.ErrNotFound) {
		return err
	}
	return out.add(Event{Repo: repo.full(), Name: "release", Action: action, Ref: "refs/tags/" + l.tag, Commit: commit, Actor: id.Actor, Cause: id.Cause, Payload: payload})
}

// makeTag makes the tag of a release at its target, unless it is there.
func (f *Forge) makeTag(ctx context.Context, repo *repository, id Identity, l *release) error {
	ref := "refs/tags/" + l.tag
	if err := f.checkRefName(ctx, repo, ref); err != nil {
		return invalid("Release", "custom", "tag_name", "tag_name is not a valid tag")
	}
	refs, err := repo.git.Refs(ctx, ref)
	if err != nil || refs[ref] != "" {
		return err
	}
	target := l.target
	if target == "" {
		target = "HEAD"
	}
	commit, err := repo.git.Resolve(ctx, target)
	if errors.Is(err, git.ErrNotFound) {
		return invalid("Release", "invalid", "target_commitish", "target_commitish names no commit")
	}
	if err != nil {
		return err
	}
	err = f.changeRefs(ctx, repo, id, refCommand{Ref: ref, Old: git.ZeroID, New: commit})
	if errors.Is(err, errRefMoved) {
		return nil // made meanwhile
	}
	return moveAnswer(err)
}

func (f *Forge) deleteRelease(ctx context.Context, repo *repository, id Identity, l *release) error {
	err := f.publish(ctx, func(tx *sql.Tx, out *outbox) error {
		for _, statement := range []string{`delete from release_asset where release = ?`, `delete from release where id = ?`} {
			if _, err := tx.ExecContext(ctx, statement, l.id); err != nil {
				return err
			}
		}
		if l.draft {
			return nil
		}
		return f.tellRelease(ctx, out, repo, id, l, "deleted")
	})
	for _, a := range l.assets {
		if err == nil {
			if removeErr := os.Remove(f.assetFile(repo, a.id)); removeErr != nil && !errors.Is(removeErr, os.ErrNotExist) {
				f.log.Warn("file of a deleted asset remains", "repo", repo.full(), "error", removeErr)
			}
		}
	}
	return err
}

func (f *Forge) releaseJSON(r *http.Request, repo *repository, l *release) map[string]any {
	base := apiBase(r) + "/repos/" + repo.full()
	url := base + "/releases/" + strconv.FormatInt(l.id, 10)
	assets := []any{}
	for _, a := range l.assets {
		assets = append(assets, f.assetJSON(r, repo, l, a))
	}
	j := map[string]any{
		"id": l.id, "node_id": nodeID("Release", repo.full()+":"+strconv.FormatInt(l.id, 10)), "tag_name": l.tag, "target_commitish": l.target, "name": l.name, "body": l.body,
		"draft": l.draft, "prerelease": l.prerelease, "immutable": false, "created_at": l.created.Truncate(time.Second), "published_at": nil, "updated_at": l.created.Truncate(time.Second),
		"author": f.account(apiBase(r), l.author), "assets": assets, "url": url, "assets_url": url + "/assets", "upload_url": url + "/assets{?name,label}",
		"html_url": f.cfg.URL + "/" + repo.full() + "/releases/tag/" + l.tag, "tarball_url": nil, "zipball_url": nil,
	}
	if !l.published.IsZero() {
		j["published_at"] = l.published.Truncate(time.Second)
		j["tarball_url"], j["zipball_url"] = base+"/tarball/"+l.tag, base+"/zipball/"+l.tag
	}
	return j
}

func (f *Forge) assetJSON(r *http.Request, repo *repository, l *release, a *asset) map[string]any {
	return map[string]any{
		"id": a.id, "node_id": nodeID("Asset", strconv.FormatInt(a.id, 10)), "name": a.name, "label": a.label, "content_type": a.kind, "state": "uploaded", "size": a.size,
		"digest": a.digest, "download_count": a.downloads, "created_at": a.created.Truncate(time.Second), "updated_at": a.created.Truncate(time.Second),
		"uploader": f.account(apiBase(r), a.uploader), "url": apiBase(r) + "/repos/" + repo.full() + "/releases/assets/" + strconv.FormatInt(a.id, 10),
		"browser_download_url": f.cfg.URL + "/" + repo.full() + "/releases/download/" + l.tag + "/" + a.name,
	}
}
