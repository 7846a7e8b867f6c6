package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// tally counts the steps of a build.
type tally struct{ total, cached int }

// watch prints the progress of a build and remembers what an error needs.
type watch struct {
	out *guard

	mu    sync.Mutex
	steps map[digest.Digest]bool     // step -> from the cache
	logs  map[digest.Digest][]string // last lines of each step's output
}

// keptLines bounds the output that an error repeats, and keptWidth each line.
const (
	keptLines = 20
	keptWidth = 400
)

func newWatch(out io.Writer) *watch {
	return &watch{
		out:   &guard{w: out},
		steps: map[digest.Digest]bool{}, logs: map[digest.Digest][]string{},
	}
}

// follow reads statuses until the channel closes. It always reads to the end,
// for BuildKit's client waits for its reader; the error is the first of out.
func (w *watch) follow(statuses <-chan *client.SolveStatus) error {
	shown := make(chan *client.SolveStatus)
	var group errgroup.Group
	group.Go(func() error {
		display, err := progressui.NewDisplay(w.out, progressui.PlainMode)
		if err == nil {
			_, err = display.UpdateFrom(context.Background(), shown)
		}
		for range shown {
		}
		return err
	})
	for s := range statuses {
		w.note(s)
		shown <- s
	}
	close(shown)
	return errors.Join(group.Wait(), w.out.err)
}

// note remembers one status.
func (w *watch) note(s *client.SolveStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range s.Vertexes {
		if isStep(v.Name) {
			w.steps[v.Digest] = w.steps[v.Digest] || v.Cached
		}
	}
	for _, l := range s.Logs {
		lines := w.logs[l.Vertex]
		for line := range strings.Lines(string(l.Data)) {
			if line = strings.TrimRight(line, "\r\n"); line != "" {
				lines = append(lines, line[:min(len(line), keptWidth)])
			}
		}
		w.logs[l.Vertex] = lines[max(0, len(lines)-keptLines):]
	}
}

// isStep tells the instructions of a Dockerfile from BuildKit's own doings.
func isStep(name string) bool {
	return strings.HasPrefix(name, "[") && !strings.HasPrefix(name, "[internal]") && !strings.HasPrefix(name, "[auth]")
}

func (w *watch) tally() tally {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := tally{total: len(w.steps)}
	for _, cached := range w.steps {
		if cached {
			t.cached++
		}
	}
	return t
}

// output is the last output of a step.
func (w *watch) output(step string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.logs[digest.Digest(step)]
}

// allOutput is the last output of every step.
func (w *watch) allOutput() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, lines := range w.logs {
		all = append(all, lines...)
	}
	return all
}

// guard keeps the first error of a writer and then drops what comes.
type guard struct {
	w   io.Writer
	err error
}

func (g *guard) Write(p []byte) (int, error) {
	if g.err == nil {
		if _, err := g.w.Write(p); err != nil {
			g.err = fmt.Errorf("progress: %w", err)
		}
	}
	return len(p), nil
}
