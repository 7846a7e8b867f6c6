// Package image builds container images from Dockerfiles: what docker
// build-push-action and a Docker engine do elsewhere.
//
// Input: a [Request] with a directory, a Dockerfile and tags. Output: an image,
// pushed to its registries, and a [Result] with its digest; or a [*BuildError]
// that says which line of the Dockerfile failed and what to do.
//
// BuildKit does the work, as a child process: it starts with the first build,
// ends when it was idle for a while, and is started again when it dies. Its
// cache stays on disk. Base images come from the local registry by plain HTTP
// (mirrors); registries of Azure are reached by their own names through the
// platform's proxy, which is how pushes reach them too.
//
// Invariants: when [Builder.Run] has returned, no process, mount or cgroup of a
// build is left; credentials and secrets of a request live in memory only and
// reach BuildKit through the session of that build alone.
//
// Start reading at [Builder.Build], then daemon.acquire.
package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// Config says where BuildKit is and how it reaches registries.
type Config struct {
	// Dir holds BuildKit's state and cache, its socket and its log. The
	// socket's path must fit into 107 bytes, so keep Dir short.
	Dir string
	// Buildkitd and Runc are the programs.
	Buildkitd, Runc string
	// NetNS is the network namespace in which BuildKit and the steps of a
	// build run; "" is ours.
	NetNS string
	// RegistryMirror is the local registry, "host:port" by plain HTTP as
	// BuildKit reaches it. It is asked for what Mirrors hold. "" for none.
	RegistryMirror string
	// Mirrors are the registry hosts that RegistryMirror mirrors. Nil means
	// docker.io, ghcr.io, mcr.microsoft.com, quay.io and registry.k8s.io.
	Mirrors []string
	// Proxy is the HTTP proxy (http://host:port) through which BuildKit
	// reaches every other registry over TLS; "" for none.
	Proxy string
	// CAFile holds PEM certificates that BuildKit trusts besides those of
	// the system; "" for none.
	CAFile string
	// DNS are the name servers of build steps; nil copies the system's.
	DNS []string
	// IdleTimeout is how long BuildKit stays without a build. 0 means 5 min.
	IdleTimeout time.Duration
	// StartTimeout bounds the start of BuildKit. 0 means 30 s.
	StartTimeout time.Duration
	// CacheBytes bounds the build cache on disk. 0 means 10 GB.
	CacheBytes int64
	// GoBuildCache is a GOCACHE of the Go toolchain that the golang image was
	// made of; Warm copies it instead of compiling. "" for none.
	GoBuildCache string
	// Snapshotter is "overlayfs" or "native"; "" tries overlayfs first.
	Snapshotter string
}

func (c Config) withDefaults() Config {
	if c.Mirrors == nil {
		c.Mirrors = []string{"docker.io", "ghcr.io", "mcr.microsoft.com", "quay.io", "registry.k8s.io"}
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 5 * time.Minute
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = 30 * time.Second
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = 10_000_000_000
	}
	return c
}

// maxSocket is the longest path of a unix socket that Linux takes.
const maxSocket = 107

// Validate reports what is wrong with the configuration.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	for name, path := range map[string]string{"Dir": c.Dir, "Buildkitd": c.Buildkitd, "Runc": c.Runc} {
		if !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("image: %s %q must be an absolute path", name, path))
		}
	}
	if s := filepath.Join(c.Dir, socketName); len(s) > maxSocket {
		errs = append(errs, fmt.Errorf("image: Dir makes the socket path %s longer than %d bytes; choose a shorter state directory", s, maxSocket))
	}
	switch c.Snapshotter {
	case "", overlayfs, native:
	default:
		errs = append(errs, fmt.Errorf("image: Snapshotter %q is neither overlayfs nor native", c.Snapshotter))
	}
	if c.IdleTimeout < 0 || c.StartTimeout < 0 || c.CacheBytes < 0 {
		errs = append(errs, errors.New("image: IdleTimeout, StartTimeout and CacheBytes must not be negative"))
	}
	return errors.Join(errs...)
}

// Deps is what the builder needs from others. Journal may be nil.
type Deps struct {
	Log     *slog.Logger
	Journal journal.Appender
	// Attester says of each pushed image what is in it and how it came to be;
	// nil for images about which nothing is said.
	Attester *Attester
}

// Request is one image to build.
type Request struct {
	Repo, Commit string // for the journal
	// ContextDir is the build context on this machine.
	ContextDir string
	// Dockerfile is relative to ContextDir; "" means "Dockerfile".
	Dockerfile string
	// Path is where ContextDir lies in the repository ("" is its root), so
	// that errors name the file as its author knows it.
	Path string
	// Tags are full references: "storefront.azurecr.io/web:v1".
	Tags []string
	// Push sends the image to the registries of its tags. Load would put it
	// into a Docker engine; there is none, and the progress says so.
	Push, Load        bool
	BuildArgs, Labels map[string]string
	Target            string
	Platforms         []string // "linux/amd64"; none means this machine's
	NoCache           bool
	Secrets           map[string][]byte     // by id
	Credentials       map[string]Credential // by registry host

	Annotations    []string            // "[level:]key=value", as buildx writes them
	CacheFrom      []string            // "type=registry,ref=…", as buildx writes them
	CacheTo        []string            // the same
	Contexts       map[string]string   // further contexts: a directory on this machine, docker-image://…, https://…
	SSH            map[string][][]byte // private keys (PEM) by id
	NoCacheFilters []string            // stages that are always built
	Pull           bool                // ask the registry for newer bases
	Provenance     string              // "", "true", "false", "mode=max": of BuildKit, as an index
	SBOM           string              // "", "true", "false"
	Attests        []string            // "type=provenance,mode=max"
	AddHosts       []string            // "name:address"
	Network        string              // of RUN: "", "default", "none", "host"
	Allow          []string            // entitlements: "network.host", "security.insecure"
	ShmSize        string              // "64m"
	Ulimits        []string            // "nofile=1024:1024"
	CgroupParent   string
	Exports        []Export // besides pushing

	// Source is what the provenance of a pushed image says besides Commit.
	Source Source
}

// Source is where an image comes from.
type Source struct {
	Repository string // "git+http://github.localhost/contoso/shop"
	Ref        string // "refs/heads/main"
	Workflow   string // ".github/workflows/ci.yaml"
	Invocation string // URL of the workflow run
	Builder    string // URL of who runs it
}

// Credential opens a registry.
type Credential struct{ Username, Password string }

// Result describes an image that was built.
type Result struct {
	Digest   string // of the manifest, "sha256:…"
	ImageID  string // of the configuration
	Metadata string // JSON, as `docker buildx build --metadata-file` writes it
}

// Builder builds images. It is safe for concurrent use.
type Builder struct {
	cfg    Config
	deps   Deps
	daemon *daemon
}

// New prepares a builder. Nothing is started.
func New(cfg Config, deps Deps) (*Builder, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	return &Builder{cfg: cfg, deps: deps, daemon: newDaemon(cfg, deps)}, nil
}

// Run lets builds run until ctx ends. Then it breaks off those under way, ends
// BuildKit and returns nil when nothing of it is left on the machine.
func (b *Builder) Run(ctx context.Context) error { return b.daemon.run(ctx) }

// Ready is closed when [Builder.Run] lets builds run.
func (b *Builder) Ready() <-chan struct{} { return b.daemon.ready }

// PID is the process id of BuildKit, 0 while it does not run.
func (b *Builder) PID() int { return b.daemon.pid() }
