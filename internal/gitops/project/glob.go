package project

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

// maxPattern bounds a pattern, in bytes.
const maxPattern = 1024

// matcher matches a whole value. A nil expression matches only text.
type matcher struct {
	text string
	re   *regexp.Regexp
}

func (m matcher) match(value string) bool {
	if m.re == nil {
		return m.text == value
	}
	return m.re.MatchString(value)
}

// rule is a pattern that may deny: "!pattern".
type rule struct {
	matcher
	deny bool
}

// permits: a value passes a pattern that it matches, and one with "!" that it
// does not match.
func (r rule) permits(value string) bool { return r.match(value) != r.deny }

// glob compiles a pattern with *, **, ?, [a-z], [!a] and {a,b}. Where
// separator is not 0, * and ? do not cross it and ** does.
func glob(pattern string, separator byte) (matcher, error) {
	if len(pattern) > maxPattern {
		return matcher{}, fmt.Errorf("pattern of %d bytes; at most %d are taken", len(pattern), maxPattern)
	}
	if !strings.ContainsAny(pattern, `*?[]{}\`) {
		return matcher{text: pattern}, nil
	}
	if pattern == "*" {
		separator = 0 // "*" alone is everything, in each field
	}
	one := "."
	if separator != 0 {
		one = "[^" + regexp.QuoteMeta(string(separator)) + "]"
	}
	var b strings.Builder
	depth := 0
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case strings.HasPrefix(pattern[i:], "**"):
			b.WriteString(".*")
			i++
		case c == '*':
			b.WriteString(one + "*")
		case c == '?':
			b.WriteString(one)
		case c == '{':
			depth++
			b.WriteString("(?:")
		case c == '}' && depth > 0:
			depth--
			b.WriteString(")")
		case c == ',' && depth > 0:
			b.WriteString("|")
		case c == '[':
			end := strings.IndexByte(pattern[i:], ']')
			if end < 2 {
				return matcher{}, fmt.Errorf("pattern %q: [ is not closed, or empty", pattern)
			}
			b.WriteString(class(pattern[i+1 : i+end]))
			i += end
		case c == '\\' && i+1 < len(pattern):
			i++
			b.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		default:
			b.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		}
	}
	if depth != 0 {
		return matcher{}, fmt.Errorf("pattern %q: { is not closed", pattern)
	}
	re, err := regexp.Compile("^(?s:" + b.String() + ")$")
	if err != nil {
		return matcher{}, fmt.Errorf("pattern %q is malformed", pattern)
	}
	return matcher{re: re}, nil
}

// class is [a-z] or [!a-z] as a regular expression.
func class(in string) string {
	not := ""
	if rest, ok := strings.CutPrefix(in, "!"); ok {
		not, in = "^", rest
	}
	return "[" + not + strings.NewReplacer(`\`, `\\`, "[", `\[`, "^", `\^`).Replace(in) + "]"
}

func (c *compiler) glob(field, pattern string, separator byte) matcher {
	m, err := glob(pattern, separator)
	if err != nil {
		c.bad(field, "%w", err)
	}
	return m
}

func (c *compiler) globs(field string, patterns []string) []matcher {
	out := make([]matcher, len(patterns))
	for i, s := range patterns {
		out[i] = c.glob(fmt.Sprintf("%s[%d]", field, i), s, 0)
	}
	return out
}

func (c *compiler) rule(field, pattern string) rule {
	text, deny := strings.CutPrefix(pattern, "!")
	if text == "*" && deny {
		c.bad(field, `"!*" denies everything`)
	}
	return rule{c.glob(field, text, 0), deny}
}

func (c *compiler) repo(field, pattern string) rule {
	text, deny := strings.CutPrefix(pattern, "!")
	if text == "*" && deny {
		c.bad(field, `"!*" denies everything`)
	}
	return rule{c.glob(field, normalURL(text), '/'), deny}
}

// expression is a glob, or a regular expression between slashes.
func (c *compiler) expression(field, pattern string) matcher {
	if len(pattern) < 2 || pattern[0] != '/' || pattern[len(pattern)-1] != '/' {
		return c.glob(field, pattern, 0)
	}
	re, err := regexp.Compile(pattern[1 : len(pattern)-1])
	if err != nil || len(pattern) > maxPattern {
		c.bad(field, "%q is not a regular expression of RE2", pattern)
		return matcher{}
	}
	return matcher{re: re}
}

// patterns checks the patterns of a list of kinds.
func (c *compiler) patterns(field string, list []v1alpha1.ResourcePattern) {
	for i, item := range list {
		for name, pattern := range map[string]string{"group": item.Group, "kind": item.Kind, "name": item.Name} {
			if _, err := path.Match(pattern, ""); err != nil {
				c.bad(fmt.Sprintf("%s[%d].%s", field, i, name), "pattern %q is malformed", pattern)
			}
		}
	}
}

// normalURL brings the forms of one repository's address together: case, a
// trailing .git, git@host:path and ssh://git@host/path.
func normalURL(url string) string {
	url = strings.ToLower(strings.TrimSpace(url))
	if rest, ok := strings.CutPrefix(url, "ssh://"); ok {
		url = rest
	} else if at := strings.IndexByte(url, '@'); at > 0 && !strings.Contains(url, "://") {
		if colon := strings.IndexByte(url[at:], ':'); colon > 0 {
			url = url[:at+colon] + "/" + strings.TrimPrefix(url[at+colon+1:], "/")
		}
	}
	return strings.TrimSuffix(url, ".git")
}
