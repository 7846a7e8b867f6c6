package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	ggcrname "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"
)

// upstream fetches into the mirrors what was asked for and is not there, where
// there is a network.
type upstream struct {
	transport http.RoundTripper
	flight    singleflight.Group

	mu      sync.Mutex
	offline time.Time // do not ask before
}

const (
	upstreamTimeout = 15 * time.Minute // of one image
	upstreamContact = 3 * time.Second  // until the first answer
	offlinePause    = 30 * time.Second // after a host could not be reached
)

type fetchingKey struct{}

// fetch tries to get a manifest that a mirror does not have. It returns when the
// mirror has it, or cannot have it: the caller looks again.
func (r *Registry) fetch(ctx context.Context, h *host, t target) {
	u := r.upstream
	if u == nil || !r.known[h.name] || h.name == DefaultHost || ctx.Value(fetchingKey{}) != nil || t.reference == "" || r.has(ctx, h, t) {
		return
	}
	u.mu.Lock()
	wait := time.Now().Before(u.offline)
	u.mu.Unlock()
	if wait {
		return
	}
	sep := ":"
	if strings.Contains(t.reference, ":") {
		sep = "@"
	}
	image := name(h.name, t.repo) + sep + t.reference
	done := u.flight.DoChan(image, func() (any, error) {
		// Whoever asks next profits, also when this one is gone.
		ctx, cancel := context.WithTimeout(context.WithValue(context.WithoutCancel(ctx), fetchingKey{}, true), upstreamTimeout)
		defer cancel()
		return nil, r.copyImage(ctx, image)
	})
	select {
	case <-ctx.Done():
	case result := <-done:
		if result.Err == nil {
			r.log.Info("fetched into the mirror", "image", image)
			return
		}
		r.log.Info("not fetched into the mirror", "image", image, "error", result.Err)
		var unreachable net.Error
		if errors.As(result.Err, &unreachable) || errors.Is(result.Err, context.DeadlineExceeded) {
			u.mu.Lock()
			u.offline = time.Now().Add(offlinePause)
			u.mu.Unlock()
		}
	}
}

// has reports whether the mirror holds a manifest.
func (r *Registry) has(ctx context.Context, h *host, t target) bool {
	named, err := reference.WithName(t.repo)
	if err != nil {
		return true // it will be refused
	}
	repository, err := h.app.store.Repository(ctx, named)
	if err != nil {
		return true
	}
	if strings.Contains(t.reference, ":") {
		manifests, err := repository.Manifests(ctx)
		if err != nil {
			return true
		}
		there, err := manifests.Exists(ctx, digest.Digest(t.reference))
		return err == nil && there
	}
	_, err = repository.Tags(ctx).Get(ctx, t.reference)
	return err == nil
}

// copyImage copies an image from its registry. Of an image for many platforms a
// tag gets the one for this machine; a digest means all of it.
func (r *Registry) copyImage(ctx context.Context, image string) error {
	ref, err := ggcrname.ParseReference(image)
	if err != nil {
		return err
	}
	contact, cancel := context.WithTimeout(ctx, upstreamContact)
	defer cancel()
	from := []remote.Option{remote.WithTransport(r.upstream.transport), remote.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH})}
	if _, err := remote.Head(ref, append(from, remote.WithContext(contact))...); err != nil {
		return fmt.Errorf("ask for %s: %w", image, err)
	}
	descriptor, err := remote.Get(ref, append(from, remote.WithContext(ctx))...)
	if err != nil {
		return fmt.Errorf("ask for %s: %w", image, err)
	}
	to := []remote.Option{remote.WithTransport(r.Transport()), remote.WithContext(ctx)}
	_, pinned := ref.(ggcrname.Digest)
	if pinned && descriptor.MediaType.IsIndex() {
		index, err := descriptor.ImageIndex()
		if err != nil {
			return err
		}
		return remote.WriteIndex(ref, index, to...)
	}
	one, err := descriptor.Image()
	if err != nil {
		return err
	}
	return remote.Write(ref, one, to...)
}
