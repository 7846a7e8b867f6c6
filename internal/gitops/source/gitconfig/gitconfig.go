// Package gitconfig reads files in the format of git's configuration:
// .gitmodules and .lfsconfig.
//
// Input: the content of a file. Output: its settings in order.
//
// Invariants: pure; includes are not followed; the number of settings is
// bounded.
//
// Start reading at [Parse].
package gitconfig

import (
	"errors"
	"fmt"
	"strings"
)

// Setting is one line: section.subsection.key = value. Section and key are in
// lower case, the subsection is as it was written.
type Setting struct {
	Section, Subsection, Key, Value string
}

const maxSettings = 10_000

// Parse reads the settings. Errors name the line.
func Parse(data []byte) ([]Setting, error) {
	var out []Setting
	section, sub := "", ""
	lines := strings.Split(strings.TrimPrefix(string(data), "\ufeff"), "\n")
	for i := 0; i < len(lines); i++ {
		at := i + 1
		line := strings.TrimSpace(lines[i])
		if strings.HasPrefix(line, "[") {
			var rest string
			var err error
			if section, sub, rest, err = header(line); err != nil {
				return nil, fmt.Errorf("line %d: %w", at, err)
			}
			line = strings.TrimSpace(rest)
		}
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		for continued(line) && i+1 < len(lines) {
			i++
			line = line[:len(line)-1] + strings.TrimRight(lines[i], "\r")
		}
		key, value, found := strings.Cut(line, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		if section == "" || key == "" || strings.ContainsAny(key, " \t\"[]") {
			return nil, fmt.Errorf("line %d: expected [section] or key = value", at)
		}
		text := "true"
		if found {
			var err error
			if text, err = unquote(value); err != nil {
				return nil, fmt.Errorf("line %d: %w", at, err)
			}
		}
		if len(out) >= maxSettings {
			return nil, fmt.Errorf("more than %d settings", maxSettings)
		}
		out = append(out, Setting{section, sub, key, text})
	}
	return out, nil
}

// continued reports whether a line ends with a backslash that is not escaped.
func continued(line string) bool {
	n := len(line) - len(strings.TrimRight(line, `\`))
	return n%2 == 1
}

// header reads `[section "sub"]` and returns what follows it.
func header(line string) (section, sub, rest string, err error) {
	bad := errors.New("the section is not closed by ]")
	i := strings.IndexAny(line, " \t\"]")
	if i < 0 {
		return "", "", "", bad
	}
	section = strings.ToLower(line[1:i])
	tail := strings.TrimLeft(line[i:], " \t")
	if strings.HasPrefix(tail, `"`) {
		var b strings.Builder
		j := 1
		for ; j < len(tail) && tail[j] != '"'; j++ {
			if tail[j] == '\\' && j+1 < len(tail) {
				j++
			}
			b.WriteByte(tail[j])
		}
		if j >= len(tail) {
			return "", "", "", bad
		}
		sub, tail = b.String(), strings.TrimLeft(tail[j+1:], " \t")
	} else if name, dotted, ok := strings.Cut(section, "."); ok {
		section, sub = name, dotted
	}
	if !strings.HasPrefix(tail, "]") || section == "" {
		return "", "", "", bad
	}
	return section, sub, tail[1:], nil
}

// unquote reads a value: quotes, escapes, and comments after it.
func unquote(s string) (string, error) {
	s = strings.TrimSpace(s)
	var b strings.Builder
	quoted := false
	spaces := 0 // at the end, outside quotes: they do not count
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '"':
			quoted = !quoted
			spaces = 0
			continue
		case !quoted && (c == '#' || c == ';'):
			i = len(s)
			continue
		case c == '\\':
			i++
			if i >= len(s) {
				return "", errors.New("a value ends with a backslash")
			}
			escapes := map[byte]byte{'n': '\n', 't': '\t', 'b': '\b', '"': '"', '\\': '\\'}
			e, ok := escapes[s[i]]
			if !ok {
				return "", fmt.Errorf("unknown escape \\%c", s[i])
			}
			b.WriteByte(e)
			spaces = 0
			continue
		}
		b.WriteByte(c)
		if spaces++; quoted || c != ' ' && c != '\t' {
			spaces = 0
		}
	}
	if quoted {
		return "", errors.New("a quote is not closed")
	}
	return b.String()[:b.Len()-spaces], nil
}
