package container

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("layers keep the owners of their files, which needs root")
	}
}

func TestPullTagRemove(t *testing.T) {
	w := newWorld(t, nil)
	img := imageOfLayers(t, nil, layerOf(t, file{name: "a", content: "a"}))
	ref := w.push(t, "team/app:1", img)
	var out bytes.Buffer
	got, err := w.Pull(t.Context(), ref, Auth{}, &out)
	if err != nil {
		t.Fatal(err)
	}
	want, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest != want || !strings.Contains(out.String(), want.String()) || got.Size == 0 {
		t.Errorf("pulled %+v: %s", got, out.String())
	}
	if err := w.Tag(ref, "myregistry.azurecr.io/app:2"); err != nil {
		t.Fatal(err)
	}
	for _, r := range []string{ref, "myregistry.azurecr.io/app:2", want.String(), got.ID.Hex[:12]} {
		if found, err := w.Find(r); err != nil || len(found.Names) != 2 {
			t.Errorf("%s: %+v, %v", r, found.Names, err)
		}
	}
	if err := w.Check(ref); err != nil {
		t.Error(err)
	}
	if digest, err := w.Push(t.Context(), ref, Auth{}); err != nil || digest != want.String() {
		t.Errorf("push: %s, %v", digest, err)
	}
	again, err := Open(w.cfg, Deps{}) // as after a restart
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if all, err := again.Images(); err != nil || len(all) != 1 {
		t.Errorf("after a restart: %v, %v", all, err)
	}
	for _, r := range []string{ref, "myregistry.azurecr.io/app:2"} {
		if err := w.Remove(r); err != nil {
			t.Error(err)
		}
	}
	if blobs, _ := os.ReadDir(filepath.Join(w.cfg.Dir, "blobs")); len(blobs) > 0 {
		t.Errorf("%d blobs are left without an image", len(blobs))
	}
	if _, err := w.Find(ref); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed: %v", err)
	}
}

func TestWhatCannotBePulledSaysWhy(t *testing.T) {
	w := newWorld(t, nil)
	denied := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		http.Error(w, "no", http.StatusUnauthorized)
	}))
	defer denied.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	host := func(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }
	for ref, want := range map[string]string{
		w.registry + "/nothing:1": "no such image; push it there, or bring it with `lockstep image import`",
		host(denied) + "/app:1":   "access denied",
		host(gone) + "/app:1":     "cannot be reached; offline, bring the image with `lockstep image import`",
		"Bad Name":                "image name",
	} {
		if _, err := w.Pull(t.Context(), ref, Auth{}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	n, err := name.ParseReference(w.registry + "/artifact:1")
	if err != nil {
		t.Fatal(err)
	}
	foreign := imageOfLayers(t, nil, layerOf(t, file{name: "a"}))
	f, err := foreign.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	f.Architecture = "s390x"
	if err := remote.Write(n, mutateConfig(t, foreign, f)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Pull(t.Context(), n.Name(), Auth{}, nil); err == nil || !strings.Contains(err.Error(), "s390x") {
		t.Errorf("another architecture: %v", err)
	}
}

func TestCredentialsAndSharedPulls(t *testing.T) {
	var blobs atomic.Int32
	inner := registry.New(registry.Logger(nopLogger()))
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			rw.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			blobs.Add(1)
			time.Sleep(100 * time.Millisecond)
		}
		inner.ServeHTTP(rw, r)
	}))
	defer server.Close()
	w := newWorld(t, nil)
	w.registry = strings.TrimPrefix(server.URL, "http://")
	img := imageOfLayers(t, nil, layerOf(t, file{name: "a", content: "a"}))
	ref := w.registry + "/app:1"
	n, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(n, img, w.remote(t.Context(), Auth{"me", "secret"})...); err != nil {
		t.Fatal(err)
	}
	blobs.Store(0)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := w.Pull(t.Context(), ref, Auth{"me", "secret"}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := blobs.Load(); n > 2 { // configuration and layer
		t.Errorf("8 pulls fetched %d blobs", n)
	}
	if _, err := w.Pull(t.Context(), ref, Auth{"me", "wrong"}, nil); err == nil || strings.Contains(err.Error(), "wrong") {
		t.Errorf("with a wrong password: %v", err)
	}
}

