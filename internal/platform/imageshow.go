package platform

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/lockstep-gitops/lockstep/internal/image"
	"github.com/lockstep-gitops/lockstep/internal/image/attest"
	"github.com/lockstep-gitops/lockstep/internal/image/sbom"
	"github.com/lockstep-gitops/lockstep/internal/journal"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

// attester signs what is said of images with the platform's key.
func (s *system) attester() (*image.Attester, error) {
	key, err := attest.OpenKey(image.KeyFile(s.cfg.StateDir))
	if err != nil {
		return nil, err
	}
	return &image.Attester{Transport: s.registry.Transport(), Key: key, Tool: "lockstep-" + s.cfg.Version}, nil
}

// users are the applications that use images.
type users func() map[string][]string // application → images

// Show implements server.Images.
func (i images) Show(ctx context.Context, reference string) (server.ImageDetail, error) {
	d := server.ImageDetail{Reference: reference}
	ref, err := name.ParseReference(reference)
	if err != nil {
		return d, &server.Problem{Status: http.StatusBadRequest, Title: "that names no image", Detail: err.Error(), Hint: "a name like storefront.azurecr.io/web:v1"}
	}
	d.Host, d.Repository = ref.Context().RegistryStr(), ref.Context().RepositoryStr()
	if d.Host == name.DefaultRegistry {
		d.Host = "docker.io"
	}
	at := d.Host + "/" + d.Repository
	options := []remote.Option{remote.WithTransport(i.registry.Transport()), remote.WithContext(ctx)}
	descriptor, err := remote.Get(ref, options...)
	if err != nil {
		return d, noImage(reference, err)
	}
	d.Digest, d.MediaType = descriptor.Digest.String(), string(descriptor.MediaType)
	if err := contents(descriptor, &d); err != nil {
		return d, err
	}
	if d.Tags, err = i.tagsOf(ctx, d, options); err != nil {
		return d, err
	}
	if d.Builds, err = i.builds(ctx, at, d.Digest); err != nil {
		return d, err
	}
	for app, used := range i.users() {
		if slices.ContainsFunc(used, func(u string) bool { return names(u, at, d.Digest, d.Tags) }) {
			d.Applications = append(d.Applications, app)
		}
	}
	slices.Sort(d.Applications)
	return d, i.attestations(ctx, at, &d)
}

func noImage(reference string, err error) error {
	var refused *transport.Error
	if errors.As(err, &refused) && refused.StatusCode == http.StatusNotFound {
		return &server.Problem{Status: http.StatusNotFound, Title: "there is no image " + reference, Hint: "lockstep image list"}
	}
	return &server.Problem{Status: http.StatusBadGateway, Title: "the image cannot be read", Detail: err.Error(), Hint: "lockstep image list"}
}

// contents fills in what the manifest says.
func contents(descriptor *remote.Descriptor, d *server.ImageDetail) error {
	if descriptor.MediaType.IsIndex() {
		index, err := descriptor.ImageIndex()
		if err != nil {
			return err
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			return err
		}
		for _, m := range manifest.Manifests {
			if m.Platform != nil && m.Platform.OS != "unknown" { // that is an attestation of BuildKit
				d.Platforms = append(d.Platforms, m.Platform.String())
			}
		}
		return nil
	}
	if !descriptor.MediaType.IsImage() {
		return nil // a chart, an attestation
	}
	img, err := descriptor.Image()
	if err != nil {
		return err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return err
	}
	for _, l := range manifest.Layers {
		d.Size += l.Size
	}
	if !manifest.Config.MediaType.IsConfig() {
		return nil // no file system is behind it
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	d.Created = config.Created.Time
	d.Platforms = []string{(&v1.Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant}).String()}
	return nil
}

// maxTagsLooked bounds the tags whose digests are asked for.
const maxTagsLooked = 500

// tagsOf are the tags that name the digest.
func (i images) tagsOf(ctx context.Context, d server.ImageDetail, options []remote.Option) (out []string, err error) {
	tags, err := i.registry.Tags(ctx, d.Host, d.Repository)
	if err != nil {
		return nil, err
	}
	repository, err := name.NewRepository(d.Host + "/" + d.Repository)
	if err != nil {
		return nil, err
	}
	for _, tag := range tags[:min(len(tags), maxTagsLooked)] {
		head, err := remote.Head(repository.Tag(tag), options...)
		if err == nil && head.Digest.String() == d.Digest {
			out = append(out, tag)
		}
	}
	return out, ctx.Err()
}

// builds are the times that the image was built here, newest first.
func (i images) builds(ctx context.Context, at, digest string) (out []server.ImageBuild, err error) {
	events, err := i.journal.Events(ctx, journal.Query{Stages: []journal.Stage{journal.StageImage}, Subject: at, Statuses: []journal.Status{journal.StatusSucceeded}, Newest: true})
	if err != nil {
		return nil, err
	}
	for _, e := range slices.Backward(events) {
		if e.Data[journal.DataDigest] == digest {
			out = append(out, server.ImageBuild{Repo: e.Repo, Commit: e.Commit, Time: e.Time, Run: e.Data["run"]})
		}
	}
	return out, nil
}

// names reports whether an image of a pod is the one with the digest.
func names(used, at, digest string, tags []string) bool {
	rest, ok := strings.CutPrefix(used, at)
	if !ok {
		return false
	}
	if tag, pinned, has := strings.Cut(rest, "@"); has {
		return pinned == digest && (tag == "" || tag[0] == ':')
	}
	return slices.Contains(tags, cmp.Or(strings.TrimPrefix(rest, ":"), "latest")) && (rest == "" || rest[0] == ':')
}

// attestations fills in what is signed about the image.
func (i images) attestations(ctx context.Context, at string, d *server.ImageDetail) error {
	if i.attester == nil {
		return nil
	}
	list, err := i.attester.Attestations(ctx, at, d.Digest)
	if err != nil {
		return err
	}
	for _, a := range list {
		one := server.ImageAttestation{Type: a.PredicateType, Digest: a.Referrer.Digest.String(), Key: a.KeyID, Verified: a.Unverified == nil}
		if a.Unverified != nil {
			one.Why = a.Unverified.Error()
		}
		d.Attestations = append(d.Attestations, one)
		if a.PredicateType == sbom.PredicateType && a.Unverified == nil {
			var document struct {
				Packages []struct{ PrimaryPackagePurpose string }
			}
			if err := json.Unmarshal(a.Predicate, &document); err != nil {
				return err
			}
			d.Packages = 0
			for _, p := range document.Packages {
				if p.PrimaryPackagePurpose == "" { // not the image or its system
					d.Packages++
				}
			}
		}
	}
	return nil
}
