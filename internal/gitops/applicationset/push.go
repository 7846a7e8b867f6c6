package applicationset

import (
	"context"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/gitops/applicationset/generate"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// Move is a ref that points to another commit.
type Move struct {
	Repo          string // as [generate.Repositories.Name] gives it
	Ref           string // full name, "refs/heads/main"
	Head          string // the ref that HEAD names; "" when not known
	Before, After string
	Changed       []string // paths; nil when not known
}

// Wake is [Controller.Moved] for a ref of which only the name is known.
func (c *Controller) Wake(repo, ref string) { c.Moved(Move{Repo: repo, Ref: ref}) }

// Moved tells that a ref moved. ApplicationSets whose git generators read
// something that may have changed are generated anew; the others only note the
// commit.
func (c *Controller) Moved(m Move) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, st := range c.states {
		met, lists := st.meets(c.Repositories, m), st.listsPulls(m.Repo) // a push moves the head of a pull request
		if met || lists {
			c.queue.Add(key)
		}
	}
}

// PullRequestsChanged tells that a pull request of a repository, "owner/name",
// was opened, changed or closed.
func (c *Controller) PullRequestsChanged(repo string) {
	c.news.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, st := range c.states {
		if st.listsPulls(repo) {
			c.queue.Add(key)
		}
	}
}

func (st *state) listsPulls(repo string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	lists := slices.ContainsFunc(st.pulls, func(name string) bool { return strings.EqualFold(name, repo) })
	st.stale = st.stale || lists
	return lists
}

// meets reports whether a move may change what the generators read.
func (st *state) meets(repos generate.Repositories, m Move) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	met := false
	for i := range st.reads {
		r := &st.reads[i]
		if repos.Name(r.RepoURL) != m.Repo || !source.Tracks(r.Revision, m.Ref, m.Head) {
			continue
		}
		if m.Changed != nil && r.Commit != "" && r.Commit == m.Before {
			if _, affected := r.Inputs.Affected(m.Changed); !affected {
				r.Commit = m.After
				continue
			}
		}
		met = true
	}
	st.moved = st.moved || met
	return met
}

// sameInputs reports whether repositories still give what was read of them,
// and notes their commits.
func (c *Controller) sameInputs(ctx context.Context, st *state) (bool, error) {
	st.mu.Lock()
	reads := append([]generate.Read(nil), st.reads...)
	st.mu.Unlock()
	for i, r := range reads {
		if r.Commit == "" {
			return false, nil
		}
		tree, err := c.Repositories.Tree(ctx, r.Project, r.RepoURL, r.Revision)
		if err != nil {
			return false, nil // the generation says it better
		}
		if tree.Commit() == r.Commit {
			continue
		}
		same, err := r.Inputs.SameIn(ctx, tree)
		if err != nil || !same {
			return false, err
		}
		reads[i].Commit = tree.Commit()
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.reads = reads
	return true, nil
}
