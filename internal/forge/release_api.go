package forge

import (
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

// maxAsset is how large one file of a release may be, in bytes, as on GitHub.
const maxAsset = 2 << 30

func (f *Forge) releaseRoutes(rt routes) {
	const base = "/repos/{owner}/{repo}/releases"
	rt.handle("GET "+base, scopeContents, f.apiReleases)
	rt.handle("POST "+base, scopeContents, f.apiCreateRelease)
	rt.handle("GET "+base+"/latest", scopeContents, f.apiLatestRelease)
	rt.handle("POST "+base+"/generate-notes", scopeContents, f.apiReleaseNotes)
	rt.handle("GET "+base+"/{id}", scopeContents, f.apiRelease)
	rt.handle("PATCH "+base+"/{id}", scopeContents, f.apiChangeRelease)
	rt.handle("DELETE "+base+"/{id}", scopeContents, f.apiDeleteRelease)
	rt.handle("GET "+base+"/{id}/{rest...}", scopeContents, f.apiReleasePart)
	rt.limited("POST "+base+"/{id}/assets", scopeContents, maxAsset, f.apiUploadAsset)
	rt.handle("DELETE "+base+"/assets/{asset}", scopeContents, f.apiDeleteAsset)
}

// apiReleasePart serves releases/tags/{tag}, where a tag may have slashes,
// releases/assets/{asset} and releases/{id}/assets.
func (f *Forge) apiReleasePart(w http.ResponseWriter, r *http.Request) (any, error) {
	rest := r.PathValue("rest")
	switch {
	case r.PathValue("id") == "tags":
		return f.showRelease(r, `draft = 0 and tag = ?`, rest)
	case r.PathValue("id") == "assets":
		r.SetPathValue("asset", rest)
		return f.apiAsset(w, r)
	case rest == "assets":
		return f.apiAssets(w, r)
	}
	return nil, ErrNotFound
}

func (f *Forge) apiReleases(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	drafts := IdentityFrom(r.Context()).mayWrite(repo.key)
	all, err := f.releases(r.Context(), repo, `(draft = 0 or ?)`, drafts)
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, l := range cutPage(w, r, all) {
		list = append(list, f.releaseJSON(r, repo, l))
	}
	return list, nil
}

type releaseInput struct {
	Tag           *string `json:"tag_name"`
	Target        *string `json:"target_commitish"`
	Name          *string `json:"name"`
	Body          *string `json:"body"`
	Draft         *bool   `json:"draft"`
	Prerelease    *bool   `json:"prerelease"`
	GenerateNotes bool    `json:"generate_release_notes"`
}

func (f *Forge) applyRelease(r *http.Request, repo *repository, l *release, in releaseInput) error {
	for _, field := range []struct{ to, from *string }{{&l.tag, in.Tag}, {&l.target, in.Target}, {&l.name, in.Name}, {&l.body, in.Body}} {
		if field.from != nil {
			*field.to = *field.from
		}
	}
	if in.Draft != nil {
		l.draft = *in.Draft
	}
	if in.Prerelease != nil {
		l.prerelease = *in.Prerelease
	}
	if l.tag == "" {
		return invalid("Release", "missing_field", "tag_name", "")
	}
	if len(l.body) > 125_000 || len(l.name) > 1000 {
		return invalid("Release", "custom", "body", "body is too long (maximum is 125000 characters)")
	}
	same, err := f.releases(r.Context(), repo, `tag = ? and draft = 0 and id != ?`, l.tag, l.id)
	if err == nil && len(same) > 0 && !l.draft {
		err = invalid("Release", "already_exists", "tag_name", "")
	}
	if err != nil {
		return err
	}
	if in.GenerateNotes {
		notes, err := f.releaseNotes(r, repo, l.tag, l.target, "")
		if err != nil {
			return err
		}
		l.body = strings.TrimSpace(l.body + "\n\n" + notes)
		if l.name == "" {
			l.name = l.tag
		}
	}
	return nil
}

func (f *Forge) apiCreateRelease(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	var in releaseInput
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	l := &release{author: IdentityFrom(r.Context()).Actor}
	if l.target, err = f.head(r.Context(), repo); err != nil {
		return nil, err
	}
	if err := f.applyRelease(r, repo, l, in); err != nil {
		return nil, err
	}
	if err := f.storeRelease(r, repo, l); err != nil {
		return nil, err
	}
	j := f.releaseJSON(r, repo, l)
	w.Header().Set("Location", fmt.Sprint(j["url"]))
	writeJSON(w, http.StatusCreated, j)
	return nil, nil
}

// oneRelease is the first of those that where picks and the request may see.
func (f *Forge) oneRelease(r *http.Request, repo *repository, where string, args ...any) (*release, error) {
	all, err := f.releases(r.Context(), repo, where, args...)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 || all[0].draft && !IdentityFrom(r.Context()).mayWrite(repo.key) {
		return nil, ErrNotFound
	}
	return all[0], nil
}

// releaseOf is the release that a request names by its id.
func (f *Forge) releaseOf(r *http.Request, repo *repository) (*release, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return nil, ErrNotFound
	}
	return f.oneRelease(r, repo, `id = ?`, id)
}

