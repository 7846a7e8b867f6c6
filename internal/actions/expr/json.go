package expr

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// maxJSONDepth bounds the nesting that fromJSON accepts.
const maxJSONDepth = 100

// ToJSON prints a value as indented JSON, keys in their order.
func ToJSON(v any) string {
	var b strings.Builder
	writeJSON(&b, plain(v), "")
	return b.String()
}

func writeJSON(b *strings.Builder, v any, indent string) {
	if b.Len() > maxResult {
		return
	}
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		b.WriteString(Text(v))
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			quote(b, Text(v))
			return
		}
		b.WriteString(Text(v))
	case string:
		quote(b, v)
	case Array:
		writeJSONList(b, '[', ']', len(v), indent, func(i int, inner string) { writeJSON(b, v[i], inner) })
	case *Object:
		writeJSONList(b, '{', '}', len(v.keys), indent, func(i int, inner string) {
			quote(b, v.keys[i])
			b.WriteString(": ")
			value, _ := v.Get(v.keys[i])
			writeJSON(b, value, inner)
		})
	}
}

func writeJSONList(b *strings.Builder, open, closing byte, n int, indent string, element func(int, string)) {
	b.WriteByte(open)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n" + indent + "  ")
		element(i, indent+"  ")
	}
	if n > 0 {
		b.WriteString("\n" + indent)
	}
	b.WriteByte(closing)
}

// quote writes a JSON string without escaping <, > and &.
func quote(b *strings.Builder, s string) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if enc.Encode(s) == nil { // a string always encodes
		b.Write(bytes.TrimSuffix(buf.Bytes(), []byte("\n")))
	}
}

// FromJSON reads one JSON value, keeping the order of keys.
func FromJSON(text string) (any, error) {
	if len(text) > maxResult {
		return nil, fmt.Errorf("more than %d bytes of JSON", maxResult)
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	v, err := readJSON(dec, 0)
	if errors.Is(err, io.EOF) {
		return nil, errors.New("empty or incomplete JSON")
	}
	if err != nil {
		return nil, fmt.Errorf("not valid JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not valid JSON: something follows the value")
	}
	return v, nil
}

func readJSON(dec *json.Decoder, depth int) (any, error) {
	if depth > maxJSONDepth {
		return nil, fmt.Errorf("nested deeper than %d levels", maxJSONDepth)
	}
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Number:
		return parseNumber(t.String()), nil
	case json.Delim:
		if t == '[' {
			list := Array{}
			for dec.More() {
				v, err := readJSON(dec, depth+1)
				if err != nil {
					return nil, err
				}
				list = append(list, v)
			}
			_, err := dec.Token()
			return list, err
		}
		o := NewObject()
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, err
			}
			v, err := readJSON(dec, depth+1)
			if err != nil {
				return nil, err
			}
			name, ok := key.(string)
			if !ok {
				return nil, fmt.Errorf("key %v is not a string", key)
			}
			o.Set(name, v)
		}
		_, err := dec.Token()
		return o, err
	}
	return t, nil // nil, bool, string
}

// FromAny turns what encoding/json and YAML make of a document into a value.
func FromAny(v any) any {
	data, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	out, err := FromJSON(string(data))
	if err != nil {
		return nil
	}
	return out
}
