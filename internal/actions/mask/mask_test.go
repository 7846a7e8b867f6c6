package mask

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func through(m *Masker, pieces ...string) string {
	var b strings.Builder
	w := &Writer{Masker: m, Out: func(line string) { b.WriteString(line + "\n") }}
	for _, p := range pieces {
		_, _ = w.Write([]byte(p))
	}
	w.Flush()
	return b.String()
}

func TestMask(t *testing.T) {
	m := &Masker{}
	m.Add("s3cr3t-value", "", "  ", "-----BEGIN KEY-----\nMIIabcdef\n}\n-----END KEY-----\n", "p@ss/word+1 x", "overlap-abc", "abc-next")
	b64 := base64.StdEncoding.EncodeToString
	for in, want := range map[string]string{
		"a s3cr3t-value b":          "a *** b",
		"s3cr3t-values3cr3t-value":  "******",
		"MIIabcdef":                 "***",
		"}":                         "}",
		"p%40ss%2Fword%2B1+x":       "***",
		"overlap-abc-next":          "***",
		b64([]byte("s3cr3t-value")): "***",
		"nothing here":              "nothing here",
		"Basic " + b64([]byte("user:s3cr3t-value"))[:8] + "…": "Basic " + b64([]byte("user:s3cr3t-value"))[:8] + "…",
	} {
		if got := m.Text(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	for shift := range 3 {
		line := b64([]byte(strings.Repeat("u", shift) + "s3cr3t-value" + "tail"))
		if got := m.Text(line); !strings.Contains(got, Stars) {
			t.Errorf("base64 at %d: %s", shift, got)
		}
	}
	if got := through(m, "x s3cr", "3t-val", "ue y\nz"); got != "x *** y\nz\n" {
		t.Errorf("cut in pieces: %q", got)
	}
	long := strings.Repeat("x", maxHeld-5) + "s3cr3t-value" + strings.Repeat("y", maxHeld)
	if got := through(m, long[:maxHeld+3], long[maxHeld+3:]); strings.Contains(got, "s3c") || strings.Contains(got, "value") {
		t.Error("a secret at the cut of a long line is seen")
	}
}

func TestLineAddsSecretBeforeItIsMasked(t *testing.T) {
	m := &Masker{}
	var out []string
	w := &Writer{Masker: m, Out: func(l string) { out = append(out, l) }, Raw: func(l string) bool {
		if v, ok := strings.CutPrefix(l, "::add-mask::"); ok {
			m.Add(v)
		}
		return true
	}}
	_, _ = w.Write([]byte("::add-mask::hunter2\r\nhunter2\n"))
	if strings.Join(out, "|") != "::add-mask::***|***" {
		t.Errorf("%q", out)
	}
}

// slowly masks by searching for every form at every place.
func slowly(m *Masker, s string) string {
	covered, glued := make([]bool, len(s)), make([]bool, len(s)+1)
	for form := range m.known {
		for i := range len(s) {
			if strings.HasPrefix(s[i:], form) {
				for k := range len(form) {
					covered[i+k] = true
					glued[i+k] = glued[i+k] || k > 0
				}
			}
		}
	}
	var b strings.Builder
	for i := range len(s) {
		switch {
		case !covered[i]:
			b.WriteByte(s[i])
		case !glued[i]:
			b.WriteString(Stars)
		}
	}
	return b.String()
}

func TestAutomatonFindsWhatAPlainSearchFinds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &Masker{}
		word := rapid.StringMatching("[ab]{1,6}")
		text := rapid.StringMatching("[abc]{0,80}").Draw(t, "text")
		for i := range rapid.IntRange(1, 6).Draw(t, "times") {
			m.Add(word.Draw(t, "secret"))
			if i%2 == 0 {
				m.Text(text) // between additions, so that there are layers
			}
		}
		if got, want := m.Text(text), slowly(m, text); got != want {
			t.Fatalf("%q: got %q, want %q", text, got, want)
		}
	})
}

