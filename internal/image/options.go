package image

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	units "github.com/docker/go-units"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/util/entitlements"
	"github.com/tonistiigi/fsutil"
)

// Export writes what was built to this machine, besides pushing it.
type Export struct {
	Type  string            // "oci", "docker", "local", "tar"
	Dest  string            // file, or for "local" directory, on this machine
	Attrs map[string]string // further fields of BuildKit's exporter
}

// frontendAttrs says to the Dockerfile frontend what the request says to us
// (docs/reference of BuildKit's dockerfile frontend).
func (p plan) frontendAttrs() (map[string]string, error) {
	attrs := map[string]string{
		"filename": p.base,
		// Any value makes the frontend built into BuildKit do the work
		// instead of pulling the image of a "# syntax=" line.
		"cmdline": "lockstep",
	}
	set := func(key, value string) {
		if value != "" {
			attrs[key] = value
		}
	}
	r := p.req
	set("target", r.Target)
	set("platform", strings.Join(r.Platforms, ","))
	set("cgroup-parent", r.CgroupParent)
	set("ulimit", strings.Join(r.Ulimits, ","))
	set("add-hosts", strings.Join(hostsOf(r.AddHosts), ","))
	if r.NoCache {
		attrs["no-cache"] = ""
	} else {
		set("no-cache", strings.Join(r.NoCacheFilters, ","))
	}
	if r.Pull {
		attrs["image-resolve-mode"] = "pull"
	}
	switch r.Network {
	case "", "default":
	case "none", "host":
		attrs["force-network-mode"] = r.Network
	default:
		return nil, fmt.Errorf("network %q is not one of default, none, host", r.Network)
	}
	if r.ShmSize != "" {
		n, err := units.RAMInBytes(r.ShmSize)
		if err != nil {
			return nil, fmt.Errorf("shm-size %q is no size like 64m: %w", r.ShmSize, err)
		}
		attrs["shm-size"] = fmt.Sprint(n)
	}
	for k, v := range r.BuildArgs {
		attrs["build-arg:"+k] = v
	}
	for k, v := range r.Labels {
		attrs["label:"+k] = v
	}
	for name, source := range r.Contexts {
		if isDirectory(source) {
			source = "local:" + contextMount(name)
		}
		attrs["context:"+name] = source
	}
	if mode := p.provenance(); mode != "" {
		attrs["attest:provenance"] = mode
	}
	return attrs, nil
}

// provenance is how BuildKit's own attestation was asked for, "" for not. It
// makes an index of the image; the platform attaches its own to every image.
func (p plan) provenance() string {
	mode := p.req.Provenance
	for _, a := range p.req.Attests {
		if kind, rest, _ := strings.Cut(a, ","); kind == "type=provenance" {
			mode = cmp.Or(rest, "true")
		}
	}
	switch mode {
	case "", "false", "disabled=true":
		return ""
	case "true":
		return "mode=min"
	}
	return mode
}

// hostsOf turns "name:address" of Docker's --add-host into BuildKit's form.
func hostsOf(hosts []string) []string {
	out := make([]string, len(hosts))
	for i, h := range hosts {
		name, address, ok := strings.Cut(h, "=")
		if !ok {
			name, address, _ = strings.Cut(h, ":")
		}
		out[i] = name + "=" + address
	}
	return out
}

// isDirectory tells a directory of this machine from an image, a Git repository
// or a URL (buildx: --build-context).
func isDirectory(source string) bool {
	for _, scheme := range []string{"docker-image://", "oci-layout://", "https://", "http://", "git://", "target:", "ssh://"} {
		if strings.HasPrefix(source, scheme) {
			return false
		}
	}
	return filepath.IsAbs(source)
}

func contextMount(name string) string { return "named-" + name }

// mounts are the directories that BuildKit may read during the build.
func (p plan) mounts() (map[string]fsutil.FS, error) {
	dirs := map[string]string{"context": p.req.ContextDir, "dockerfile": p.dir}
	for name, source := range p.req.Contexts {
		if isDirectory(source) {
			dirs[contextMount(name)] = source
		}
	}
	out := map[string]fsutil.FS{}
	for name, dir := range dirs {
		tree, err := fsutil.NewFS(dir)
		if err != nil {
			return nil, fmt.Errorf("build context %s: %w", name, err)
		}
		out[name] = tree
	}
	return out, nil
}

