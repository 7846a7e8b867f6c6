package trigger

import (
	"fmt"
	"regexp"
	"strings"
)

// maxPattern bounds one filter pattern, in bytes.
const maxPattern = 1000

// MatchAny applies filter patterns in order: a later one overrides an earlier
// one, and one that starts with "!" takes back.
func MatchAny(patterns []string, name string) (bool, error) {
	f, err := compileAll(patterns)
	if err != nil {
		return false, err
	}
	return f.match(name), nil
}

// filter is a list of compiled patterns.
type filter []struct {
	*regexp.Regexp
	negated bool
}

func compileAll(patterns []string) (filter, error) {
	f := make(filter, len(patterns))
	for i, p := range patterns {
		rest, negated := strings.CutPrefix(p, "!")
		re, err := compile(rest)
		if err != nil {
			return nil, err
		}
		f[i].Regexp, f[i].negated = re, negated
	}
	return f, nil
}

func (f filter) match(name string) bool {
	matched := false
	for _, p := range f {
		if p.negated == matched && p.MatchString(name) {
			matched = !p.negated
		}
	}
	return matched
}

// compile turns a filter pattern into a regular expression. A star is any
// number of characters except "/", two stars are any number of any characters
// ("**/" also nothing), "?" makes the character before it optional, "+" repeats
// it, "[abc]" is one of these (ranges allowed) and a backslash takes the next
// character as it is.
func compile(pattern string) (*regexp.Regexp, error) {
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("filter pattern is longer than %d characters", maxPattern)
	}
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for i := 0; i < len(pattern); i++ {
		c := pattern[i]
		switch {
		case strings.HasPrefix(pattern[i:], "**/") && (i == 0 || pattern[i-1] == '/'):
			b.WriteString(`(?:.*/)?`)
			i += 2
		case strings.HasPrefix(pattern[i:], "**"):
			b.WriteString(`.*`)
			i++
		case c == '*':
			b.WriteString(`[^/]*`)
		case (c == '?' || c == '+') && i > 0 && pattern[i-1] != '*' && pattern[i-1] != '?' && pattern[i-1] != '+':
			b.WriteByte(c)
		case c == '[':
			end := strings.IndexByte(pattern[i:], ']')
			if end < 2 {
				return nil, fmt.Errorf("filter pattern %q: \"[\" has no closing \"]\"", pattern)
			}
			b.WriteString("[" + classEscape.Replace(pattern[i+1:i+end]) + "]")
			i += end
		case c == '\\' && i+1 < len(pattern):
			i++
			b.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		case c >= 0x80:
			b.WriteByte(c)
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	b.WriteString(`\z`)
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, fmt.Errorf("filter pattern %q is not valid: %w", pattern, err)
	}
	return re, nil
}

var classEscape = strings.NewReplacer(`\`, `\\`, "[", `\[`, "^", `\^`)
