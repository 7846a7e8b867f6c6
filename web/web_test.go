package web_test

import (
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/web"
)

// The page must work under its Content-Security-Policy and without a network:
// no code or style inside the markup, nothing from elsewhere, no HTML made
// from text.
func TestPageNeedsNothingFromElsewhere(t *testing.T) {
	files, err := web.Files()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	forbidden := regexp.MustCompile(`(?i)(src|href)="https?:|@import|url\(|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(| on[a-z]+="| style="|<style|<script>`)
	imports := regexp.MustCompile(`(?:from "\./|(?:src|href)=")([a-z]+\.[a-z]+)"`)
	var wanted []string
	err = fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		names[path] = true
		body, err := fs.ReadFile(files, path)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(body), "\n") {
			if found := forbidden.FindString(line); found != "" && !strings.HasPrefix(strings.TrimSpace(line), "//") {
				t.Errorf("%s:%d: %q does not belong in the page", path, i+1, found)
			}
			for _, m := range imports.FindAllStringSubmatch(line, -1) {
				wanted = append(wanted, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !names["index.html"] || len(wanted) < 5 {
		t.Fatalf("files %v, references %v", names, wanted)
	}
	for _, name := range wanted {
		if !names[name] {
			t.Errorf("%s is named but is not there", name)
		}
	}
}