// exports are what BuildKit writes at the end.
func (p plan) exports() ([]client.ExportEntry, error) {
	if p.keep {
		return nil, nil
	}
	image := map[string]string{"oci-mediatypes": "true"}
	if len(p.req.Tags) > 0 {
		image["name"] = strings.Join(p.req.Tags, ",")
	}
	if p.req.Push {
		image["push"] = "true"
	}
	annotations := map[string]string{}
	for _, a := range p.req.Annotations {
		key, value, err := annotation(a)
		if err != nil {
			return nil, err
		}
		annotations[key] = value
	}
	maps.Copy(image, annotations)
	var out []client.ExportEntry
	for _, e := range p.req.Exports {
		attrs := maps.Clone(e.Attrs)
		if attrs == nil {
			attrs = map[string]string{}
		}
		entry := client.ExportEntry{Type: e.Type, Attrs: attrs}
		switch e.Type {
		case client.ExporterLocal:
			entry.OutputDir = e.Dest
		case client.ExporterOCI, client.ExporterDocker, client.ExporterTar:
			if attrs["name"] == "" && e.Type != client.ExporterTar && len(p.req.Tags) > 0 {
				attrs["name"] = strings.Join(p.req.Tags, ",")
			}
			if e.Type != client.ExporterTar {
				maps.Copy(attrs, annotations)
			}
			entry.Output = fileOutput(e.Dest)
		default:
			return nil, fmt.Errorf("output of type %q: only oci, docker, tar and local write to this machine", e.Type)
		}
		out = append(out, entry)
	}
	// BuildKit's answer is of the last: the digest is that of the image.
	return append(out, client.ExportEntry{Type: client.ExporterImage, Attrs: image}), nil
}

func fileOutput(file string) filesync.FileOutputFunc {
	return func(map[string]string) (io.WriteCloser, error) { return os.Create(file) }
}

// annotation translates buildx's "level[platform]:key=value" for the exporter.
func annotation(text string) (key, value string, err error) {
	key, value, ok := strings.Cut(text, "=")
	if !ok || key == "" {
		return "", "", fmt.Errorf("annotation %q is not key=value", text)
	}
	level, name, leveled := strings.Cut(key, ":")
	kind, platform, _ := strings.Cut(level, "[")
	if !leveled || !slices.Contains([]string{"manifest", "index", "manifest-descriptor", "index-descriptor"}, kind) {
		return "annotation." + key, value, nil
	}
	if platform != "" {
		platform = "[" + platform
	}
	return "annotation-" + kind + platform + "." + name, value, nil
}

// caches reads buildx's --cache-from and --cache-to. What the builder does by
// itself becomes a note.
func caches(texts []string) (out []client.CacheOptionsEntry, notes []string, err error) {
	for _, text := range texts {
		fields, err := csv.NewReader(strings.NewReader(text)).Read()
		if err != nil {
			return nil, nil, fmt.Errorf("cache %q: %w", text, err)
		}
		e := client.CacheOptionsEntry{Attrs: map[string]string{}}
		for _, f := range fields {
			key, value, ok := strings.Cut(f, "=")
			switch {
			case !ok && len(fields) == 1:
				e.Type, e.Attrs["ref"] = "registry", f
			case !ok:
				return nil, nil, fmt.Errorf("cache %q: %q is not key=value", text, f)
			case key == "type":
				e.Type = value
			default:
				e.Attrs[key] = value
			}
		}
		switch e.Type {
		case "registry", "inline":
			out = append(out, e)
		case "gha", "local", "s3", "azblob":
			notes = append(notes, fmt.Sprintf("note: cache type=%s is not needed: the builder keeps its cache between runs", e.Type))
		default:
			return nil, nil, fmt.Errorf("cache %q: type is not one of registry, inline, gha, local, s3, azblob", text)
		}
	}
	return out, notes, nil
}

// agents offers the SSH keys of the request to RUN --mount=type=ssh. The keys
// are files only until done is called.
func (p plan) agents() (configs []sshprovider.AgentConfig, done func(), err error) {
	if len(p.req.SSH) == 0 {
		return nil, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "ssh-")
	if err != nil {
		return nil, nil, fmt.Errorf("offer SSH keys: %w", err)
	}
	done = func() { _ = os.RemoveAll(dir) }
	for _, id := range slices.Sorted(maps.Keys(p.req.SSH)) {
		c := sshprovider.AgentConfig{ID: id}
		for i, key := range p.req.SSH[id] {
			file := filepath.Join(dir, fmt.Sprintf("%d-%d", len(configs), i))
			if err := os.WriteFile(file, key, 0o600); err != nil {
				done()
				return nil, nil, fmt.Errorf("offer SSH keys: %w", err)
			}
			c.Paths = append(c.Paths, file)
		}
		configs = append(configs, c)
	}
	return configs, done, nil
}

// entitled checks what the build is allowed beyond the usual.
func entitled(names []string) error {
	for _, name := range names {
		if _, _, err := entitlements.Parse(name); err != nil {
			return errors.Join(fmt.Errorf("allow %q is no entitlement like network.host", name), err)
		}
	}
	return nil
}
