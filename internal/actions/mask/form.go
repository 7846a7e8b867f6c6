package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"net/url"
	"slices"
	"strings"
)

// minLine is the shortest line of a many-line secret that is masked by itself:
// a lone brace would mask every brace. It is also the shortest encoded form.
const minLine = 4

// forms lists how a value may show up within one line.
func forms(v string) []string {
	v = strings.TrimRight(v, "\r\n")
	if strings.TrimSpace(v) == "" {
		return nil
	}
	var out []string
	if strings.ContainsAny(v, "\r\n") {
		for line := range strings.FieldsFuncSeq(v, func(r rune) bool { return r == '\n' || r == '\r' }) {
			if line = strings.TrimSpace(line); len(line) >= minLine {
				out = append(out, line)
				out = append(out, quoted(line)...)
			}
		}
	} else {
		out = append(out, v, strings.TrimSpace(v))
		if inner := strings.Trim(v, `"`); len(inner) >= minLine {
			out = append(out, inner)
		}
	}
	if len(v) >= minLine {
		out = append(out, base64Forms(v)...)
		out = append(out, percentForms(v)...)
		out = append(out, quoted(v)...)
		if trimmed := strings.TrimSpace(v); trimmed != v {
			out = append(out, base64Forms(trimmed)...)
		}
	}
	return slices.DeleteFunc(out, func(s string) bool { return s == "" || strings.ContainsAny(s, "\r\n") })
}

// base64Forms are the characters that do not depend on what stands around the
// value, for each of the three ways it can fall into groups of three bytes, and
// the lines into which tools break the encoded value.
func base64Forms(v string) []string {
	var out []string
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
		whole := enc.EncodeToString([]byte(v))
		out = append(out, whole, strings.TrimRight(whole, "="))
		for shift := range 3 {
			s := enc.WithPadding(base64.NoPadding).EncodeToString([]byte(strings.Repeat("\x00", shift) + v))
			// The first characters mix with what stands before, the last
			// with what follows.
			from, to := []int{0, 2, 3}[shift], (len(v)+shift)/3*4
			if to-from >= minLine {
				out = append(out, s[from:to])
			}
		}
		steady := whole[:len(v)/3*4]
		for _, width := range []int{64, 76} { // PEM and openssl, base64(1) and MIME
			if len(whole) <= width {
				continue
			}
			for line := range slices.Chunk([]byte(steady), width) {
				if len(line) >= 2*minLine {
					out = append(out, string(line))
				}
			}
		}
	}
	return out
}

// percentForms are the ways of URLs: queries, paths, encodeURIComponent, each
// with digits in upper and lower case.
func percentForms(v string) []string {
	component := strings.NewReplacer("+", "%20", "%21", "!", "%27", "'", "%28", "(", "%29", ")", "%2A", "*").Replace(url.QueryEscape(v))
	var out []string
	for _, form := range []string{url.QueryEscape(v), url.PathEscape(v), component, strings.ReplaceAll(url.QueryEscape(v), "+", "%20")} {
		out = append(out, form, lowerPercent(form))
	}
	return out
}

func lowerPercent(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:], bytes.ToLower(b[i+1:i+3]))
		}
	}
	return string(b)
}

// quoted are the forms within strings of JSON, XML, expressions and shells.
func quoted(v string) []string {
	var out []string
	if text, err := json.Marshal(v); err == nil {
		out = append(out, string(text[1:len(text)-1]))
	}
	var plain bytes.Buffer
	e := json.NewEncoder(&plain)
	e.SetEscapeHTML(false) // as all but Go write it
	if err := e.Encode(v); err == nil {
		out = append(out, strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(plain.String()), `"`), `"`))
	}
	var x strings.Builder
	if err := xml.EscapeText(&x, []byte(v)); err == nil {
		out = append(out, x.String())
	}
	return append(out,
		strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(v),
		strings.ReplaceAll(v, "'", "''"),
		strings.ReplaceAll(v, "'", `'\''`),
		strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v))
}
