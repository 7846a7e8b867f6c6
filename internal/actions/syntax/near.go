package syntax

import "strings"

// nearest is the word that the given one seems to mean, or "".
func nearest(word string, words []string) string {
	if len(word) > 64 {
		return ""
	}
	for _, w := range words {
		if near(word, w) {
			return w
		}
	}
	return ""
}

// near reports whether two words differ by at most one edit (a letter more,
// less, other, or two swapped), or two edits when both are long.
func near(a, b string) bool {
	allowed := 1
	if min(len(a), len(b)) > 6 {
		allowed = 2
	}
	a, b = strings.ToLower(a), strings.ToLower(b)
	before, previous := []int(nil), make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(row[j]+1, previous[j+1]+1, previous[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, previous = previous, row
	}
	return previous[len(b)] <= allowed
}
