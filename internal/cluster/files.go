package cluster

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lockstep-gitops/lockstep/internal/durable"
)

// writeFile writes a file durably by temp, fsync and rename. A file that has
// the content and mode already is left alone, so that nothing is woken by it.
func writeFile(path string, body []byte, mode fs.FileMode) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, body) {
		if info, err := os.Stat(path); err == nil && info.Mode().Perm() == mode {
			return nil
		}
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return durable.WriteFile(path, body, mode)
}
