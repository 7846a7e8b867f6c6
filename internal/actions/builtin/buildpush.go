package builtin

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

func setupBuildx() Action {
	return Action{
		Name: "docker/setup-buildx-action",
		NoEffect: map[string]string{"version": "BuildKit is built in", "driver": "BuildKit is built in", "driver-opts": "BuildKit is built in",
			"buildkitd-flags": "BuildKit is built in", "buildkitd-config": "BuildKit is built in", "buildkitd-config-inline": "BuildKit is built in",
			"install": "there is no docker command", "use": "there is one builder", "endpoint": "there is one builder", "platforms": "the machine's own platform is used",
			"name": "there is one builder", "append": "there is one builder", "cleanup": "nothing is left behind", "cache-binary": "BuildKit is built in", "keep-state": "the cache is always kept"},
		Run: func(_ context.Context, c *Call) error {
			c.Logf("Images are built by this machine's own BuildKit; there is nothing to set up.")
			c.SetOutput("name", "lockstep")
			c.SetOutput("driver", "remote")
			c.SetOutput("platforms", "linux/amd64")
			return nil
		},
	}
}

func setupQEMU() Action {
	return Action{
		Name:     "docker/setup-qemu-action",
		NoEffect: map[string]string{"image": "emulation is not installed", "platforms": "emulation is not installed", "cache-image": "emulation is not installed", "reset": "emulation is not installed"},
		Run: func(_ context.Context, c *Call) error {
			c.Logf("Emulation of other processors is not installed here. A Dockerfile that cross-compiles ($BUILDPLATFORM) needs none; a RUN for another platform will fail.")
			c.SetOutput("platforms", "linux/amd64")
			return nil
		},
	}
}

func buildPush() Action {
	const cache = "the build cache of this machine is always used"
	return Action{
		Name: "docker/build-push-action",
		Inputs: map[string]string{"context": "", "file": "", "tags": "", "push": "false", "load": "false", "build-args": "", "labels": "",
			"target": "", "platforms": "", "no-cache": "false", "secrets": "", "secret-envs": "", "secret-files": "", "outputs": ""},
		NoEffect: map[string]string{
			"cache-from": cache, "cache-to": cache, "no-cache-filters": cache, "provenance": "no provenance is attached yet", "sbom": "no SBOM is attached yet",
			"attests": "no attestations are attached yet", "annotations": "annotations are not written yet", "pull": "base images come from the local registry",
			"builder": "there is one builder", "github-token": "the context is this repository", "network": "builds use the builder's own network",
			"shm-size": "builds have no limit of their own", "ulimit": "builds have no limit of their own", "cgroup-parent": "builds have no group of their own",
			"call": "the image is built", "allow": "no entitlement is needed"},
		Run: runBuildPush,
	}
}

func runBuildPush(ctx context.Context, c *Call) error {
	if c.Job.Builder == nil {
		return c.errorf("start Lockstep with its image builder", "images cannot be built here")
	}
	r, repoDir, err := buildRequest(ctx, c)
	if err != nil {
		return err
	}
	c.Logf("Building %s from %s", strings.Join(r.Tags, ", "), path.Join(repoDir, r.Dockerfile))
	result, err := c.Job.Builder.Build(ctx, r, c.Out)
	if err != nil {
		var located *Error
		if errors.As(err, &located) && located.File != "" {
			// The builder speaks of its context; people, of the repository.
			moved := *located
			moved.File = path.Join(repoDir, located.File)
			return &moved
		}
		return c.errorf("", "build image: %w", err)
	}
	c.SetOutput("digest", result.Digest)
	c.SetOutput("imageid", result.ImageID)
	c.SetOutput("metadata", result.Metadata)
	c.Logf("##[group]Digest\n%s\n##[endgroup]", result.Digest)
	return nil
}

