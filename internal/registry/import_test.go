package registry

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// tarOf packs a directory.
func tarOf(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	if err := errors.Join(w.AddFS(os.DirFS(dir)), w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return file
}

func layoutOf(t *testing.T, add ...func(layout.Path) error) string {
	t.Helper()
	dir := t.TempDir()
	index, err := random.Index(64, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	l, err := layout.Write(dir, index)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range add {
		if err := a(l); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func appendImage(img v1.Image, name string) func(layout.Path) error {
	return func(l layout.Path) error {
		return l.AppendImage(img, layout.WithAnnotations(map[string]string{refName: name}))
	}
}

func TestImport(t *testing.T) {
	w := start(t, Config{})
	img := image(t, 4096, 2)
	index, err := random.Index(1024, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(t.TempDir(), "saved.tar")
	if err := tarball.WriteToFile(saved, tag(t, "docker.io/library/redis:7"), img); err != nil {
		t.Fatal(err)
	}
	single := layoutOf(t, appendImage(img, "7"))
	multi := layoutOf(t, func(l layout.Path) error { return l.AppendIndex(index) })
	two := layoutOf(t, appendImage(image(t, 10, 1), "6"), appendImage(img, "7"))
	for _, c := range []struct {
		name, file, ref, pull string
		want                  interface{ Digest() (v1.Hash, error) }
	}{
		{"docker save", saved, "redis:7", "docker.io/library/redis:7", nil},
		{"layout", single, "docker.io/library/redis:8", "docker.io/library/redis:8", img},
		{"layout as tar", tarOf(t, single), "ghcr.io/o/r:1", "ghcr.io/o/r:1", img},
		{"multi-platform", tarOf(t, multi), "quay.io/o/r:1", "quay.io/o/r:1", index},
		{"one of two", two, "redis:7", "docker.io/library/redis:7", img},
	} {
		t.Run(c.name, func(t *testing.T) {
			digest, err := w.Import(t.Context(), c.file, c.ref)
			if err != nil {
				t.Fatal(err)
			}
			got, err := remote.Get(tag(t, c.pull), remote.WithTransport(w.Transport()))
			if err != nil || got.Digest.String() != digest {
				t.Fatalf("registry has %v, %v; Import says %s", got, err, digest)
			}
			if c.want != nil {
				if want, err := c.want.Digest(); err != nil || want != got.Digest {
					t.Errorf("digest = %v, want %v (%v)", got.Digest, want, err)
				}
			}
		})
	}
	left, err := filepath.Glob(filepath.Join(w.cfg.Dir, "import-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("scratch left: %v, %v", left, err)
	}
}

func TestImportRefuses(t *testing.T) {
	w := start(t, Config{})
	two := layoutOf(t, appendImage(image(t, 10, 1), "6"), appendImage(image(t, 10, 1), "7"))
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("not a tar file ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	if err := os.WriteFile(filepath.Join(empty, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, file, ref, want string }{
		{"missing file", "/does/not/exist", "redis:7", "no such file"},
		{"not a tar file", text, "redis:7", "tar"},
		{"another tar file", tarOf(t, empty), "redis:7", "neither an OCI image layout"},
		{"not a layout", empty, "redis:7", "OCI layout"},
		{"several images", two, "redis:5", "name one of them"},
		{"bad reference", two, "Redis:5", "reference"},
		{"unknown registry", two, "example.org/redis:5", "mirrors no registry"},
		{"registry that is not there", two, "other.azurecr.io/redis:5", "create the resource"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if digest, err := w.Import(t.Context(), c.file, c.ref); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Import = %q, %v; want %q", digest, err, c.want)
			}
		})
	}
}

// TestUnpackStaysInside: an archive cannot write beside its directory.
func TestUnpackStaysInside(t *testing.T) {
	file := filepath.Join(t.TempDir(), "evil.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	for _, h := range []*tar.Header{
		{Name: "../index.json", Typeflag: tar.TypeReg, Size: 1}, {Name: "blobs/../../x", Typeflag: tar.TypeReg, Size: 1},
		{Name: "blobs", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}, {Name: "oci-layout", Typeflag: tar.TypeReg, Size: 1},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, strings.Repeat("x", int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	parent := t.TempDir()
	dir := filepath.Join(parent, "in")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unpackLayout(file, dir); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := fs.WalkDir(os.DirFS(parent), ".", func(p string, d fs.DirEntry, err error) error {
		if !d.IsDir() {
			got = append(got, p)
		}
		return err
	}); err != nil || strings.Join(got, " ") != "in/oci-layout" {
		t.Errorf("files = %v, %v", got, err)
	}
}
