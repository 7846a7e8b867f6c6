package builtin

import (
	"context"
	"errors"
	"io"
	"time"
)

// Artifact is a named zip file of a run.
type Artifact struct {
	ID      int64
	Name    string
	Size    int64  // of the zip, bytes
	Digest  string // "sha256:…" of the zip
	Created time.Time
}

// NewArtifact is an artifact to keep.
type NewArtifact struct {
	Name      string
	Retention time.Duration // 0: the default
	Overwrite bool          // replace one of the same name
}

// Cache is a saved archive.
type Cache struct {
	ID   int64
	Key  string
	Size int64
}

// ErrExists says that there is an artifact or a cache of that name already.
var ErrExists = errors.New("it exists already")

// Store keeps artifacts and caches. It is bound to one job: what it may see
// and write follows from the job's repository, run and ref.
type Store interface {
	// PutArtifact stores a zip file; ErrExists without Overwrite.
	PutArtifact(ctx context.Context, a NewArtifact, zip io.Reader) (Artifact, error)
	// Artifacts lists those of a run. repo "" and run 0 are the job's own.
	Artifacts(ctx context.Context, repo string, run int64) ([]Artifact, error)
	// OpenArtifact reads a zip file.
	OpenArtifact(ctx context.Context, id int64) (io.ReadCloser, error)
	// FindCache looks for the first key exactly, then for each as a prefix,
	// newest first. ok is false when there is none.
	FindCache(ctx context.Context, keys []string, version string) (c Cache, ok bool, err error)
	OpenCache(ctx context.Context, id int64) (io.ReadCloser, error)
	// SaveCache stores an archive; ErrExists when the key and version have one.
	SaveCache(ctx context.Context, key, version string, archive io.Reader) error
}

// Scan is the report of a scanner, as SARIF.
type Scan struct {
	Tool, Category, Ref, Commit string
	SARIF                       []byte
}

// Scans keeps reports of scanners.
type Scans interface {
	// SaveScan returns the id of the upload.
	SaveScan(ctx context.Context, s Scan) (string, error)
}
