package settings

import (
	"fmt"
	"strings"
)

// Pattern names kinds by globs over the group and the kind. "*" stands for any
// text and "?" for one character; braces list alternatives. The core group is
// the empty text.
type Pattern struct{ Group, Kind string }

func (p Pattern) String() string {
	if p.Group == "" {
		return p.Kind
	}
	return p.Group + "/" + p.Kind
}

// Exact reports whether p names one kind only.
func (p Pattern) Exact() bool { return !strings.ContainsAny(p.Group+p.Kind, "*?{") }

// Matches reports whether the kind is one that p names.
func (p Pattern) Matches(group, kind string) bool {
	return Glob(p.Kind, kind) && Glob(p.Group, group)
}

// ParsePattern reads "group/Kind", "Kind" for the core group, "*" or "all" for
// every kind.
func ParsePattern(text string) (Pattern, error) {
	switch text {
	case "*", "all", "*/*":
		return Pattern{"*", "*"}, nil
	case "":
		return Pattern{}, fmt.Errorf("an empty name of a kind; write group/Kind")
	}
	group, kind, ok := strings.Cut(text, "/")
	if !ok {
		group, kind = "", text
	}
	if kind == "" || strings.Contains(kind, "/") {
		return Pattern{}, fmt.Errorf("%q does not name a kind; write group/Kind", text)
	}
	if strings.ContainsAny(text, "[]!") {
		return Pattern{}, fmt.Errorf("%q: character classes are not read in patterns; use * ? and {a,b}", text)
	}
	return Pattern{group, kind}, nil
}

// parseKeyPattern reads the end of a key of a ConfigMap, group_Kind. A key
// cannot hold "*", so "_" alone, or before a dot, stands for it.
func parseKeyPattern(text string) (Pattern, error) {
	if text == "all" {
		return Pattern{"*", "*"}, nil
	}
	at := strings.LastIndexByte(text, '_')
	group, kind := "", text
	if strings.HasSuffix(text, "__") {
		group, kind = text[:len(text)-2], "*"
	} else if at >= 0 {
		group, kind = text[:at], text[at+1:]
	}
	switch {
	case group == "_":
		group = "*"
	case strings.HasPrefix(group, "_."):
		group = "*" + group[1:]
	}
	if kind == "" || strings.ContainsAny(group, "_") {
		return Pattern{}, fmt.Errorf("%q is not group_Kind, nor Kind alone for the core group", text)
	}
	if group == "" {
		return ParsePattern(kind)
	}
	return ParsePattern(group + "/" + kind)
}

// Glob reports whether the whole of s matches a pattern of *, ? and {a,b}.
// Unlike in a path, * also stands for a slash.
func Glob(pattern, s string) bool {
	if !strings.ContainsAny(pattern, "*?{") {
		return pattern == s
	}
	open := strings.IndexByte(pattern, '{')
	if end := strings.IndexByte(pattern, '}'); open >= 0 && end > open {
		for alternative := range strings.SplitSeq(pattern[open+1:end], ",") {
			if Glob(pattern[:open]+alternative+pattern[end+1:], s) {
				return true
			}
		}
		return false
	}
	return wildcard(pattern, s)
}

// wildcard matches in time that grows with len(pattern) * len(s) at worst: it
// comes back to the last star only.
func wildcard(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
