package command

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/dlclark/regexp2"
)

// expression is a compiled pattern of a problem matcher.
type expression interface {
	groups() int // without the whole match
	// match returns the groups, the whole match first, or nil.
	match(line string) ([]string, error)
}

const (
	maxExpression = 8 << 10 // bytes
	// slowMatch bounds one try of an expression that can go astray.
	slowMatch = 250 * time.Millisecond
)

// compile reads an expression of JavaScript's syntax. Most are run by Go's
// regexp, whose cost is linear; those with what it lacks (lookaround, back
// references) by a backtracking engine with a time limit.
func compile(source string) (expression, error) {
	if len(source) > maxExpression {
		return nil, fmt.Errorf("the expression has %d bytes, at most %d are possible", len(source), maxExpression)
	}
	if e, err := regexp.Compile(translate(source)); err == nil {
		return linear{e}, nil
	}
	e, err := regexp2.Compile(source, regexp2.ECMAScript)
	if err != nil {
		return nil, fmt.Errorf("the expression %.200q is not valid: %w", source, err)
	}
	e.MatchTimeout = slowMatch
	return backtracking{e}, nil
}

type linear struct{ e *regexp.Regexp }

func (l linear) groups() int { return l.e.NumSubexp() }

func (l linear) match(line string) ([]string, error) { return l.e.FindStringSubmatch(line), nil }

type backtracking struct{ e *regexp2.Regexp }

func (b backtracking) groups() int { return len(b.e.GetGroupNumbers()) - 1 }

func (b backtracking) match(line string) ([]string, error) {
	m, err := b.e.FindStringMatch(line)
	if err != nil || m == nil {
		return nil, err
	}
	var groups []string
	for _, g := range m.Groups() {
		groups = append(groups, g.String())
	}
	return groups, nil
}

// translate turns JavaScript's spelling into Go's where they differ: \uXXXX,
// \cX, \0, [^] and [], a hyphen beside a class.
func translate(source string) string {
	var b strings.Builder
	class, classStart := false, 0
	for i := 0; i < len(source); i++ {
		c := source[i]
		switch {
		case c == '\\' && i+1 < len(source):
			i += escape(&b, source[i:]) - 1
			if class && strings.ContainsRune("wdsWDS", rune(source[i])) && i+2 < len(source) && source[i+1] == '-' && source[i+2] != ']' {
				b.WriteString(`\-`) // [\w-.] is three things
				i++
			}
		case !class && strings.HasPrefix(source[i:], "[^]"):
			b.WriteString(`(?s:.)`)
			i += 2
		case !class && strings.HasPrefix(source[i:], "[]"):
			b.WriteString(`[^\x00-\x{10FFFF}]`)
			i++
		case !class && c == '[':
			class, classStart = true, i
			b.WriteByte(c)
		case class && c == '[':
			b.WriteString(`\[`)
		case class && c == ']' && i > classStart:
			class = false
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// escape writes one escape and returns its length in the source.
func escape(b *strings.Builder, s string) int {
	switch c := s[1]; {
	case c == 'u' && len(s) >= 6 && hex(s[2:6]):
		b.WriteString(`\x{` + s[2:6] + `}`)
		return 6
	case c == 'c' && len(s) >= 3 && (s[2]|0x20) >= 'a' && (s[2]|0x20) <= 'z':
		fmt.Fprintf(b, `\x%02x`, s[2]&0x1f)
		return 3
	case c == '0' && (len(s) == 2 || s[2] < '0' || s[2] > '9'):
		b.WriteString(`\x00`)
		return 2
	}
	b.WriteString(s[:2])
	return 2
}

func hex(s string) bool {
	return strings.Trim(s, "0123456789abcdefABCDEF") == ""
}