// buildRequest reads the inputs. repoDir is the context within the repository.
func buildRequest(ctx context.Context, c *Call) (r BuildRequest, repoDir string, err error) {
	r = BuildRequest{Repo: c.Job.Repo, Commit: c.Job.Commit, Target: c.With["target"], Tags: c.list("tags", true),
		Platforms: c.list("platforms", true), Secrets: map[string][]byte{}}
	for name, to := range map[string]*bool{"push": &r.Push, "load": &r.Load, "no-cache": &r.NoCache} {
		if *to, err = c.flag(name); err != nil {
			return r, "", err
		}
	}
	if r.Push && len(r.Tags) == 0 {
		return r, "", c.errorf("add the input tags", "push needs a tag")
	}
	if err := outputs(c, &r); err != nil {
		return r, "", err
	}
	if r.BuildArgs, err = assignments(c, "build-args"); err != nil {
		return r, "", err
	}
	if r.Labels, err = assignments(c, "labels"); err != nil {
		return r, "", err
	}
	if err := secrets(c, r.Secrets); err != nil {
		return r, "", err
	}
	if r.ContextDir, repoDir, err = contextDir(ctx, c); err != nil {
		return r, "", err
	}
	if r.Dockerfile, err = dockerfile(c, repoDir); err != nil {
		return r, "", err
	}
	if err := checkDockerfile(c, r.ContextDir, r.Dockerfile); err != nil {
		return r, "", err
	}
	config, err := readDockerConfig(c.Job.Home)
	if err != nil {
		return r, "", err
	}
	r.Credentials = config.credentials()
	return r, repoDir, nil
}

// outputs understands the exporters that are the same as push and load.
func outputs(c *Call, r *BuildRequest) error {
	for _, o := range c.list("outputs", false) {
		kind := "" // of type=image,push=true
		for field := range strings.SplitSeq(o, ",") {
			key, value, _ := strings.Cut(field, "=")
			switch strings.TrimSpace(key) {
			case "type":
				kind = value
			case "push":
				r.Push = r.Push || value == "true"
			}
		}
		switch kind {
		case "registry":
			r.Push = true
		case "docker":
			r.Load = true
		case "image":
		default:
			return c.errorf("use push, or outputs of type image or registry", "output %q is not supported yet", o)
		}
	}
	return nil
}

func assignments(c *Call, name string) (map[string]string, error) {
	out := map[string]string{}
	for _, line := range c.list(name, false) {
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			// A bare name takes its value from the environment, as docker's does.
			for _, kv := range c.Env {
				if v, found := strings.CutPrefix(kv, key+"="); found {
					value, ok = v, true
				}
			}
		}
		if !ok || key == "" {
			return nil, c.errorf("", "input %s: %q is not name=value", name, key)
		}
		out[key] = value
	}
	return out, nil
}

