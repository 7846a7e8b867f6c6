package image

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	orasremote "oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/lockstep-gitops/lockstep/internal/image/attest"
	"github.com/lockstep-gitops/lockstep/internal/image/sbom"
)

// Attester says of images what is in them and how they came to be.
type Attester struct {
	// Transport reaches the registries as the owner of the platform does, who
	// needs no login.
	Transport http.RoundTripper
	Key       dsse.SignerVerifier
	Tool      string // "lockstep-1.2.3"
	TmpDir    string // "" is the system's
}

// attestTimeout bounds what is said of one image.
const attestTimeout = 5 * time.Minute

// Attest attaches an SBOM and the provenance to a pushed image, signed. ref is
// "registry/repository"; d its digest. An index gets the SBOM of this machine's
// platform, or of the first.
func (a Attester) Attest(ctx context.Context, ref, d string, build attest.Build) error {
	ctx, cancel := context.WithTimeout(ctx, attestTimeout)
	defer cancel()
	at, err := name.NewDigest(ref + "@" + d)
	if err != nil {
		return fmt.Errorf("attest: %w", err)
	}
	descriptor, err := remote.Get(at, remote.WithTransport(a.Transport), remote.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("attest %s: %w", at, err)
	}
	img, err := pick(descriptor)
	if err != nil {
		return fmt.Errorf("attest %s: %w", at, err)
	}
	document, err := a.inventory(ctx, ref, d, img)
	if err != nil {
		return fmt.Errorf("attest %s: %w", at, err)
	}
	provenance, err := build.Provenance()
	if err != nil {
		return fmt.Errorf("attest %s: %w", at, err)
	}
	repo, err := a.repository(ref)
	if err != nil {
		return fmt.Errorf("attest %s: %w", at, err)
	}
	subject := ocispec.Descriptor{MediaType: string(descriptor.MediaType), Digest: digest.Digest(d), Size: descriptor.Size}
	there, err := attest.Read(ctx, repo, subject, a.Key)
	if err != nil {
		return err
	}
	for _, s := range []attest.Statement{
		attest.NewStatement(ref, subject.Digest, sbom.PredicateType, document),
		attest.NewStatement(ref, subject.Digest, attest.ProvenanceType, provenance),
	} {
		if slices.ContainsFunc(there, func(t attest.Attestation) bool { return t.Unverified == nil && t.Says(s) }) {
			continue
		}
		if _, err := attest.Attach(ctx, repo, subject, s, a.Key); err != nil {
			return err
		}
	}
	return nil
}

// Attestations reads what is said of an image; ref is "registry/repository".
func (a Attester) Attestations(ctx context.Context, ref, d string) ([]attest.Attestation, error) {
	ctx, cancel := context.WithTimeout(ctx, attestTimeout)
	defer cancel()
	repo, err := a.repository(ref)
	if err != nil {
		return nil, fmt.Errorf("read attestations of %s@%s: %w", ref, d, err)
	}
	subject, err := repo.Resolve(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("read attestations of %s@%s: %w", ref, d, err)
	}
	return attest.Read(ctx, repo, subject, a.Key)
}

func (a Attester) repository(ref string) (*orasremote.Repository, error) {
	repo, err := orasremote.NewRepository(ref)
	if err != nil {
		return nil, err
	}
	repo.Client = &auth.Client{Client: &http.Client{Transport: a.Transport}}
	return repo, nil
}

// pick is the image that an SBOM is made of.
func pick(d *remote.Descriptor) (v1.Image, error) {
	if d.MediaType != types.OCIImageIndex && d.MediaType != types.DockerManifestList {
		return d.Image()
	}
	index, err := d.ImageIndex()
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var first *v1.Descriptor
	for i, m := range manifest.Manifests {
		if m.Platform == nil || m.Platform.OS == "unknown" { // an attestation of BuildKit
			continue
		}
		if first == nil || m.Platform.Architecture == runtime.GOARCH && first.Platform.Architecture != runtime.GOARCH {
			first = &manifest.Manifests[i]
		}
	}
	if first == nil {
		return nil, fmt.Errorf("the index names no image of a platform")
	}
	return index.Image(first.Digest)
}

func (a Attester) inventory(ctx context.Context, ref, d string, img v1.Image) ([]byte, error) {
	tmp, err := os.MkdirTemp(a.TmpDir, "sbom-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	files := mutate.Extract(img)
	inventory, err := sbom.Scan(ctx, files, tmp)
	if closeErr := files.Close(); err == nil && closeErr != nil {
		err = closeErr
	}
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	// Of one image there is one document, whenever it is written.
	return inventory.SPDX(sbom.Subject{Name: ref, Digest: d, Created: config.Created.Time, Tool: a.Tool})
}

// Repository is "registry/repository" of a tag such as
// "storefront.azurecr.io/web:v1".
func Repository(tag string) (string, error) {
	ref, err := parseRef(tag)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(ref.name(), "/"), nil
}

// KeyFile is where the signing key of a builder's folder lies.
func KeyFile(dir string) string { return filepath.Join(dir, "signing.key") }
