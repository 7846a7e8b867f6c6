package container

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/lockstep-gitops/lockstep/internal/durable"
)

// entry is one name of an image.
type entry struct {
	Digest v1.Hash   `json:"digest"` // of the manifest
	Size   int64     `json:"size"`   // bytes of blobs
	Used   time.Time `json:"used"`
}

// store keeps blobs by digest, unpacked layers by chain ID, and names.
type store struct {
	dir string
	now func() time.Time

	// writing is held shared while an image comes in, whose blobs have no name
	// yet, and alone while blobs without a name are removed.
	writing sync.RWMutex

	mu    sync.Mutex
	names map[string]entry
	held  map[string]int // layers and manifests in use, by hexadecimal digest
}

func openStore(dir string, now func() time.Time) (*store, error) {
	s := &store{dir: dir, now: now, names: map[string]entry{}, held: map[string]int{}}
	if err := os.RemoveAll(filepath.Join(dir, "tmp")); err != nil {
		return nil, err
	}
	for _, sub := range []string{"tmp", "blobs", "layers"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "images.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &s.names); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, "images.json"), err)
	}
	return s, nil
}

func parseName(ref string) (name.Reference, error) {
	n, err := name.ParseReference(ref)
	if err != nil {
		return nil, fmt.Errorf("image name %q: %w", ref, err)
	}
	return n, nil
}

func (s *store) blobPath(h v1.Hash) string   { return filepath.Join(s.dir, "blobs", h.Hex) }
func (s *store) layerPath(hex string) string { return filepath.Join(s.dir, "layers", hex) }

// save writes the names. The caller holds mu.
func (s *store) save() error {
	data, err := json.Marshal(s.names)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(s.dir, "images.json"), data, 0o600); err != nil {
		return fmt.Errorf("keep the names of images: %w", err)
	}
	return nil
}

// put gives a manifest of the store a name.
func (s *store) put(name string, digest v1.Hash, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[name] = entry{Digest: digest, Size: size, Used: s.now()}
	return s.save()
}

// find looks for a name, a digest or the start of an ID.
func (s *store) find(ref string) (entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, err := name.ParseReference(ref); err == nil {
		if e, ok := s.names[n.Name()]; ok {
			return e, nil
		}
	}
	hex := strings.TrimPrefix(ref, "sha256:")
	if len(hex) >= 6 && strings.Trim(hex, "0123456789abcdef") == "" {
		for _, e := range s.names {
			if strings.HasPrefix(e.Digest.Hex, hex) {
				return e, nil
			}
			if img, err := s.image(e.Digest); err == nil {
				if id, err := img.ConfigName(); err == nil && strings.HasPrefix(id.Hex, hex) {
					return e, nil
				}
			}
		}
	}
	return entry{}, fmt.Errorf("%w: %s", ErrNotFound, ref)
}

// touch notes that an image was used now.
func (s *store) touch(digest v1.Hash) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, e := range s.names {
		if e.Digest == digest {
			e.Used = s.now()
			s.names[n] = e
		}
	}
	return s.save()
}

func (s *store) remove(ref string) error {
	e, err := s.find(ref)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, err := name.ParseReference(ref); err == nil {
		if _, ok := s.names[n.Name()]; ok {
			delete(s.names, n.Name())
			return s.save()
		}
	}
	for n, other := range s.names { // by digest or ID: all names
		if other.Digest == e.Digest {
			delete(s.names, n)
		}
	}
	return s.save()
}

func (s *store) images() ([]Image, error) {
	s.mu.Lock()
	all := map[v1.Hash]entry{}
	for _, e := range s.names {
		if e.Used.After(all[e.Digest].Used) || all[e.Digest].Digest.Hex == "" {
			all[e.Digest] = e
		}
	}
	s.mu.Unlock()
	var out []Image
	for _, e := range all {
		img, err := s.describe(e)
		if err != nil {
			return nil, err
		}
		out = append(out, img)
	}
	slices.SortFunc(out, func(a, b Image) int {
		return cmp.Or(b.Used.Compare(a.Used), strings.Compare(a.Digest.Hex, b.Digest.Hex))
	})
	return out, nil
}

func (s *store) describe(e entry) (Image, error) {
	img, err := s.image(e.Digest)
	if err != nil {
		return Image{}, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return Image{}, fmt.Errorf("read image %s: %w", e.Digest, err)
	}
	id, err := img.ConfigName()
	if err != nil {
		return Image{}, fmt.Errorf("read image %s: %w", e.Digest, err)
	}
	out := Image{Digest: e.Digest, ID: id, Size: e.Size, Created: file.Created.Time, Used: e.Used, Config: file.Config}
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, other := range s.names {
		if other.Digest == e.Digest {
			out.Names = append(out.Names, n)
		}
	}
	slices.Sort(out.Names)
	return out, nil
}

