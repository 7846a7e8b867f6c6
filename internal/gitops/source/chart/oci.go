package chart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/lockstep-gitops/lockstep/internal/gitops/source"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/blobs"
	"github.com/lockstep-gitops/lockstep/internal/gitops/source/credential"
)

const (
	mediaChart  = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
	maxManifest = 4 << 20
	maxLayers   = 10
	maxTags     = 20_000
)

type tagList struct {
	tags  []string
	asked time.Time
}

// registry returns the client of the repository in its registry.
func (s *Store) registry(r Ref) (*remote.Repository, credential.Credential, error) {
	c, err := s.credentials(r)
	if err != nil {
		return nil, c, err
	}
	name := strings.Trim(strings.TrimPrefix(r.RepoURL, "oci://"), "/")
	if r.Chart != "" {
		name += "/" + strings.Trim(r.Chart, "/")
	}
	repo, err := remote.NewRepository(name)
	if err != nil || repo.Reference.Reference != "" {
		return nil, c, fmt.Errorf("%q is no repository of a registry; write oci://host/path without a tag", credential.Redact(name))
	}
	client, err := s.deps.Clients.For(c)
	if err != nil {
		return nil, c, err
	}
	repo.PlainHTTP = c.PlainHTTP
	repo.MaxMetadataBytes = maxManifest
	repo.Client = &auth.Client{
		Client: client, Header: http.Header{"User-Agent": {"lockstep"}}, Cache: s.signIn(c.Fingerprint()),
		Credential: auth.StaticCredential(repo.Reference.Registry, auth.Credential{Username: c.Username, Password: c.Password, AccessToken: c.BearerToken}),
	}
	return repo, c, nil
}

// signIn keeps the tokens that registries gave for one credential.
func (s *Store) signIn(key string) auth.Cache {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.signIns[key] == nil {
		if len(s.signIns) >= maxTagLists {
			clear(s.signIns)
		}
		s.signIns[key] = auth.NewCache()
	}
	return s.signIns[key]
}

func (s *Store) resolveOCI(ctx context.Context, r Ref) (Version, error) {
	repo, c, err := s.registry(r)
	if err != nil {
		return Version{}, err
	}
	if strings.HasPrefix(r.Constraint, "sha256:") {
		if !blobs.Valid(r.Constraint) {
			return Version{}, errors.New("the digest must be sha256: and 64 hexadecimal digits")
		}
		return Version{Digest: r.Constraint}, nil
	}
	wanted := source.Revision{Target: r.Constraint}
	if r.Constraint == "" {
		wanted.Target = "*"
	}
	_, constraint := wanted.Constraint()
	if r.Chart != "" && !constraint { // Helm reads "1.2" as "1.2.x"
		_, err := semver.NewConstraint(wanted.Target)
		constraint = err == nil
	}
	if tag := toTag(wanted.Target); isTag(tag) { // a tag wins, also when it looks like a constraint
		d, err := repo.Resolve(ctx, tag)
		if err == nil {
			return Version{Version: wanted.Target, Digest: d.Digest.String()}, nil
		}
		if !errors.Is(err, errdef.ErrNotFound) || !constraint {
			return Version{}, explain(err)
		}
	} else if !constraint {
		return Version{}, fmt.Errorf("%q is neither a tag nor a constraint on versions: %w", wanted.Target, ErrNotFound)
	}
	tags, err := s.listTags(ctx, r, repo, c)
	if err != nil {
		return Version{}, err
	}
	i := pick(wanted.Target, tags)
	if i < 0 {
		return Version{}, fmt.Errorf("none of its %d tags is that (the newest is %s): %w", len(tags), newest(tags), ErrNotFound)
	}
	best := tags[i]
	d, err := repo.Resolve(ctx, toTag(best))
	if err != nil {
		return Version{}, explain(err)
	}
	return Version{Version: best, Digest: d.Digest.String()}, nil
}

// toTag is the convention for versions with "+", which a tag cannot have.
func toTag(version string) string { return strings.ReplaceAll(version, "+", "_") }

func isTag(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == ""
}

