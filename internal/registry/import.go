package registry

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	ggcrname "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// refName is the annotation by which an OCI layout names its images.
const refName = "org.opencontainers.image.ref.name"

// Import puts an image from a file into the registry that ref names, such as
// docker.io/library/redis:7, and returns its digest. The file is a directory in
// OCI image layout, a tar file of one, or what `docker save` writes. Where it
// holds several images, the one called ref is taken.
func (r *Registry) Import(ctx context.Context, file, ref string) (digest string, err error) {
	digest, err = r.importFile(ctx, file, ref)
	if err != nil {
		return "", fmt.Errorf("import %s as %s: %w", file, ref, err)
	}
	return digest, nil
}

func (r *Registry) importFile(ctx context.Context, file, ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", err
	}
	tagged, ok := named.(reference.Tagged)
	if !ok {
		return "", errors.New("the image needs a tag, not a digest: its digest follows from its content")
	}
	host, err := parseHost(reference.Domain(named))
	if err != nil {
		return "", err
	}
	if err := r.exists(ctx, host); err != nil {
		return "", err
	}
	// The registry is named by its host alone, as Transport expects.
	target, err := ggcrname.NewTag(host + "/" + reference.Path(named) + ":" + tagged.Tag())
	if err != nil {
		return "", err
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithTransport(r.Transport())}
	info, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	if info.IsDir() {
		return pushLayout(file, target, named.String(), options)
	}
	kind, err := archiveKind(file)
	if err != nil {
		return "", err
	}
	if kind == dockerArchive {
		img, err := savedImage(file, target)
		if err != nil {
			return "", err
		}
		if err := remote.Write(target, img, options...); err != nil {
			return "", err
		}
		return hashOf(img.Digest())
	}
	dir, err := os.MkdirTemp(r.cfg.Dir, "import-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }() // scratch inside the state directory
	if err := unpackLayout(file, dir); err != nil {
		return "", err
	}
	return pushLayout(dir, target, named.String(), options)
}

func hashOf(h v1.Hash, err error) (string, error) { return h.String(), err }

// pushLayout pushes the one image of a layout, or the one called name.
func pushLayout(dir string, target ggcrname.Tag, name string, options []remote.Option) (string, error) {
	l, err := layout.FromPath(dir)
	if err != nil {
		return "", fmt.Errorf("read OCI layout: %w", err)
	}
	index, err := l.ImageIndex()
	if err != nil {
		return "", fmt.Errorf("read OCI layout: %w", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return "", fmt.Errorf("read OCI layout: %w", err)
	}
	found := manifest.Manifests
	if len(found) > 1 {
		found = nil
		for _, d := range manifest.Manifests {
			if n := d.Annotations[refName]; n == name || n == target.TagStr() || d.Annotations["io.containerd.image.name"] == name {
				found = append(found, d)
			}
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("the file holds %d images and %d of them are called %s; name one of them", len(manifest.Manifests), len(found), name)
	}
	d := found[0]
	if d.MediaType.IsIndex() {
		child, err := index.ImageIndex(d.Digest)
		if err != nil {
			return "", err
		}
		return d.Digest.String(), remote.WriteIndex(target, child, options...)
	}
	img, err := index.Image(d.Digest)
	if err != nil {
		return "", err
	}
	return d.Digest.String(), remote.Write(target, img, options...)
}

// savedImage reads one image of what `docker save` wrote.
func savedImage(file string, target ggcrname.Tag) (v1.Image, error) {
	img, err := tarball.ImageFromPath(file, nil) // the only one
	if err == nil {
		return img, nil
	}
	named, namedErr := tarball.ImageFromPath(file, &target)
	if namedErr != nil {
		return nil, errors.Join(err, namedErr)
	}
	return named, nil
}

type archive int

const (
	ociArchive archive = iota
	dockerArchive
)

// maxEntries bounds the files of an archive that are looked at.
const maxEntries = 100_000

// archiveKind looks for the file that each format must have.
func archiveKind(file string) (archive, error) {
	kind, found := ociArchive, false
	err := eachEntry(file, func(h *tar.Header, _ io.Reader) error {
		switch path.Clean(h.Name) {
		case "manifest.json":
			kind, found = dockerArchive, true
			return io.EOF
		case "oci-layout":
			found = true
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if !found {
		return 0, errors.New("it is neither an OCI image layout nor the output of `docker save` (uncompressed tar)")
	}
	return kind, nil
}

// eachEntry calls do for the entries of a tar file until it returns io.EOF.
func eachEntry(file string, do func(*tar.Header, io.Reader) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	t := tar.NewReader(f)
	for range maxEntries {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tar file: %w", err)
		}
		if err := do(h, t); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return fmt.Errorf("it holds more than %d files", maxEntries)
}

var layoutFile = regexp.MustCompile(`^(oci-layout|index\.json|blobs/[a-z0-9]+/[a-f0-9]{32,128})$`)

// unpackLayout writes the files of a layout, and no other, to dir.
func unpackLayout(file, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	err = eachEntry(file, func(h *tar.Header, content io.Reader) error {
		name := strings.TrimPrefix(path.Clean(h.Name), "/")
		if h.Typeflag != tar.TypeReg || !layoutFile.MatchString(name) {
			return nil
		}
		if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return nil // the first one counts
		}
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return errors.Join(err, f.Close())
	})
	return errors.Join(err, root.Close())
}
