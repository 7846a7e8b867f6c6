package application

import (
	"context"
	"fmt"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// followPushes reacts to pushes until ctx ends. What was pushed before after
// is found by the first look at each application.
func (c *Controller) followPushes(ctx context.Context, after int64) {
	for e := range c.Events.Follow(ctx, after, journal.Query{Stages: []journal.Stage{journal.StagePush}, Statuses: []journal.Status{journal.StatusSucceeded}}) {
		c.pushed(ctx, e)
	}
}

// pushed wakes the applications that a push affects, and moves the others to
// the new commit without a render.
func (c *Controller) pushed(ctx context.Context, e journal.Event) {
	ref := e.Data[journal.DataRef]
	if ref == "" {
		ref = e.Subject
	}
	move := push{Controller: c, repo: e.Repo, ref: ref, before: e.Data[journal.DataBefore], after: e.Commit}
	c.mu.Lock()
	states := make(map[string]*state, len(c.states))
	for k, st := range c.states {
		states[k] = st
	}
	c.mu.Unlock()
	for key, st := range states {
		st.mu.Lock()
		name, repo := st.name, st.repo
		st.mu.Unlock()
		switch {
		case name == "": // its repository was not there; perhaps it is now
			c.enqueueAnew(key, st)
		case name == e.Repo && c.follows(ctx, key, ref, repo):
			move.meets(ctx, key, st, repo)
		}
	}
}

func (c *Controller) enqueueAnew(key string, st *state) {
	st.mu.Lock()
	st.resolve = true
	st.mu.Unlock()
	c.queue.Add(key)
}

// follows reports whether a push to ref can move the application.
func (c *Controller) follows(ctx context.Context, key, ref string, repo *git.Repository) bool {
	target, ok := c.target(key)
	if !ok {
		return false
	}
	head := ""
	if target == "" || target == "HEAD" {
		out, err := repo.Run(ctx, "symbolic-ref", "HEAD")
		if err == nil {
			head = strings.TrimSpace(string(out))
		}
	}
	return source.Tracks(target, ref, head)
}

type push struct {
	*Controller
	repo, ref, before, after string
	looked                   bool
	changed                  []string
	readers                  map[string]string // affected application → because of
}

// meets decides for one application that follows the ref.
func (m *push) meets(ctx context.Context, key string, st *state, repo *git.Repository) {
	st.mu.Lock()
	known := st.commit == m.before && st.rendered != nil && st.rendered.commit == m.before && !st.resolve
	st.mu.Unlock()
	if !known || !m.look(ctx, repo) {
		m.enqueueAnew(key, st)
		return
	}
	if _, affected := m.readers[key]; affected {
		m.enqueueAnew(key, st)
		return
	}
	if !st.busy.TryLock() {
		m.enqueueAnew(key, st)
		return
	}
	defer st.busy.Unlock()
	if st.commit != m.before || st.rendered == nil || st.rendered.commit != m.before { // a pass came between
		m.enqueueAnew(key, st)
		return
	}
	st.move(m.after)
	st.announced = m.after
	files := len(st.rendered.result.Inputs)
	m.tell(ctx, key, m.repo, m.after, journal.Event{Stage: journal.StageRender, Status: journal.StatusSkipped, Message: fmt.Sprintf(
		"not affected: none of %s is among the %s that it reads", plural(len(m.changed), "changed file"), plural(files, "input"))})
	st.notify()
}

// look finds out what the push changed, once for all applications.
func (m *push) look(ctx context.Context, repo *git.Repository) bool {
	if m.looked {
		return m.readers != nil
	}
	m.looked = true
	if m.after == git.ZeroID || m.before == git.ZeroID || m.before == "" {
		return false
	}
	changed, err := repo.Changed(ctx, m.before, m.after)
	if err != nil {
		m.Log.Warn("find out what a push changed; every application that follows it is looked at", "repo", m.repo, "error", err)
		return false
	}
	m.changed, m.readers = changed, m.index(m.repo).Readers(changed)
	return true
}
