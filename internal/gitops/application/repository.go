package application

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// repository is what the controller knows of one repository: what its
// revisions name, and who read what of it.
type repository struct {
	name  string
	index *source.Index // reader → inputs; a reader is readerKey

	mu     sync.Mutex
	git    *git.Repository
	tracks map[string]*track // by targetRevision and tagPrefix
}

// track is a targetRevision of a repository, shared by all applications that
// follow it. It is why a push costs nothing for an application that it does
// not affect: nobody has to tell that application of the new commit.
type track struct {
	repo  *repository
	name  string // among the tracks of the repository
	rev   source.Revision
	chart bool // or artifact: moves name the constraint

	mu    sync.Mutex
	head  string          // commit that target names
	moved int64           // Controller.moves when a move told of head
	ref   string          // for HEAD: the branch that it means
	users map[string]bool // keys of the applications
	held  map[string]bool // users to wake whatever a move changed
}

func (t *track) now() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.head
}

func (c *Controller) repository(name string) *repository {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.repos[name]
	if r == nil {
		r = &repository{name: name, index: source.NewIndex(), tracks: map[string]*track{}}
		c.repos[name] = r
	}
	return r
}

// follow notes that an application follows a revision, and what it was found to
// name; since is the count of moves before somebody looked.
func (c *Controller) follow(key string, rev source.Revision, r Revision, since int64) *track {
	name := rev.Target + "\x00" + rev.TagPrefix
	repo := c.repository(r.Repo)
	repo.mu.Lock()
	defer repo.mu.Unlock()
	if r.Git != nil {
		repo.git = r.Git
	}
	t := repo.tracks[name]
	if t == nil {
		t = &track{repo: repo, name: name, rev: rev, chart: r.Chart, users: map[string]bool{}, held: map[string]bool{}}
		repo.tracks[name] = t
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users[key] = true
	if t.head != r.ID && t.moved > since {
		c.lookAgain(key) // a move was quicker, and may be younger
		return t
	}
	if t.head != "" && t.head != r.ID {
		// Resolved past what the moves told so far: the other users look too.
		for user := range t.users {
			if user != key {
				c.lookAgain(user)
			}
		}
	}
	t.head, t.ref = r.ID, r.Head
	return t
}

// hold makes every move of the track wake an application, or no longer.
func (t *track) hold(key string, held bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if held {
		t.held[key] = true
	} else {
		delete(t.held, key)
	}
}

// leave takes an application off a track and forgets its inputs there.
func (c *Controller) leave(key string, t *track) {
	t.repo.mu.Lock()
	defer t.repo.mu.Unlock()
	t.mu.Lock()
	delete(t.users, key)
	delete(t.held, key)
	last := len(t.users) == 0
	t.mu.Unlock()
	if last && t.repo.tracks[t.name] == t {
		delete(t.repo.tracks, t.name)
	}
}

// readerKey names one source of an application in the index of a repository.
func readerKey(key string, source int) string { return key + "#" + strconv.Itoa(source) }

func readerOf(reader string) (key string) {
	key, _, _ = strings.Cut(reader, "#")
	return key
}

// Move is a ref of a repository that names another commit now.
type Move struct {
	Repo, Ref     string // "owner/name", "refs/heads/main"
	Before, After string // commits; git.ZeroID for none, "" for not known
}

// followPushes reacts to pushes until ctx ends. What was pushed before after
// is found by the first look at each application.
func (c *Controller) followPushes(ctx context.Context, after int64) {
	for e := range c.Events.Follow(ctx, after, journal.Query{Stages: []journal.Stage{journal.StagePush}, Statuses: []journal.Status{journal.StatusSucceeded}}) {
		ref := e.Data[journal.DataRef]
		if ref == "" {
			ref = e.Subject
		}
		c.Moved(ctx, Move{Repo: e.Repo, Ref: ref, Before: e.Data[journal.DataBefore], After: e.Commit})
	}
}

// Moved wakes the applications that a move affects. Its cost follows what
// changed and the revisions that are followed, not the applications.
func (c *Controller) Moved(ctx context.Context, m Move) {
	c.wakeUnresolved()
	c.mu.Lock()
	repo := c.repos[m.Repo]
	c.mu.Unlock()
	if repo == nil {
		if c.OnMove != nil {
			c.OnMove(m, func() []string { return nil })
		}
		return
	}
	repo.mu.Lock()
	gitRepo := repo.git
	var tracks []*track
	for _, t := range repo.tracks {
		tracks = append(tracks, t)
	}
	repo.mu.Unlock()
	look := &look{repo: repo, git: gitRepo, move: m}
	if c.OnMove != nil {
		c.OnMove(m, func() []string {
			look.changes(ctx, c)
			return look.changed
		})
	}
	for _, t := range tracks {
		t.mu.Lock()
		follows := t.chart && t.rev.Target == m.Ref || !t.chart && t.rev.Tracks(m.Ref, t.ref)
		t.mu.Unlock()
		if follows {
			c.moveTrack(ctx, t, look)
		}
	}
}

// RepositoryChanged looks again at the applications that use a repository: it
// became readable, or no longer is.
func (c *Controller) RepositoryChanged(name string) {
	c.mu.Lock()
	repo := c.repos[name]
	c.mu.Unlock()
	c.wakeUnresolved()
	if repo == nil {
		return
	}
	repo.mu.Lock()
	var tracks []*track
	for _, t := range repo.tracks {
		tracks = append(tracks, t)
	}
	repo.mu.Unlock()
	for _, t := range tracks {
		c.wakeUsers(t)
	}
}

// moveTrack brings a track to the new commit and wakes those of its users that
// read what changed.
func (c *Controller) moveTrack(ctx context.Context, t *track, l *look) {
	// A constraint may name another tag than the one that moved.
	_, constraint := t.rev.Constraint()
	exact := !t.chart && !constraint && l.changes(ctx, c)
	t.mu.Lock()
	if t.head == l.move.After {
		t.mu.Unlock()
		return // a resolve was quicker and has woken everybody
	}
	if !exact || t.head != l.move.Before {
		t.mu.Unlock()
		c.wakeUsers(t)
		return
	}
	// The head moves before the index is read, and users read the head after
	// they put their inputs into the index: one of the two sees the other.
	t.head, t.moved = l.move.After, c.moves.Add(1)
	wake := map[string]bool{}
	for reader := range l.repo.index.Readers(l.changed) {
		if key := readerOf(reader); t.users[key] {
			wake[key] = true
		}
	}
	for key := range t.held {
		wake[key] = true
	}
	others := len(t.users) - len(wake)
	for key := range wake {
		c.markDirty(key)
	}
	t.mu.Unlock()
	for key := range wake {
		c.queue.Add(key)
	}
	if others > 0 {
		c.tell("", l.move.Repo, l.move.After, journal.Event{Stage: journal.StageRender, Status: journal.StatusSkipped, Subject: "other applications", Message: fmt.Sprintf(
			"not affected: %s that %s the branch and %s none of %s", plural(others, "application"),
			map[bool]string{true: "follows", false: "follow"}[others == 1], map[bool]string{true: "reads", false: "read"}[others == 1], plural(len(l.changed), "changed file"))})
	}
}

func (c *Controller) wakeUsers(t *track) {
	t.mu.Lock()
	users := make([]string, 0, len(t.users))
	for key := range t.users {
		users = append(users, key)
	}
	t.mu.Unlock()
	for _, key := range users {
		c.lookAgain(key)
	}
}

func (c *Controller) markDirty(key string) {
	c.mu.Lock()
	st := c.states[key]
	c.mu.Unlock()
	if st != nil {
		st.mu.Lock()
		st.dirty = true
		st.mu.Unlock()
	}
}

// lookAgain makes the next pass resolve the sources of an application anew.
func (c *Controller) lookAgain(key string) {
	c.markDirty(key)
	c.queue.Add(key)
}

// wakeUnresolved looks again at applications whose repository was not there.
func (c *Controller) wakeUnresolved() {
	c.mu.Lock()
	var keys []string
	for key := range c.unresolved {
		keys = append(keys, key)
	}
	clear(c.unresolved)
	c.mu.Unlock()
	for _, key := range keys {
		c.lookAgain(key)
	}
}

// look finds out what a move changed, once for all tracks.
type look struct {
	repo    *repository
	git     *git.Repository
	move    Move
	looked  bool
	known   bool
	changed []string
}

func (l *look) changes(ctx context.Context, c *Controller) (known bool) {
	if l.looked {
		return l.known
	}
	l.looked = true
	if l.git == nil || l.move.After == git.ZeroID || l.move.Before == git.ZeroID || l.move.Before == "" {
		return false
	}
	changed, err := l.git.Changed(ctx, l.move.Before, l.move.After)
	if err != nil {
		c.Log.Warn("find out what a push changed; every application that follows it is looked at", "repo", l.repo.name, "error", err)
		return false
	}
	l.known, l.changed = true, changed
	return true
}
