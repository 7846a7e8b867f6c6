package cluster

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// criNamespace is the containerd namespace that Kubernetes uses.
const criNamespace = "k8s.io"

// OneFileImage makes a docker-archive of an image that holds only the static
// program at path and runs it. The result depends on nothing but the
// arguments.
func OneFileImage(path, reference string, args ...string) ([]byte, error) {
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", reference, err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: "program", Mode: 0o755, Size: int64(len(program)), Format: tar.FormatPAX}); err != nil {
		return nil, fmt.Errorf("image %s: %w", reference, err)
	}
	if _, err := w.Write(program); err != nil {
		return nil, fmt.Errorf("image %s: %w", reference, err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("image %s: %w", reference, err)
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil }
	body, err := oneLayerImage(open, reference, append([]string{"/program"}, args...))
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", reference, err)
	}
	return body, nil
}

func oneLayerImage(layer tarball.Opener, reference string, entrypoint []string) ([]byte, error) {
	l, err := tarball.LayerFromOpener(layer)
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{Entrypoint: entrypoint, User: "65535:65535"}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, err
	}
	ref, err := name.ParseReference(reference)
	if err != nil {
		return nil, err
	}
	var body bytes.Buffer
	if err := tarball.Write(ref, image, &body); err != nil {
		return nil, err
	}
	return body.Bytes(), nil
}

// ImportImage loads an image archive (docker save or OCI layout, as tar) into
// the node and returns the names of its images.
func (c *Cluster) ImportImage(ctx context.Context, archive io.Reader) ([]string, error) {
	return importImage(ctx, c.cfg.layout().containerdSocket(), archive, nil)
}

func importImage(ctx context.Context, socket string, archive io.Reader, labels map[string]string) ([]string, error) {
	client, err := containerd.New(socket, containerd.WithDefaultNamespace(criNamespace))
	if err != nil {
		return nil, fmt.Errorf("import image: connect to containerd: %w", err)
	}
	defer client.Close()
	all := map[string]string{"io.cri-containerd.image": "managed"}
	for k, v := range labels {
		all[k] = v
	}
	images, err := client.Import(ctx, archive, containerd.WithImageLabels(all))
	if err != nil {
		return nil, fmt.Errorf("import image: %w", err)
	}
	var names []string
	for _, image := range images {
		if err := containerd.NewImage(client, image).Unpack(ctx, "overlayfs"); err != nil {
			return nil, fmt.Errorf("unpack image %s: %w", image.Name, err)
		}
		names = append(names, image.Name)
	}
	return names, nil
}

// importPause makes the sandbox image known, pinned against clean-up.
func (c Config) importPause(ctx context.Context) error {
	body, err := OneFileImage(c.Programs.Pause, sandboxImage)
	if err != nil {
		return err
	}
	_, err = importImage(ctx, c.layout().containerdSocket(), bytes.NewReader(body), map[string]string{"io.cri-containerd.pinned": "pinned"})
	return err
}
