package gitconfig

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"os"
)

const example = `# modules
[submodule "libs/base"]
	path = libs/base
	url = ../base.git ; relative
	Branch = main
[submodule "with \"quote\" and \\"]
	path = "with space # no comment"
	url = https://example.com/a\
b.git
	shallow
[lfs]
	url = "https://lfs.example.com/x"  # end
`

// TestAgainstGit compares with what git reads.
func TestAgainstGit(t *testing.T) {
	p := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(p, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("git", "config", "--file", p, "--list", "-z").Output()
	if err != nil {
		t.Fatal(err)
	}
	settings, err := Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	var mine strings.Builder
	for _, s := range settings {
		name := s.Section + "."
		if s.Subsection != "" {
			name += s.Subsection + "."
		}
		if s.Key == "shallow" { // git prints no value where there is none
			fmt.Fprintf(&mine, "%s%s\x00", name, s.Key)
			continue
		}
		fmt.Fprintf(&mine, "%s%s\n%s\x00", name, s.Key, s.Value)
	}
	if mine.String() != string(out) {
		t.Errorf("Parse:\n%q\ngit:\n%q", mine.String(), out)
	}
}

func TestBad(t *testing.T) {
	for _, s := range []string{"key = v", "[a", "[a]\nx y = 1", "[a]\nx = \"1", "[a]\nx = \\q", "[ \"x\"]", "[a \"b]"} {
		if got, err := Parse([]byte(s)); err == nil || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Fuzz(func(t *testing.T, data []byte) {
		settings, err := Parse(data)
		if err == nil && len(settings) > len(data) {
			t.Error("more settings than bytes")
		}
	})
}
