package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// collect keeps the store below limit bytes: it forgets the images that were
// used the longest ago, but none that is in use or keep.
func (s *store) collect(limit int64, keep v1.Hash) error {
	for {
		total, err := s.total()
		if err != nil || total <= limit {
			return err
		}
		if !s.forgetOldest(keep) {
			return nil
		}
		if err := s.sweep(); err != nil {
			return err
		}
	}
}

// total is the size of all blobs and unpacked layers, in bytes.
func (s *store) total() (n int64, err error) {
	blobs, err := os.ReadDir(filepath.Join(s.dir, "blobs"))
	if err != nil {
		return 0, err
	}
	for _, b := range blobs {
		if fi, err := b.Info(); err == nil {
			n += fi.Size()
		}
	}
	layers, err := os.ReadDir(filepath.Join(s.dir, "layers"))
	if err != nil {
		return 0, err
	}
	for _, l := range layers {
		n += s.layerSize(l.Name())
	}
	return n, nil
}

func (s *store) forgetOldest(keep v1.Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := ""
	for n, e := range s.names {
		if e.Digest == keep || s.held[e.Digest.Hex] > 0 {
			continue
		}
		if oldest == "" || e.Used.Before(s.names[oldest].Used) {
			oldest = n
		}
	}
	if oldest == "" {
		return false
	}
	delete(s.names, oldest)
	return s.save() == nil
}

// sweep removes what no name and no container needs. While an image comes in
// it leaves that to the next time.
func (s *store) sweep() error {
	if !s.writing.TryLock() {
		return nil
	}
	defer s.writing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	needed := map[string]bool{"empty": true}
	for k := range s.held {
		needed[k] = true
	}
	for _, e := range s.names {
		if err := s.mark(e.Digest, needed); err != nil {
			return err
		}
	}
	for k := range s.held { // the blobs of images that run without a name
		_ = s.mark(v1.Hash{Algorithm: "sha256", Hex: k}, needed)
	}
	var errs []error
	for _, sub := range []string{"blobs", "layers"} {
		entries, err := os.ReadDir(filepath.Join(s.dir, sub))
		if err != nil {
			return err
		}
		for _, f := range entries {
			if !needed[f.Name()] {
				errs = append(errs, s.discard(filepath.Join(s.dir, sub, f.Name())))
			}
		}
	}
	return errors.Join(errs...)
}

// mark notes the blobs and layers of an image.
func (s *store) mark(digest v1.Hash, needed map[string]bool) error {
	img, err := s.image(digest)
	if err != nil {
		return err
	}
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return fmt.Errorf("read image %s: %w", digest, err)
	}
	needed[digest.Hex], needed[m.Config.Digest.Hex] = true, true
	for _, l := range m.Layers {
		needed[l.Digest.Hex] = true
	}
	var chains []string
	for _, id := range config.RootFS.DiffIDs {
		chains = append(chains, chainOf(chains, id))
		needed[chains[len(chains)-1]] = true
	}
	return nil
}

// discard removes a file or folder so that no half of it is seen.
func (s *store) discard(path string) error {
	dir, err := os.MkdirTemp(filepath.Join(s.dir, "tmp"), "old-")
	if err != nil {
		return err
	}
	if err := os.Rename(path, filepath.Join(dir, "x")); err != nil {
		return errors.Join(err, os.Remove(dir))
	}
	return os.RemoveAll(dir)
}
