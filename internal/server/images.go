package server

import (
	"context"
	"net/http"
	"path/filepath"
	"time"
)

// importTimeout bounds an import, which copies gigabytes where they are many.
const importTimeout = 15 * time.Minute

// Bounds of what an import names.
const (
	maxPath      = 4096 // what Linux allows a path
	maxReference = 512
)

// Images are the container images in the registries of this machine.
type Images interface {
	// Import puts the image in a file of this machine (absolute path; an OCI
	// image layout, a tar file of one, or what `docker save` writes) into the
	// registry that reference names and returns its digest, "sha256:…".
	Import(ctx context.Context, file, reference string) (digest string, err error)
	// List returns the repositories of every registry with their tags, in order.
	List(ctx context.Context) ([]Image, error)
	// Show tells of one image where it comes from, what is said of it and which
	// applications use it.
	Show(ctx context.Context, reference string) (ImageDetail, error)
}

// ImageDetail is one image, by its digest.
type ImageDetail struct {
	Reference    string             `json:"reference"` // as it was asked for
	Host         string             `json:"host"`
	Repository   string             `json:"repository"`
	Digest       string             `json:"digest"`
	MediaType    string             `json:"media_type"`
	Size         int64              `json:"size"` // bytes of its layers, compressed; 0 for an index
	Created      time.Time          `json:"created,omitzero"`
	Platforms    []string           `json:"platforms"`
	Tags         []string           `json:"tags"` // that name this digest
	Builds       []ImageBuild       `json:"builds"`
	Attestations []ImageAttestation `json:"attestations"`
	Packages     int                `json:"packages"`     // that its SBOM lists
	Applications []string           `json:"applications"` // "argocd/storefront-dev"
}

// ImageBuild is one time that the image was built.
type ImageBuild struct {
	Repo   string    `json:"repo"`
	Commit string    `json:"commit"`
	Time   time.Time `json:"time"`
	Run    string    `json:"run,omitempty"` // URL of the workflow run
}

// ImageAttestation is something signed about an image.
type ImageAttestation struct {
	Type     string `json:"type"` // predicate type: https://spdx.dev/Document
	Digest   string `json:"digest"`
	Key      string `json:"key"`
	Verified bool   `json:"verified"`
	Why      string `json:"why,omitempty"` // it is not verified
}

func (s *Server) showImage(r *http.Request) (any, error) {
	if s.deps.Images == nil {
		return nil, missing("a registry")
	}
	reference := r.URL.Query().Get("reference")
	if reference == "" || len(reference) > maxReference {
		return nil, problemf(http.StatusBadRequest, "name it like storefront.azurecr.io/web:v1", "%q names no image", bounded(reference))
	}
	d, err := s.deps.Images.Show(r.Context(), reference)
	d.Platforms, d.Tags, d.Applications = append([]string{}, d.Platforms...), append([]string{}, d.Tags...), append([]string{}, d.Applications...)
	d.Builds, d.Attestations = append([]ImageBuild{}, d.Builds...), append([]ImageAttestation{}, d.Attestations...)
	return d, err
}

// Image is a repository of a registry.
type Image struct {
	Host       string   `json:"host"` // "docker.io", "storefront.azurecr.io"
	Repository string   `json:"repository"`
	Tags       []string `json:"tags"`
}

// ImageList is the answer of GET /images.
type ImageList struct {
	Items []Image `json:"items"`
}

func (s *Server) listImages(r *http.Request) (any, error) {
	if s.deps.Images == nil {
		return nil, missing("a registry")
	}
	list, err := s.deps.Images.List(r.Context())
	list = append([]Image{}, list...)
	for i := range list {
		list[i].Tags = append([]string{}, list[i].Tags...)
	}
	return ImageList{list}, err
}

// ImportImage is the body of POST /images/import.
type ImportImage struct {
	File      string `json:"file"` // absolute path on the platform's machine
	Reference string `json:"reference"`
}

// ImportedImage is the answer of POST /images/import.
type ImportedImage struct {
	Reference string `json:"reference"` // as it was asked for
	Digest    string `json:"digest"`
}

func (s *Server) importImage(r *http.Request) (any, error) {
	if s.deps.Images == nil {
		return nil, missing("a registry")
	}
	var body ImportImage
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	switch {
	case body.Reference == "" || len(body.Reference) > maxReference:
		return nil, problemf(http.StatusBadRequest, "name it like docker.io/library/redis:7", "%q names no image", bounded(body.Reference))
	case !filepath.IsAbs(body.File) || len(body.File) > maxPath:
		return nil, problemf(http.StatusBadRequest, "give the file by its path from /", "%q is no absolute path", bounded(body.File))
	}
	digest, err := s.deps.Images.Import(r.Context(), body.File, body.Reference)
	return ImportedImage{body.Reference, digest}, err
}

// refuseImport stands at the loopback door in the place of importImage: with
// it, whoever has the token could have any file of this machine read.
func refuseImport(*http.Request) (any, error) {
	return nil, problemf(http.StatusForbidden, "use `lockstep image import FILE REFERENCE`, or push the image to its registry",
		"an import reads files of this machine, so only the control socket takes it")
}
