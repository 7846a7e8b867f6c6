package container

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/gzip"
)

// Load keeps the images of an archive as `docker save` or an OCI layout in a
// tar writes it, gzipped or not. It returns them with the names that they have
// in it; an image without one is found by its ID.
func (e *Engine) Load(ctx context.Context, r io.Reader) ([]Image, error) {
	dir, err := os.MkdirTemp(filepath.Join(e.store.dir, "tmp"), "load-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "archive")
	if err := receive(r, file, e.cfg.MaxImage); err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	open := func() (io.ReadCloser, error) { return os.Open(file) }
	var found map[string]v1.Image
	if manifest, manifestErr := tarball.LoadManifest(open); manifestErr == nil {
		found, err = dockerImages(manifest, open)
	} else if err = spread(ctx, file, dir+"/layout"); err == nil {
		found, err = layoutImages(dir+"/layout", e.platform)
	}
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	var out []Image
	for ref, img := range found {
		if _, err := e.store.addChecked(img, ref); err != nil {
			return nil, fmt.Errorf("load image %s: %w", ref, err)
		}
		loaded, err := e.Find(ref)
		if err != nil {
			return nil, err
		}
		out = append(out, loaded)
	}
	if len(out) > 0 {
		if err := e.store.collect(e.cfg.MaxBytes, out[0].Digest); err != nil {
			e.deps.Log.Warn("old images could not be removed", "err", err)
		}
	}
	return out, nil
}

// Save writes images as one archive that Load and `docker load` read.
func (e *Engine) Save(w io.Writer, refs ...string) error {
	images := map[name.Reference]v1.Image{}
	for _, ref := range refs {
		img, err := e.OpenImage(ref)
		if err != nil {
			return err
		}
		n, err := parseName(ref)
		if err != nil {
			return err
		}
		images[n] = img
	}
	if err := tarball.MultiRefWrite(images, w); err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	return nil
}

// receive writes an archive to file, unzipped, at most limit bytes.
func receive(r io.Reader, file string, limit int64) error {
	plain, err := gunzip(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, &bounded{r: plain, left: limit})
	return errors.Join(err, f.Close())
}

// spread writes the files of an archive into dir.
func spread(ctx context.Context, file, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	t := tar.NewReader(in)
	for range maxEntries {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch h.Typeflag {
		case tar.TypeDir, tar.TypeXGlobalHeader:
		case tar.TypeReg:
			if err := spreadFile(root, path.Clean(h.Name), t); err != nil {
				return err
			}
		default:
			return fmt.Errorf("entry %q is no file", h.Name)
		}
	}
	return fmt.Errorf("it has more than %d entries", maxEntries)
}

func spreadFile(root *os.Root, name string, r io.Reader) error {
	if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// maxEntries bounds the files of an archive of images.
const maxEntries = 10000

// gunzip unpacks what is gzipped.
func gunzip(r io.Reader) (io.Reader, error) {
	first := make([]byte, 2)
	n, err := io.ReadFull(r, first)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("the archive is empty: %w", err)
	}
	whole := io.MultiReader(strings.NewReader(string(first[:n])), r)
	if first[0] != 0x1f || first[1] != 0x8b {
		return whole, nil
	}
	return gzip.NewReader(whole)
}

// dockerImages reads the images of a Docker archive.
func dockerImages(manifest tarball.Manifest, open tarball.Opener) (map[string]v1.Image, error) {
	out := map[string]v1.Image{}
	for _, d := range manifest {
		if len(d.RepoTags) == 0 {
			if len(manifest) > 1 {
				return nil, errors.New("an archive of several images must name each")
			}
			img, err := tarball.Image(open, nil)
			if err != nil {
				return nil, err
			}
			id, err := img.ConfigName()
			if err != nil {
				return nil, err
			}
			out["lockstep.localhost/loaded/"+id.Hex[:12]+":latest"] = img
		}
		for _, text := range d.RepoTags {
			tag, err := name.NewTag(text)
			if err != nil {
				return nil, fmt.Errorf("image name %q: %w", text, err)
			}
			img, err := tarball.Image(open, &tag)
			if err != nil {
				return nil, err
			}
			out[tag.Name()] = img
		}
	}
	return out, nil
}

// layoutImages reads an OCI layout.
func layoutImages(dir string, platform v1.Platform) (map[string]v1.Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, fmt.Errorf("it is neither a Docker archive nor an OCI layout: %w", err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	out := map[string]v1.Image{}
	for _, d := range m.Manifests {
		img, err := imageOf(index, d, platform)
		if err != nil {
			return nil, err
		}
		ref := d.Annotations["io.containerd.image.name"]
		if ref == "" {
			ref = d.Annotations["org.opencontainers.image.ref.name"]
		}
		n, err := name.ParseReference(ref)
		if ref == "" || err != nil {
			n, err = name.ParseReference("lockstep.localhost/loaded/" + d.Digest.Hex[:12] + ":latest")
		}
		if err != nil {
			return nil, err
		}
		out[n.Name()] = img
	}
	return out, nil
}

// imageOf is the image of a descriptor; of an index, the one for platform.
func imageOf(index v1.ImageIndex, d v1.Descriptor, platform v1.Platform) (v1.Image, error) {
	if d.MediaType.IsImage() {
		return index.Image(d.Digest)
	}
	inner, err := index.ImageIndex(d.Digest)
	if err != nil {
		return nil, err
	}
	m, err := inner.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, c := range m.Manifests {
		if c.MediaType.IsImage() && c.Platform != nil && c.Platform.Satisfies(platform) {
			return inner.Image(c.Digest)
		}
	}
	return nil, fmt.Errorf("index %s has no image for %s", d.Digest, platform)
}
