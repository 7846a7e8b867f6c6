package container

import (
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Keep puts an image that this process has under a name into the store. Its
// blobs are checked against their digests as they are written.
func (e *Engine) Keep(img v1.Image, ref string) (Image, error) {
	n, err := parseName(ref)
	if err != nil {
		return Image{}, err
	}
	digest, err := e.store.add(img, n.Name())
	if err != nil {
		return Image{}, fmt.Errorf("keep image %s: %w", ref, err)
	}
	if err := e.store.collect(e.cfg.MaxBytes, digest); err != nil {
		e.deps.Log.Warn("old images could not be removed", "err", err)
	}
	return e.Find(n.Name())
}
