package execute

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/syntax"
)

// compilesGo finds commands that may come to Go's compiler.
var compilesGo = regexp.MustCompile(`(?:^|[^\w./-])(?:go|make|mage|task|just|goreleaser|ko)(?:\s|$)|\./\S`)

// mayCompileGo reports whether a job may want the Go build cache: copying it
// costs a second, and most jobs never look at it.
func mayCompileGo(j *syntax.Job) bool {
	for _, s := range j.Steps {
		if strings.Contains(s.Uses.Value, "setup-go") || strings.HasPrefix(s.Uses.Value, "./") || compilesGo.MatchString(s.Run.Value) {
			return true
		}
	}
	return false
}

// seed copies a Go build cache into the repository's, the first time. The copy
// appears in one step; of two jobs at once the slower one's is dropped.
func (l layout) seed(goBuildCache string) error {
	target := filepath.Join(l.cache, "go-build")
	if goBuildCache == "" {
		return nil
	}
	if _, err := os.Stat(target); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	partial, err := os.MkdirTemp(l.cache, ".go-build-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(partial) }()
	if err := os.CopyFS(partial, os.DirFS(goBuildCache)); err != nil {
		return err
	}
	if err := os.Chmod(partial, 0o755); err != nil {
		return err
	}
	if err := os.Rename(partial, target); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