func TestLoadAndSave(t *testing.T) {
	w := newWorld(t, nil)
	img := imageOfLayers(t, nil, layerOf(t, file{name: "a", content: "a"}), layerOf(t, file{name: "b", content: "b"}))
	ref := w.push(t, "app:1", img)
	if _, err := w.Pull(t.Context(), ref, Auth{}, nil); err != nil {
		t.Fatal(err)
	}
	var saved bytes.Buffer
	if err := w.Save(&saved, ref); err != nil {
		t.Fatal(err)
	}
	id, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	other := newWorld(t, nil)
	got, err := other.Load(t.Context(), bytes.NewReader(saved.Bytes()))
	if err != nil || len(got) != 1 || got[0].ID != id || !slices.Equal(got[0].Names, []string{ref}) {
		t.Fatalf("loaded %+v, %v", got, err)
	}
	if err := other.Check(ref); err != nil {
		t.Error(err)
	}
	dir := t.TempDir()
	path, err := layout.Write(dir, emptyIndex())
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "example.com/oci:7"})); err != nil {
		t.Fatal(err)
	}
	third := newWorld(t, nil)
	got, err = third.Load(t.Context(), tarOf(t, dir))
	if err != nil || len(got) != 1 || got[0].ID != id || !slices.Equal(got[0].Names, []string{"example.com/oci:7"}) {
		t.Fatalf("loaded %+v, %v", got, err)
	}
	for text, want := range map[string]string{"": "empty", "no archive at all, just text": "", strings.Repeat("\x00", 1024): "neither"} {
		if _, err := third.Load(t.Context(), strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.10q: %v", text, err)
		}
	}
	small := newWorld(t, func(c *Config) { c.MaxImage = 1000 })
	if _, err := small.Load(t.Context(), bytes.NewReader(saved.Bytes())); !errors.Is(err, errTooLarge) {
		t.Errorf("a large archive: %v", err)
	}
}

