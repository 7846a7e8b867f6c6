// Package blobs keeps content on disk by its digest.
//
// Input: bytes. Output: the same bytes later, by their SHA-256, or nothing.
//
// Invariants: what comes back is what the digest says; the size on disk is
// bounded; everything kept can be got again from where it came.
//
// Start reading at [Cache].
package blobs

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Cache keeps content below a folder. What was used longest ago is removed when
// there is too much.
type Cache struct {
	dir  string
	most int64

	mu    sync.Mutex
	total int64
	known bool // total was measured
}

// New returns a cache without side effects. dir is made when it is needed; most
// is in bytes.
func New(dir string, most int64) *Cache { return &Cache{dir: dir, most: most} }

// Digest is the name of content: "sha256:" and hexadecimal digits.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Valid reports whether digest is one that Digest gives.
func Valid(digest string) bool {
	digits, ok := strings.CutPrefix(digest, "sha256:")
	return ok && len(digits) == 64 && strings.Trim(digits, "0123456789abcdef") == ""
}

func (c *Cache) path(digest string) (string, bool) {
	if !Valid(digest) {
		return "", false
	}
	return filepath.Join(c.dir, strings.TrimPrefix(digest, "sha256:")), true
}

// Get returns the content, which is what the digest says.
func (c *Cache) Get(digest string) ([]byte, bool) {
	p, ok := c.path(digest)
	if !ok {
		return nil, false
	}
	data, err := os.ReadFile(p)
	if err != nil {
		return nil, false
	}
	if Digest(data) != digest {
		_ = os.Remove(p)
		return nil, false
	}
	now := time.Now()
	_ = os.Chtimes(p, now, now)
	return data, true
}

// Put keeps content, unless it is more than half of what fits. Its error is no
// reason to do without the content now.
func (c *Cache) Put(data []byte) error {
	p, _ := c.path(Digest(data))
	if int64(len(data)) > c.most/2 {
		return nil
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(c.dir, "new-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), p)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total += int64(len(data))
	if !c.known || c.total > c.most {
		return c.prune()
	}
	return nil
}

// prune measures, and removes down to three quarters when there is too much.
func (c *Cache) prune() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var files []fs.FileInfo
	total := int64(0)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			files = append(files, info)
			total += info.Size()
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return cmp.Compare(a.ModTime().UnixNano(), b.ModTime().UnixNano()) })
	if total > c.most {
		for _, f := range files {
			if total <= c.most/4*3 {
				break
			}
			if err := os.Remove(filepath.Join(c.dir, f.Name())); err == nil {
				total -= f.Size()
			}
		}
	}
	c.total, c.known = total, true
	return nil
}
