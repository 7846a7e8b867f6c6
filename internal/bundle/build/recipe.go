package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// recipe is one call of `go build`.
type recipe struct {
	packages []string // import paths or ./folders; each gives one program
	ldflags  string
	tags     string
	static   bool // needs cgo, linked statically so that it runs on any distribution
}

func recipes(version map[string]string) []recipe {
	major, minor, _ := strings.Cut(strings.TrimPrefix(version["k8s.io/kubernetes"], "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	const kube = " -X k8s.io/component-base/version."
	return []recipe{
		{
			packages: []string{"./internal/cluster/hyperkube"},
			ldflags: "-s -w" + kube + "gitVersion=" + version["k8s.io/kubernetes"] +
				kube + "gitMajor=" + major + kube + "gitMinor=" + minor + kube + "gitTreeState=clean",
		},
		{
			packages: []string{
				"github.com/containerd/containerd/v2/cmd/containerd",
				"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
			},
			ldflags: "-s -w -X github.com/containerd/containerd/v2/version.Version=" + version["github.com/containerd/containerd/v2"],
		},
		{
			packages: []string{"github.com/moby/buildkit/cmd/buildkitd"},
			ldflags:  "-s -w -X github.com/moby/buildkit/version.Version=" + version["github.com/moby/buildkit"],
		},
		{
			packages: []string{
				"github.com/containernetworking/plugins/plugins/main/ptp",
				"github.com/containernetworking/plugins/plugins/ipam/host-local",
				"github.com/containernetworking/plugins/plugins/meta/portmap",
				"./internal/bundle/pause",
				"./internal/actions/sandbox/lockstep-init",
			},
			ldflags: "-s -w",
		},
		{
			packages: []string{"github.com/opencontainers/runc"},
			ldflags:  "-s -w -extldflags=-static",
			tags:     "seccomp netgo osusergo",
			static:   true,
		},
	}
}

func (r recipe) programs() []string {
	var names []string
	for _, p := range r.packages {
		names = append(names, path.Base(p))
	}
	return names
}

func (r recipe) build(ctx context.Context, root, out string, trim bool) error {
	args := []string{"build", "-ldflags", r.ldflags, "-tags", r.tags}
	if trim {
		args = append(args, "-trimpath")
	}
	target := out + string(filepath.Separator)
	if len(r.packages) == 1 {
		target = filepath.Join(out, r.programs()[0])
	}
	cmd := exec.CommandContext(ctx, "go", append(append(args, "-o", target), r.packages...)...)
	cgo := "CGO_ENABLED=0"
	if r.static {
		cgo = "CGO_ENABLED=1"
	}
	cmd.Dir, cmd.Env = root, append(os.Environ(), cgo)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w", strings.Join(r.programs(), ", "), err)
	}
	return nil
}

// moduleVersions asks for the versions that the programs tell of themselves.
func moduleVersions(ctx context.Context, root string) (map[string]string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Path}} {{.Version}}",
		"k8s.io/kubernetes", "github.com/containerd/containerd/v2", "github.com/moby/buildkit")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	body, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("read module versions: %w", err)
	}
	versions := map[string]string{}
	for line := range strings.Lines(string(body)) {
		name, version, _ := strings.Cut(strings.TrimSpace(line), " ")
		versions[name] = version
	}
	return versions, nil
}