func TestHostileLayersAreContained(t *testing.T) {
	needRoot(t)
	outside := filepath.Join(t.TempDir(), "outside")
	unpack := func(t *testing.T, files ...file) (string, error) {
		w := newWorld(t, func(c *Config) { c.MaxImage = 1 << 20 })
		digest, err := w.store.add(imageOfLayers(t, nil, layerOf(t, files...)), "example.com/x:1")
		if err != nil {
			t.Fatal(err)
		}
		paths, release, err := w.unpack(t.Context(), digest)
		if err != nil {
			if left, _ := os.ReadDir(filepath.Join(w.cfg.Dir, "tmp")); len(left) > 0 {
				t.Errorf("%d half layers are left", len(left))
			}
			return "", err
		}
		release()
		return paths[0], nil
	}
	for name, files := range map[string][]file{
		"name":      {{name: "../outside", content: "x"}},
		"deep name": {{name: "a/../../outside", content: "x"}},
		"hard link": {{name: "passwd", kind: tar.TypeLink, link: "../../../../etc/passwd"}},
		"bomb":      {{name: "big", content: strings.Repeat("x", 2<<20)}},
		"whiteout":  {{name: ".wh...", content: ""}},
	} {
		if _, err := unpack(t, files...); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	// Links are made, and nothing is written through them outside.
	dir, err := unpack(t, file{name: "up", kind: tar.TypeSymlink, link: filepath.Dir(outside)}, file{name: "up/outside", content: "x"},
		file{name: "disk", kind: tar.TypeBlock, mode: 0o666}, file{name: "attr", content: "x", xattrs: map[string]string{"trusted.overlay.redirect": "/etc", "user.fine": "yes"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(outside); err == nil {
		t.Error("a layer wrote outside of its folder")
	}
	if _, err := os.Lstat(dir + "/disk"); err == nil {
		t.Error("a layer made a device")
	}
	if attrs := listAttributes(t, dir+"/attr"); !slices.Contains(attrs, "user.fine") || slices.Contains(attrs, "trusted.overlay.redirect") {
		t.Errorf("attributes %v", attrs)
	}
}

func TestTheStoreStaysSmall(t *testing.T) {
	needRoot(t)
	w := newWorld(t, func(c *Config) { c.MaxBytes = 3 << 20 })
	now := time.Now()
	w.store.now = func() time.Time { now = now.Add(time.Second); return now }
	content := func(i int) string {
		var b strings.Builder
		for n := range 100000 {
			fmt.Fprintf(&b, "%x", (n+1)*(i+7919)*2654435761)
		}
		return b.String()[:1<<20]
	}
	var refs []string
	var first Image
	for i := range 5 {
		ref := w.push(t, fmt.Sprintf("app%d:1", i), imageOfLayers(t, nil, layerOf(t, file{name: "data", content: content(i)})))
		img, err := w.Pull(t.Context(), ref, Auth{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = img
			_, release, err := w.unpack(t.Context(), img.Digest)
			if err != nil {
				t.Fatal(err)
			}
			defer release()
		}
		refs = append(refs, ref)
	}
	total, err := w.store.total()
	if err != nil || total > 4<<20 {
		t.Errorf("%d bytes, %v", total, err)
	}
	if _, err := w.Find(refs[0]); err != nil {
		t.Errorf("an image in use was removed: %v", err)
	}
	if _, err := w.Find(refs[1]); !errors.Is(err, ErrNotFound) {
		t.Errorf("the oldest is there: %v", err)
	}
	if _, err := w.Find(refs[4]); err != nil {
		t.Errorf("the newest is gone: %v", err)
	}
	if err := w.Check(first.Digest.String()); err != nil {
		t.Error(err)
	}
}

func TestADamagedBlobIsNotTaken(t *testing.T) {
	w := newWorld(t, nil)
	img := imageOfLayers(t, nil, layerOf(t, file{name: "a", content: "a"}))
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	err = w.store.writeBlob(digest, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("something else")), nil })
	if err == nil || !strings.Contains(err.Error(), "sum") {
		t.Errorf("a wrong blob: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(w.cfg.Dir, "tmp")); len(left) > 0 {
		t.Error("a partial blob is left")
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.unpackLayer(t.Context(), layers[0], digest, "wrong", nil, 1<<20); err == nil || !strings.Contains(err.Error(), "sum") {
		t.Errorf("a layer with a wrong sum: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Pull(ctx, w.registry+"/app:1", Auth{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func FuzzLoad(f *testing.F) {
	w := newWorld(f, func(c *Config) { c.MaxImage = 1 << 20 })
	img := imageOfLayers(f, nil, layerOf(f, file{name: "a", content: "a"}))
	if _, err := w.store.add(img, "example.com/app:1"); err != nil {
		f.Fatal(err)
	}
	var saved bytes.Buffer
	if err := w.Save(&saved, "example.com/app:1"); err != nil {
		f.Fatal(err)
	}
	f.Add(saved.Bytes())
	dir := f.TempDir()
	if path, err := layout.Write(dir, emptyIndex()); err != nil || path.AppendImage(img) != nil {
		f.Fatal(err)
	}
	data, err := io.ReadAll(tarOf(f, dir))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		images, err := w.Load(t.Context(), bytes.NewReader(data))
		if err != nil {
			return
		}
		for _, i := range images {
			if err := w.Check(i.Digest.String()); err != nil {
				t.Errorf("a damaged image was taken: %v", err)
			}
		}
	})
}
