package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// pinned are the refs of commits that are wanted by their id.
const pinned = "refs/lockstep/commits/"

// sync is one round: list, compare, fetch, tell. It runs once at a time.
func (m *mirror) sync(ctx context.Context) ([]Move, error) {
	select {
	case m.store.slots <- struct{}{}:
		defer func() { <-m.store.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	m.mu.Lock()
	r := &work{mirror: m, suspect: m.suspect || !m.verified, known: !m.listed.IsZero()}
	for _, w := range m.wants {
		r.wants = append(r.wants, w)
		r.covered = append(r.covered, w.covered)
	}
	project, url := m.project, m.url
	m.mu.Unlock()
	err := r.do(ctx, project, url)
	if err != nil {
		return nil, m.explain(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.suspect, m.verified = false, true
	for _, w := range r.wants {
		w.covered, w.err = true, nil
		if err := r.errs[w]; err != nil {
			w.err = m.explain(err)
		}
	}
	return r.moves, nil
}

// work is what one round knows.
type work struct {
	*mirror
	wants   []*want
	covered []bool // by an earlier round, in the order of wants
	suspect bool   // look whether what is on disk can be read
	known   bool   // there was a round before

	wire   *wire
	depth  int
	advert advertisement
	refs   map[string]string // wanted ref → object id at the server
	chosen map[string]bool   // those of refs that a revision means
	shas   map[*want]string  // wanted by id
	errs   map[*want]error
	moves  []Move
}

func (r *work) do(ctx context.Context, project, url string) error {
	c, err := r.store.deps.Credential(project, url)
	if err != nil {
		return err
	}
	if r.store.deps.Tokens != nil {
		if c, err = r.store.deps.Tokens.Sign(ctx, c, url); err != nil {
			return err
		}
	}
	if r.wire, err = newWire(r.store.cfg, r.at, c); err != nil {
		return err
	}
	defer r.wire.close()
	r.depth, r.errs = c.Depth, map[*want]error{}
	if err := r.list(ctx); err != nil {
		if errors.Is(r.explain(err), ErrRefused) && r.store.deps.Tokens != nil {
			r.store.deps.Tokens.Forget() // an installation token may have been revoked
		}
		return err
	}
	r.choose(ctx)
	return r.update(ctx)
}

// list asks the server for its refs: all of them only when HEAD or a ref that
// is neither branch nor tag is wanted, as the server cannot filter those.
func (r *work) list(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.store.cfg.ListTimeout)
	defer cancel()
	args := []string{"ls-remote", "--symref", "--heads", "--tags", "--", r.address}
	for _, w := range r.wants {
		t := w.revision.Target
		if w.revision.IsHead() || strings.HasPrefix(t, "refs/") && !strings.HasPrefix(t, "refs/heads/") && !strings.HasPrefix(t, "refs/tags/") {
			args = []string{"ls-remote", "--symref", "--", r.address}
		}
	}
	out, err := r.wire.run(ctx, r.store.cfg.Dir, "", 0, args...)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: no answer for %s", ErrUnreachable, r.store.cfg.ListTimeout)
	}
	if err != nil {
		return err
	}
	if r.advert, err = parseAdvertisement(out); err != nil {
		return fmt.Errorf("git ls-remote: %w", err)
	}
	return nil
}

// choose finds the refs that are wanted. The first digits of a commit need all
// branches and tags, once: the server does not look them up.
func (r *work) choose(ctx context.Context) {
	r.refs, r.chosen, r.shas = map[string]string{}, map[string]bool{}, map[*want]string{}
	for _, w := range r.wants {
		if w.revision.IsSHA() {
			r.shas[w] = strings.ToLower(w.revision.Target)
			continue
		}
		if ref := r.advert.ref(w.revision); ref != "" && r.advert.refs[ref] != "" {
			r.refs[ref] = r.advert.refs[ref]
			r.chosen[ref] = true
			continue
		}
		if !w.revision.IsShort() {
			continue
		}
		if id, err := r.repo.Resolve(ctx, w.revision.Target); err == nil {
			r.shas[w] = id
			continue
		}
		r.everything()
	}
}

func (r *work) everything() {
	for ref, id := range r.advert.refs {
		if strings.HasPrefix(ref, "refs/heads/") || strings.HasPrefix(ref, "refs/tags/") {
			r.refs[ref] = id
		}
	}
}

// update brings the mirror to the state that is wanted, and makes it anew when
// what is on disk cannot be used.
func (r *work) update(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.store.cfg.FetchTimeout)
	defer cancel()
	local, err := r.local(ctx)
	if err == nil && r.suspect && len(local) > 0 {
		err = r.check(ctx, local)
	}
	if err == nil {
		if err = r.bring(ctx, local); err == nil || !r.ours(err) {
			return r.timedOut(err)
		}
	}
	if ctx.Err() != nil {
		return r.timedOut(ctx.Err())
	}
	if now := r.store.deps.Now(); now.Sub(r.rebuilt) < rebuildAfter && !r.rebuilt.IsZero() {
		return fmt.Errorf("%w (the mirror was made anew %s ago)", err, now.Sub(r.rebuilt).Round(time.Second))
	}
	r.store.deps.Log.Warn("a mirror is damaged and made anew", "repo", r.name, "error", err)
	return r.timedOut(r.rebuild(ctx, local))
}

func (r *work) timedOut(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: fetching took longer than %s", ErrUnreachable, r.store.cfg.FetchTimeout)
	}
	return err
}

// local returns the refs on disk.
func (r *work) local(ctx context.Context) (map[string]string, error) {
	for _, part := range []string{"HEAD", "config", "objects", "refs"} { // without one, git would look in the folders above
		if _, err := os.Stat(filepath.Join(r.dir, part)); err != nil {
			return nil, err
		}
	}
	return r.repo.Refs(ctx)
}

