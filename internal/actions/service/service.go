// Package service is what GitHub gives the runner beside the job itself:
// artifacts (v4), caches (v2) and OIDC tokens, on the wire that unmodified
// clients speak.
//
// Input: requests of a job that proves itself by the token of its [Scope], and
// Go calls of the engine, its built-in actions and its REST API. Output:
// artifacts and cache entries on disk, signed URLs that behave as Azure Blob
// Storage does, and ID tokens with GitHub's claims.
//
// Invariants: what was finalized is on disk and in the database, whole; what
// was not is never seen and is gone after a restart; no file is held in memory;
// a job reaches only its own repository, and writes caches only for its own
// ref; after the scope is closed its tokens open nothing.
//
// Start reading at [New], [Service.Open] and [Service.Handler].
package service

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the "sqlite" driver of database/sql
)

// The hosts that the two handlers stand for.
const (
	ResultsHost = "results.github.localhost"
	IssuerHost  = "token.actions.githubusercontent.com"
)

// Issuer is the `iss` of ID tokens.
const Issuer = "https://" + IssuerHost

var (
	// ErrNotFound says that there is no such artifact or cache entry.
	ErrNotFound = errors.New("not found")
	// ErrExists says that an artifact or cache entry of that name was finalized,
	// or is being uploaded, before.
	ErrExists = errors.New("exists already")
	// ErrQuota says that the repository's storage is full.
	ErrQuota = errors.New("storage quota reached")
	// ErrExpired says that the artifact's retention time is over.
	ErrExpired = errors.New("expired")
	// ErrInvalid says that a name, key or size breaks GitHub's rules.
	ErrInvalid = errors.New("invalid")
	// ErrDenied says that the job has no right to it.
	ErrDenied = errors.New("denied")
)

// Config is plain data; zero values take the defaults that are written here.
type Config struct {
	Dir    string // of the database, the keys and the blobs; made when missing
	URL    string // origin under which jobs reach Handler; http://results.github.localhost
	APIURL string // of the REST API, in its answers; http://api.github.localhost
	// OwnerURL is the site in the default audience of ID tokens;
	// https://github.com, because policies are written for it.
	OwnerURL string

	ArtifactQuota   int64 // bytes per repository, 50 GiB
	ArtifactsPerJob int   // 500, as on GitHub
	ArtifactDays    int   // longest and default retention, 90
	CacheQuota      int64 // bytes per repository, 10 GiB, as on GitHub
	CacheDays       int   // entries unused for so long are deleted, 7
}

func (c Config) withDefaults() Config {
	set := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	days := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&c.ArtifactQuota, 50<<30)
	set(&c.CacheQuota, 10<<30)
	days(&c.ArtifactsPerJob, 500)
	days(&c.ArtifactDays, 90)
	days(&c.CacheDays, 7)
	if c.URL == "" {
		c.URL = "http://" + ResultsHost
	}
	if c.APIURL == "" {
		c.APIURL = "http://api.github.localhost"
	}
	if c.OwnerURL == "" {
		c.OwnerURL = "https://github.com"
	}
	c.APIURL = strings.TrimRight(c.APIURL, "/")
	c.URL, c.OwnerURL = strings.TrimRight(c.URL, "/"), strings.TrimRight(c.OwnerURL, "/")
	return c
}

// Validate says what cannot work.
func (c Config) Validate() error {
	if c.Dir == "" {
		return errors.New("service: Dir is empty: it needs a folder for artifacts and caches")
	}
	u, err := url.Parse(c.withDefaults().URL)
	if err != nil || u.Host == "" || u.Path != "" {
		return fmt.Errorf("service: URL %q is not an origin such as http://%s: clients keep only the origin of ACTIONS_RESULTS_URL", c.URL, ResultsHost)
	}
	if c.ArtifactQuota < 0 || c.CacheQuota < 0 || c.ArtifactDays < 0 || c.CacheDays < 0 || c.ArtifactsPerJob < 0 {
		return errors.New("service: quotas and days must not be negative")
	}
	return nil
}

// Deps are what the service uses of others.
type Deps struct {
	Log *slog.Logger
	Now func() time.Time // time.Now when nil
}

// Service holds artifacts, caches and keys. It is safe for concurrent use.
type Service struct {
	cfg    Config
	log    *slog.Logger
	now    func() time.Time
	db     *sql.DB
	secret []byte // of tokens and signed URLs, new with each process
	keys   *keyring

	finalizing sync.RWMutex // held for reading between a blob's file and its row

	mu      sync.Mutex
	scopes  map[string]*opened // by token ID
	uploads map[string]*upload // by ID
	staged  map[account]int64  // bytes of unfinished uploads
}

// account is what one quota is for.
type account struct {
	kind string // kindArtifact or kindCache
	repo string // lower case
}

// New opens the state below cfg.Dir. Uploads that were not finalized when the
// last process ended are removed. The caller must Close the service.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{
		cfg: cfg.withDefaults(), log: deps.Log, now: deps.Now, secret: make([]byte, 32),
		scopes: map[string]*opened{}, uploads: map[string]*upload{}, staged: map[account]int64{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	_, _ = rand.Read(s.secret) // never fails
	if err := os.RemoveAll(s.stagingDir()); err != nil {
		return nil, fmt.Errorf("remove unfinished uploads: %w", err)
	}
	for _, dir := range []string{s.stagingDir(), s.blobDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("service: %w", err)
		}
	}
	var err error
	if s.keys, err = openKeyring(filepath.Join(cfg.Dir, "oidc-keys.json"), s.now); err != nil {
		return nil, err
	}
	if s.db, err = openDatabase(filepath.Join(cfg.Dir, "service.db")); err != nil {
		return nil, err
	}
	if err := s.Sweep(context.Background()); err != nil {
		return nil, errors.Join(err, s.db.Close())
	}
	return s, nil
}

// Close releases the database. Requests under way fail.
func (s *Service) Close() error { return s.db.Close() }

func (s *Service) stagingDir() string { return filepath.Join(s.cfg.Dir, "staging") }
func (s *Service) blobDir() string    { return filepath.Join(s.cfg.Dir, "blobs") }

// sweepEvery is how often what has expired is deleted. Expired things are
// refused at once; only their disk space waits.
const sweepEvery = time.Hour

// Run deletes what expires, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("delete expired artifacts and caches", "err", err)
			}
		}
	}
}

// Handler serves [ResultsHost]: twirp, blobs and requests for ID tokens.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/twirp/{service}/{method}", s.serveTwirp)
	mux.HandleFunc("/blobs/{kind}/{id}", s.serveBlob)
	mux.HandleFunc("/blobs/{kind}/{id}/{name...}", s.serveBlob)
	mux.HandleFunc("GET /idtoken/{run}/{job}", s.serveIDToken)
	mux.HandleFunc("/_apis/", func(w http.ResponseWriter, r *http.Request) {
		writeTwirpError(w, &twirpError{"unimplemented", "version 1 of artifacts and caches was shut down by GitHub and is not served here: " +
			"use actions/cache@v4.2 or later, actions/upload-artifact@v4 or later (" + r.URL.Path + ")"})
	})
	return mux
}
