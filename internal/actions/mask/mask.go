// Package mask keeps secrets out of logs.
//
// Input: secret values and streams of text. Output: the same text with every
// occurrence of a secret replaced by "***": as it is, line by line when it has
// several lines, and in its base64, URL and JSON forms.
//
// Invariant: no byte of a known form of a secret leaves a [Writer] or [Masker.Text]
// when the whole form was written, however it was cut into writes.
//
// Start reading at [Masker].
package mask

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Stars stands where a secret stood.
const Stars = "***"

// minLine is the shortest line of a many-line secret that is masked by itself:
// a lone brace would mask every brace.
const minLine = 4

// Masker knows the secrets of one job. It is safe for concurrent use.
type Masker struct {
	mu      sync.RWMutex
	forms   []string // longest first
	longest int
}

// Add makes more values secret. Empty ones are ignored.
func (m *Masker) Add(values ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range values {
		m.forms = append(m.forms, forms(v)...)
	}
	slices.SortFunc(m.forms, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	})
	m.forms = slices.Compact(m.forms)
	if len(m.forms) > 0 {
		m.longest = len(m.forms[0])
	}
}

// forms lists how a value may show up within one line.
func forms(v string) []string {
	v = strings.TrimRight(v, "\r\n")
	if strings.TrimSpace(v) == "" {
		return nil
	}
	var out []string
	add := func(s string) {
		if s != "" {
			out = append(out, s)
		}
	}
	if strings.ContainsAny(v, "\r\n") {
		for line := range strings.FieldsFuncSeq(v, func(r rune) bool { return r == '\n' || r == '\r' }) {
			if line = strings.TrimSpace(line); len(line) >= minLine {
				add(line)
			}
		}
	} else {
		add(v)
		add(strings.TrimSpace(v))
	}
	if len(v) >= minLine {
		for _, form := range base64Forms(v) {
			add(form)
		}
		add(url.QueryEscape(v))
		add(url.PathEscape(v))
		if quoted, err := json.Marshal(v); err == nil {
			add(string(quoted[1 : len(quoted)-1]))
		}
	}
	return slices.DeleteFunc(out, func(s string) bool { return strings.ContainsAny(s, "\r\n") })
}

// base64Forms are the characters that do not depend on what stands around the
// value, for each of the three ways it can fall into groups of three bytes.
func base64Forms(v string) []string {
	var out []string
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
		out = append(out, enc.EncodeToString([]byte(v)))
		for shift := range 3 {
			s := enc.WithPadding(base64.NoPadding).EncodeToString([]byte(strings.Repeat("\x00", shift) + v))
			// The first characters mix with what stands before, the last
			// with what follows.
			from, to := []int{0, 2, 3}[shift], (len(v)+shift)/3*4
			if to-from >= minLine {
				out = append(out, s[from:to])
			}
		}
	}
	return out
}

// Text masks a whole text.
func (m *Masker) Text(s string) string {
	masked, _ := m.replace(s, len(s))
	return masked
}

// replace masks s. It consumes at least upTo bytes, and more when a secret
// reaches beyond.
func (m *Masker) replace(s string, upTo int) (string, int) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	type span struct{ from, to int }
	var spans []span
	for _, form := range m.forms {
		for at := 0; ; {
			i := strings.Index(s[at:], form)
			if i < 0 {
				break
			}
			spans = append(spans, span{at + i, at + i + len(form)})
			at += i + 1
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var b strings.Builder
	at := 0
	for i := 0; i < len(spans) && spans[i].from < upTo; {
		from, to := spans[i].from, spans[i].to
		for i++; i < len(spans) && spans[i].from < to; i++ {
			to = max(to, spans[i].to)
		}
		b.WriteString(s[at:from] + Stars)
		at = to
	}
	end := max(at, upTo)
	b.WriteString(s[at:end])
	return b.String(), end
}

// Line receives one line without its end, masked.
type Line func(line string)

// maxHeld bounds an unfinished line, in bytes; a longer one is cut in pieces.
const maxHeld = 64 << 10

// Writer cuts a stream into lines. Lines are handed to raw, which may add
// secrets before the line is masked and handed to out; raw returns false to
// drop the line. It is not safe for concurrent use.
type Writer struct {
	Masker *Masker
	Raw    func(line string) bool // may be nil
	Out    Line

	held []byte
}

// Write never fails.
func (w *Writer) Write(p []byte) (int, error) {
	w.held = append(w.held, p...)
	for {
		i := slices.Index(w.held, '\n')
		if i < 0 {
			break
		}
		w.line(strings.TrimSuffix(string(w.held[:i]), "\r"))
		w.held = w.held[i+1:]
	}
	if len(w.held) > maxHeld {
		w.cut()
	}
	return len(p), nil
}

// cut lets go of the beginning of a very long line, keeping enough that no
// secret is cut in two.
func (w *Writer) cut() {
	w.Masker.mu.RLock()
	longest := w.Masker.longest
	w.Masker.mu.RUnlock()
	keep := max(0, longest-1)
	if len(w.held) <= keep {
		return
	}
	masked, consumed := w.Masker.replace(string(w.held), len(w.held)-keep)
	w.Out(masked)
	w.held = slices.Clone(w.held[consumed:])
}

func (w *Writer) line(s string) {
	if w.Raw != nil && !w.Raw(s) {
		return
	}
	w.Out(w.Masker.Text(s))
}

// Flush hands over an unfinished last line.
func (w *Writer) Flush() {
	if len(w.held) > 0 {
		w.line(string(w.held))
		w.held = nil
	}
}
