package archive

import (
	"archive/zip"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// Entry is one file or, when Name ends with a slash, folder of an artifact.
type Entry struct {
	Name string // in the archive, with slashes
	Path string // in the job, absolute
}

// WriteZip streams an artifact. level is 0 (stored) to 9. Links are followed
// within the Tree, as upload-artifact does; modes are not kept by clients.
func WriteZip(w io.Writer, t Tree, entries []Entry, level int) error {
	if level < 0 || level > 9 {
		return fmt.Errorf("compression-level %d: it has to be 0 to 9", level)
	}
	z := zip.NewWriter(w)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, level) })
	for _, e := range entries {
		if err := addZip(z, t, e, level); err != nil {
			return fmt.Errorf("pack %s: %w", e.Path, err)
		}
	}
	return z.Close()
}

func addZip(z *zip.Writer, t Tree, e Entry, level int) (err error) {
	if e.Name == "" || dotdot(e.Name) {
		return fmt.Errorf("the name %.200q in the archive leaves it: %w", e.Name, ErrUnsafe)
	}
	root, rel, err := t.locate(path.Clean(e.Path))
	if err != nil {
		return err
	}
	info, err := root.Stat(rel)
	if err != nil {
		return err
	}
	h := &zip.FileHeader{Name: e.Name, Modified: info.ModTime(), Method: zip.Deflate}
	h.SetMode(info.Mode())
	if info.IsDir() {
		h.Name, h.Method = strings.TrimSuffix(e.Name, "/")+"/", zip.Store
		_, err := z.CreateHeader(h)
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("it is a %s, not a file", info.Mode().Type())
	}
	if level == 0 {
		h.Method = zip.Store
	}
	f, err := root.Open(rel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	out, err := z.CreateHeader(h)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, f)
	return err
}

// ReadZip unpacks an artifact of size bytes into the folder dir of the job and
// returns how many files it made. Names that leave dir, links and special files
// are refused.
func ReadZip(r io.ReaderAt, size int64, t Tree, dir string, limit Limit) (files int, err error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return 0, fmt.Errorf("unpack: %w", err)
	}
	root, base, err := t.locate(path.Clean(dir))
	if err != nil {
		return 0, err
	}
	m := newMeter(limit)
	for _, f := range z.File {
		if err := unzip(f, root, base, m); err != nil {
			return files, fmt.Errorf("unpack %.200q: %w", f.Name, err)
		}
		if !f.FileInfo().IsDir() {
			files++
		}
	}
	return files, nil
}

func unzip(f *zip.File, root *os.Root, base string, m *meter) (err error) {
	name := strings.ReplaceAll(f.Name, `\`, "/")
	if name == "" || dotdot(name) {
		return fmt.Errorf("the name leaves the folder: %w", ErrUnsafe)
	}
	if err := m.file(name); err != nil {
		return err
	}
	to := path.Join(base, name)
	mode := f.Mode()
	switch {
	case mode.IsDir():
		return root.MkdirAll(to, 0o755)
	case !mode.IsRegular():
		return fmt.Errorf("it is a %s; artifacts hold files and folders: %w", mode.Type(), ErrUnsafe)
	}
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := create(root, to, fs.FileMode(0o644))
	if err != nil {
		return err
	}
	return errors.Join(m.copy(out, in, name), out.Close())
}
