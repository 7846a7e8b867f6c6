package chart

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// kept keeps content on disk by its digest. What was used longest ago is
// removed when there is too much.
type kept struct {
	dir  string
	most int64

	mu    sync.Mutex
	total int64
	known bool // total was measured
}

func (k *kept) path(digest string) (string, bool) {
	hex, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", false
	}
	return filepath.Join(k.dir, hex), true
}

// get returns the content, which is what the digest says.
func (k *kept) get(digest string) ([]byte, bool) {
	p, ok := k.path(digest)
	if !ok {
		return nil, false
	}
	data, err := os.ReadFile(p)
	if err != nil {
		return nil, false
	}
	if digestOf(data) != digest {
		_ = os.Remove(p)
		return nil, false
	}
	now := time.Now()
	_ = os.Chtimes(p, now, now)
	return data, true
}

// put keeps content. That it cannot is no error for who needs it now.
func (k *kept) put(data []byte) error {
	p, _ := k.path(digestOf(data))
	if int64(len(data)) > k.most/2 {
		return nil
	}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(k.dir, "new-")
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
	k.mu.Lock()
	defer k.mu.Unlock()
	k.total += int64(len(data))
	if !k.known || k.total > k.most {
		return k.prune()
	}
	return nil
}

// prune measures, and removes down to three quarters when there is too much.
func (k *kept) prune() error {
	entries, err := os.ReadDir(k.dir)
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
	if total > k.most {
		for _, f := range files {
			if total <= k.most/4*3 {
				break
			}
			if err := os.Remove(filepath.Join(k.dir, f.Name())); err == nil {
				total -= f.Size()
			}
		}
	}
	k.total, k.known = total, true
	return nil
}