func (f *Forge) showRelease(r *http.Request, where string, args ...any) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	l, err := f.oneRelease(r, repo, where, args...)
	if err != nil {
		return nil, err
	}
	return f.releaseJSON(r, repo, l), nil
}

func (f *Forge) apiLatestRelease(_ http.ResponseWriter, r *http.Request) (any, error) {
	return f.showRelease(r, `draft = 0 and prerelease = 0`)
}

func (f *Forge) apiRelease(_ http.ResponseWriter, r *http.Request) (any, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return nil, ErrNotFound
	}
	return f.showRelease(r, `id = ?`, id)
}

func (f *Forge) apiChangeRelease(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	l, err := f.releaseOf(r, repo)
	if err != nil {
		return nil, err
	}
	var in releaseInput
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if err := f.applyRelease(r, repo, l, in); err != nil {
		return nil, err
	}
	if err := f.storeRelease(r, repo, l); err != nil {
		return nil, err
	}
	return f.releaseJSON(r, repo, l), nil
}

func (f *Forge) apiDeleteRelease(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	l, err := f.releaseOf(r, repo)
	if err != nil {
		return nil, err
	}
	if err := f.deleteRelease(r.Context(), repo, IdentityFrom(r.Context()), l); err != nil {
		return nil, err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil, nil
}

// releaseNotes lists the subjects of the commits since the tag before ("" finds it).
func (f *Forge) releaseNotes(r *http.Request, repo *repository, tag, target, previous string) (string, error) {
	ctx := r.Context()
	to, err := repo.git.Resolve(ctx, "refs/tags/"+tag)
	if errors.Is(err, git.ErrNotFound) {
		if target == "" {
			target = "HEAD"
		}
		to, err = repo.git.Resolve(ctx, target)
	}
	if err != nil {
		return "", revisionError(err, target)
	}
	args := []string{"log", "--max-count=250", "--no-merges", "--format=* %s (%h) by %an", to}
	if previous == "" {
		if out, err := repo.git.Run(ctx, "describe", "--tags", "--abbrev=0", "--exclude="+tag, to); err == nil {
			previous = strings.TrimSpace(string(out))
		}
	}
	compare := f.cfg.URL + "/" + repo.full() + "/commits/" + tag
	if previous != "" {
		from, err := repo.git.Resolve(ctx, "refs/tags/"+previous)
		if err != nil {
			return "", revisionError(err, previous)
		}
		args = append(args, "^"+from)
		compare = f.cfg.URL + "/" + repo.full() + "/compare/" + previous + "..." + tag
	}
	out, err := repo.git.Run(ctx, append(args, "--")...)
	if err != nil {
		return "", err
	}
	return "## What's Changed\n" + strings.TrimSpace(string(out)) + "\n\n**Full Changelog**: " + compare, nil
}

func (f *Forge) apiReleaseNotes(_ http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Tag      string `json:"tag_name"`
		Target   string `json:"target_commitish"`
		Previous string `json:"previous_tag_name"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if strings.HasPrefix(in.Tag, "-") || in.Tag == "" {
		return nil, invalid("Release", "missing_field", "tag_name", "")
	}
	body, err := f.releaseNotes(r, repo, in.Tag, in.Target, in.Previous)
	return map[string]string{"name": in.Tag, "body": body}, err
}

func (f *Forge) apiAssets(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	l, err := f.releaseOf(r, repo)
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, a := range cutPage(w, r, l.assets) {
		list = append(list, f.assetJSON(r, repo, l, a))
	}
	return list, nil
}

var assetName = regexp.MustCompile(`[^A-Za-z0-9._+@~-]+`)

func (f *Forge) apiUploadAsset(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	l, err := f.releaseOf(r, repo)
	if err != nil {
		return nil, err
	}
	// GitHub's form of names: other characters become a point.
	name := assetName.ReplaceAllString(r.URL.Query().Get("name"), ".")
	if strings.Trim(name, ".") == "" || len(name) > 255 {
		return nil, invalid("ReleaseAsset", "missing_field", "name", "")
	}
	for _, a := range l.assets {
		if a.name == name {
			return nil, invalid("ReleaseAsset", "already_exists", "name", "")
		}
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(f.cfg.PushTimeout))
	a := &asset{release: l.id, name: name, label: cut(r.URL.Query().Get("label"), 255), kind: r.Header.Get("Content-Type"), uploader: IdentityFrom(r.Context()).Actor, created: f.deps.Now().UTC()}
	if _, _, err := mime.ParseMediaType(a.kind); err != nil {
		a.kind = "application/octet-stream"
	}
	if err := f.storeAsset(r, repo, a); err != nil {
		return nil, err
	}
	j := f.assetJSON(r, repo, l, a)
	w.Header().Set("Location", fmt.Sprint(j["url"]))
	writeJSON(w, http.StatusCreated, j)
	return nil, nil
}

// storeAsset writes the body of a request to disk and then the asset's row. A crash
// in between leaves a file that the next asset with its id replaces.
func (f *Forge) storeAsset(r *http.Request, repo *repository, a *asset) error {
	file, err := os.CreateTemp(f.tmp(), "asset-")
	if err != nil {
		return fmt.Errorf("store asset: %w", err)
	}
	defer func() { _ = os.Remove(file.Name()) }()
	sum := sha256.New()
	if a.size, err = io.Copy(io.MultiWriter(file, sum), r.Body); err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("store asset: %w", err)
	}
	a.digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	ctx := r.Context()
	return f.transact(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `insert into release_asset (repo, release, name, label, type, size, digest, uploader, downloads, created) values (?,?,?,?,?,?,?,?,0,?)`,
			repo.key, a.release, a.name, a.label, a.kind, a.size, a.digest, a.uploader, a.created.UnixMicro())
		if err != nil {
			return err
		}
		if a.id, err = result.LastInsertId(); err != nil {
			return err
		}
		place := f.assetFile(repo, a.id)
		if err := os.MkdirAll(filepath.Dir(place), 0o700); err != nil {
			return err
		}
		return os.Rename(file.Name(), place)
	})
}

// assetOf is the asset that a request names, with its release.
func (f *Forge) assetOf(r *http.Request, repo *repository) (*asset, *release, error) {
	id, err := strconv.ParseInt(r.PathValue("asset"), 10, 64)
	if err != nil {
		return nil, nil, ErrNotFound
	}
	all, err := f.assets(r.Context(), repo, `id = ?`, id)
	if err == nil && len(all) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, nil, err
	}
	l, err := f.oneRelease(r, repo, `id = ?`, all[0].release)
	return all[0], l, err
}

func (f *Forge) apiAsset(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	a, l, err := f.assetOf(r, repo)
	if err != nil {
		return nil, err
	}
	if strings.Contains(r.Header.Get("Accept"), "application/octet-stream") {
		return nil, f.sendAsset(w, r, repo, a)
	}
	return f.assetJSON(r, repo, l, a), nil
}

func (f *Forge) sendAsset(w http.ResponseWriter, r *http.Request, repo *repository, a *asset) error {
	file, err := os.Open(f.assetFile(repo, a.id))
	if err != nil {
		return fmt.Errorf("asset %d: %w", a.id, err)
	}
	defer func() { _ = file.Close() }()
	_, err = f.db.ExecContext(r.Context(), `update release_asset set downloads = downloads + 1 where id = ?`, a.id)
	if err != nil {
		return fmt.Errorf("forge state: %w", err)
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": a.name}))
	h.Set("ETag", strconv.Quote(a.digest))
	http.ServeContent(w, r, "", a.created, file)
	return nil
}

func (f *Forge) apiDeleteAsset(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.writable(r)
	if err != nil {
		return nil, err
	}
	a, _, err := f.assetOf(r, repo)
	if err != nil {
		return nil, err
	}
	if _, err := f.db.ExecContext(r.Context(), `delete from release_asset where id = ?`, a.id); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	if err := os.Remove(f.assetFile(repo, a.id)); err != nil {
		f.log.Warn("file of a deleted asset remains", "repo", repo.full(), "error", err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil, nil
}

// isDownload reports whether a path of the Git host is of a release's file.
func isDownload(action string) bool {
	return strings.HasPrefix(action, "releases/download/") || strings.HasPrefix(action, "releases/latest/download/")
}

// serveDownload answers "releases/download/TAG/NAME" and "releases/latest/download/NAME" of the Git host.
func (f *Forge) serveDownload(w http.ResponseWriter, r *http.Request, repo *repository, action string) {
	rest := strings.TrimPrefix(action, "releases/")
	where, args := `draft = 0 and prerelease = 0`, []any{}
	name, latest := strings.CutPrefix(rest, "latest/download/")
	if !latest {
		tag := strings.TrimPrefix(rest, "download/")
		slash := strings.LastIndexByte(tag, '/')
		if slash < 0 {
			http.NotFound(w, r)
			return
		}
		tag, name = tag[:slash], tag[slash+1:]
		where, args = `draft = 0 and tag = ?`, []any{tag}
	}
	l, err := f.oneRelease(r, repo, where, args...)
	if err == nil {
		err = ErrNotFound
		for _, a := range l.assets {
			if a.name == name {
				err = f.sendAsset(w, r, repo, a)
			}
		}
	}
	if errors.Is(err, ErrNotFound) {
		http.NotFound(w, r)
	} else if err != nil {
		f.internalError(w, r, err)
	}
}
