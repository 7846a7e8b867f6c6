// Package rendertest gives tests a tree of files in memory.
//
// Input: file names and contents. Output: [Files], what a source.Tree shows.
package rendertest

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/git"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
)

// Files maps paths to contents. "-> target" is a symbolic link.
type Files map[string]string

// Tree returns a tree of the files. Its commit is a digest of them.
func (f Files) Tree() *source.Tree {
	sum := sha1.New()
	for _, name := range slices.Sorted(maps.Keys(f)) {
		sum.Write([]byte(name + "\x00" + f[name] + "\x00"))
	}
	return f.TreeAt(hex.EncodeToString(sum.Sum(nil)))
}

// TreeAt returns a tree of the files as those of a commit.
func (f Files) TreeAt(commit string) *source.Tree {
	content := &content{dirs: map[string]map[string]git.Entry{"": {}}, blobs: map[string][]byte{}}
	for name, data := range f {
		content.add(name, data)
	}
	return source.NewTreeOf(content, commit)
}

type content struct {
	dirs  map[string]map[string]git.Entry
	blobs map[string][]byte
}

func (c *content) add(name, data string) {
	entry := git.Entry{Mode: "100644", Kind: git.KindBlob}
	if target, ok := strings.CutPrefix(data, "-> "); ok {
		entry.Mode, data = "120000", target
	}
	sum := sha1.Sum([]byte(data))
	entry.ID = hex.EncodeToString(sum[:])
	c.blobs[entry.ID] = []byte(data)
	for {
		dir, base := "", name
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			dir, base = name[:i], name[i+1:]
		}
		entry.Name, entry.Path = base, name
		if c.dirs[dir] == nil {
			c.dirs[dir] = map[string]git.Entry{}
		}
		c.dirs[dir][base] = entry
		if dir == "" {
			return
		}
		name, entry = dir, git.Entry{Mode: "040000", Kind: git.KindTree}
	}
}

// ReadDir implements source.Files.
func (c *content) ReadDir(_ context.Context, dir string) ([]git.Entry, error) {
	entries, ok := c.dirs[dir]
	if !ok {
		return nil, git.ErrNotFound
	}
	out := make([]git.Entry, 0, len(entries))
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		out = append(out, entries[name])
	}
	return out, nil
}

// Object implements source.Files.
func (c *content) Object(_ context.Context, id string) ([]byte, error) {
	data, ok := c.blobs[id]
	if !ok {
		return nil, git.ErrNotFound
	}
	return data, nil
}
