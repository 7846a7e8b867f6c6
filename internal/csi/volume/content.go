// Package volume is what a pod sees of a secret volume: a tmpfs and the files
// in it, which change all at once or not at all.
//
// Input: a directory and the files it shall hold ([Mount], [Write]). Output: a
// mounted directory whose visible names are symbolic links through "..data":
//
//	db-password -> ..data/db-password
//	..data      -> ..2026_11_23_22_05_56.1234
//	..2026_11_23_22_05_56.1234/db-password
//
// Invariants: the one rename of "..data" makes new content visible, so a reader
// that opens several files through it never sees two generations; after a crash
// at any point the old generation is whole and the next Write clears up; names
// never lead out of the directory; content exists in memory only.
//
// Start reading at [Write], then [Mount].
package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

const (
	dataLink    = "..data"
	dataLinkTmp = "..data_tmp"
	// generationLayout names the directory of one generation.
	generationLayout = "..2006_01_02_15_04_05."
)

// File is one file of a volume.
type File struct {
	// Path is relative, slash-separated, without "..".
	Path string
	Mode fs.FileMode
	Data []byte
}

// NoGID leaves the files' group alone.
const NoGID = -1

// CheckPath reports why p cannot name a file of a volume, or nil.
func CheckPath(p string) error {
	switch {
	case p == "":
		return errors.New("file name is empty")
	case path.IsAbs(p):
		return fmt.Errorf("file name %q must be a relative path", p)
	case strings.Contains(p, ".."):
		return fmt.Errorf("file name %q must not contain \"..\"", p)
	case path.Clean(p) != p || p == ".":
		return fmt.Errorf("file name %q is not a plain path; %q would be", p, path.Clean(p))
	case strings.ContainsRune(p, 0):
		return fmt.Errorf("file name %q holds a zero byte", p)
	}
	for part := range strings.SplitSeq(p, "/") {
		if len(part) > 255 {
			return fmt.Errorf("file name %q: a part is longer than 255 bytes", p)
		}
	}
	return nil
}

// checkFiles reports names that cannot stand together.
func checkFiles(files []File) error {
	if len(files) == 0 {
		return errors.New("no files to write")
	}
	seen := make(map[string]bool, len(files))
	for _, f := range files {
		if err := CheckPath(f.Path); err != nil {
			return err
		}
		if seen[f.Path] {
			return fmt.Errorf("two objects have the file name %q; give one an objectAlias", f.Path)
		}
		seen[f.Path] = true
	}
	for p := range seen {
		for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
			if seen[dir] {
				return fmt.Errorf("file %q cannot lie in %q, which is a file too", p, dir)
			}
		}
	}
	return nil
}

// Write makes dir hold exactly these files and reports whether that changed
// anything. gid owns the files, NoGID keeps the process's own group.
func Write(dir string, files []File, gid int) (changed bool, err error) {
	if err := checkFiles(files); err != nil {
		return false, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false, fmt.Errorf("write volume: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()

	current, err := root.Readlink(dataLink)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("write volume %s: %w", dir, err)
	}
	if current == "" || !holds(root, current, files) {
		if current, err = writeGeneration(root, files, gid); err != nil {
			return false, fmt.Errorf("write volume %s: %w", dir, err)
		}
		changed = true
	}
	if err := linkNames(root, current, files); err != nil {
		return changed, fmt.Errorf("write volume %s: %w", dir, err)
	}
	return changed, nil
}

// Written reports whether dir holds a whole generation of content.
func Written(dir string) bool {
	_, err := os.Stat(path.Join(dir, dataLink))
	return err == nil
}

// holds reports whether the generation has exactly these files.
func holds(root *os.Root, generation string, files []File) bool {
	n := 0
	err := fs.WalkDir(root.FS(), generation, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	if err != nil || n != len(files) {
		return false
	}
	for _, f := range files {
		name := path.Join(generation, f.Path)
		info, err := root.Lstat(name)
		if err != nil || info.Mode() != f.Mode.Perm() || info.Size() != int64(len(f.Data)) {
			return false
		}
		old, err := root.ReadFile(name)
		if err != nil || !bytes.Equal(old, f.Data) {
			return false
		}
	}
	return true
}

// writeGeneration writes the files beside the current ones, then shows them.
func writeGeneration(root *os.Root, files []File, gid int) (string, error) {
	generation, err := newGeneration(root)
	if err != nil {
		return "", err
	}
	if err := fill(root, generation, files, gid); err != nil {
		return "", errors.Join(err, root.RemoveAll(generation))
	}
	if err := root.RemoveAll(dataLinkTmp); err != nil {
		return "", err
	}
	if err := root.Symlink(generation, dataLinkTmp); err != nil {
		return "", err
	}
	return generation, root.Rename(dataLinkTmp, dataLink)
}

// newGeneration makes a directory with a name of its own.
func newGeneration(root *os.Root) (string, error) {
	stamp := time.Now().UTC().Format(generationLayout)
	for n := range 1000 {
		name := fmt.Sprintf("%s%04d", stamp, n)
		err := root.Mkdir(name, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		return name, root.Chmod(name, 0o755) // past the umask
	}
	return "", fmt.Errorf("no free name %s*", stamp)
}

func fill(root *os.Root, generation string, files []File, gid int) error {
	for _, f := range files {
		name := path.Join(generation, f.Path)
		if dir := path.Dir(f.Path); dir != "." {
			if err := makeDirs(root, generation, dir); err != nil {
				return err
			}
		}
		if err := root.WriteFile(name, f.Data, 0o600); err != nil {
			return err
		}
		if gid != NoGID {
			if err := root.Chown(name, -1, gid); err != nil {
				return err
			}
		}
		if err := root.Chmod(name, f.Mode.Perm()); err != nil {
			return err
		}
	}
	return nil
}

// makeDirs makes dir below the generation, each part readable by all.
func makeDirs(root *os.Root, generation, dir string) error {
	name := generation
	for part := range strings.SplitSeq(dir, "/") {
		name = path.Join(name, part)
		if err := root.Mkdir(name, 0o755); errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return err
		}
		if err := root.Chmod(name, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// linkNames makes the visible names lead to the current generation and removes
// what earlier generations, also ones that a crash cut short, left behind.
func linkNames(root *os.Root, generation string, files []File) error {
	var names []string
	for _, f := range files {
		first, _, _ := strings.Cut(f.Path, "/")
		if !slices.Contains(names, first) {
			names = append(names, first)
		}
	}
	for _, name := range names {
		want := path.Join(dataLink, name)
		if got, err := root.Readlink(name); err == nil && got == want {
			continue
		}
		if err := root.RemoveAll(name); err != nil {
			return err
		}
		if err := root.Symlink(want, name); err != nil {
			return err
		}
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); name != dataLink && name != generation && !slices.Contains(names, name) {
			if err := root.RemoveAll(name); err != nil {
				return err
			}
		}
	}
	return nil
}
