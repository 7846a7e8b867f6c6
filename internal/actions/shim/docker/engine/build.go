package engine

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/lockstep-gitops/lockstep/internal/actions/builtin"
)

// maxContext bounds what is sent along with a build, in bytes.
const maxContext = 2 << 30

func (e *Engine) build(ctx context.Context, x *exchange) (err error) {
	b := x.Build
	switch {
	case b == nil:
		return errors.New("the request names no build")
	case e.deps.Builder == nil:
		return errors.New("images cannot be built here: start Lockstep with its image builder")
	case b.Push && len(b.Tags) == 0:
		return errors.New("tag is needed when pushing to registry")
	}
	dir, err := os.MkdirTemp(e.cfg.Dir, "build-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := receive(x.body, dir); err != nil {
		return fmt.Errorf("receive the build context: %w", err)
	}
	r := builtin.BuildRequest{Repo: e.cfg.Repo, Commit: e.cfg.Commit, Ref: e.cfg.Ref, Workflow: e.cfg.Workflow, Run: e.cfg.Run, ContextDir: filepath.Join(dir, "context"), Dockerfile: b.Dockerfile, Tags: b.Tags, Push: b.Push,
		Target: b.Target, Platforms: b.Platforms, BuildArgs: b.BuildArgs, Labels: b.Labels, Annotations: b.Annotations, NoCache: b.NoCache, Pull: b.Pull, NoCacheFilters: b.NoCacheFilters,
		Secrets: b.Secrets, SSH: b.SSH, CacheFrom: b.CacheFrom, CacheTo: b.CacheTo, Contexts: map[string]string{}, Provenance: b.Provenance, SBOM: b.SBOM, Attests: b.Attests,
		AddHosts: b.AddHosts, Network: b.Network, Allow: b.Allow, ShmSize: b.ShmSize, Ulimits: b.Ulimits, Credentials: map[string]builtin.Credential{}}
	for host, l := range x.Logins {
		r.Credentials[host] = builtin.Credential(l)
	}
	for n, place := range b.Contexts {
		r.Contexts[n] = place
	}
	if err := contexts(dir, r.Contexts); err != nil {
		return err
	}
	if r.Dockerfile, err = dockerfileIn(dir, b.Dockerfile, b.DockerfileText); err != nil {
		return err
	}
	archive := ""
	if b.Load {
		archive = filepath.Join(dir, "image.tar")
		r.Exports = append(r.Exports, builtin.Export{Type: "docker", Dest: archive, Attrs: map[string]string{
			"name": strings.Join(b.Tags, ","),
			// A Docker archive whose layers are compressed in different ways is misread.
			"compression": "uncompressed", "force-compression": "true",
		}})
	}
	progress := io.Writer(x.stderr)
	if b.Quiet {
		progress = io.Discard
	}
	result, err := e.deps.Builder.Build(ctx, r, progress)
	if err != nil {
		return err
	}
	x.done.Digest, x.done.Image, x.done.Meta = result.Digest, result.ImageID, result.Metadata
	if archive == "" {
		return nil
	}
	return e.keep(archive, b.Tags)
}

// keep loads what was built under its tags.
func (e *Engine) keep(archive string, tags []string) error {
	if _, err := os.Stat(archive); err != nil {
		return errors.New("the image was built, but this machine's builder did not hand it over: add --push")
	}
	var refs []name.Reference
	for _, t := range tags {
		ref, err := parse(t)
		if err != nil {
			return err
		}
		refs = append(refs, ref)
	}
	img, err := tarball.ImageFromPath(archive, nil)
	if err != nil {
		return fmt.Errorf("read what was built: %w", err)
	}
	return e.images.add(img, refs...)
}

// contexts adds the further contexts that were received.
func contexts(dir string, into map[string]string) error {
	entries, err := os.ReadDir(filepath.Join(dir, "named"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if !e.IsDir() { // a link would lead the builder out of what was sent
			return fmt.Errorf("the build context %q is no folder", e.Name())
		}
		into[e.Name()] = filepath.Join(dir, "named", e.Name())
	}
	return err
}

// dockerfileIn checks the Dockerfile within the context, or writes the one that
// was sent by itself.
func dockerfileIn(dir, file string, text []byte) (string, error) {
	root, err := os.OpenRoot(filepath.Join(dir, "context"))
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	if text != nil {
		const own = ".lockstep.Dockerfile"
		_ = root.Remove(own)
		return own, root.WriteFile(own, text, 0o600)
	}
	if _, err := root.Stat(file); err != nil {
		return "", fmt.Errorf("failed to read dockerfile: %w", err)
	}
	return file, nil
}

// receive unpacks the contexts of a build.
func receive(r io.Reader, dir string) (err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := root.Mkdir("context", 0o755); err != nil {
		return err
	}
	left := int64(maxContext)
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		file := path.Clean(h.Name)
		if file != "context" && !strings.HasPrefix(file, "context/") && !strings.HasPrefix(file, "named/") {
			return fmt.Errorf("%q is no part of a context", h.Name)
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(file, 0o755)
		case tar.TypeSymlink:
			err = root.Symlink(h.Linkname, file)
		case tar.TypeReg:
			if left -= h.Size; left < 0 {
				return fmt.Errorf("it has more than %d bytes", int64(maxContext))
			}
			err = receiveFile(root, file, t, os.FileMode(h.Mode&0o777))
			if err == nil {
				err = root.Chtimes(file, h.ModTime, h.ModTime)
			}
		default:
			return fmt.Errorf("%q is no file, folder or link", h.Name)
		}
		if err != nil {
			return err
		}
	}
}

func receiveFile(root *os.Root, file string, from io.Reader, mode os.FileMode) error {
	if err := root.MkdirAll(path.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode|0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

var template = regexp.MustCompile(`\{\{\s*(json\s+)?((?:\.\w+)+|\.|index\s+((?:\.\w+)+)\s+(\d+))\s*\}\}`)

// field fills a format of the forms {{.A.B}}, {{json .A}} and {{index .A 0}}.
func field(item any, format string) (string, error) {
	data, err := json.Marshal(item)
	if err != nil {
		return "", err
	}
	var plain any
	if err := json.Unmarshal(data, &plain); err != nil {
		return "", err
	}
	rest := template.ReplaceAllString(format, "")
	if strings.Contains(rest, "{{") {
		return "", fmt.Errorf("the format %q is not emulated: use {{.Field}}, {{json .Field}} or {{index .Field 0}}", format)
	}
	var failed error
	out := template.ReplaceAllStringFunc(format, func(m string) string {
		parts := template.FindStringSubmatch(m)
		place, asJSON := parts[2], parts[1] != ""
		if parts[3] != "" {
			place = parts[3] + "." + parts[4]
		}
		value := plain
		for key := range strings.SplitSeq(strings.Trim(place, "."), ".") {
			switch v := value.(type) {
			case map[string]any:
				if key != "" {
					value = v[key]
				}
			case []any:
				i := -1
				if _, err := fmt.Sscan(key, &i); err != nil || i < 0 || i >= len(v) {
					failed = fmt.Errorf("the format %q: there is no element %s", format, key)
					return ""
				}
				value = v[i]
			default:
				failed = fmt.Errorf("the format %q: there is no %s", format, place)
				return ""
			}
		}
		if text, ok := value.(string); ok && !asJSON {
			return text
		}
		data, err := json.Marshal(value)
		if err != nil {
			failed = err
		}
		return string(data)
	})
	return out, failed
}
