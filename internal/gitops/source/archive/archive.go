// Package archive shows a compressed tar archive as files of a tree.
//
// Input: the bytes of a .tgz, .tar or a chart. Output: [source.Files] in
// memory, each file with the SHA-256 of its content as its id.
//
// Invariants: the unpacked size, the number of entries and the length of paths
// are bounded; absolute paths, "..", links that lead out, devices and hard
// links to nothing are errors; nothing is written to disk.
//
// Start reading at [Read].
package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// Limits bound what an archive may unpack to. Zero values have defaults.
type Limits struct {
	Bytes   int64 // unpacked; 256 MiB
	Entries int   // 50,000
}

const (
	maxPath  = 1024
	maxDepth = 64
)

// ErrTooLarge says that an archive unpacks to more than the limits.
var ErrTooLarge = errors.New("the archive unpacks to more than is allowed")

// Files is the content of an archive. It does not change.
type Files struct {
	dirs    map[string][]git.Entry // sorted by name
	objects map[string][]byte      // by id
	size    int64
}

// Size is the unpacked size in bytes.
func (f *Files) Size() int64 { return f.size }

// ReadDir implements source.Files.
func (f *Files) ReadDir(_ context.Context, dir string) ([]git.Entry, error) {
	entries, ok := f.dirs[dir]
	if !ok {
		return nil, fmt.Errorf("%s: %w", dir, git.ErrNotFound)
	}
	return entries, nil
}

// Object implements source.Files.
func (f *Files) Object(_ context.Context, id string) ([]byte, error) {
	data, ok := f.objects[id]
	if !ok {
		return nil, fmt.Errorf("object %s: %w", id, git.ErrNotFound)
	}
	return data, nil
}

var _ source.Files = (*Files)(nil)

// Read unpacks a tar archive, compressed by gzip or not. When strip is set and
// all is in one directory at the top, as in a chart, that becomes the root.
func Read(data []byte, strip bool, limits Limits) (*Files, error) {
	if limits.Bytes <= 0 {
		limits.Bytes = 256 << 20
	}
	if limits.Entries <= 0 {
		limits.Entries = 50_000
	}
	var in io.Reader = bytes.NewReader(data)
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("unpack the archive: %w", err)
		}
		in = z
	}
	u := unpacking{limits: limits, entries: map[string]git.Entry{}, objects: map[string][]byte{}}
	if err := u.read(tar.NewReader(in)); err != nil {
		return nil, fmt.Errorf("unpack the archive: %w", err)
	}
	if len(u.entries) == 0 {
		return nil, errors.New("unpack the archive: it is empty or no tar archive")
	}
	if strip {
		u.strip()
	}
	if err := u.checkLinks(); err != nil {
		return nil, fmt.Errorf("unpack the archive: %w", err)
	}
	return u.files(), nil
}

type unpacking struct {
	limits  Limits
	entries map[string]git.Entry // by path
	objects map[string][]byte
	size    int64
	count   int
}

func (u *unpacking) read(in *tar.Reader) error {
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if u.count++; u.count > u.limits.Entries {
			return fmt.Errorf("%w: %d entries", ErrTooLarge, u.limits.Entries)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		p, err := clean(h.Name)
		if err != nil {
			return err
		}
		if p == "" {
			continue
		}
		if err := u.entry(in, h, p); err != nil {
			return err
		}
	}
}

// clean checks the path of an entry; "" is the root itself.
func clean(name string) (string, error) {
	if strings.HasPrefix(name, "/") || strings.Contains(name, "\\") || strings.ContainsAny(name, "\x00\n") || len(name) > maxPath {
		return "", fmt.Errorf("path %.100q is not allowed", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fmt.Errorf("path %.100q %w", name, source.ErrEscapes)
		}
	}
	p := strings.TrimPrefix(path.Clean("/"+name), "/")
	if strings.Count(p, "/") >= maxDepth {
		return "", fmt.Errorf("path %.100q has too many components", name)
	}
	return p, nil
}

