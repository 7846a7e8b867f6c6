// Package registry is the container registry of the picture: what Azure
// Container Registry is in the cloud and what Docker Hub and its like are to
// a build, on one machine.
//
// Input: requests of the OCI distribution protocol for any of several registry
// hosts in one process. Output: blobs and manifests under [Config].Dir, one
// folder per host, served by CNCF Distribution as it is. A request belongs to
// the host named by its `ns` query parameter (mirror requests of containerd
// and BuildKit), else by its Host header (storefront.azurecr.io through the
// intercepting proxy), else to [DefaultHost].
//
// In front of Distribution stands ACR-shaped authentication: the Docker token
// challenge, /oauth2/token, /oauth2/exchange, and plain Basic. [Registry.Handler]
// is for people and builds; [Registry.NodeHandler] is for the node, may only
// pull, and asks for no credentials: it is what the kubelet identity's AcrPull
// role is in the cloud, so it must be reachable from the node alone.
//
// Invariants: a push that was acknowledged survives kill -9 and a power cut;
// an image name and a Location never change on their way through; no
// credential is logged, stored or put into an error.
//
// Start reading at [Registry.serve].
package registry

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
)

// DefaultHost is the registry that answers when a request names none: the one
// at localhost:<port>.
const DefaultHost = "localhost"

// Config says where the registry keeps its state and whom it serves.
type Config struct {
	// Dir holds everything: hosts/<host>/ and the key of the tokens.
	Dir string
	// Mirrors are the public registry hosts that may hold imported images.
	// Nil means [PublicHosts].
	Mirrors []string
	// AnonymousPull lets [Registry.Handler] serve pulls without credentials.
	// Pushes always need them. NodeHandler never asks.
	AnonymousPull bool
	// MaxHosts bounds how many registries one process opens. 0 means 64.
	MaxHosts int
	// TokenLifetime is how long an access token lives. 0 means one hour.
	TokenLifetime time.Duration
}

// PublicHosts are the public registries that are mirrored unless
// [Config].Mirrors says otherwise.
func PublicHosts() []string {
	return []string{"docker.io", "ghcr.io", "mcr.microsoft.com", "quay.io", "registry.k8s.io"}
}

// withDefaults returns c with its zero fields filled in.
func (c Config) withDefaults() Config {
	if c.Mirrors == nil {
		c.Mirrors = PublicHosts()
	}
	if c.MaxHosts == 0 {
		c.MaxHosts = 64
	}
	if c.TokenLifetime == 0 {
		c.TokenLifetime = time.Hour
	}
	return c
}

// Validate reports what is wrong with the configuration.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	if !filepath.IsAbs(c.Dir) {
		errs = append(errs, fmt.Errorf("registry: Dir %q must be an absolute path", c.Dir))
	}
	for _, h := range c.Mirrors {
		if _, err := parseHost(h); err != nil {
			errs = append(errs, fmt.Errorf("registry: mirror: %w", err))
		}
	}
	if c.MaxHosts < 1 {
		errs = append(errs, fmt.Errorf("registry: MaxHosts %d must be at least 1", c.MaxHosts))
	}
	if c.TokenLifetime < time.Minute {
		errs = append(errs, fmt.Errorf("registry: TokenLifetime %v must be at least a minute", c.TokenLifetime))
	}
	return errors.Join(errs...)
}

// Principal is who asks, once that is known.
type Principal struct {
	// Name is a user name, or the subject of an Entra token.
	Name string
}

// ErrBadCredentials is what an [Authorizer] and [Tokens] return for a user
// name, password or token that is not right. Any other error means that they
// could not find out.
var ErrBadCredentials = errors.New("wrong credentials")

// Actions that an [Authorizer] is asked about.
const (
	ActionPull   = "pull"
	ActionPush   = "push"
	ActionDelete = "delete"
	// ActionCatalog is to list the repositories of a host; repo is "".
	ActionCatalog = "catalog"
)

// Authorizer knows the users of each registry host and what they may do.
type Authorizer interface {
	// Login checks a user name and password. ErrBadCredentials when wrong.
	Login(ctx context.Context, host, user, password string) (Principal, error)
	// Allowed reports whether p may do action to repo at host.
	Allowed(ctx context.Context, p Principal, host, repo, action string) bool
}

