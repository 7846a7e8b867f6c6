package docker

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
)

var buildFlags = shim.Flags{shim.F("--tag", "-t"), shim.F("--file", "-f"), shim.F("--build-arg"), shim.F("--label"), shim.F("--target"), shim.F("--platform"), shim.B("--push"), shim.B("--load"),
	shim.B("--no-cache"), shim.F("--no-cache-filter"), shim.B("--pull"), shim.B("--quiet", "-q"), shim.F("--progress"), shim.F("--secret"), shim.F("--ssh"), shim.F("--cache-from"), shim.F("--cache-to"),
	shim.F("--build-context"), shim.F("--annotation"), shim.F("--provenance"), shim.F("--sbom"), shim.F("--attest"), shim.F("--add-host"), shim.F("--network"), shim.F("--allow"), shim.F("--shm-size"),
	shim.F("--ulimit"), shim.F("--iidfile"), shim.F("--metadata-file"), shim.F("--output", "-o"), shim.F("--builder"), shim.B("--rm"), shim.B("--force-rm"), shim.F("--memory", "-m"), shim.F("--isolation")}

func build(ctx context.Context, c *call) (int, error) {
	if len(c.Rest) != 1 {
		return 0, shim.Usagef("docker build requires 1 argument: the build context")
	}
	b, err := c.buildSpec()
	if err != nil {
		return 0, err
	}
	place := c.Rest[0]
	if strings.Contains(place, "://") || place == "-" {
		return 0, shim.Usagef("docker build: the context %q is not emulated: use a directory", place)
	}
	dir := c.Path(place)
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		return 0, fmt.Errorf("unable to prepare context: path %q not found", place)
	}
	if err := c.dockerfile(b, dir); err != nil {
		return 0, err
	}
	named, err := c.namedContexts(b)
	if err != nil {
		return 0, err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(writeContext(w, dir, named)) }()
	f, err := c.ask(ctx, "build", Request{Build: b}, r)
	_ = r.CloseWithError(errors.New("the engine has answered"))
	if err != nil {
		return 0, err
	}
	for option, text := range map[string]string{"iidfile": f.Image, "metadata-file": f.Meta} {
		if file := c.Get(option); file != "" {
			if err := os.WriteFile(c.Path(file), []byte(text), 0o644); err != nil {
				return 0, err
			}
		}
	}
	if b.Quiet {
		_, _ = fmt.Fprintln(c.Stdout, f.Image)
	}
	return f.Exit, nil
}

func (c *call) buildSpec() (*Build, error) {
	b := &Build{Tags: c.All("tag"), Push: c.On("push"), Load: c.On("load") || !c.On("push"), Quiet: c.On("quiet"), Target: c.Get("target"), NoCache: c.On("no-cache"), Pull: c.On("pull"),
		NoCacheFilters: c.All("no-cache-filter"), CacheFrom: c.All("cache-from"), CacheTo: c.All("cache-to"), Annotations: c.All("annotation"), Provenance: c.Get("provenance"), SBOM: c.Get("sbom"),
		Attests: c.All("attest"), AddHosts: c.All("add-host"), Network: c.Get("network"), Allow: c.All("allow"), ShmSize: c.Get("shm-size"), Ulimits: c.All("ulimit"),
		Secrets: map[string][]byte{}, SSH: map[string][][]byte{}, Contexts: map[string]string{}}
	for _, p := range c.All("platform") {
		b.Platforms = append(b.Platforms, strings.Split(p, ",")...)
	}
	for _, o := range c.All("output") {
		kind := "local"
		for field := range strings.SplitSeq(o, ",") {
			if v, ok := strings.CutPrefix(field, "type="); ok {
				kind = v
			}
		}
		switch kind {
		case "registry":
			b.Push, b.Load = true, false
		case "image":
			b.Push = b.Push || strings.Contains(o, "push=true")
		case "docker":
			b.Load = true
		default:
			return nil, shim.Usagef("docker build: --output %s is not emulated: use --load and docker save", o)
		}
	}
	var err error
	if b.BuildArgs, err = c.assignments(c.All("build-arg")); err != nil {
		return nil, err
	}
	if b.Labels, err = c.assignments(c.All("label")); err != nil {
		return nil, err
	}
	if err := c.secrets(b); err != nil {
		return nil, err
	}
	for _, s := range c.All("ssh") {
		id, files, ok := strings.Cut(s, "=")
		if !ok {
			return nil, shim.Usagef("docker build: --ssh %s means an agent, which the builder cannot reach: write --ssh %s=path/of/the/private/key", s, id)
		}
		for file := range strings.SplitSeq(files, ",") {
			key, err := os.ReadFile(c.Path(file))
			if err != nil {
				return nil, err
			}
			b.SSH[id] = append(b.SSH[id], key)
		}
	}
	return b, nil
}