func (u *unpacking) entry(in io.Reader, h *tar.Header, p string) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return u.dir(p)
	case tar.TypeReg:
		data, err := u.content(in, h.Size)
		if err != nil {
			return err
		}
		mode := "100644"
		if h.Mode&0o100 != 0 {
			mode = "100755"
		}
		return u.file(p, mode, data)
	case tar.TypeSymlink:
		return u.file(p, "120000", []byte(h.Linkname))
	case tar.TypeLink:
		target, err := clean(h.Linkname)
		if err != nil {
			return err
		}
		e, ok := u.entries[target]
		if !ok || e.Kind != git.KindBlob {
			return fmt.Errorf("%s is a link to %.100q, which is not in the archive", p, h.Linkname)
		}
		return u.file(p, e.Mode, u.objects[e.ID])
	}
	return fmt.Errorf("%s is neither file, directory nor link", p)
}

func (u *unpacking) content(in io.Reader, size int64) ([]byte, error) {
	if size < 0 || size > u.limits.Bytes-u.size {
		return nil, fmt.Errorf("%w: %d MiB", ErrTooLarge, u.limits.Bytes>>20)
	}
	// The header may promise more than comes, so the buffer grows with the content.
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(in, size))
	if err != nil {
		return nil, err
	}
	if n != size {
		return nil, io.ErrUnexpectedEOF
	}
	u.size += size
	return b.Bytes(), nil
}

// dir makes a directory and those above it.
func (u *unpacking) dir(p string) error {
	for ; p != "." && p != ""; p = path.Dir(p) {
		if e, ok := u.entries[p]; ok {
			if e.Kind != git.KindTree {
				return fmt.Errorf("%s is a file and a directory", p)
			}
			return nil
		}
		if len(u.entries) > 2*u.limits.Entries {
			return fmt.Errorf("%w: too many directories", ErrTooLarge)
		}
		u.entries[p] = git.Entry{Name: path.Base(p), Path: p, Mode: "040000", Kind: git.KindTree}
	}
	return nil
}

// file adds a file; a later one of the same path replaces it, as in tar.
func (u *unpacking) file(p, mode string, data []byte) error {
	if e, ok := u.entries[p]; ok && e.Kind == git.KindTree {
		return fmt.Errorf("%s is a file and a directory", p)
	}
	if err := u.dir(path.Dir(p)); err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	id := hex.EncodeToString(sum[:])
	u.objects[id] = data
	u.entries[p] = git.Entry{Name: path.Base(p), Path: p, Mode: mode, Kind: git.KindBlob, ID: id}
	return nil
}

// strip makes the only directory at the top the root.
func (u *unpacking) strip() {
	top := ""
	for p, e := range u.entries {
		if strings.Contains(p, "/") {
			continue
		}
		if top != "" || e.Kind != git.KindTree {
			return
		}
		top = p
	}
	entries := make(map[string]git.Entry, len(u.entries))
	for p, e := range u.entries {
		if p, ok := strings.CutPrefix(p, top+"/"); ok {
			e.Path = p
			entries[p] = e
		}
	}
	u.entries = entries
}

// checkLinks refuses links that lead out of the archive.
func (u *unpacking) checkLinks() error {
	for p, e := range u.entries {
		if !e.Symlink() {
			continue
		}
		target := string(u.objects[e.ID])
		depth := strings.Count(p, "/")
		bad := strings.HasPrefix(target, "/") || target == ""
		for part := range strings.SplitSeq(target, "/") {
			switch part {
			case "", ".":
			case "..":
				depth--
			default:
				depth++
			}
			bad = bad || depth < 0
		}
		if bad {
			return fmt.Errorf("symbolic link %s to %.100q %w", p, target, source.ErrEscapes)
		}
	}
	return nil
}

func (u *unpacking) files() *Files {
	f := &Files{dirs: map[string][]git.Entry{"": nil}, objects: u.objects, size: u.size}
	for p, e := range u.entries {
		dir := path.Dir(p)
		if dir == "." {
			dir = ""
		}
		f.dirs[dir] = append(f.dirs[dir], e)
		if e.Kind == git.KindTree && f.dirs[p] == nil {
			f.dirs[p] = []git.Entry{}
		}
	}
	for _, entries := range f.dirs {
		slices.SortFunc(entries, func(a, b git.Entry) int { return strings.Compare(a.Name, b.Name) })
	}
	return f
}
