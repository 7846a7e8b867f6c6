package actions

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/lockstep-gitops/lockstep/internal/actions/execute"
)

// maxQueued bounds a group with `queue: max`, as on GitHub.
const maxQueued = 100

// groups are the concurrency groups: of each, one member goes on and the others
// wait in order. Without a queue at most one waits; a newer one takes its place.
type groups struct {
	mu    *sync.Mutex
	named map[string]*group
}

type group struct {
	holder  *ticket
	waiters []*ticket
}

// ticket is one run or job in a group.
type ticket struct {
	groups groups
	key    string
	turn   chan struct{} // closed when it may go on
	cancel context.CancelCauseFunc
	name   string // for people: "run 12"
	behind string // who it waits for, "" for nobody
}

// entry is what a member wants of its group.
type entry struct {
	key, name        string
	shown            string // the group as it was written, for people
	cancelInProgress bool
	queue            bool // queue: max
	cancel           context.CancelCauseFunc
}

func newGroups() groups { return groups{mu: &sync.Mutex{}, named: map[string]*group{}} }

// join takes a place in a group. The caller then calls wait, and leave at the
// end in any case.
func (g groups) join(e entry) *ticket {
	t := &ticket{groups: g, key: strings.ToLower(e.key), turn: make(chan struct{}), cancel: e.cancel, name: e.name}
	g.mu.Lock()
	defer g.mu.Unlock()
	gr := g.named[t.key]
	if gr == nil {
		gr = &group{}
		g.named[t.key] = gr
	}
	if gr.holder == nil {
		gr.holder = t
		close(t.turn)
		return t
	}
	t.behind = gr.holder.name
	superseded := fmt.Errorf("%w: %s took its place in the concurrency group %q", execute.ErrCancelled, e.name, e.shown)
	if e.cancelInProgress {
		gr.holder.cancel(superseded)
	}
	switch {
	case !e.queue || e.cancelInProgress:
		for _, w := range gr.waiters {
			w.cancel(superseded)
		}
		gr.waiters = []*ticket{t}
	case len(gr.waiters) >= maxQueued:
		t.cancel(fmt.Errorf("%w: %d others wait in the concurrency group %q already", execute.ErrCancelled, len(gr.waiters), e.shown))
	default:
		gr.waiters = append(gr.waiters, t)
	}
	return t
}

// wait returns when it is the ticket's turn, or ctx ended.
func (t *ticket) wait(ctx context.Context) error {
	select {
	case <-t.turn:
		if ctx.Err() == nil {
			return nil
		}
	case <-ctx.Done():
	}
	return context.Cause(ctx)
}

// leave gives the place back.
func (t *ticket) leave() {
	t.groups.mu.Lock()
	defer t.groups.mu.Unlock()
	gr := t.groups.named[t.key]
	switch {
	case gr == nil:
	case gr.holder != t:
		gr.waiters = slices.DeleteFunc(gr.waiters, func(w *ticket) bool { return w == t })
	case len(gr.waiters) > 0:
		gr.holder, gr.waiters = gr.waiters[0], gr.waiters[1:]
		close(gr.holder.turn)
	default:
		delete(t.groups.named, t.key)
	}
}
