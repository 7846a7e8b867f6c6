// Package expr evaluates GitHub Actions expressions.
//
// Input: the text between ${{ and }}, or a whole string with such parts, and
// an [Env] with contexts and functions. Output: a value, or a string.
//
// Values are nil, bool, float64, string, [Array] and *[Object]; nothing else.
// Invariants: evaluation has no side effect, depends only on its Env, and ends:
// source length, nesting and result size are bounded. Errors are *[Error] with
// the offset in the source.
//
// Start reading at [Parse], then [Env.Eval].
package expr

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Array is an ordered list of values.
type Array []any

// filtered is the result of a wildcard: what follows applies to each element.
type filtered []any

// Object is a mapping with keys in insertion order, found without regard to case.
type Object struct {
	keys   []string
	values map[string]any // by folded key
}

// NewObject returns an empty object.
func NewObject() *Object { return &Object{values: map[string]any{}} }

// Strings makes an object of strings, keys sorted.
func Strings(m map[string]string) *Object {
	o := NewObject()
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		o.Set(k, m[k])
	}
	return o
}

// Set adds or replaces a key and returns the object.
func (o *Object) Set(key string, value any) *Object {
	folded := fold(key)
	if _, ok := o.values[folded]; !ok {
		o.keys = append(o.keys, key)
	}
	o.values[folded] = value
	return o
}

// Get finds a key.
func (o *Object) Get(key string) (any, bool) {
	v, ok := o.values[fold(key)]
	return v, ok
}

// Keys are in insertion order.
func (o *Object) Keys() []string { return slices.Clone(o.keys) }

// Len is the number of keys.
func (o *Object) Len() int { return len(o.keys) }

// fold maps a string so that equal folds mean equal without regard to case,
// rune by rune, independent of language.
func fold(s string) string {
	for i := range len(s) {
		if c := s[i]; c >= 'a' && c <= 'z' || c >= 0x80 {
			return strings.Map(upper, s)
		}
	}
	return s
}

// upper maps no letter outside of ASCII to one inside, as .NET's ordinal
// comparison: neither the dotless i nor the long s.
func upper(r rune) rune {
	if u := unicode.ToUpper(r); u >= 0x80 || r < 0x80 {
		return u
	}
	return r
}

// Truthy reports whether a value counts as true.
func Truthy(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case float64:
		return v != 0 && !math.IsNaN(v)
	case string:
		return v != ""
	}
	return true
}

// Text is the string form of a value as it appears in a ${{ }} replacement.
func Text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case bool:
		return strconv.FormatBool(v)
	case float64:
		return formatNumber(v)
	case string:
		return v
	case *Object:
		return "Object"
	}
	return "Array"
}

// formatNumber prints at most 15 significant digits, as .NET's "G15" does.
func formatNumber(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	case f == 0:
		return "0"
	}
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(f, 'e', 14, 64), "e")
	exp, _ := strconv.Atoi(exponent)
	if exp >= 15 || exp < -5 {
		mantissa = strings.TrimRight(strings.TrimRight(mantissa, "0"), ".")
		sign := "+"
		if exp < 0 {
			sign, exp = "-", -exp
		}
		digits := strconv.Itoa(exp)
		if len(digits) < 2 {
			digits = "0" + digits
		}
		return mantissa + "E" + sign + digits
	}
	s := strconv.FormatFloat(f, 'f', 14-exp, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// number converts a value as the comparison operators do.
func number(v any) float64 {
	switch v := v.(type) {
	case nil:
		return 0
	case bool:
		if v {
			return 1
		}
		return 0
	case float64:
		return v
	case string:
		return parseNumber(v)
	}
	return math.NaN()
}

// parseNumber reads a string as a number: decimal, 0x, 0o, Infinity; empty is
// 0 and anything else is NaN.
func parseNumber(s string) float64 {
	s = strings.TrimSpace(s)
	switch s {
	case "":
		return 0
	case "Infinity", "+Infinity":
		return math.Inf(1)
	case "-Infinity":
		return math.Inf(-1)
	}
	if base, ok := map[string]int{"0x": 16, "0o": 8}[s[:min(2, len(s))]]; ok {
		// 32 bits: the highest one is the sign.
		n, err := strconv.ParseUint(s[2:], base, 32)
		if err != nil {
			return math.NaN()
		}
		return float64(int32(uint32(n)))
	}
	if strings.Trim(s, "+-.0123456789eE") != "" {
		return math.NaN() // Go would take "inf", "0b1", "1_000", "0x1p-2"
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil && !math.IsInf(f, 0) {
		return math.NaN()
	}
	return f
}

// Equal is the == operator.
func Equal(a, b any) bool { return equal(a, b) }

// Index is what v[key] gives; nil where there is nothing.
func Index(v, key any) any { return lookUp(v, key) }

// equal is the == operator.
func equal(a, b any) bool {
	a, b = plain(a), plain(b)
	switch x := a.(type) {
	case nil:
		if b == nil {
			return true
		}
	case bool:
		if y, ok := b.(bool); ok {
			return x == y
		}
	case string:
		if y, ok := b.(string); ok {
			return fold(x) == fold(y)
		}
	case *Object:
		y, ok := b.(*Object)
		return ok && x == y
	case Array:
		y, ok := b.(Array)
		return ok && len(x) > 0 && len(x) == len(y) && &x[0] == &y[0]
	}
	x, y := number(a), number(b)
	return x == y // NaN equals nothing
}

// greater is the > operator.
func greater(a, b any) bool {
	a, b = plain(a), plain(b)
	if x, ok := a.(string); ok {
		if y, ok := b.(string); ok {
			return strings.Compare(fold(x), fold(y)) > 0
		}
	}
	if a == nil && b == nil {
		return false
	}
	return number(a) > number(b)
}

// plain turns the internal result of a wildcard into an ordinary array.
func plain(v any) any {
	if f, ok := v.(filtered); ok {
		return Array(f)
	}
	return v
}

func primitive(v any) bool {
	switch v.(type) {
	case nil, bool, float64, string:
		return true
	}
	return false
}
