// Package container runs OCI images without a container engine.
//
// Input: references of images (with a transport and credentials to fetch them),
// archives of images, and [Spec]s: what of an image to run beside which job.
// Output: images in a store on disk, and containers that are sandboxes whose
// root is an overlay of the image's layers.
//
// Every container belongs to a job, given by the job's [sandbox.Session]: it
// shares the job's limits and relays, has an address on the job's own bridge,
// and ends with the job at the latest. Containers of one job reach each other
// by name; the job reaches their published ports at localhost.
//
// Invariants: a blob or layer becomes visible by one rename after its sum was
// checked; the store stays below its bound by forgetting the images that were
// used the longest ago, never one that is running; a path that a job names is
// looked up as the job sees it, never on the machine.
//
// Start reading at [Open] and [Engine.Start].
package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
	"golang.org/x/sync/singleflight"
)

// Config says where the store is and how large it may grow.
type Config struct {
	Dir      string // images and what containers write; one engine at a time
	Self     string // the binary that calls sandbox.Main
	MaxBytes int64  // of all images; 0 is 20 GiB
	// MaxImage bounds one image unpacked, in bytes; 0 is 16 GiB.
	MaxImage int64
	// MaxContainers bounds the containers of one job; 0 is 64.
	MaxContainers int
	// Platform of images, "linux/amd64"; "" is this machine's.
	Platform string
}

// Deps are what the engine needs of others.
type Deps struct {
	Transport http.RoundTripper // nil is the default one
	Log       *slog.Logger
	Now       func() time.Time
}

// Auth is how a registry is logged in to; the zero value is anonymous.
type Auth struct{ Username, Password string }

// Image is one image of the store.
type Image struct {
	Digest  v1.Hash // of its manifest
	ID      v1.Hash // of its configuration
	Names   []string
	Size    int64 // of its compressed layers, bytes
	Created time.Time
	Used    time.Time
	Config  v1.Config
}

// ErrNotFound says that the store has no such image.
var ErrNotFound = errors.New("no such image")

// Engine is the store with its running containers. It is safe for concurrent use.
type Engine struct {
	cfg      Config
	deps     Deps
	platform v1.Platform
	store    *store
	fetch    singleflight.Group
	ctx      context.Context // of fetches; ends with Close
	cancel   context.CancelFunc
	work     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	pods   map[*sandbox.Session]*pod
	next   int
}

// Open opens the store in cfg.Dir, which it makes, and removes what a killed
// engine left half done.
func Open(cfg Config, deps Deps) (*Engine, error) {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 20 << 30
	}
	if cfg.MaxImage == 0 {
		cfg.MaxImage = 16 << 30
	}
	if cfg.MaxContainers == 0 {
		cfg.MaxContainers = 64
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Transport == nil {
		deps.Transport = http.DefaultTransport
	}
	platform, err := parsePlatform(cfg.Platform)
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(filepath.Join(cfg.Dir, "run")); err != nil {
		return nil, fmt.Errorf("open images: %w", err)
	}
	s, err := openStore(cfg.Dir, deps.Now)
	if err != nil {
		return nil, fmt.Errorf("open images: %w", err)
	}
	e := &Engine{cfg: cfg, deps: deps, platform: platform, store: s, pods: map[*sandbox.Session]*pod{}}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e, nil
}

// Close ends every container and fetch.
func (e *Engine) Close() error {
	e.cancel()
	e.mu.Lock()
	e.closed = true
	pods := make([]*pod, 0, len(e.pods))
	for _, p := range e.pods {
		pods = append(pods, p)
	}
	e.mu.Unlock()
	for _, p := range pods {
		p.close()
	}
	e.work.Wait()
	return nil
}

// Images lists the store, the newest use first.
func (e *Engine) Images() ([]Image, error) { return e.store.images() }

// Find returns the image of a name, digest or ID of the store.
func (e *Engine) Find(ref string) (Image, error) {
	entry, err := e.store.find(ref)
	if err != nil {
		return Image{}, err
	}
	return e.store.describe(entry)
}

// Tag gives the image source another name.
func (e *Engine) Tag(source, target string) error {
	entry, err := e.store.find(source)
	if err != nil {
		return err
	}
	name, err := parseName(target)
	if err != nil {
		return err
	}
	return e.store.put(name.Name(), entry.Digest, entry.Size)
}

// Remove forgets a name; with its last name goes the image.
func (e *Engine) Remove(ref string) error {
	if err := e.store.remove(ref); err != nil {
		return err
	}
	return e.store.sweep()
}

// OpenImage gives the image itself, to push or copy it.
func (e *Engine) OpenImage(ref string) (v1.Image, error) {
	entry, err := e.store.find(ref)
	if err != nil {
		return nil, err
	}
	return e.store.image(entry.Digest)
}
