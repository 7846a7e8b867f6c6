// Package progress prints one line for each step of long work: what is done,
// how long it took, and, on a terminal, what is being waited for right now.
//
// Input: [Printer.Step] and the notes of the work itself. Output: lines on
// standard error; nothing goes to standard output. Start reading at [Printer].
package progress

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/cli/output"
)

// Printer writes the lines. Its zero value with a Writer prints plain text.
type Printer struct {
	Writer io.Writer
	// Live says that the writer is a terminal, on which the current line may
	// be written over.
	Live bool
	// Color allows escape sequences.
	Color bool

	mu sync.Mutex
}

const width = 34 // of the name's column

// Step runs work and prints its line. The work may call note with what it is
// waiting for; on a terminal that shows at once, elsewhere only the last note
// of a finished step shows.
func (p *Printer) Step(ctx context.Context, name string, work func(ctx context.Context, note func(string)) error) error {
	start := time.Now()
	var last string
	p.running(name, "")
	err := work(ctx, func(text string) {
		if text != last {
			last = text
			p.running(name, text)
		}
	})
	p.Done(name, time.Since(start), last, err)
	return err
}

// Done prints the line of a step that ended after took.
func (p *Printer) Done(name string, took time.Duration, note string, err error) {
	mark, color := "✓", "32"
	if err != nil {
		mark, color = "✗", "31"
	}
	if p.Color {
		mark = "\x1b[" + color + "m" + mark + "\x1b[0m"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	line := fmt.Sprintf("%s %-*s %7s", mark, width, name, Duration(took))
	if note != "" && err == nil {
		line += "  " + output.Clean(note)
	}
	_, _ = fmt.Fprintln(p.Writer, line)
}

// running shows the current step on a terminal.
func (p *Printer) running(name, note string) {
	if !p.Live {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	text := []rune(fmt.Sprintf("… %-*s %s", width, name, output.Clean(note)))
	_, _ = fmt.Fprint(p.Writer, string(text[:min(len(text), 100)]))
}

func (p *Printer) clear() {
	if p.Live {
		_, _ = fmt.Fprint(p.Writer, "\r\x1b[K")
	}
}

// Duration formats a time span for people: "84ms", "3.2s", "2m05s".
func Duration(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	default:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
}
