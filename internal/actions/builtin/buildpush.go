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
			"install": "there is no docker command", "use": "there is one builder", "driver-opts-file": "BuildKit is built in", "endpoint": "there is one builder", "platforms": "the machine's own platform is used",
			"name": "there is one builder", "append": "there is one builder", "cleanup": "nothing is left behind", "cache-binary": "BuildKit is built in", "keep-state": "the cache is always kept"},
		Run: func(_ context.Context, c *Call) error {
			c.Logf("Images are built by this machine's own BuildKit; there is nothing to set up.")
			c.SetOutput("name", "lockstep")
			c.SetOutput("driver", "remote")
			c.SetOutput("platforms", "linux/amd64")
			c.SetOutput("endpoint", "lockstep")
			c.SetOutput("status", "running")
			c.SetOutput("nodes", `[{"name":"lockstep","endpoint":"lockstep","status":"running","platforms":"linux/amd64"}]`)
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
	return Action{
		Name: "docker/build-push-action",
		Inputs: map[string]string{"context": "", "file": "", "tags": "", "push": "false", "load": "false", "build-args": "", "labels": "",
			"target": "", "platforms": "", "no-cache": "false", "secrets": "", "secret-envs": "", "secret-files": "", "outputs": "",
			"cache-from": "", "cache-to": "", "no-cache-filters": "", "provenance": "", "sbom": "", "attests": "", "annotations": "", "pull": "false",
			"network": "", "shm-size": "", "ulimit": "", "cgroup-parent": "", "call": "", "allow": "", "add-hosts": "", "build-contexts": "", "ssh": ""},
		NoEffect: map[string]string{"builder": "there is one builder", "github-token": "the context is this repository"},
		Run:      runBuildPush,
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
	r.Path = repoDir
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
	r = BuildRequest{Repo: c.Job.Repo, Commit: c.Job.Commit, Ref: c.Job.Ref, Run: c.Job.Run, Workflow: c.Job.Workflow, Target: c.With["target"], Tags: c.list("tags", true),
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
	if err := buildOptions(ctx, c, &r); err != nil {
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

// unpackCommit writes the tree of a commit to dir.
func unpackCommit(ctx context.Context, c *Call, commit, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	r, w := io.Pipe()
	go func() { w.CloseWithError(c.Job.Archive(ctx, commit, w)) }()
	err = unpack(tar.NewReader(r), root)
	_ = r.Close()
	if err != nil {
		return fmt.Errorf("unpack commit %s: %w", commit, err)
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