// listTags returns the tags as versions, from memory when they are fresh.
func (s *Store) listTags(ctx context.Context, r Ref, repo *remote.Repository, c credential.Credential) ([]string, error) {
	key := repo.Reference.String() + " " + c.Fingerprint()
	s.mu.Lock()
	have, ok := s.tags[key]
	s.mu.Unlock()
	if ok && !r.Again && s.deps.Now().Sub(have.asked) < s.cfg.Fresh {
		return have.tags, nil
	}
	got, err, _ := s.flight.Do("tags "+key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Timeout)
		defer cancel()
		var tags []string
		err := repo.Tags(ctx, "", func(page []string) error {
			for _, tag := range page {
				tags = append(tags, strings.ReplaceAll(tag, "_", "+"))
			}
			if len(tags) > maxTags {
				return fmt.Errorf("it has more than %d tags", maxTags)
			}
			return nil
		})
		return tags, explain(err)
	})
	if err != nil {
		return nil, err
	}
	tags := got.([]string)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tags) >= maxTagLists {
		clear(s.tags)
	}
	s.tags[key] = tagList{tags: tags, asked: s.deps.Now()}
	return tags, nil
}

// archiveOCI returns the one layer of the manifest that has content.
func (s *Store) archiveOCI(ctx context.Context, r Ref, v Version) (data []byte, packed bool, err error) {
	repo, _, err := s.registry(r)
	if err != nil {
		return nil, false, err
	}
	data, ok := s.kept.Get(v.Digest)
	if !ok {
		if data, err = s.fetchManifest(ctx, repo, v.Digest); err != nil {
			return nil, false, err
		}
	}
	layer, err := contentLayer(data, r.Chart != "")
	if err != nil {
		return nil, false, err
	}
	if layer.Size > s.cfg.MaxArchive {
		return nil, false, fmt.Errorf("its layer of %d bytes is larger than %d MiB", layer.Size, s.cfg.MaxArchive>>20)
	}
	if data, ok := s.kept.Get(layer.Digest.String()); ok {
		return data, layer.MediaType == mediaChart, nil
	}
	data, err = content.FetchAll(ctx, repo, layer) // checks size and digest
	if err != nil {
		return nil, false, explain(err)
	}
	s.keep(data)
	return data, layer.MediaType == mediaChart, nil
}

func (s *Store) fetchManifest(ctx context.Context, repo *remote.Repository, digest string) ([]byte, error) {
	_, body, err := repo.FetchReference(ctx, digest)
	if err != nil {
		return nil, explain(err)
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, maxManifest+1))
	if err != nil {
		return nil, explain(err)
	}
	if len(data) > maxManifest || blobs.Digest(data) != digest {
		return nil, errors.New("the registry returned another manifest than the one asked for")
	}
	s.keep(data)
	return data, nil
}

// contentLayer finds the layer that is unpacked. Layers that are no archives,
// as provenance, are left out.
func contentLayer(manifest []byte, chart bool) (ocispec.Descriptor, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return ocispec.Descriptor{}, errors.New("the manifest is no JSON")
	}
	if len(m.Layers) == 0 {
		return ocispec.Descriptor{}, fmt.Errorf("the manifest (%s) has no layers; an index of several platforms is not a source", m.MediaType)
	}
	if len(m.Layers) > maxLayers {
		return ocispec.Descriptor{}, fmt.Errorf("the manifest has %d layers, more than %d", len(m.Layers), maxLayers)
	}
	var found []ocispec.Descriptor
	for _, l := range m.Layers {
		switch {
		case chart && l.MediaType != mediaChart:
		case strings.HasSuffix(l.MediaType, "tar+gzip"), strings.HasSuffix(l.MediaType, ".tar"), strings.HasSuffix(l.MediaType, "tar.gzip"):
			found = append(found, l)
		}
	}
	if len(found) != 1 {
		what := "tar+gzip layer"
		if chart {
			what = "layer of type " + mediaChart
		}
		return ocispec.Descriptor{}, fmt.Errorf("the manifest must have exactly one %s, and has %d", what, len(found))
	}
	if found[0].Size < 0 || found[0].Digest.Validate() != nil {
		return ocispec.Descriptor{}, errors.New("the manifest names its layer without a valid size and digest")
	}
	return found[0], nil
}

// explain makes errors of a registry ours.
func explain(err error) error {
	if err == nil {
		return nil
	}
	text := credential.Redact(err.Error())
	var answer *errcode.ErrorResponse
	switch {
	case errors.Is(err, errdef.ErrNotFound):
		return fmt.Errorf("%s: %w", text, ErrNotFound)
	case strings.Contains(text, "missing username or password"), errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden):
		return fmt.Errorf("%s: %w", text, ErrRefused)
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s: %w", text, ErrNotFound)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return errors.New(text)
}
