package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// fetchTimeout bounds one pull or push.
const fetchTimeout = 30 * time.Minute

func parsePlatform(s string) (v1.Platform, error) {
	if s == "" {
		return v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, nil
	}
	p, err := v1.ParsePlatform(s)
	if err != nil {
		return v1.Platform{}, fmt.Errorf("platform %q: %w", s, err)
	}
	return *p, nil
}

// Pull fetches an image and keeps it under its name. out, which may be nil,
// gets what happens as lines. Pulls of the same image share the work.
func (e *Engine) Pull(ctx context.Context, ref string, auth Auth, out io.Writer) (Image, error) {
	n, err := parseName(ref)
	if err != nil {
		return Image{}, err
	}
	say := func(format string, args ...any) {
		if out != nil {
			fmt.Fprintf(out, format+"\n", args...)
		}
	}
	say("Pulling %s", n.Name())
	// The login is part of the key: what one may see, another may not.
	done := e.fetch.DoChan("pull "+n.Name()+"\x00"+auth.Username+"\x00"+auth.Password, func() (any, error) {
		ctx, cancel := context.WithTimeout(e.ctx, fetchTimeout)
		defer cancel()
		return e.pull(ctx, n, auth)
	})
	select {
	case <-ctx.Done():
		return Image{}, context.Cause(ctx)
	case r := <-done:
		if r.Err != nil {
			return Image{}, explain(n, r.Err)
		}
		img, _ := r.Val.(Image)
		say("Digest: %s", img.Digest)
		return img, nil
	}
}

func (e *Engine) pull(ctx context.Context, n name.Reference, auth Auth) (Image, error) {
	desc, err := remote.Get(n, e.remote(ctx, auth)...)
	if err != nil {
		return Image{}, err
	}
	img, err := desc.Image()
	if err != nil {
		return Image{}, err
	}
	if config, err := img.ConfigFile(); err != nil {
		return Image{}, err
	} else if config.Architecture != "" && (config.OS != e.platform.OS || config.Architecture != e.platform.Architecture) {
		return Image{}, fmt.Errorf("the image is for %s/%s, not for %s", config.OS, config.Architecture, e.platform)
	}
	digest, err := e.store.add(img, n.Name())
	if err != nil {
		return Image{}, err
	}
	if err := e.store.collect(e.cfg.MaxBytes, digest); err != nil {
		e.deps.Log.Warn("old images could not be removed", "err", err)
	}
	return e.Find(n.Name())
}

func (e *Engine) remote(ctx context.Context, auth Auth) []remote.Option {
	options := []remote.Option{remote.WithContext(ctx), remote.WithTransport(e.deps.Transport), remote.WithPlatform(e.platform), remote.WithJobs(3)}
	if auth != (Auth{}) {
		options = append(options, remote.WithAuth(&authn.Basic{Username: auth.Username, Password: auth.Password}))
	}
	return options
}

// explain says what to try when an image cannot be had.
func explain(n name.Reference, err error) error {
	var answer *transport.Error
	if errors.As(err, &answer) {
		switch answer.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return fmt.Errorf("pull %s: access denied by %s; log in to it before (docker/login-action, or credentials of the container): %w", n, n.Context().RegistryStr(), err)
		case http.StatusNotFound:
			return fmt.Errorf("pull %s: %s has no such image; push it there, or bring it with `lockstep image import`: %w", n, n.Context().RegistryStr(), err)
		}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "dial ") || strings.Contains(err.Error(), "lookup ") {
		return fmt.Errorf("pull %s: %s cannot be reached; offline, bring the image with `lockstep image import`: %w", n, n.Context().RegistryStr(), err)
	}
	return fmt.Errorf("pull %s: %w", n, err)
}

// Push sends an image of the store to the registry of its name ref. It returns
// the digest there.
func (e *Engine) Push(ctx context.Context, ref string, auth Auth) (string, error) {
	n, err := parseName(ref)
	if err != nil {
		return "", err
	}
	img, err := e.OpenImage(ref)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	if err := remote.Write(n, img, e.remote(ctx, auth)...); err != nil {
		return "", fmt.Errorf("push %s: %w", n, err)
	}
	digest, err := img.Digest()
	return digest.String(), err
}

// ensure finds an image, or pulls it without a login.
func (e *Engine) ensure(ctx context.Context, ref string, out io.Writer) (Image, error) {
	img, err := e.Find(ref)
	if errors.Is(err, ErrNotFound) {
		return e.Pull(ctx, ref, Auth{}, out)
	}
	return img, err
}
