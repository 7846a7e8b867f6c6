package mask

import (
	"encoding/base64"
	"strings"
	"testing"
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
		for _, form := range m.forms {
			for piece := range strings.SplitSeq(got, Stars) {
				if !strings.Contains(form, "*") && strings.Contains(piece, form) {
					t.Fatalf("%q is seen in %q", form, got)
				}
			}
		}
		plain := through(&Masker{}, text[:cut], text[cut:])
		if whole := through(&Masker{}, text); plain != whole {
			t.Fatalf("the cut shows: %q, %q", plain, whole)
		}
	})
}
