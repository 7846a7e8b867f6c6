// Package archive packs and unpacks what artifacts and caches hold, in the
// formats of @actions/artifact (zip) and @actions/cache (tar with zstd or
// gzip), so that built-in actions and the real ones read each other's.
//
// Input: files of a job, by its own paths, through [Tree]; streams. Output:
// streams; files of the job.
//
// Invariants: nothing is read or written outside the folders of the Tree,
// whatever names or links an archive holds; no file is held in memory; what is
// unpacked is bounded by a [Limit].
//
// Start reading at [Tree], [WriteZip] and [WriteTar].
package archive

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
)

// ErrUnsafe says that an archive names a place outside of the Tree, or is
// larger than its Limit.
var ErrUnsafe = errors.New("unsafe archive")

// Folder is a folder of the job and where this process reaches it.
type Folder struct {
	Path string // in the job, absolute: "/home/runner/work/app/app"
	Root *os.Root
}

// Tree is what of a job's file system is reached.
type Tree []Folder

// locate finds the folder that holds an absolute path, and the path in it.
func (t Tree) locate(abs string) (*os.Root, string, error) {
	best := -1
	for i, f := range t {
		if (abs == f.Path || strings.HasPrefix(abs, strings.TrimSuffix(f.Path, "/")+"/")) && (best < 0 || len(f.Path) > len(t[best].Path)) {
			best = i
		}
	}
	if best < 0 {
		var names []string
		for _, f := range t {
			names = append(names, f.Path)
		}
		return nil, "", fmt.Errorf("%s is outside of what can be packed (%s): %w", abs, strings.Join(names, ", "), ErrUnsafe)
	}
	rel := strings.Trim(strings.TrimPrefix(abs, t[best].Path), "/")
	if rel == "" {
		rel = "."
	}
	return t[best].Root, rel, nil
}

// absolute resolves a path of the job against its folder base.
func absolute(base, name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join(base, name)
}

// Limit bounds what one archive unpacks to. Zero values take the defaults.
type Limit struct {
	Bytes int64 // 50 GiB
	Files int   // one million
}

// meter counts against a Limit.
type meter struct{ left Limit }

func newMeter(l Limit) *meter {
	if l.Bytes == 0 {
		l.Bytes = 50 << 30
	}
	if l.Files == 0 {
		l.Files = 1_000_000
	}
	return &meter{l}
}

func (m *meter) file(name string) error {
	if m.left.Files--; m.left.Files < 0 {
		return fmt.Errorf("%.200q: the archive holds too many files: %w", name, ErrUnsafe)
	}
	return nil
}

// copy is io.Copy that stops at the limit.
func (m *meter) copy(w io.Writer, r io.Reader, name string) error {
	n, err := io.Copy(w, io.LimitReader(r, m.left.Bytes+1))
	if m.left.Bytes -= n; m.left.Bytes < 0 {
		return fmt.Errorf("%.200q: the archive unpacks to more than is allowed: %w", name, ErrUnsafe)
	}
	return err
}

// create makes a file and the folders above it, in place of a file or link of
// that name.
func create(root *os.Root, rel string, mode os.FileMode) (*os.File, error) {
	if dir := path.Dir(rel); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if info, err := root.Lstat(rel); err == nil && !info.IsDir() {
		if err := root.Remove(rel); err != nil {
			return nil, err
		}
	}
	return root.OpenFile(rel, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode.Perm())
}

// dotdot says whether a slash-separated name climbs out of its folder.
func dotdot(name string) bool {
	return path.IsAbs(name) || slices.Contains(strings.Split(name, "/"), "..")
}
