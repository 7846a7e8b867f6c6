package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// images are the images of a job: an OCI layout, and names to digests.
type images struct {
	dir    string
	mu     sync.Mutex
	layout layout.Path
	refs   map[string]string // full name to manifest digest
}

func newImages(dir string) (*images, error) {
	i := &images{dir: filepath.Join(dir, "images"), refs: map[string]string{}}
	var err error
	if i.layout, err = layout.FromPath(i.dir); err != nil {
		if i.layout, err = layout.Write(i.dir, empty.Index); err != nil {
			return nil, err
		}
	}
	data, err := os.ReadFile(filepath.Join(i.dir, "names.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return i, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &i.refs)
	}
	return i, err
}

func (i *images) write() error {
	data, err := json.Marshal(i.refs)
	if err != nil {
		return err
	}
	partial := filepath.Join(i.dir, "names.json.partial")
	if err := os.WriteFile(partial, data, 0o600); err != nil {
		return err
	}
	return os.Rename(partial, filepath.Join(i.dir, "names.json"))
}

// add keeps an image under names.
func (i *images) add(img v1.Image, refs ...name.Reference) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	if err := i.layout.WriteImage(img); err != nil {
		return err
	}
	if err := i.layout.AppendDescriptor(v1.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: digest}); err != nil {
		return err
	}
	if len(refs) == 0 {
		i.refs[digest.String()] = digest.String()
	}
	for _, r := range refs {
		i.refs[r.Name()] = digest.String()
	}
	return i.write()
}

// get finds an image by name, digest or the start of its id.
func (i *images) get(ref string) (v1.Image, bool, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	digest := ""
	if r, err := name.ParseReference(ref); err == nil {
		digest = i.refs[r.Name()]
	}
	if digest == "" {
		id := strings.TrimPrefix(ref, "sha256:")
		for _, d := range slices.Sorted(maps.Values(i.refs)) {
			if len(id) < 6 {
				break
			}
			img, err := i.image(d)
			if err != nil {
				return nil, false, err
			}
			config, err := img.ConfigName()
			if err != nil {
				return nil, false, err
			}
			if strings.HasPrefix(config.Hex, id) || strings.HasPrefix(strings.TrimPrefix(d, "sha256:"), id) {
				return img, true, nil
			}
		}
		return nil, false, nil
	}
	img, err := i.image(digest)
	return img, err == nil, err
}

func (i *images) image(digest string) (v1.Image, error) {
	h, err := v1.NewHash(digest)
	if err != nil {
		return nil, err
	}
	return i.layout.Image(h)
}

// must is get with docker's error.
func (i *images) must(ref string) (v1.Image, error) {
	img, ok, err := i.get(ref)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("No such image: %s", ref) //nolint:staticcheck // the text of docker
	}
	return img, nil
}

// names are all names, sorted.
func (i *images) names() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Sorted(maps.Keys(i.refs))
}

// remove forgets a name, and says whether it was there. Blobs stay until the
// job ends.
func (i *images) remove(ref name.Reference) (bool, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	_, ok := i.refs[ref.Name()]
	delete(i.refs, ref.Name())
	return ok, i.write()
}