// bring deletes refs that are gone, fetches what is new, and notes the moves.
func (r *work) bring(ctx context.Context, local map[string]string) error {
	var gone, specs []string
	for ref := range local {
		if _, ok := r.refs[ref]; !ok && !r.pins(ref) {
			gone = append(gone, ref)
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(r.refs)) {
		if local[ref] != r.refs[ref] {
			specs = append(specs, "+"+ref+":"+ref)
		}
	}
	headBefore := r.headOf(ctx)
	before := r.commits(ctx, append(slices.Clone(gone), refsOf(specs)...))
	if err := r.transact(ctx, gone); err != nil {
		return err
	}
	if err := r.fetch(ctx, r.dir, specs); err != nil {
		return err
	}
	if err := r.setHead(ctx, r.dir); err != nil {
		return err
	}
	if err := r.fetchCommits(ctx, r.dir); err != nil {
		return err
	}
	after := r.commits(ctx, refsOf(specs))
	r.note(gone, before, after)
	r.noteHead(ctx, headBefore)
	if len(specs) > 0 {
		r.tidy(ctx)
	}
	now := time.Now()
	_ = os.Chtimes(r.dir, now, now) // that it is in use
	return nil
}

// pins reports whether a ref keeps a commit that is wanted by its id.
func (r *work) pins(ref string) bool {
	id, ok := strings.CutPrefix(ref, pinned)
	return ok && (id == "HEAD" || slices.Contains(slices.Collect(maps.Values(r.shas)), id))
}

func refsOf(specs []string) []string {
	refs := make([]string, len(specs))
	for i, s := range specs {
		refs[i] = s[strings.LastIndexByte(s, ':')+1:]
	}
	return refs
}

// commits resolves refs to the commits that they name; those that name none
// are left out.
func (r *work) commits(ctx context.Context, refs []string) map[string]string {
	ids := map[string]string{}
	for _, ref := range refs {
		if id, err := r.repo.Resolve(ctx, ref); err == nil {
			ids[ref] = id
		}
	}
	return ids
}

// fetch gets refs by one transaction.
func (r *work) fetch(ctx context.Context, dir string, specs []string) error {
	if len(specs) == 0 {
		return nil
	}
	args := []string{"fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--atomic", "--no-recurse-submodules", "--stdin"}
	if r.depth > 0 {
		args = append(args, fmt.Sprintf("--depth=%d", r.depth))
	}
	_, err := r.wire.run(ctx, dir, strings.Join(specs, "\n")+"\n", r.store.cfg.MaxBytes, append(args, "--", r.address)...)
	return err
}

// fetchCommits gets what is wanted by its id and is not there yet. Servers that
// do not give commits by id are asked for all branches and tags.
func (r *work) fetchCommits(ctx context.Context, dir string) error {
	repo := r.repo
	if dir != r.dir {
		var err error
		if repo, err = git.Open(dir); err != nil {
			return err
		}
		defer repo.Close()
	}
	all := false
	for w, id := range r.shas {
		if _, err := repo.Root(ctx, id); err == nil {
			if err := r.pin(ctx, dir, repo, id); err != nil {
				return err
			}
			continue
		}
		err := r.fetch(ctx, dir, []string{"+" + id + ":" + pinned + id})
		if err == nil {
			continue
		}
		if !r.ours(err) {
			return err
		}
		if !all {
			all = true
			wanted := r.refs
			r.refs = map[string]string{}
			r.everything()
			specs := []string{}
			for _, ref := range slices.Sorted(maps.Keys(r.refs)) {
				specs = append(specs, "+"+ref+":"+ref)
			}
			maps.Copy(r.refs, wanted)
			if err := r.fetch(ctx, dir, specs); err != nil {
				return err
			}
		}
		if _, err := repo.Root(ctx, id); err != nil {
			r.errs[w] = source.Revision{Target: id}.NotFound()
			continue
		}
		if err := r.pin(ctx, dir, repo, id); err != nil {
			return err
		}
	}
	return nil
}

// pin makes a ref that keeps the commit.
func (r *work) pin(ctx context.Context, dir string, repo *git.Repository, id string) error {
	if _, err := repo.Resolve(ctx, pinned+id); err == nil {
		return nil
	}
	_, err := r.wire.run(ctx, dir, "", 0, "update-ref", pinned+id, id)
	return err
}

// transact deletes refs by one transaction.
func (r *work) transact(ctx context.Context, gone []string) error {
	if len(gone) == 0 {
		return nil
	}
	slices.Sort(gone)
	_, err := r.wire.run(ctx, r.dir, "delete "+strings.Join(gone, "\ndelete ")+"\n", 0, "update-ref", "--no-deref", "--stdin")
	return err
}

// setHead makes HEAD what it is at the server, when that was asked for.
func (r *work) setHead(ctx context.Context, dir string) error {
	switch {
	case r.advert.head != "" && strings.HasPrefix(r.advert.head, "refs/"):
		if dir == r.dir && r.headOf(ctx).ref == r.advert.head {
			return nil
		}
		_, err := r.wire.run(ctx, dir, "", 0, "symbolic-ref", "HEAD", r.advert.head)
		return err
	case r.advert.headID != "": // detached
		if err := r.fetch(ctx, dir, []string{"+HEAD:" + pinned + "HEAD"}); err != nil {
			return err
		}
		_, err := r.wire.run(ctx, dir, "", 0, "update-ref", "--no-deref", "HEAD", r.advert.headID)
		return err
	}
	return nil
}
