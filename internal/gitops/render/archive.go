package render

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
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

const (
	maxUnpacked = 64 << 20 // bytes of one chart
	maxEntries  = 10000
)

// unpacked is the content of an archive: folder → name → entry, and the files
// by id.
type unpacked struct {
	dirs  map[string]map[string]git.Entry
	files map[string][]byte
}

// unpack returns a tree of the files of a .tgz. Links and whatever else is not
// a plain file are left out.
func unpack(archive []byte, revision string) (*source.Tree, error) {
	zip, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return nil, fmt.Errorf("chart archive: %w", err)
	}
	u := unpacked{dirs: map[string]map[string]git.Entry{"": {}}, files: map[string][]byte{}}
	all := tar.NewReader(zip)
	room := int64(maxUnpacked)
	for n := 0; ; n++ {
		h, err := all.Next()
		if errors.Is(err, io.EOF) {
			return source.NewTreeOf(u, revision), nil
		}
		if err != nil {
			return nil, fmt.Errorf("chart archive: %w", err)
		}
		if n >= maxEntries {
			return nil, fmt.Errorf("chart archive: more than %d entries", maxEntries)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(io.LimitReader(all, room+1))
		if err != nil {
			return nil, fmt.Errorf("chart archive: %w", err)
		}
		if room -= int64(len(data)); room < 0 {
			return nil, fmt.Errorf("chart archive: more than %d MiB", maxUnpacked>>20)
		}
		u.add(strings.TrimPrefix(path.Clean("/"+h.Name), "/"), data)
	}
}

func (u unpacked) add(name string, data []byte) {
	sum := sha256.Sum256(data)
	e := git.Entry{Name: path.Base(name), Path: name, Mode: "100644", Kind: git.KindBlob, ID: hex.EncodeToString(sum[:20])}
	u.files[e.ID] = data
	for {
		dir := strings.TrimPrefix(path.Dir("/"+name), "/")
		if u.dirs[dir] == nil {
			u.dirs[dir] = map[string]git.Entry{}
		}
		u.dirs[dir][e.Name] = e
		if dir == "" {
			return
		}
		name, e = dir, git.Entry{Name: path.Base(dir), Path: dir, Mode: "040000", Kind: git.KindTree}
	}
}

// ReadDir implements source.Files.
func (u unpacked) ReadDir(_ context.Context, dir string) ([]git.Entry, error) {
	entries, ok := u.dirs[dir]
	if !ok {
		return nil, git.ErrNotFound
	}
	var out []git.Entry
	for _, e := range entries {
		out = append(out, e)
	}
	return out, nil
}

// Object implements source.Files.
func (u unpacked) Object(_ context.Context, id string) ([]byte, error) {
	data, ok := u.files[id]
	if !ok {
		return nil, git.ErrNotFound
	}
	return data, nil
}