func secrets(c *Call, into map[string][]byte) error {
	plain, err := assignments(c, "secrets")
	if err != nil {
		return c.errorf("", "input secrets must be lines of id=value")
	}
	for id, value := range plain {
		into[id] = []byte(strings.Trim(value, `"`))
		c.Job.Mask(value)
	}
	env := map[string]string{}
	for _, kv := range c.Env {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	for _, line := range c.list("secret-envs", true) {
		id, name, ok := strings.Cut(line, "=")
		if !ok {
			name = id
		}
		if _, ok := env[name]; !ok {
			return c.errorf("", "input secret-envs: the environment has no %q", name)
		}
		into[id] = []byte(env[name])
	}
	for _, line := range c.list("secret-files", true) {
		id, file, _ := strings.Cut(line, "=")
		inside, err := within(c, file)
		if err != nil {
			return err
		}
		if into[id], err = readFile(c.Job.Files, inside, 1<<20); err != nil {
			return c.errorf("", "input secret-files: %w", err)
		}
	}
	return nil
}

// within turns a path of the job into one relative to its workspace.
func within(c *Call, p string) (string, error) {
	if path.IsAbs(p) {
		rel, ok := strings.CutPrefix(path.Clean(p)+"/", c.Job.Workspace+"/")
		if !ok {
			return "", c.errorf("use a path in the workspace", "%q is outside of the workspace", p)
		}
		p = rel
	}
	p = path.Clean("./" + p)
	if p == ".." || strings.HasPrefix(p, "../") {
		return "", c.errorf("use a path in the workspace", "%q is outside of the workspace", p)
	}
	return p, nil
}

// contextDir finds the build context on this machine. Without the input it is
// the commit itself, as the real action's Git context is.
func contextDir(ctx context.Context, c *Call) (dir, repoDir string, err error) {
	input := c.With["context"]
	if input == "" {
		c.Logf("No context given: building from commit %s as it is in the repository.", c.Job.Commit)
		dir := filepath.Join(c.Job.ScratchDir, "context-"+c.Job.Commit)
		return dir, "", unpackCommit(ctx, c, dir)
	}
	if strings.Contains(input, "://") || strings.HasPrefix(input, "git@") {
		return "", "", c.errorf("check the repository out and use its path", "build context %q: remote contexts are not supported yet", input)
	}
	inside, err := within(c, input)
	if err != nil {
		return "", "", err
	}
	fi, err := c.Job.Files.Stat(inside)
	if err != nil || !fi.IsDir() {
		return "", "", c.errorf("check the repository out before, and check the input context", "build context %q is not a directory of the workspace", input)
	}
	// A path with a link in it is refused: the builder works on this machine,
	// not in the sandbox.
	for part := inside; part != "."; part = path.Dir(part) {
		if fi, err := c.Job.Files.Lstat(part); err != nil || fi.Mode()&os.ModeSymlink != 0 {
			return "", "", c.errorf("use the real path", "build context %q goes through the symbolic link %q", input, part)
		}
	}
	return filepath.Join(c.Job.WorkspaceDir, filepath.FromSlash(inside)), inside, nil
}

// dockerfile is the input file, which is relative to the workspace, relative to
// the context.
func dockerfile(c *Call, repoDir string) (string, error) {
	file := c.With["file"]
	if file == "" {
		return "Dockerfile", nil
	}
	inside, err := within(c, file)
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(filepath.Join("/", repoDir), filepath.Join("/", inside))
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", c.errorf("move it below the context", "Dockerfile %q is outside of the build context %q", file, repoDir)
	}
	return rel, nil
}

// checkDockerfile refuses a link that leads out of the context: the builder
// reads the file on this machine, not in the sandbox. A missing file is the
// builder's to report.
func checkDockerfile(c *Call, contextDir, file string) (err error) {
	root, err := os.OpenRoot(contextDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if _, err := root.Stat(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return c.errorf("use a plain file below the context", "Dockerfile %q cannot be used: %w", file, err)
	}
	return nil
}

// maxContext bounds the files of a commit that become a build context.
const maxContext = 2 << 30

// unpackCommit writes the tree of the run's commit to dir.
func unpackCommit(ctx context.Context, c *Call, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	r, w := io.Pipe()
	go func() { w.CloseWithError(c.Job.Archive(ctx, c.Job.Commit, w)) }()
	err = unpack(tar.NewReader(r), root)
	_ = r.Close()
	if err != nil {
		return fmt.Errorf("unpack commit %s: %w", c.Job.Commit, err)
	}
	return nil
}

func unpack(r *tar.Reader, root *os.Root) error {
	left := int64(maxContext)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o755)
		case tar.TypeSymlink:
			err = root.Symlink(h.Linkname, name)
		case tar.TypeReg:
			if left -= h.Size; left < 0 {
				return fmt.Errorf("more than %d bytes", int64(maxContext))
			}
			if err = root.MkdirAll(path.Dir(name), 0o755); err == nil {
				err = copyFile(root, name, r, os.FileMode(h.Mode&0o777))
			}
		}
		if err != nil {
			return err
		}
	}
}

func copyFile(root *os.Root, name string, from io.Reader, mode os.FileMode) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

// sorted lists the keys of a map.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
