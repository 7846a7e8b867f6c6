package forge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/git"
)

func (f *Forge) forkRoutes(rt routes) {
	rt.handle("GET /repos/{owner}/{repo}/forks", "", f.apiForks)
	rt.handle("POST /repos/{owner}/{repo}/forks", "", f.apiCreateFork)
}

func (f *Forge) apiForks(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	all, err := f.list(r.Context(), "")
	if err != nil {
		return nil, err
	}
	var forks []*repository
	for _, other := range all {
		if other.parent == repo.id && IdentityFrom(r.Context()).mayRead(other) {
			forks = append(forks, other)
		}
	}
	list := []repositoryJSON{}
	for _, fork := range cutPage(w, r, forks) {
		j, err := f.repositoryJSON(r, fork)
		if err != nil {
			return nil, err
		}
		list = append(list, j)
	}
	return list, nil
}

func (f *Forge) apiCreateFork(w http.ResponseWriter, r *http.Request) (any, error) {
	repo, err := f.target(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Organization string `json:"organization"`
		Name         string `json:"name"`
		OnlyDefault  bool   `json:"default_branch_only"`
	}
	if r.ContentLength != 0 {
		if err := readJSON(r, &in); err != nil {
			return nil, err
		}
	}
	id := IdentityFrom(r.Context())
	if id.Anonymous() {
		return nil, errNoToken
	}
	if !id.mayCreate() {
		return nil, errScope
	}
	if in.Organization == "" {
		in.Organization = id.User
	}
	if in.Name == "" {
		in.Name = repo.name
	}
	fork, err := f.fork(r.Context(), repo, in.Organization+"/"+in.Name, id, in.OnlyDefault)
	if err != nil {
		return nil, err
	}
	j, err := f.repositoryJSON(r, fork)
	if err != nil {
		return nil, err
	}
	of, err := f.repositoryJSON(r, repo)
	if err != nil {
		return nil, err
	}
	j.Parent, j.Source = &of, &of
	writeJSON(w, http.StatusAccepted, j)
	return nil, nil
}

// fork makes a repository with the branches and tags of another, or returns the fork that
// is there. Its objects are hard links: they take no room, and neither repository depends on
// the other.
func (f *Forge) fork(ctx context.Context, from *repository, full string, by Identity, onlyDefault bool) (*repository, error) {
	if there, err := f.find(ctx, full); err == nil {
		if there.parent == from.id {
			return there, nil
		}
		return nil, invalid("Repository", "already_exists", "name", "name already exists on this account")
	}
	if _, _, err := splitName(full); err != nil {
		return nil, invalid("Repository", "invalid", "name", err.Error())
	}
	to, err := f.createRepository(ctx, RepositorySpec{Name: full, Description: from.description, Private: from.private})
	if err != nil {
		return nil, err
	}
	if _, err := f.db.ExecContext(ctx, `update repository set parent = ? where id = ?`, from.id, to.id); err != nil {
		return nil, fmt.Errorf("forge state: %w", err)
	}
	if err := f.copyInto(ctx, from, to, by, onlyDefault); err != nil {
		return nil, errors.Join(err, f.DeleteRepository(context.WithoutCancel(ctx), full))
	}
	return f.find(ctx, full)
}

// copyInto links the objects of a repository and then moves the refs, which tells the
// journal as a push would.
func (f *Forge) copyInto(ctx context.Context, from, to *repository, by Identity, onlyDefault bool) error {
	head, err := f.head(ctx, from)
	if err != nil {
		return err
	}
	refs, err := from.git.Refs(ctx, pushedRefs...)
	if err != nil {
		return err
	}
	// Git packs objects while they are linked, if it must: then again.
	for try := 0; ; try++ {
		err = linkObjects(from.git.Dir(), to.git.Dir())
		if !errors.Is(err, fs.ErrNotExist) || try == 5 {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("fork %s: %w", from.full(), err)
	}
	to.git.Reset()
	var commands []refCommand
	for _, ref := range sortedKeys(refs) {
		if onlyDefault && ref != "refs/heads/"+head {
			continue
		}
		commands = append(commands, refCommand{Ref: ref, Old: git.ZeroID, New: refs[ref]})
	}
	if len(commands) == 0 {
		return nil
	}
	if err := to.lock(ctx); err != nil {
		return err
	}
	defer to.unlock()
	if _, err := to.git.Run(ctx, "symbolic-ref", "HEAD", "refs/heads/"+head); err != nil {
		return err
	}
	return f.moveRefs(ctx, to, by, commands, nil)
}

// linkObjects links what is below objects/, loose objects before packs: an object that is
// packed meanwhile is then in a pack that is linked too.
func linkObjects(from, to string) error {
	from, to = filepath.Join(from, "objects"), filepath.Join(to, "objects")
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if len(entry.Name()) == 2 && entry.IsDir() {
			if err := linkDir(filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name()), ""); err != nil {
				return err
			}
		}
	}
	// The index of a pack last: with it the pack is there for git.
	for _, kind := range []string{".pack", ".rev", ".idx"} {
		if err := linkDir(filepath.Join(from, "pack"), filepath.Join(to, "pack"), kind); err != nil {
			return err
		}
	}
	return nil
}

func linkDir(from, to, kind string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil { //nolint:gosec // as git makes it, below a private directory
		return err
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() || !strings.HasSuffix(entry.Name(), kind) || strings.HasPrefix(entry.Name(), "tmp_") {
			continue
		}
		if err := os.Link(filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name())); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
