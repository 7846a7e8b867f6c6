// Package bundle carries the programs of the node inside the Lockstep binary.
//
// Input: the zstd files and index.json in payload/, written by
// `go run ./internal/bundle/build`. Output: the programs as files ([Extract])
// and their [Paths].
//
// Invariants: a set of programs is written once, under a name that is the hash
// of its index, and becomes visible by one rename after every sum was checked;
// a set that is in use is never changed.
//
// Start reading at [Extract].
package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// Names of the carried programs, which are also their file names.
const (
	Hyperkube      = "hyperkube"
	Containerd     = "containerd"
	ContainerdShim = "containerd-shim-runc-v2"
	Runc           = "runc"
	Buildkitd      = "buildkitd"
	Pause          = "pause"
	Init           = "lockstep-init"
	CNIPtp         = "ptp"
	CNIHostLocal   = "host-local"
	CNIPortmap     = "portmap"
)

// Programs lists every carried program.
func Programs() []string {
	return []string{
		Hyperkube, Containerd, ContainerdShim, Runc, Buildkitd, Pause, Init,
		CNIPtp, CNIHostLocal, CNIPortmap,
	}
}

// IndexFile is the name of the index within a payload.
const IndexFile = "index.json"

// Program is one entry of a payload's index.
type Program struct {
	SHA256 string `json:"sha256"` // of the program itself, hexadecimal
	Size   int64  `json:"size"`   // of the program itself, bytes
}

// Index maps program names to their contents.
type Index map[string]Program

// Paths says where the programs are. All paths are absolute.
type Paths struct {
	Dir            string // the folder that holds them all; also CNI's bin_dir
	Hyperkube      string // etcd, kube-* and coredns by argv[0]
	Containerd     string
	ContainerdShim string
	Runc           string
	Buildkitd      string
	Pause          string // static program that does nothing, for the sandbox image
	Init           string // static program that starts the sandboxes of workflow jobs
}

// ErrNoPayload means that this binary was built without the node's programs.
var ErrNoPayload = errors.New("this lockstep binary carries no node programs; build it with `make` (or run `go run ./internal/bundle/build` before `go build`), or use an existing cluster with --kubeconfig")

// InDir returns the paths of programs that were built into dir. The error
// names the missing ones.
func InDir(dir string) (Paths, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Paths{}, fmt.Errorf("programs in %s: %w", dir, err)
	}
	var missing []string
	for _, name := range Programs() {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || !info.Mode().IsRegular() {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return Paths{}, fmt.Errorf("programs in %s: %v missing; `go run ./internal/bundle/build` makes them", dir, missing)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	return Paths{
		Dir: dir, Hyperkube: at(Hyperkube), Containerd: at(Containerd), ContainerdShim: at(ContainerdShim),
		Runc: at(Runc), Buildkitd: at(Buildkitd), Pause: at(Pause), Init: at(Init),
	}, nil
}

// Carried returns nil when this binary carries the node's programs, else
// [ErrNoPayload].
func Carried() error {
	if _, err := fs.Stat(payload(), IndexFile); err != nil {
		return ErrNoPayload
	}
	return nil
}

// Extract writes the programs of this binary below dir, unless they are there
// already, and returns their paths. It needs about 0.3 GiB of space and a
// second of time, once per version. [ErrNoPayload] says that there are none.
func Extract(ctx context.Context, dir string) (Paths, error) {
	return extract(ctx, payload(), dir)
}

func extract(ctx context.Context, from fs.FS, dir string) (Paths, error) {
	body, err := fs.ReadFile(from, IndexFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Paths{}, ErrNoPayload
	}
	if err != nil {
		return Paths{}, fmt.Errorf("extract programs: %w", err)
	}
	var index Index
	if err := json.Unmarshal(body, &index); err != nil {
		return Paths{}, fmt.Errorf("extract programs: %s: %w", IndexFile, err)
	}
	sum := sha256.Sum256(body)
	target := filepath.Join(dir, hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(target); err == nil {
		now := time.Now()
		_ = os.Chtimes(target, now, now) // prune keeps what was used last
		return InDir(target)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Paths{}, fmt.Errorf("extract programs: %w", err)
	}
	tmp, err := os.MkdirTemp(dir, ".extract-")
	if err != nil {
		return Paths{}, fmt.Errorf("extract programs: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := writeAll(ctx, from, index, tmp); err != nil {
		return Paths{}, fmt.Errorf("extract programs: %w", err)
	}
	// Another process may have been faster with the same content.
	if err := os.Rename(tmp, target); err != nil && !errors.Is(err, fs.ErrExist) {
		return Paths{}, fmt.Errorf("extract programs: %w", err)
	}
	prune(dir, target)
	return InDir(target)
}

func writeAll(ctx context.Context, from fs.FS, index Index, dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil { // containers run as other users
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for name, want := range index {
		group.Go(func() error { return writeOne(ctx, from, name, want, filepath.Join(dir, name)) })
	}
	return group.Wait()
}

// writeOne decompresses one program and checks its size and sum.
func writeOne(ctx context.Context, from fs.FS, name string, want Program, path string) error {
	if name != filepath.Base(name) {
		return fmt.Errorf("index names %q, which is not a file name", name)
	}
	src, err := from.Open(name + ".zst")
	if err != nil {
		return err
	}
	defer src.Close()
	plain, err := zstd.NewReader(src, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer plain.Close()
	dst, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(dst, hash), io.LimitReader(contextReader{ctx, plain}, want.Size+1))
	if err == nil {
		err = dst.Sync()
	}
	if err := errors.Join(err, dst.Close()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); n != want.Size || got != want.SHA256 {
		return fmt.Errorf("%s: %d bytes with sum %s, index says %d with %s: this lockstep binary is damaged, install it again", name, n, got, want.Size, want.SHA256)
	}
	return nil
}

// contextReader ends a long copy when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// prune removes older sets but the one used last: pods that outlived an
// upgrade still name its shim. Failures leave files, nothing worse.
func prune(dir, keep string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	type set struct {
		path string
		used time.Time
	}
	var old []set
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if _, err := os.Stat(filepath.Join(path, Hyperkube)); err != nil || path == keep || e.Name()[0] == '.' {
			continue
		}
		if info, err := e.Info(); err == nil {
			old = append(old, set{path, info.ModTime()})
		}
	}
	slices.SortFunc(old, func(a, b set) int { return b.used.Compare(a.used) })
	for _, s := range old[min(1, len(old)):] {
		_ = os.RemoveAll(s.path)
	}
}