// Tokens verifies access tokens of Microsoft Entra for `az acr login`.
type Tokens interface {
	// VerifyEntra returns the subject of a valid token. ErrBadCredentials
	// when it is not valid.
	VerifyEntra(ctx context.Context, token string) (subject string, err error)
}

// Registries knows which Azure container registries exist.
type Registries interface {
	// Exists reports whether the registry "name.azurecr.io" was created.
	Exists(ctx context.Context, host string) (bool, error)
}

// Push is a manifest that was stored.
type Push struct {
	Host, Repo string
	Tag        string // empty when it was pushed by digest only
	Digest     string // "sha256:…"
	MediaType  string
	Actor      string // who pushed: Principal.Name
}

// Deps is what the registry needs from others.
type Deps struct {
	Log        *slog.Logger
	Authorizer Authorizer
	Tokens     Tokens     // nil: /oauth2/exchange refuses
	Registries Registries // nil: no *.azurecr.io exists
	// OnPush is called after a manifest is durable and before its push is
	// acknowledged. Nil is allowed.
	OnPush func(context.Context, Push)
	// Upstream reaches the registries that are mirrored, for images that were
	// not imported; nil: only those that were.
	Upstream http.RoundTripper
}

// Registry serves the registries of this machine. It is safe for concurrent use.
type Registry struct {
	cfg   Config
	deps  Deps
	log   *slog.Logger
	keys  tokenKeys
	known map[string]bool // Config.Mirrors

	upstream *upstream // nil without one

	mu     sync.Mutex
	closed bool
	hosts  map[string]*host
}

// New opens the registry's state. It serves as soon as it returns.
func New(cfg Config, deps Deps) (*Registry, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Authorizer == nil {
		return nil, errors.New("registry: Deps.Authorizer is needed: it says who may push")
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "hosts"), 0o700); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	key, err := loadKey(filepath.Join(cfg.Dir, "token.key"))
	if err != nil {
		return nil, err
	}
	redirectDistributionLogs(deps.Log)
	r := &Registry{
		cfg: cfg, deps: deps, log: deps.Log,
		keys:  tokenKeys{key: key, lifetime: cfg.TokenLifetime, now: time.Now},
		known: map[string]bool{DefaultHost: true},
		hosts: map[string]*host{},
	}
	for _, h := range cfg.Mirrors {
		name, err := parseHost(h)
		if err != nil {
			return nil, err
		}
		r.known[name] = true
	}
	if deps.Upstream != nil {
		r.upstream = &upstream{transport: deps.Upstream}
	}
	return r, nil
}

// Close ends the background work of all hosts. Requests fail from then on.
func (r *Registry) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	var errs []error
	for _, h := range r.hosts {
		errs = append(errs, h.close())
	}
	return errors.Join(errs...)
}

// Handler serves /v2/, /oauth2/token and /oauth2/exchange to anybody with
// credentials.
func (r *Registry) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.serve(w, req, everybody) })
}

// NodeHandler serves pulls under /v2/ without credentials. Give it only a
// listener that nothing but the node and its builds can reach.
func (r *Registry) NodeHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.serve(w, req, node) })
}

// audience is who stands before a handler.
type audience int

const (
	everybody audience = iota // must show credentials
	node                      // may pull, nothing else
	platform                  // this process: may do everything
)

// serve takes one request through: which registry, who, may they, do it.
func (r *Registry) serve(w http.ResponseWriter, req *http.Request, from audience) {
	name, err := r.hostOf(req)
	if err != nil {
		writeError(w, http.StatusBadRequest, codeNameInvalid, err.Error())
		return
	}
	if from == everybody && serveTokens(req.URL.Path) {
		r.serveToken(w, req, name)
		return
	}
	target := parseTarget(req)
	if target.kind == notFound {
		writeError(w, http.StatusNotFound, codeUnsupported, "this is an OCI registry: its interface is under /v2/")
		return
	}
	if err := r.exists(req.Context(), name); err != nil {
		writeAPIError(w, err)
		return
	}
	who, ok := r.authorize(w, req, name, target, from)
	if !ok {
		return
	}
	h, err := r.open(name)
	if err != nil {
		writeAPIError(w, err)
		return
	}
	r.dispatch(w, req, h, target, who)
}
