package secretscan

import (
	"reflect"
	"strings"
	"testing"
)

// The parts are put together so that this file holds no secret itself.
func TestScan(t *testing.T) {
	random := "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC3dE5"
	for name, c := range map[string]struct {
		text string
		want []Finding
	}{
		"none":         {"apiVersion: v1\nkind: Secret\n", nil},
		"token":        {"a: 1\ntoken: gh" + "p_" + random[:36] + "\n", []Finding{{"GitHub token", 2}}},
		"two":          {"npm" + "_" + random[:36] + "\n\nAI" + "za" + random[:35] + "\n", []Finding{{"npm token", 1}, {"Google API key", 3}}},
		"placeholder":  {"token: gh" + "p_" + strings.Repeat("x", 36), nil},
		"too long":     {"gh" + "p_" + random + "zzzz", nil},
		"aws alone":    {"id: AK" + "IAQ3EGRJ7AB2CD4EF5\n", nil},
		"aws pair":     {"id: AK" + "IAQ3EGRJ7AB2CD4EF5\nsecret_access_key = " + random + "Q", []Finding{{"AWS access key with its secret", 1}}},
		"aws example":  {"id: AK" + "IAIOSFODNN7EXAMPLE\nsecret_access_key = " + random + "Q", nil},
		"entra":        {"client_secret: \"aB3" + "8Q" + "~" + random[:34] + "\"", []Finding{{"Azure Entra client secret", 1}}},
		"entra inside": {strings.Repeat("a", 50) + "8Q~" + strings.Repeat(random, 3), nil},
		"storage":      {"conn: Account" + "Key=" + strings.Repeat(random, 3)[:86] + "==", []Finding{{"Azure storage account key", 1}}},
		"binary":       {"\x00gh" + "p_" + random[:36], nil},
	} {
		if got := Scan([]byte(c.text)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v; want %v", name, got, c.want)
		}
	}
	many := strings.Repeat("gh"+"p_"+random[:36]+"\n", 1000)
	if got := Scan([]byte(many)); len(got) != maxFindings {
		t.Errorf("%d findings", len(got))
	}
}

func FuzzScan(f *testing.F) {
	f.Add([]byte("a\nxox" + "b-0123456789-abcdefghijklmnopqrstuvwxyz"))
	f.Add([]byte("Q~"))
	f.Fuzz(func(t *testing.T, data []byte) {
		lines := strings.Count(string(data), "\n") + 1
		for _, found := range Scan(data) {
			if found.Kind == "" || found.Line < 1 || found.Line > lines {
				t.Fatalf("%+v in %d lines", found, lines)
			}
		}
	})
}

func BenchmarkScan(b *testing.B) {
	data := []byte(strings.Repeat("image: storefront.azurecr.io/web@sha256:0123456789abcdef # a line of YAML\n", 10_000))
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		Scan(data)
	}
}