// secrets reads --secret id=x[,src=file][,env=NAME].
func (c *call) secrets(b *Build) error {
	for _, s := range c.All("secret") {
		f := map[string]string{}
		for field := range strings.SplitSeq(s, ",") {
			k, v, _ := strings.Cut(field, "=")
			f[strings.ToLower(k)] = v
		}
		file := f["src"] + f["source"]
		switch {
		case f["id"] == "":
			return shim.Usagef("docker build: --secret %s has no id", s)
		case file != "" && f["type"] != "env":
			data, err := os.ReadFile(c.Path(file))
			if err != nil {
				return err
			}
			b.Secrets[f["id"]] = data
		default:
			name := f["env"] + file
			if name == "" {
				name = f["id"]
			}
			b.Secrets[f["id"]] = []byte(c.Getenv(name))
		}
	}
	return nil
}

// assignments reads name=value; a bare name takes its value from the environment.
func (c *call) assignments(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, a := range list {
		k, v, ok := strings.Cut(a, "=")
		if k == "" {
			return nil, shim.Usagef("%q is not name=value", a)
		}
		if !ok {
			v = c.Getenv(k)
		}
		out[k] = v
	}
	return out, nil
}

// variables are those of a container: files first, then single ones.
func (c *call) variables(list, files []string) ([]string, error) {
	var out []string
	for _, file := range files {
		f, err := os.Open(c.Path(file))
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if line := strings.TrimSpace(lines.Text()); line != "" && line[0] != '#' {
				list = append([]string{line}, list...)
			}
		}
		if err := errors.Join(lines.Err(), f.Close()); err != nil {
			return nil, err
		}
	}
	for _, v := range list {
		if !strings.Contains(v, "=") {
			v += "=" + c.Getenv(v)
		}
		out = append(out, v)
	}
	return out, nil
}

// maxDockerfile bounds a Dockerfile, in bytes.
const maxDockerfile = 4 << 20

// dockerfile finds the Dockerfile; one outside of the context is sent by itself.
func (c *call) dockerfile(b *Build, dir string) error {
	file := c.Get("file")
	var from io.Reader
	switch {
	case file == "":
		b.Dockerfile = "Dockerfile"
		if _, err := os.Stat(filepath.Join(dir, b.Dockerfile)); err != nil {
			return fmt.Errorf("failed to read dockerfile: open Dockerfile: no such file or directory in %s", dir)
		}
		return nil
	case file == "-":
		from = c.Stdin
	default:
		abs, err := filepath.Abs(c.Path(file))
		if err != nil {
			return err
		}
		base, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		if rel, err := filepath.Rel(base, abs); err == nil && filepath.IsLocal(rel) {
			b.Dockerfile = filepath.ToSlash(rel)
			_, err := os.Stat(abs)
			return err
		}
		f, err := os.Open(abs)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, maxDockerfile))
	b.DockerfileText = data
	return err
}

// namedContexts are the directories of --build-context by name.
func (c *call) namedContexts(b *Build) (map[string]string, error) {
	dirs := map[string]string{}
	for _, s := range c.All("build-context") {
		name, place, ok := strings.Cut(s, "=")
		if !ok || name == "" || strings.ContainsAny(name, "/\\") || name == ".." || name == "." {
			return nil, shim.Usagef("docker build: --build-context %s is not name=place", s)
		}
		if strings.Contains(place, "://") {
			b.Contexts[name] = place
			continue
		}
		dirs[name] = c.Path(place)
	}
	return dirs, nil
}

// writeContext sends the directories as one tar stream.
func writeContext(w io.Writer, dir string, named map[string]string) error {
	t := tar.NewWriter(w)
	if err := addTree(t, dir, "context"); err != nil {
		return err
	}
	for name, d := range named {
		if err := addTree(t, d, path.Join("named", name)); err != nil {
			return err
		}
	}
	return t.Close()
}

func addTree(t *tar.Writer, dir, prefix string) error {
	return filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		link := ""
		switch {
		case fi.Mode()&fs.ModeSymlink != 0:
			if link, err = os.Readlink(file); err != nil {
				return err
			}
		case !fi.Mode().IsRegular() && !fi.IsDir():
			return nil // sockets and the like are no part of a context
		}
		h, err := tar.FileInfoHeader(fi, link)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		h.Name, h.Uid, h.Gid, h.Uname, h.Gname = path.Join(prefix, filepath.ToSlash(rel)), 0, 0, "", ""
		if err := t.WriteHeader(h); err != nil || !fi.Mode().IsRegular() {
			return err
		}
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		_, err = io.Copy(t, f)
		return errors.Join(err, f.Close())
	})
}