// TestCutLine: a line that is longer than what is held is masked as if it
// were whole, wherever it is cut.
func TestCutLine(t *testing.T) {
	m := &Masker{}
	m.Add("abcde", "defgh", "ghijk", strings.Repeat("long", 30<<10))
	for offset := range 40 {
		line := strings.Repeat(".", maxHeld-30+offset) + "abcdefghijk" + strings.Repeat("-", 100) + "abcde" + strings.Repeat("long", 30<<10) + "end"
		var b strings.Builder
		w := &Writer{Masker: m, Out: func(piece string) { b.WriteString(piece) }}
		for piece := range slices.Chunk([]byte(line), 1000) {
			_, _ = w.Write(piece)
		}
		w.Flush()
		want := strings.Repeat(".", maxHeld-30+offset) + Stars + strings.Repeat("-", 100) + Stars + Stars + "end"
		if got := b.String(); got != want {
			t.Fatalf("offset %d: %d bytes, want %d: …%q", offset, len(got), len(want), got[max(0, len(got)-200):])
		}
	}
}

func TestForms(t *testing.T) {
	for _, v := range []string{`pa"ss<w>&'x'\y`, "  padded value  ", "línea única €", `"in quotes"`, "a+b/c=d e?f&g", strings.Repeat("0123456789abcdef", 20)} {
		m := &Masker{}
		m.Add(v)
		jsonText, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{
			"as is": v, "trimmed": strings.TrimSpace(v), "JSON": string(jsonText), "query": url.QueryEscape(v), "path": url.PathEscape(v),
			"lower": strings.ToLower(url.QueryEscape("")) + lowerPercent(url.QueryEscape(v)), "XML": strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(v),
			"base64": base64.StdEncoding.EncodeToString([]byte(v)), "base64 of it with a line end": base64.StdEncoding.EncodeToString([]byte(v + "\n")),
			"user": base64.StdEncoding.EncodeToString([]byte("user:" + v)), "URL base64": base64.RawURLEncoding.EncodeToString([]byte(v)),
		} {
			got := m.Text(text)
			if !strings.Contains(got, Stars) || len(strings.ReplaceAll(got, Stars, "")) > 12 {
				t.Errorf("%s of %q shows %q", name, v, got)
			}
		}
	}
	m := &Masker{}
	m.Add(strings.Repeat("0123456789abcdef", 20))
	encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("0123456789abcdef", 20)))
	for _, width := range []int{64, 76} {
		for line := range slices.Chunk([]byte(encoded), width) {
			if got := m.Text(string(line)); len(strings.ReplaceAll(got, Stars, "")) > 8 {
				t.Errorf("a line of base64 in lines of %d shows %q", width, got)
			}
		}
	}
}

// FuzzMask: however a stream is cut, no secret is in what comes out, and
// without secrets nothing changes.
func FuzzMask(f *testing.F) {
	f.Add("secret", "a secret b\nsecret", 3)
	f.Add("ab\ncdefgh", "cdefgh ab", 1)
	f.Add("***x", "****x", 2)
	f.Fuzz(func(t *testing.T, secret, text string, cut int) {
		if len(text) == 0 {
			return
		}
		cut = int(uint(cut) % uint(len(text)))
		m := &Masker{}
		m.Add(secret)
		got := through(m, text[:cut], text[cut:])
		for form := range m.known {
			for piece := range strings.SplitSeq(got, Stars) {
				if !strings.Contains(form, "*") && strings.Contains(piece, form) {
					t.Fatalf("%q is seen in %q", form, got)
				}
			}
		}
		if text := strings.Trim(text, "\r\n"); !strings.ContainsAny(text, "\r\n") {
			if slow := slowly(m, text); m.Text(text) != slow {
				t.Fatalf("%q: got %q, a plain search gives %q", text, m.Text(text), slow)
			}
		}
		plain := through(&Masker{}, text[:cut], text[cut:])
		if whole := through(&Masker{}, text); plain != whole {
			t.Fatalf("the cut shows: %q, %q", plain, whole)
		}
	})
}

func BenchmarkMask(b *testing.B) {
	line := "2026-11-24T04:22:27.0000000Z go: downloading github.com/acme/library v1.2.3 (token ab12cd34, took 3.2 s)"
	for _, n := range []int{1, 10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := &Masker{}
			for i := range n {
				m.Add(fmt.Sprintf("secret-%d-%x", i, i*i*7919))
			}
			b.SetBytes(int64(len(line)))
			for b.Loop() {
				m.Text(line)
			}
		})
	}
}

// BenchmarkAdd adds secrets one by one, with a line between.
func BenchmarkAdd(b *testing.B) {
	for b.Loop() {
		m := &Masker{}
		for i := range 1000 {
			m.Add(fmt.Sprintf("secret-%d-%x", i, i*i*7919))
			m.Text("a line")
		}
	}
}
