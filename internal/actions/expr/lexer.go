package expr

import (
	"fmt"
	"math"
	"strings"
)

type kind int

const (
	end kind = iota
	numberToken
	stringToken
	name     // context, function or property
	operator // Text says which
)

type token struct {
	kind   kind
	text   string // operator or name; the unquoted value of a string
	number float64
	offset int
}

// Error is a fault in an expression.
type Error struct {
	Offset int // in bytes, from the start of the source given to the function
	Msg    string
}

func (e *Error) Error() string { return e.Msg }

func errorAt(offset int, format string, args ...any) *Error {
	return &Error{Offset: offset, Msg: fmt.Sprintf(format, args...)}
}

var operators = []string{"&&", "||", "==", "!=", "<=", ">=", "(", ")", "[", "]", ".", ",", "!", "<", ">", "*"}

// lex splits the source into tokens; the last one is end.
func lex(src string) ([]token, *Error) {
	var tokens []token
	for i := 0; ; {
		for i < len(src) && strings.IndexByte(" \t\r\n", src[i]) >= 0 {
			i++
		}
		if i == len(src) {
			return append(tokens, token{kind: end, offset: i}), nil
		}
		t, n, err := lexOne(src, i, tokens)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, t)
		i += n
	}
}

func lexOne(src string, i int, before []token) (token, int, *Error) {
	c := src[i]
	switch {
	case c == '\'':
		return lexString(src, i)
	case c == '"':
		return token{}, 0, errorAt(i, "strings are written in single quotes, not double quotes")
	case nameStart(c):
		n := 1
		for i+n < len(src) && namePart(src[i+n]) {
			n++
		}
		return token{kind: name, text: src[i : i+n], offset: i}, n, nil
	case startsNumber(src, i, before):
		return lexNumber(src, i)
	}
	for _, op := range operators {
		if strings.HasPrefix(src[i:], op) {
			return token{kind: operator, text: op, offset: i}, len(op), nil
		}
	}
	hint := ""
	switch c {
	case '=', '&', '|':
		hint = fmt.Sprintf("; did you mean %q?", strings.Repeat(string(c), 2))
	case '+', '-', '/', '%':
		hint = "; expressions have no arithmetic"
	}
	return token{}, 0, errorAt(i, "unexpected character %q%s", []rune(src[i:])[0], hint)
}

func lexString(src string, i int) (token, int, *Error) {
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
		return token{kind: stringToken, text: b.String(), offset: i}, n + 1, nil
	}
	return token{}, 0, errorAt(i, "the string that starts here has no closing quote")
}

// startsNumber tells a number from the dot of a property.
func startsNumber(src string, i int, before []token) bool {
	c := src[i]
	if c >= '0' && c <= '9' || c == '-' || c == '+' {
		return true
	}
	if c != '.' || i+1 >= len(src) || src[i+1] < '0' || src[i+1] > '9' {
		return false
	}
	if len(before) == 0 {
		return true
	}
	last := before[len(before)-1]
	return last.kind == operator && last.text != ")" && last.text != "]" && last.text != "*"
}

func lexNumber(src string, i int) (token, int, *Error) {
	n := 1
	for i+n < len(src) && (namePart(src[i+n]) || src[i+n] == '.' || src[i+n] == '+') {
		n++
	}
	text := src[i : i+n]
	f := parseNumber(text)
	if math.IsNaN(f) {
		return token{}, 0, errorAt(i, "%q is not a number", text)
	}
	return token{kind: numberToken, text: text, number: f, offset: i}, n, nil
}

func nameStart(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func namePart(c byte) bool { return nameStart(c) || c == '-' || c >= '0' && c <= '9' }
