package container

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// maxLayers is how many layers an image may have; Docker's own limit.
const maxLayers = 127

// unpack makes the layers of an image folders and holds them until release. It
// returns their paths, top first.
func (e *Engine) unpack(ctx context.Context, digest v1.Hash) (paths []string, release func(), err error) {
	img, err := e.store.image(digest)
	if err != nil {
		return nil, nil, err
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, nil, err
	}
	if len(config.RootFS.DiffIDs) != len(layers) {
		return nil, nil, fmt.Errorf("image %s names %d layers and has %d", digest, len(config.RootFS.DiffIDs), len(layers))
	}
	var chains []string
	held := []string{digest.Hex}
	for _, id := range config.RootFS.DiffIDs {
		chains = append(chains, chainOf(chains, id))
	}
	held = append(held, chains...)
	e.store.hold(held, 1)
	release = func() { e.store.hold(held, -1) }
	left := e.cfg.MaxImage
	for i, l := range layers {
		var below []string // nearest first
		for j := i - 1; j >= 0; j-- {
			below = append(below, e.store.layerPath(chains[j])+"/fs")
		}
		_, err, _ := e.fetch.Do("layer "+chains[i], func() (any, error) {
			return nil, e.store.unpackLayer(e.ctx, l, config.RootFS.DiffIDs[i], chains[i], below, left)
		})
		if err != nil {
			release()
			return nil, nil, fmt.Errorf("unpack layer %d of image %s: %w", i+1, digest, err)
		}
		left -= e.store.layerSize(chains[i])
		paths = append([]string{e.store.layerPath(chains[i]) + "/fs"}, paths...)
		if ctx.Err() != nil {
			release()
			return nil, nil, context.Cause(ctx)
		}
	}
	if len(paths) == 0 { // FROM scratch with nothing in it
		empty := e.store.layerPath("empty") + "/fs"
		if err := os.MkdirAll(empty, 0o755); err != nil {
			release()
			return nil, nil, err
		}
		paths = []string{empty}
	}
	return paths, release, nil
}

// chainOf is the chain ID (OCI image specification) of a layer on others, as
// hexadecimal. Folders above take their owners from those below, so a layer
// is unpacked once for each chain.
func chainOf(below []string, id v1.Hash) string {
	if len(below) == 0 {
		return id.Hex
	}
	sum := sha256.Sum256([]byte("sha256:" + below[len(below)-1] + " " + id.String()))
	return hex.EncodeToString(sum[:])
}

func (s *store) hold(keys []string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		if s.held[k] += n; s.held[k] <= 0 {
			delete(s.held, k)
		}
	}
}

// layerSize is how large an unpacked layer is, bytes; 0 when it is not there.
func (s *store) layerSize(chain string) int64 {
	data, err := os.ReadFile(filepath.Join(s.layerPath(chain), "size"))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(string(data), 10, 64)
	return n
}

// unpackLayer makes a layer a folder as overlayfs wants it. It appears by one
// rename, after its sum was checked and all is on disk.
func (s *store) unpackLayer(ctx context.Context, l v1.Layer, id v1.Hash, chain string, below []string, limit int64) (err error) {
	target := s.layerPath(chain)
	if _, err := os.Stat(target); err == nil {
		return nil
	}
	partial, err := os.MkdirTemp(filepath.Join(s.dir, "tmp"), "layer-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(partial)
		}
	}()
	if err := os.Mkdir(partial+"/fs", 0o755); err != nil {
		return err
	}
	r, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	sum := sha256.New()
	bounded := &bounded{r: io.TeeReader(r, sum), left: limit}
	size, err := archive.Apply(ctx, partial+"/fs", bounded, archive.WithFilter(checkEntry),
		archive.WithConvertWhiteout(whiteout(partial+"/fs")), archive.WithParents(below))
	if err == nil {
		_, err = io.Copy(io.Discard, bounded) // padding counts for the sum
	}
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != id.Hex {
		return fmt.Errorf("its content has the sum sha256:%s, the image says %s", got, id)
	}
	if err := os.WriteFile(partial+"/size", strconv.AppendInt(nil, size, 10), 0o600); err != nil {
		return err
	}
	if err := syncAll(partial); err != nil {
		return err
	}
	if err := os.Rename(partial, target); err != nil {
		if _, there := os.Stat(target); there == nil { // another was faster
			return os.RemoveAll(partial)
		}
		return err
	}
	return nil
}

// checkEntry refuses names that lead outside, and drops what an image cannot
// have a say in: devices, and attributes of overlayfs itself.
func checkEntry(h *tar.Header) (bool, error) {
	for _, n := range []string{h.Name, map[bool]string{true: h.Linkname}[h.Typeflag == tar.TypeLink]} {
		if n = path.Clean(strings.TrimLeft(n, "/")); n == ".." || strings.HasPrefix(n, "../") {
			return false, fmt.Errorf("entry %q leads outside of the layer", n)
		}
	}
	for key := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok &&
			(strings.HasPrefix(attr, "trusted.") || strings.HasPrefix(attr, "user.overlay.")) {
			delete(h.PAXRecords, key)
		}
	}
	return h.Typeflag != tar.TypeBlock && h.Typeflag != tar.TypeChar, nil
}

// errTooLarge ends the reading of a layer that is a bomb.
var errTooLarge = errors.New("it is larger than an image may be")

// bounded reads at most left bytes.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLarge
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
