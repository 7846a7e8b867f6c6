package cluster

import (
	"sync"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/process"
)

// State is how a component is doing.
type State string

// The states of a component.
const (
	StateWaiting State = "waiting" // for what it needs, not started yet
	StateRunning State = "running"
	StateBackOff State = "back-off" // it ended and is started again after a pause
	StateStopped State = "stopped"
)

// Component is one child process as seen from outside.
type Component struct {
	Name     string    `json:"name"`
	State    State     `json:"state"`
	PID      int       `json:"pid,omitempty"`
	Restarts int       `json:"restarts"`
	Reason   string    `json:"reason,omitempty"` // of the last unexpected end
	Since    time.Time `json:"since"`            // of the state
	Log      string    `json:"log"`              // path of its log file
}

// board keeps the components' states for readers.
type board struct {
	mu    sync.Mutex
	order []string
	parts map[string]*Component
}

func newBoard(l layout) *board {
	b := &board{parts: map[string]*Component{}}
	for _, name := range children() {
		b.order = append(b.order, name)
		b.parts[name] = &Component{Name: name, State: StateWaiting, Since: time.Now(), Log: l.log(name)}
	}
	return b
}

func (b *board) update(name string, change func(*Component)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	part := b.parts[name]
	change(part)
	part.Since = time.Now()
}

func (b *board) running(name string, pid int) {
	b.update(name, func(c *Component) { c.State, c.PID = StateRunning, pid })
}

func (b *board) ended(name string, r process.Restart) {
	b.update(name, func(c *Component) { c.State, c.PID, c.Restarts, c.Reason = StateBackOff, 0, r.Count, r.Reason })
}

func (b *board) stopped(name string) {
	b.update(name, func(c *Component) { c.State, c.PID = StateStopped, 0 })
}

func (b *board) all() []Component {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]Component, 0, len(b.order))
	for _, name := range b.order {
		list = append(list, *b.parts[name])
	}
	return list
}
