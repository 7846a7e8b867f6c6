package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// warmDockerfile fills the cache mount that Dockerfiles for Go use by custom,
// /root/.cache/go-build. A cache mount is shared by all builds that name its
// path, so the standard library is compiled once per machine and not in the
// first build that somebody waits for. -trimpath is part of a cache key: both
// ways are compiled.
const warmDockerfile = `FROM %s
ENV CGO_ENABLED=0 GOMAXPROCS=1
RUN --mount=type=cache,target=/root/.cache/go-build \
    go build -p 1 -trimpath net/http log/slog encoding/json && \
    for flag in -trimpath -trimpath=false; do \
      go build -p 1 $flag net/http/pprof database/sql html/template os/exec os/signal \
        encoding/xml encoding/csv expvar embed flag || exit 1; \
    done
`

// copyDockerfile fills the same cache mount from the build context, which is a
// GOCACHE of the same toolchain: keys of the cache are hashes of what was
// compiled, so entries that do not fit are never used.
const copyDockerfile = `FROM %s
RUN --mount=type=cache,target=/root/.cache/go-build --mount=type=bind,target=/seed \
    cp -a /seed/. /root/.cache/go-build/
`

// warmName holds the image that was warmed up for last.
const warmName = "warm"

// Warm compiles the standard library of the Go image (its reference with
// digest) into the build cache, so that the first build of a Go program takes
// seconds. With [Config].GoBuildCache that is a copy, which takes seconds. Else
// run it in the background: the first time it keeps one core busy for one to
// two minutes. It returns at once when it was done for the same image.
func (b *Builder) Warm(ctx context.Context, golang string) error {
	stamp := filepath.Join(b.cfg.Dir, warmName)
	done, err := os.ReadFile(stamp)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("warm up build cache: %w", err)
	}
	if string(done) == golang {
		return nil
	}
	if _, err := parseRef(golang); err != nil {
		return fmt.Errorf("warm up build cache: %w", err)
	}
	dir, err := os.MkdirTemp("", "lockstep-warm-")
	if err != nil {
		return fmt.Errorf("warm up build cache: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // one small file in the temporary directory
	recipe, source := warmDockerfile, dir
	if b.cfg.GoBuildCache != "" {
		recipe, source = copyDockerfile, b.cfg.GoBuildCache
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), fmt.Appendf(nil, recipe, golang), 0o600); err != nil {
		return fmt.Errorf("warm up build cache: %w", err)
	}
	p, err := newPlan(Request{ContextDir: dir})
	if err != nil {
		return fmt.Errorf("warm up build cache: %w", err)
	}
	p.req.ContextDir = source
	p.keep = true
	if _, _, err := b.solve(ctx, p, io.Discard); err != nil {
		return fmt.Errorf("warm up build cache: %w", err)
	}
	// Not synced: were it lost, the work would be found in the cache.
	if err := os.WriteFile(stamp, []byte(golang), 0o600); err != nil {
		return fmt.Errorf("warm up build cache: %w", err)
	}
	return nil
}
