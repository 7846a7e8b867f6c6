// Package baseimage makes the base images that a build without internet starts
// from, out of what this machine has.
//
// Input: the Go toolchain and the static busybox of this machine. Output, in
// the mirror of Docker Hub: library/busybox:latest, and library/golang:<version>
// with the tags "1", "1.26" and "1.26.8" (of Go 1.26.8).
//
// They stand in for the images of the same names as far as most Dockerfiles
// use them: a shell with busybox' applets, CA certificates, the go command with
// CGO_ENABLED=0. They have no package manager and no C compiler. Their labels
// say so.
//
// Invariants: the same inputs give the same digests; an image that somebody
// else put under one of the tags is never replaced; nothing is made again while
// it is there and the toolchain is the same.
//
// Start reading at [Seed].
package baseimage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/lockstep-gitops/lockstep/internal/durable"
)

// Config names the inputs.
type Config struct {
	// Dir keeps what was made (a few hundred bytes) and scratch files.
	Dir string
	// GOROOT is the Go toolchain; "" makes no golang image.
	GOROOT string
	// Busybox is the statically linked program. "" means /bin/busybox, where
	// Debian's busybox-static puts it.
	Busybox string
	// CACerts is a PEM bundle. "" means /etc/ssl/certs/ca-certificates.crt;
	// it may be missing.
	CACerts string
}

func (c Config) withDefaults() Config {
	if c.Busybox == "" {
		c.Busybox = "/bin/busybox"
	}
	if c.CACerts == "" {
		c.CACerts = "/etc/ssl/certs/ca-certificates.crt"
	}
	return c
}

// Deps is how Seed reaches the registry.
type Deps struct {
	Log *slog.Logger
	// Transport answers https://docker.io/v2/… with the local mirror, with
	// the right to push.
	Transport http.RoundTripper
}

// Image is a base image that is in the mirror.
type Image struct {
	Tags   []string // full references
	Digest string
	Made   bool // now, rather than found there
}

// recipe counts the changes of how images are made: raise it to make them anew.
const recipe = 1

// Seed makes the base images that are missing or out of date and pushes them.
// It takes milliseconds when there is nothing to do, and a few seconds of one
// core otherwise. An image that cannot be made does not keep the others away:
// the error then joins what went wrong.
func Seed(ctx context.Context, cfg Config, deps Deps) ([]Image, error) {
	cfg = cfg.withDefaults()
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Transport == nil {
		return nil, errors.New("make base images: Deps.Transport is needed: it reaches the mirror")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make base images: %w", err)
	}
	root, err := readRootfs(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("make base images: %w", err)
	}
	recipes := []product{busyboxImage(root)}
	var errs []error
	if cfg.GOROOT != "" {
		golang, err := golangImage(cfg.GOROOT, root)
		if err != nil {
			errs = append(errs, fmt.Errorf("make base image golang: %w", err))
		} else {
			recipes = append(recipes, golang)
		}
	}
	var images []Image
	for _, p := range recipes {
		img, err := ensure(ctx, cfg.Dir, p, deps)
		if err != nil {
			errs = append(errs, fmt.Errorf("make base image %s: %w", p.name, err))
			continue
		}
		images = append(images, img)
	}
	return images, errors.Join(errs...)
}

// product is an image that can be made.
type product struct {
	name string   // "golang"
	tags []string // full references
	key  string   // changes with the inputs
	make func(scratch string) (v1.Image, error)
}

// record is what was made last, kept in Dir/<name>.json.
type record struct{ Key, Digest string }

// ensure makes and pushes p unless every tag is there.
func ensure(ctx context.Context, dir string, p product, deps Deps) (Image, error) {
	file := filepath.Join(dir, p.name+".json")
	last, err := readRecord(file)
	if err != nil {
		return Image{}, err
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithTransport(deps.Transport)}
	var stale []name.Tag
	for _, s := range p.tags {
		tag, err := name.NewTag(s)
		if err != nil {
			return Image{}, err
		}
		there, err := remote.Head(tag, options...)
		var e *transport.Error
		switch {
		case errors.As(err, &e) && e.StatusCode == http.StatusNotFound:
			stale = append(stale, tag)
		case err != nil:
			return Image{}, fmt.Errorf("look for %s in the mirror: %w", s, err)
		case there.Digest.String() != last.Digest:
			deps.Log.Info("a base image was imported by somebody; it stays", "image", s)
		case last.Key != p.key:
			stale = append(stale, tag)
		}
	}
	if len(stale) == 0 {
		return Image{Tags: p.tags, Digest: last.Digest}, nil
	}
	scratch, err := os.MkdirTemp(dir, "make-")
	if err != nil {
		return Image{}, err
	}
	defer func() { _ = os.RemoveAll(scratch) }() // scratch; the state directory goes as a whole
	img, err := p.make(scratch)
	if err != nil {
		return Image{}, err
	}
	digest, err := img.Digest()
	if err != nil {
		return Image{}, err
	}
	// The record comes first: were it lost, our own image would look like
	// somebody else's and never be renewed.
	if err := writeRecord(file, record{p.key, digest.String()}); err != nil {
		return Image{}, err
	}
	for _, tag := range stale {
		if err := remote.Write(tag, img, options...); err != nil {
			return Image{}, fmt.Errorf("push %s: %w", tag, err)
		}
	}
	deps.Log.Info("made base image", "image", p.tags[0], "digest", digest.String())
	return Image{Tags: p.tags, Digest: digest.String(), Made: true}, nil
}

func readRecord(file string) (record, error) {
	var r record
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return record{}, nil // damaged: as if nothing had been made
	}
	return r, nil
}

func writeRecord(file string, r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return durable.WriteFile(file, b, 0o600)
}
