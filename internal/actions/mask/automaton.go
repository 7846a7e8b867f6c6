package mask

import (
	"slices"
)

// automaton finds all of a set of strings in one pass (Aho and Corasick). The
// first two levels, where a search is nearly always, are tables.
type automaton struct {
	forms []string
	bytes int

	root  [256]int32
	first map[int32]*[256]int32 // by node of depth 1
	edges [][]edge              // children, by node
	fail  []int32
	depth []int32
	found []int32 // length of the longest form that ends at the node, or 0
}

type edge struct {
	b    byte
	next int32
}

func newAutomaton(forms []string) *automaton {
	a := &automaton{forms: forms, bytes: total(forms), first: map[int32]*[256]int32{}}
	a.node(0)
	for _, f := range forms {
		at := int32(0)
		for i := range len(f) {
			next, ok := a.child(at, f[i])
			if !ok {
				next = a.node(a.depth[at] + 1)
				a.edges[at] = append(a.edges[at], edge{f[i], next})
			}
			at = next
		}
		a.found[at] = int32(len(f))
	}
	a.link()
	return a
}

func (a *automaton) node(depth int32) int32 {
	a.edges, a.fail = append(a.edges, nil), append(a.fail, 0)
	a.depth, a.found = append(a.depth, depth), append(a.found, 0)
	return int32(len(a.edges) - 1)
}

// child looks an edge up; most nodes have one.
func (a *automaton) child(n int32, b byte) (int32, bool) {
	for _, e := range a.edges[n] {
		if e.b == b {
			return e.next, true
		}
	}
	return 0, false
}

// link sets where a search goes on when no edge fits, level by level.
func (a *automaton) link() {
	queue := []int32{0}
	for i := 0; i < len(queue); i++ {
		n := queue[i]
		for _, e := range a.edges[n] {
			queue = append(queue, e.next)
			if n == 0 {
				continue
			}
			f := a.fail[n]
			for {
				if next, ok := a.child(f, e.b); ok {
					a.fail[e.next] = next
					break
				}
				if f == 0 {
					break
				}
				f = a.fail[f]
			}
		}
		a.found[n] = max(a.found[n], a.found[a.fail[n]])
	}
	for _, e := range a.edges[0] {
		a.root[e.b] = e.next
	}
	for _, e := range a.edges[0] {
		table := a.root // where the root would go
		for _, second := range a.edges[e.next] {
			table[second.b] = second.next
		}
		a.first[e.next] = &table
	}
}

// step is the node after one more byte.
func (a *automaton) step(n int32, b byte) int32 {
	for {
		switch a.depth[n] {
		case 0:
			return a.root[b]
		case 1:
			return a.first[n][b]
		}
		if next, ok := a.child(n, b); ok {
			return next
		}
		n = a.fail[n]
	}
}

// search lists where forms stand in s, overlapping ones as one, and how many
// bytes at the end of s are the beginning of a form.
func (a *automaton) search(s string) (spans []span, open int) {
	var n int32
	for i := range len(s) {
		if n == 0 {
			n = a.root[s[i]]
		} else {
			n = a.step(n, s[i])
		}
		length := int(a.found[n])
		if length == 0 {
			continue
		}
		sp := span{i + 1 - length, i + 1}
		for k := len(spans); k > 0 && spans[k-1].to > sp.from; k-- {
			sp.from = min(sp.from, spans[k-1].from)
			spans = slices.Delete(spans, k-1, k)
		}
		spans = append(spans, sp)
	}
	return spans, int(a.depth[n])
}
