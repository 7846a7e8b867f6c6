package platform

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"slices"

	"github.com/lockstep-gitops/lockstep/internal/image"
	"github.com/lockstep-gitops/lockstep/internal/journal"
	"github.com/lockstep-gitops/lockstep/internal/registry"
	"github.com/lockstep-gitops/lockstep/internal/server"
)

// images are the registries' content, for the owner of the platform.
type images struct {
	registry *registry.Registry
	journal  journal.Reader
	attester *image.Attester
	users    users
}

// Import implements server.Images.
func (i images) Import(ctx context.Context, file, reference string) (string, error) {
	digest, err := i.registry.Import(ctx, file, reference)
	if err == nil {
		return digest, nil
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	p := &server.Problem{Status: http.StatusUnprocessableEntity, Title: "the image was not imported", Detail: err.Error(),
		Hint: "`docker save IMAGE -o FILE` writes a file that fits (a tar file, not compressed); `lockstep image import --help` says which names do"}
	if _, stat := os.Stat(file); errors.Is(stat, fs.ErrNotExist) {
		p.Status, p.Hint = http.StatusNotFound, "check the path"
	}
	return "", p
}

// List implements server.Images.
func (i images) List(ctx context.Context) ([]server.Image, error) {
	hosts, err := i.registry.Hosts()
	if err != nil {
		return nil, err
	}
	var list []server.Image
	for _, host := range hosts {
		repositories, err := i.registry.Catalog(ctx, host)
		if err != nil {
			return nil, err
		}
		for _, repository := range repositories {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("list images: %w", err)
			}
			tags, err := i.registry.Tags(ctx, host, repository)
			if err != nil {
				return nil, err
			}
			tags = slices.DeleteFunc(tags, referrersTag.MatchString)
			list = append(list, server.Image{Host: host, Repository: repository, Tags: tags})
		}
	}
	return list, nil
}

// referrersTag matches the tags under which clients keep what refers to an image
// (OCI Distribution 1.1, "Referrers Tag Schema"): no images for people.
var referrersTag = regexp.MustCompile(`^sha256-[0-9a-f]{64}$`)
