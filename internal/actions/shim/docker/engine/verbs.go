package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// maxImage bounds an image that is loaded, in bytes.
const maxImage = 10 << 30

func (e *Engine) pull(ctx context.Context, x *exchange) error {
	text, err := x.one()
	if err != nil {
		return err
	}
	_, err = e.fetch(ctx, x, text)
	return err
}

// fetch brings an image from its registry.
func (e *Engine) fetch(ctx context.Context, x *exchange, text string) (v1.Image, error) {
	ref, err := parse(text)
	if err != nil {
		return nil, err
	}
	options := e.registry(ctx, x, ref)
	platform := v1.Platform{OS: "linux", Architecture: "amd64"}
	if x.Platform != "" {
		p, err := v1.ParsePlatform(x.Platform)
		if err != nil {
			return nil, err
		}
		platform = *p
	}
	_, _ = fmt.Fprintf(x.stdout, "%s: Pulling from %s\n", ref.Identifier(), ref.Context().RepositoryStr())
	img, err := remote.Image(ref, append(options, remote.WithPlatform(platform))...)
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", ref, err)
	}
	if err := e.images.add(img, ref); err != nil {
		return nil, fmt.Errorf("pull %s: %w", ref, err)
	}
	digest, err := img.Digest()
	_, _ = fmt.Fprintf(x.stdout, "Digest: %s\nStatus: Downloaded newer image for %s\n%s\n", digest, text, ref.Name())
	return img, err
}

func (e *Engine) push(ctx context.Context, x *exchange) error {
	text, err := x.one()
	if err != nil {
		return err
	}
	ref, err := parse(text)
	if err != nil {
		return err
	}
	all := []string{ref.Name()}
	if x.All {
		all = nil
		for _, n := range e.images.names() {
			if strings.HasPrefix(n, ref.Context().Name()+":") {
				all = append(all, n)
			}
		}
	}
	for _, n := range all {
		if ref, err = parse(n); err != nil {
			return err
		}
		img, ok, err := e.images.get(n)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("An image does not exist locally with the tag: %s", ref.Context().Name()) //nolint:staticcheck // the text of docker
		}
		_, _ = fmt.Fprintf(x.stdout, "The push refers to repository [%s]\n", ref.Context().Name())
		if err := remote.Write(ref, img, e.registry(ctx, x, ref)...); err != nil {
			return fmt.Errorf("push %s: %w", ref, err)
		}
		digest, err := img.Digest()
		if err != nil {
			return err
		}
		size, err := img.Size()
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(x.stdout, "%s: digest: %s size: %d\n", ref.Identifier(), digest, size)
	}
	return nil
}

func (e *Engine) tag(_ context.Context, x *exchange) error {
	if len(x.Refs) != 2 {
		return errors.New("docker tag requires exactly 2 arguments")
	}
	img, err := e.images.must(x.Refs[0])
	if err != nil {
		return err
	}
	to, err := parse(x.Refs[1])
	if err != nil {
		return err
	}
	return e.images.add(img, to)
}

func (e *Engine) list(_ context.Context, x *exchange) error {
	quiet := x.Platform == "quiet"
	if !quiet {
		_, _ = fmt.Fprintf(x.stdout, "%-50s %-20s %-14s %-12s %s\n", "REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE")
	}
	for _, n := range e.images.names() {
		if len(x.Refs) == 1 && !strings.Contains(n, x.Refs[0]) {
			continue
		}
		img, err := e.images.must(n)
		if err != nil {
			return err
		}
		id, err := img.ConfigName()
		if err != nil {
			return err
		}
		if quiet {
			_, _ = fmt.Fprintln(x.stdout, id.Hex[:12])
			continue
		}
		repo, tag := n, "<none>"
		if ref, err := name.NewTag(n); err == nil {
			repo, tag = familiar(ref.Context().Name()), ref.TagStr()
		}
		created := time.Time{}
		if config, err := img.ConfigFile(); err == nil {
			created = config.Created.Time
		}
		_, _ = fmt.Fprintf(x.stdout, "%-50s %-20s %-14s %-12s %dkB\n", repo, tag, id.Hex[:12], created.Format("2006-01-02"), imageSize(img)/1000)
	}
	return nil
}

// familiar is a name as people write it.
func familiar(repo string) string {
	return strings.TrimPrefix(strings.TrimPrefix(repo, "index.docker.io/library/"), "index.docker.io/")
}

func imageSize(img v1.Image) int64 {
	total := int64(0)
	if m, err := img.Manifest(); err == nil {
		for _, l := range m.Layers {
			total += l.Size
		}
	}
	return total
}

