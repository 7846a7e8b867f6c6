package action

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// Bounds of an action's archive.
const (
	maxUnpacked = 1 << 30 // bytes
	maxEntries  = 100_000
)

// Unpack writes a tar stream into a folder of root, which is made. Entries that
// lead out of it are refused; links may point anywhere, because they are
// followed only by root and by the job itself.
func Unpack(r io.Reader, root *os.Root, dir string) error {
	if err := root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	inside, err := root.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = inside.Close() }()
	in := tar.NewReader(r)
	var size int64
	for entries := 0; ; entries++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the archive is broken: %w", err)
		}
		if size += max(h.Size, 0); entries >= maxEntries || size > maxUnpacked {
			return fmt.Errorf("the archive has more than %d files or %d bytes", maxEntries, maxUnpacked)
		}
		if err := unpackEntry(in, inside, h); err != nil {
			return err
		}
	}
}

func unpackEntry(in io.Reader, root *os.Root, h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
	if name == "" || name == "." {
		return nil
	}
	if !fs.ValidPath(name) || strings.ContainsRune(name, 0) {
		return fmt.Errorf("the archive holds %q, which leads out of its folder", h.Name)
	}
	if parent := path.Dir(name); parent != "." {
		if err := root.MkdirAll(parent, 0o755); err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return wrap(name, root.MkdirAll(name, 0o755))
	case tar.TypeSymlink:
		if err := root.Symlink(h.Linkname, name); err != nil && !errors.Is(err, fs.ErrExist) {
			return wrap(name, err)
		}
		return nil
	case tar.TypeReg:
		mode := fs.FileMode(0o644)
		if h.Mode&0o111 != 0 {
			mode = 0o755
		}
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return wrap(name, err)
		}
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if err != nil {
			return wrap(name, err)
		}
		_, err = io.Copy(f, in)
		return wrap(name, errors.Join(err, f.Close()))
	}
	return nil // devices, pipes and hard links are no part of a Git tree
}

func wrap(name string, err error) error {
	if err != nil {
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	return nil
}