// writeBlob keeps what r gives when its sum is h.
func (s *store) writeBlob(h v1.Hash, open func() (io.ReadCloser, error)) (err error) {
	if _, err := os.Stat(s.blobPath(h)); err == nil {
		return nil
	}
	r, err := open()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	f, err := os.CreateTemp(filepath.Join(s.dir, "tmp"), "blob-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	got, _, err := v1.SHA256(io.TeeReader(r, f))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if got != h {
		return fmt.Errorf("blob %s: its content has the sum %s", h, got)
	}
	return os.Rename(f.Name(), s.blobPath(h))
}

// add keeps an image under names.
func (s *store) add(img v1.Image, names ...string) (v1.Hash, error) {
	s.writing.RLock()
	defer s.writing.RUnlock()
	digest, size, err := s.write(img)
	if err != nil {
		return digest, err
	}
	return digest, s.name(digest, size, names)
}

// addChecked is add for an image of unknown origin: all of it is read before
// it gets a name.
func (s *store) addChecked(img v1.Image, names ...string) (v1.Hash, error) {
	s.writing.RLock()
	defer s.writing.RUnlock()
	digest, size, err := s.write(img)
	if err != nil {
		return digest, err
	}
	kept, err := s.image(digest)
	if err == nil {
		err = validate.Image(kept)
	}
	if err != nil {
		return digest, fmt.Errorf("the image is damaged: %w", err)
	}
	return digest, s.name(digest, size, names)
}

func (s *store) name(digest v1.Hash, size int64, names []string) error {
	for _, n := range names {
		if err := s.put(n, digest, size); err != nil {
			return err
		}
	}
	return nil
}

// write keeps an image and returns its digest and the size of its blobs.
func (s *store) write(img v1.Image) (v1.Hash, int64, error) {
	digest, err := img.Digest()
	if err != nil {
		return digest, 0, err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return digest, 0, err
	}
	if n := len(manifest.Layers); n > maxLayers {
		return digest, 0, fmt.Errorf("image has %d layers; at most %d are taken", n, maxLayers)
	}
	for _, l := range manifest.Layers {
		if !l.MediaType.IsLayer() {
			return digest, 0, fmt.Errorf("image has a layer of type %s: it is no image to run", l.MediaType)
		}
	}
	layers, err := img.Layers()
	if err != nil {
		return digest, 0, err
	}
	var size int64
	for _, l := range layers {
		h, err := l.Digest()
		if err != nil {
			return digest, 0, err
		}
		if err := s.writeBlob(h, l.Compressed); err != nil {
			return digest, 0, fmt.Errorf("layer %s: %w", h, err)
		}
		n, err := l.Size()
		if err != nil {
			return digest, 0, err
		}
		size += n
	}
	for h, raw := range map[v1.Hash]func() ([]byte, error){manifest.Config.Digest: img.RawConfigFile, digest: img.RawManifest} {
		open := func() (io.ReadCloser, error) {
			data, err := raw()
			return io.NopCloser(strings.NewReader(string(data))), err
		}
		if err := s.writeBlob(h, open); err != nil {
			return digest, 0, err
		}
	}
	return digest, size, nil
}

// image reads an image of the store.
func (s *store) image(digest v1.Hash) (v1.Image, error) {
	raw, err := os.ReadFile(s.blobPath(digest))
	if err != nil {
		return nil, fmt.Errorf("read image %s: %w", digest, err)
	}
	m, err := v1.ParseManifest(strings.NewReader(string(raw)))
	if err != nil {
		return nil, fmt.Errorf("read image %s: %w", digest, err)
	}
	return partial.CompressedToImage(&stored{s, raw, m})
}

// Check reads every blob of an image again and compares its sums.
func (e *Engine) Check(ref string) error {
	img, err := e.OpenImage(ref)
	if err != nil {
		return err
	}
	return validate.Image(img)
}

// stored is an image of the store, as go-containerregistry wants it.
type stored struct {
	s        *store
	raw      []byte
	manifest *v1.Manifest
}

func (i *stored) RawManifest() ([]byte, error)        { return i.raw, nil }
func (i *stored) MediaType() (types.MediaType, error) { return i.manifest.MediaType, nil }
func (i *stored) RawConfigFile() ([]byte, error) {
	return os.ReadFile(i.s.blobPath(i.manifest.Config.Digest))
}
func (i *stored) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, d := range i.manifest.Layers {
		if d.Digest == h {
			return &storedLayer{i.s, d}, nil
		}
	}
	if h == i.manifest.Config.Digest {
		return partial.ConfigLayer(i)
	}
	return nil, fmt.Errorf("image has no layer %s", h)
}

type storedLayer struct {
	s    *store
	desc v1.Descriptor
}

func (l *storedLayer) Digest() (v1.Hash, error) { return l.desc.Digest, nil }
func (l *storedLayer) Compressed() (io.ReadCloser, error) {
	return os.Open(l.s.blobPath(l.desc.Digest))
}
func (l *storedLayer) Size() (int64, error)                { return l.desc.Size, nil }
func (l *storedLayer) MediaType() (types.MediaType, error) { return l.desc.MediaType, nil }
