package container

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive"
	"golang.org/x/sys/unix"
)

// whiteout turns the files by which layers remove things into overlayfs's own,
// for overlays with and without a user namespace.
func whiteout(string) func(*tar.Header, string) (bool, error) {
	return func(h *tar.Header, path string) (bool, error) {
		if filepath.Base(path) == ".wh..wh..opq" {
			if err := unix.Setxattr(filepath.Dir(path), "user.overlay.opaque", []byte("y"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
				return false, fmt.Errorf("hide the folder below: %w", err)
			}
		} else if strings.HasPrefix(filepath.Base(path), ".wh..wh.") {
			return false, nil // aufs' own
		}
		return archive.OverlayConvertWhiteout(h, path)
	}
}

// syncAll writes the file system of dir to disk.
func syncAll(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}
