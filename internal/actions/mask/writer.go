package mask

import (
	"bytes"
	"slices"
	"strings"
)

// Line receives one line without its end, masked.
type Line func(line string)

// maxHeld bounds an unfinished line, in bytes; a longer one is cut in pieces.
// Only a longer secret that may be under way is held for more.
const maxHeld = 64 << 10

// Writer cuts a stream into lines. Lines are handed to Raw, which may add
// secrets before the line is masked and handed to Out; Raw returns false to
// drop the line. A line of more than 64 KiB comes to Out in pieces, and not to
// Raw. It is not safe for concurrent use.
type Writer struct {
	Masker *Masker
	Raw    func(line string) bool // may be nil
	Out    Line

	held    []byte
	seen    int // bytes of held that have no line end
	cutAt   int // length of held at which it is cut
	covered int // bytes of held that belong to a secret which was shown as stars
	inPiece bool
}

// Write never fails.
func (w *Writer) Write(p []byte) (int, error) {
	w.held = append(w.held, p...)
	from := 0
	for {
		i := bytes.IndexByte(w.held[from+w.seen:], '\n')
		if i < 0 {
			break
		}
		end := from + w.seen + i
		w.line(strings.TrimSuffix(string(w.held[from:end]), "\r"))
		from, w.seen = end+1, 0
	}
	if from > 0 {
		w.held = append(w.held[:0], w.held[from:]...)
	}
	w.seen = len(w.held)
	if len(w.held) > max(maxHeld, w.cutAt) {
		w.cut()
	}
	return len(p), nil
}

// cut lets go of the beginning of a very long line, up to where a secret may
// have begun.
func (w *Writer) cut() {
	text := string(w.held)
	spans, open := search(w.Masker.automata(), text)
	upTo := len(text) - open
	if upTo > 0 && text[len(text)-1] == '\r' && upTo == len(text) {
		upTo-- // it may belong to the line's end
	}
	masked, beyond := replace(text, spans, upTo, w.covered)
	if upTo > 0 {
		w.Out(masked)
		w.inPiece = true
	}
	w.held, w.covered = slices.Clone(w.held[upTo:]), beyond
	w.seen, w.cutAt = len(w.held), 2*len(w.held) // a held secret is not searched again with each write
}

func (w *Writer) line(s string) {
	if w.inPiece {
		spans, _ := search(w.Masker.automata(), s)
		masked, _ := replace(s, spans, len(s), w.covered)
		w.inPiece, w.covered, w.cutAt = false, 0, 0
		w.Out(masked)
		return
	}
	if w.Raw != nil && !w.Raw(s) {
		return
	}
	w.Out(w.Masker.Text(s))
}

// Flush hands over an unfinished last line.
func (w *Writer) Flush() {
	if len(w.held) > 0 {
		w.line(string(w.held))
		w.held, w.seen = nil, 0
	}
}