// inspect prints images as docker's JSON, or one field of it by a template of
// the form {{.A.B}}.
func (e *Engine) inspect(_ context.Context, x *exchange) error {
	var all []any
	for _, text := range x.Refs {
		img, err := e.images.must(text)
		if err != nil {
			return err
		}
		config, err := img.ConfigFile()
		if err != nil {
			return err
		}
		id, err := img.ConfigName()
		if err != nil {
			return err
		}
		digest, err := img.Digest()
		if err != nil {
			return err
		}
		tags, digests := []string{}, []string{}
		for _, n := range e.images.names() {
			if other, err := e.images.must(n); err == nil {
				if d, err := other.Digest(); err == nil && d == digest {
					ref, err := parse(n)
					if err == nil {
						tags, digests = append(tags, familiar(n)), append(digests, familiar(ref.Context().Name())+"@"+digest.String())
					}
				}
			}
		}
		all = append(all, map[string]any{"Id": id.String(), "RepoTags": tags, "RepoDigests": digests, "Created": config.Created.Time, "Architecture": config.Architecture, "Os": config.OS,
			"Config": config.Config, "RootFS": config.RootFS, "Size": imageSize(img)})
	}
	return x.show(all, x.Platform)
}

// show prints values as JSON, or by a format of the form {{.A}}, {{json .A}}.
func (x *exchange) show(all []any, format string) error {
	if format == "" {
		data, err := json.MarshalIndent(all, "", "    ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(x.stdout, string(data))
		return err
	}
	for _, item := range all {
		text, err := field(item, format)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(x.stdout, text); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) remove(_ context.Context, x *exchange) error {
	for _, text := range x.Refs {
		ref, err := parse(text)
		if err != nil {
			return err
		}
		ok, err := e.images.remove(ref)
		if err != nil {
			return err
		}
		if !ok && !x.Force {
			return fmt.Errorf("No such image: %s", text) //nolint:staticcheck // the text of docker
		}
		_, _ = fmt.Fprintf(x.stdout, "Untagged: %s\n", familiar(ref.Name()))
	}
	return nil
}

func (e *Engine) save(_ context.Context, x *exchange) error {
	refs := map[name.Reference]v1.Image{}
	for _, text := range x.Refs {
		img, err := e.images.must(text)
		if err != nil {
			return err
		}
		ref, err := parse(text)
		if err != nil {
			return err
		}
		refs[ref] = img
	}
	if len(refs) == 0 {
		return errors.New("docker save requires an image")
	}
	return tarball.MultiRefWrite(refs, x.stdout)
}

func (e *Engine) load(_ context.Context, x *exchange) (err error) {
	file, err := os.CreateTemp(e.cfg.Dir, "load-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(file.Name())) }()
	n, err := io.Copy(file, io.LimitReader(x.body, maxImage+1))
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if n > maxImage {
		return fmt.Errorf("the archive has more than %d bytes", int64(maxImage))
	}
	return e.loadFile(file.Name(), func(text string) { _, _ = fmt.Fprintf(x.stdout, "Loaded image: %s\n", text) })
}

// loadFile keeps the images of a docker archive.
func (e *Engine) loadFile(file string, loaded func(ref string)) error {
	open := func() (io.ReadCloser, error) { return os.Open(filepath.Clean(file)) }
	manifest, err := tarball.LoadManifest(open)
	if err != nil {
		return fmt.Errorf("the archive is no docker archive: %w", err)
	}
	for _, d := range manifest {
		var tag *name.Tag
		var refs []name.Reference
		for _, text := range d.RepoTags {
			t, err := name.NewTag(text)
			if err != nil {
				return err
			}
			tag, refs = &t, append(refs, t)
		}
		img, err := tarball.Image(open, tag)
		if err != nil {
			return err
		}
		if err := e.images.add(img, refs...); err != nil {
			return err
		}
		for _, r := range d.RepoTags {
			loaded(r)
		}
	}
	return nil
}

// manifest is `buildx imagetools inspect`.
func (e *Engine) manifest(ctx context.Context, x *exchange) error {
	text, err := x.one()
	if err != nil {
		return err
	}
	ref, err := parse(text)
	if err != nil {
		return err
	}
	d, err := remote.Get(ref, e.registry(ctx, x, ref)...)
	if err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	switch {
	case x.All:
		_, err = x.stdout.Write(d.Manifest)
	case x.Platform != "":
		var m any
		if err := json.Unmarshal(d.Manifest, &m); err != nil {
			return err
		}
		return x.show([]any{map[string]any{"Name": ref.Name(), "Manifest": map[string]any{"Digest": d.Digest.String(), "MediaType": d.MediaType, "Size": d.Size, "digest": d.Digest.String()}, "Raw": m}}, x.Platform)
	default:
		_, err = fmt.Fprintf(x.stdout, "Name:      %s\nMediaType: %s\nDigest:    %s\n", ref.Name(), d.MediaType, d.Digest)
		if index, ierr := d.ImageIndex(); d.MediaType.IsIndex() && ierr == nil {
			if m, merr := index.IndexManifest(); merr == nil {
				for _, p := range m.Manifests {
					_, _ = fmt.Fprintf(x.stdout, "\n  Name:      %s@%s\n  MediaType: %s\n", ref.Context().Name(), p.Digest, p.MediaType)
					if p.Platform != nil {
						_, _ = fmt.Fprintf(x.stdout, "  Platform:  %s\n", p.Platform)
					}
				}
			}
		}
	}
	return err
}
