package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// WriteTar streams a cache archive of the paths, compressed with zstd or, when
// gz is true, gzip. Paths are absolute or relative to workspace; names in the
// archive are relative to workspace, with ".." where they lie outside, as GNU
// tar -P writes them.
func WriteTar(w io.Writer, t Tree, workspace string, paths []string, gz bool) (err error) {
	var c io.WriteCloser
	if gz {
		c = gzip.NewWriter(w)
	} else if c, err = zstd.NewWriter(w, zstd.WithEncoderConcurrency(1)); err != nil {
		return err
	}
	out := tar.NewWriter(c)
	for _, p := range paths {
		if err := addTar(out, t, workspace, absolute(workspace, p)); err != nil {
			return fmt.Errorf("pack %s: %w", p, err)
		}
	}
	return errors.Join(out.Close(), c.Close())
}

func addTar(out *tar.Writer, t Tree, workspace, abs string) error {
	root, rel, err := t.locate(abs)
	if err != nil {
		return err
	}
	return fs.WalkDir(root.FS(), rel, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		link := ""
		switch mode := info.Mode(); {
		case mode&fs.ModeSymlink != 0:
			if link, err = root.Readlink(p); err != nil {
				return err
			}
		case !mode.IsRegular() && !mode.IsDir():
			return nil // sockets and pipes cannot be kept
		}
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		h.Name = relative(workspace, path.Join(abs, strings.TrimPrefix(strings.TrimPrefix(p, rel), "/")))
		if rel == "." {
			h.Name = relative(workspace, path.Join(abs, p))
		}
		if info.IsDir() {
			h.Name += "/"
		}
		h.Uname, h.Gname, h.Format = "", "", tar.FormatPAX
		if err := out.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
			return err
		}
		return addFile(out, root, p)
	})
}

func addFile(out *tar.Writer, root *os.Root, rel string) (err error) {
	f, err := root.Open(rel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(out, f)
	return err
}

// relative is the path from base to abs, both absolute.
func relative(base, abs string) string {
	from, to := parts(base), parts(abs)
	n := 0
	for n < len(from) && n < len(to) && from[n] == to[n] {
		n++
	}
	up := slices.Repeat([]string{".."}, len(from)-n)
	if name := strings.Join(append(up, to[n:]...), "/"); name != "" {
		return name
	}
	return "."
}

func parts(p string) []string {
	return slices.DeleteFunc(strings.Split(path.Clean(p), "/"), func(s string) bool { return s == "" })
}

// ReadTar unpacks a cache archive and returns how many entries it held. It
// tells zstd from gzip by their first bytes. Owners are not restored.
func ReadTar(r io.Reader, t Tree, workspace string, limit Limit) (entries int, err error) {
	buffered := bufio.NewReaderSize(r, 1<<16)
	head, _ := buffered.Peek(4) // a short archive is told below
	var in io.Reader
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		if in, err = gzip.NewReader(buffered); err != nil {
			return 0, fmt.Errorf("unpack: %w", err)
		}
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		d, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(1<<30)) // --long=30
		if err != nil {
			return 0, fmt.Errorf("unpack: %w", err)
		}
		defer d.Close()
		in = d
	default:
		return 0, fmt.Errorf("the cache is neither zstd nor gzip: delete it and let it be made again: %w", ErrUnsafe)
	}
	m := newMeter(limit)
	for a := tar.NewReader(in); ; entries++ {
		h, err := a.Next()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err == nil {
			err = m.file(h.Name)
		}
		if err == nil {
			err = untar(h, a, t, workspace, m)
		}
		if err != nil {
			return entries, fmt.Errorf("unpack cache: %w", err)
		}
	}
}

func untar(h *tar.Header, in io.Reader, t Tree, workspace string, m *meter) error {
	root, rel, err := t.locate(absolute(workspace, h.Name))
	if err != nil {
		return err
	}
	mode := h.FileInfo().Mode().Perm()
	switch h.Typeflag {
	case tar.TypeDir:
		if err := root.MkdirAll(rel, 0o755); err != nil {
			return err
		}
		return root.Chmod(rel, mode|0o700)
	case tar.TypeReg:
		out, err := create(root, rel, mode)
		if err != nil {
			return err
		}
		err = errors.Join(m.copy(out, in, h.Name), out.Chmod(mode), out.Close())
		if err != nil {
			return err
		}
		return root.Chtimes(rel, h.ModTime, h.ModTime) // build tools compare them
	case tar.TypeSymlink, tar.TypeLink:
		return untarLink(h, t, root, rel, workspace)
	}
	return fmt.Errorf("%.200q is of type %q, which caches do not hold: %w", h.Name, h.Typeflag, ErrUnsafe)
}

// untarLink makes a link. A symbolic link may point anywhere: it is followed
// only by the job, in its own file system, never by this process.
func untarLink(h *tar.Header, t Tree, root *os.Root, rel, workspace string) error {
	f, err := create(root, rel, 0o600) // makes folders and room
	if err != nil {
		return err
	}
	if err := errors.Join(f.Close(), root.Remove(rel)); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return root.Symlink(h.Linkname, rel)
	}
	target, from, err := t.locate(absolute(workspace, h.Linkname))
	if err != nil {
		return err
	}
	if target != root {
		return fmt.Errorf("%.200q is a hard link into another folder: %w", h.Name, ErrUnsafe)
	}
	return root.Link(from, rel)
}
