package actions

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/lockstep-gitops/lockstep/internal/actions/execute"
)

// groups are the concurrency groups: of each, one member goes on and at most
// one waits; a newer one takes the place of the one that waits.
type groups struct {
	mu    *sync.Mutex
	named map[string]*group
}

type group struct{ holder, waiter *ticket }

// ticket is one run or job in a group.
type ticket struct {
	turn   chan struct{} // closed when it may go on
	cancel context.CancelCauseFunc
	name   string // for people: "run 12"
}

func newGroups() groups { return groups{mu: &sync.Mutex{}, named: map[string]*group{}} }

// enter returns when it is the caller's turn, or ctx ended. waiting is called
// once when there is something to wait for. leave must be called after success.
func (g groups) enter(ctx context.Context, cancel context.CancelCauseFunc, key, name string, cancelInProgress bool, waiting func(behind string)) (leave func(), err error) {
	key = strings.ToLower(key)
	t := &ticket{turn: make(chan struct{}), cancel: cancel, name: name}
	g.mu.Lock()
	gr := g.named[key]
	if gr == nil {
		gr = &group{}
		g.named[key] = gr
	}
	superseded := fmt.Errorf("%w: %s took its place in the concurrency group", execute.ErrCancelled, name)
	behind := ""
	if gr.holder == nil {
		gr.holder = t
		close(t.turn)
	} else {
		behind = gr.holder.name
		if cancelInProgress {
			gr.holder.cancel(superseded)
		}
		if gr.waiter != nil {
			gr.waiter.cancel(superseded)
		}
		gr.waiter = t
	}
	g.mu.Unlock()
	leave = func() { g.leave(key, t) }
	if behind != "" {
		waiting(behind)
	}
	select {
	case <-t.turn:
		return leave, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

func (g groups) leave(key string, t *ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	gr := g.named[key]
	switch {
	case gr == nil:
	case gr.waiter == t:
		gr.waiter = nil
	case gr.holder == t:
		gr.holder, gr.waiter = gr.waiter, nil
		if gr.holder != nil {
			close(gr.holder.turn)
		} else {
			delete(g.named, key)
		}
	}
}
