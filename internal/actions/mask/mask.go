// Package mask keeps secrets out of logs.
//
// Input: secret values and streams of text. Output: the same text with every
// occurrence of a secret replaced by "***": as it is, line by line when it has
// several lines, and in its base64, URL, JSON, XML and quoted forms.
//
// Invariants: no byte of a known form of a secret leaves a [Writer] or
// [Masker.Text] when the whole form was written, however it was cut into
// writes; the cost is linear in the text, whatever the number of secrets.
//
// Start reading at [Masker] and [Writer].
package mask

import (
	"cmp"
	"slices"
	"strings"
	"sync"
)

// Stars stands where a secret stood.
const Stars = "***"

// Masker knows the secrets of one job. It is safe for concurrent use.
type Masker struct {
	mu     sync.RWMutex
	known  map[string]bool
	added  []string     // forms that no automaton holds yet
	layers []*automaton // largest first; each at least twice the next
}

// Add makes more values secret. Empty ones are ignored.
func (m *Masker) Add(values ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil {
		m.known = map[string]bool{}
	}
	for _, v := range values {
		for _, form := range forms(v) {
			if !m.known[form] {
				m.known[form] = true
				m.added = append(m.added, form)
			}
		}
	}
}

// Empty says whether nothing is secret yet.
func (m *Masker) Empty() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.known) == 0
}

// automata returns what to search with. Small layers are merged as they come,
// so that many single additions cost little more than one of all.
func (m *Masker) automata() []*automaton {
	m.mu.RLock()
	layers, fresh := m.layers, len(m.added) == 0
	m.mu.RUnlock()
	if fresh {
		return layers
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	forms := m.added
	layers = slices.Clone(m.layers)
	for len(layers) > 0 && layers[len(layers)-1].bytes < 2*total(forms) {
		forms = append(forms, layers[len(layers)-1].forms...)
		layers = layers[:len(layers)-1]
	}
	if len(forms) > 0 {
		layers = append(layers, newAutomaton(forms))
	}
	m.layers, m.added = layers, nil
	return layers
}

func total(forms []string) (n int) {
	for _, f := range forms {
		n += len(f)
	}
	return n
}

// Text masks a whole text.
func (m *Masker) Text(s string) string {
	spans, _ := search(m.automata(), s)
	if len(spans) == 0 {
		return s
	}
	masked, _ := replace(s, spans, len(s), 0)
	return masked
}

// span is where secrets stand in a text.
type span struct{ from, to int }

// search finds the secrets of a text, overlapping ones as one, and how many
// bytes at its end may be the beginning of one.
func search(layers []*automaton, s string) (spans []span, open int) {
	for _, a := range layers {
		found, depth := a.search(s)
		open = max(open, depth)
		if spans == nil {
			spans = found
		} else if len(found) > 0 {
			spans = append(spans, found...)
			slices.SortFunc(spans, func(a, b span) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to)) })
			spans = merge(spans)
		}
	}
	return spans, open
}

// merge joins overlapping spans of a list that is sorted by its beginnings.
func merge(spans []span) []span {
	out := spans[:0]
	for _, sp := range spans {
		if n := len(out); n > 0 && sp.from < out[n-1].to {
			out[n-1].to = max(out[n-1].to, sp.to)
			continue
		}
		out = append(out, sp)
	}
	return out
}

// replace masks the first upTo bytes of s, of which the first covered are
// masked already. It returns how many bytes after upTo belong to a secret that
// is masked by now.
func replace(s string, spans []span, upTo, covered int) (masked string, beyond int) {
	var b strings.Builder
	at := min(covered, upTo)
	for _, sp := range spans {
		switch {
		case sp.from >= upTo:
		case sp.from < covered: // goes on with what is masked
			covered = max(covered, sp.to)
			at = min(covered, upTo)
			continue
		default:
			b.WriteString(s[at:sp.from])
			b.WriteString(Stars)
			covered = sp.to
			at = min(covered, upTo)
			continue
		}
		break
	}
	b.WriteString(s[at:upTo])
	return b.String(), max(0, covered-upTo)
}
