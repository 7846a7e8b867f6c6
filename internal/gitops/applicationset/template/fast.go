package template

import (
	"errors"
	"strings"
)

const (
	opening = "{{"
	closing = "}}"
)

// fastText is a text with names to replace: literals[0] tags[0] literals[1] …
type fastText struct {
	literals []string
	tags     []string
}

// parseFast returns nil when no line of s has an opening and a closing mark.
func parseFast(s string) (text, error) {
	if !hasTag(s) {
		return nil, nil
	}
	var t fastText
	for {
		before, rest, ok := strings.Cut(s, opening)
		t.literals = append(t.literals, before)
		if !ok {
			return t, nil
		}
		tag, after, ok := strings.Cut(rest, closing)
		if !ok {
			return nil, errors.New(`there is a "{{" without "}}"`)
		}
		t.tags = append(t.tags, tag)
		s = after
	}
}

func hasTag(s string) bool {
	if !strings.Contains(s, opening) {
		return false
	}
	for line := range strings.SplitSeq(s, "\n") {
		if i := strings.Index(line, opening); i >= 0 && strings.Contains(line[i+len(opening):], closing) {
			return true
		}
	}
	return false
}

// fill replaces what is a string parameter, and leaves everything else.
func (t fastText) fill(params map[string]any) (string, error) {
	var b strings.Builder
	for i, tag := range t.tags {
		b.WriteString(t.literals[i])
		if v, ok := params[strings.TrimSpace(tag)].(string); ok {
			b.WriteString(v)
		} else {
			b.WriteString(opening + tag + closing)
		}
		if b.Len() > maxOutput {
			return "", errTooLong
		}
	}
	b.WriteString(t.literals[len(t.tags)])
	return b.String(), nil
}
