package directory

import "testing"

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"*.yaml", "a/b.yaml", true}, {"{*.yml,*.yaml}", "x.yml", true}, {"test/*", "test/a/b.yaml", true},
		{"config.yaml", "a/config.yaml", false}, {"[!a]*.yaml", "b.yaml", true}, {"[!a]*.yaml", "a.yaml", false}, {"a?.json", "ab.json", true}, {"a.json", "axjson", false},
	} {
		re, err := Glob(c.pattern)
		if err != nil || re.MatchString(c.path) != c.want {
			t.Errorf("Glob(%q) on %q: want %v (%v)", c.pattern, c.path, c.want, err)
		}
	}
	for _, bad := range []string{"{a", "[a"} {
		if _, err := Glob(bad); err == nil {
			t.Errorf("Glob(%q) is accepted", bad)
		}
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("{*.yml,*.yaml}")
	f.Add(`[!\]a]{b,\*}`)
	f.Fuzz(func(t *testing.T, pattern string) {
		if re, err := Glob(pattern); err == nil && pattern != "" {
			re.MatchString("a/b.yaml")
		}
	})
}
