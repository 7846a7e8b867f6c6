package expr

import (
	"fmt"
	"math"
	"strings"
	"unicode"
)

type kind int

const (
	end kind = iota
	numberToken
	stringToken
	name     // context, function or property
	constant // true, false, null, NaN, Infinity
	operator // text says which
)

type token struct {
	kind   kind
	text   string // operator or name; the unquoted value of a string
	raw    string // as written
	number float64
	offset int
}

// Error is a fault in an expression.
type Error struct {
	Offset int    // in bytes, from the start of the source given to the function
	Msg    string // in the words of GitHub's runner where it has words for it
	Hint   string // what to try, or ""
}

// Error has the hint in parentheses.
func (e *Error) Error() string {
	if e.Hint != "" {
		return e.Msg + " (" + e.Hint + ")"
	}
	return e.Msg
}

func errorAt(offset int, format string, args ...any) *Error {
	return &Error{Offset: offset, Msg: fmt.Sprintf(format, args...)}
}

// maxQuoted bounds how much of an expression an error repeats, in bytes.
const maxQuoted = 200

// located words a fault at a token as GitHub's runner does.
func located(what, raw, src string, offset int, hint string) *Error {
	lead := len(src) - len(strings.TrimLeft(src, " \t\r\n"))
	return &Error{Offset: offset, Hint: hint, Msg: fmt.Sprintf("%s: '%s'. Located at position %d within expression: %s",
		what, shorten(raw), max(offset-lead, 0)+1, shorten(strings.TrimSpace(src)))}
}

func shorten(s string) string {
	if len(s) <= maxQuoted {
		return s
	}
	return strings.ToValidUTF8(s[:maxQuoted], "") + "…"
}

var operators = []string{"&&", "||", "==", "!=", "<=", ">=", "(", ")", "[", "]", ".", ",", "!", "<", ">", "*"}

// lex splits the source into tokens; the last one is end.
func lex(src string) ([]token, *Error) {
	var tokens []token
	for i := 0; ; {
		for i < len(src) && isSpace(src[i:]) > 0 {
			i += isSpace(src[i:])
		}
		if i == len(src) {
			return append(tokens, token{kind: end, offset: i}), nil
		}
		t, err := lexOne(src, i, tokens)
		if err != nil {
			return nil, err
		}
		t.raw = src[i : i+len(t.raw)]
		tokens = append(tokens, t)
		i += len(t.raw)
	}
}

// isSpace is the length of the white space that s starts with, or 0.
func isSpace(s string) int {
	for i, r := range s {
		if i > 0 {
			return i
		}
		if !unicode.IsSpace(r) {
			return 0
		}
	}
	return len(s)
}

// lexOne reads the token at i.
func lexOne(src string, i int, before []token) (token, *Error) {
	c := src[i]
	switch {
	case c == '\'':
		return lexString(src, i)
	case c >= '0' && c <= '9', c == '-', c == '+', c == '.' && !follows(before):
		return lexNumber(src, i)
	}
	for _, op := range operators {
		if strings.HasPrefix(src[i:], op) {
			return token{kind: operator, text: op, raw: op, offset: i}, nil
		}
	}
	return lexName(src, i, before)
}

// follows reports whether a dot after these tokens takes a property.
func follows(before []token) bool {
	if len(before) == 0 {
		return false
	}
	switch last := before[len(before)-1]; last.kind {
	case name:
		return true
	case operator:
		return last.text == ")" || last.text == "]" || last.text == "*"
	}
	return false
}

func lexName(src string, i int, before []token) (token, *Error) {
	n := 1
	for i+n < len(src) && !boundary(src[i+n:]) {
		n++
	}
	raw := src[i : i+n]
	if !legalName(raw) {
		return token{}, located("Unexpected symbol", raw, src, i, symbolHint(raw))
	}
	t := token{kind: name, text: raw, raw: raw, offset: i}
	property := len(before) > 0 && before[len(before)-1].kind == operator && before[len(before)-1].text == "."
	if !property {
		switch raw {
		case "true", "false", "null", "NaN", "Infinity":
			t.kind = constant
		}
	}
	return t, nil
}

// symbolHint explains the common slips.
func symbolHint(raw string) string {
	switch raw[0] {
	case '"':
		return "strings are written in single quotes, not double quotes"
	case '=', '&', '|':
		return fmt.Sprintf("did you mean %q?", strings.Repeat(raw[:1], 2))
	case '+', '-', '/', '%':
		return "expressions have no arithmetic"
	}
	return ""
}

func lexString(src string, i int) (token, *Error) {
	var b strings.Builder
	for n := 1; i+n < len(src); n++ {
		c := src[i+n]
		if c != '\'' {
			b.WriteByte(c)
			continue
		}
		if i+n+1 < len(src) && src[i+n+1] == '\'' {
			b.WriteByte('\'')
			n++
			continue
		}
		return token{kind: stringToken, text: b.String(), raw: src[i : i+n+1], offset: i}, nil
	}
	return token{}, located("Unexpected symbol", src[i:], src, i, "the string that starts here has no closing quote")
}

func lexNumber(src string, i int) (token, *Error) {
	n := 1
	for i+n < len(src) && (src[i+n] == '.' || !boundary(src[i+n:])) {
		n++
	}
	raw := src[i : i+n]
	f := parseNumber(raw)
	if math.IsNaN(f) {
		return token{}, located("Unexpected symbol", raw, src, i, symbolHint(raw))
	}
	return token{kind: numberToken, text: raw, raw: raw, number: f, offset: i}, nil
}

// boundary reports whether a name or number ends before s.
func boundary(s string) bool {
	return strings.IndexByte("([)],.!><=&|", s[0]) >= 0 || isSpace(s) > 0
}

func legalName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return true
}
