package actions

import (
	"maps"
	"path/filepath"
	"slices"

	"github.com/lockstep-gitops/lockstep/internal/actions/action"
	"github.com/lockstep-gitops/lockstep/internal/actions/container"
	"github.com/lockstep-gitops/lockstep/internal/actions/execute"
	"github.com/lockstep-gitops/lockstep/internal/actions/sandbox"
)

// shims are the programs that this one stands in for, where the machine lacks
// them.
var shims = []string{"kustomize", "az", "docker", "gh"}

// newRunner makes what runs jobs, and the container engine that it uses.
func newRunner(cfg Config, deps Deps) (*execute.Runner, *container.Engine, error) {
	containers, err := container.Open(container.Config{Dir: filepath.Join(cfg.Dir, "containers"), Self: starter(cfg)},
		container.Deps{Transport: deps.Registry, Log: deps.Log, Now: deps.Now})
	if err != nil {
		return nil, nil, err
	}
	limits := sandbox.Limits{}
	if cfg.Group != "" {
		limits = sandbox.ForJobs()
	}
	return &execute.Runner{
		Config: execute.Config{
			Self: cfg.Self, Init: cfg.Init, JobsDir: filepath.Join(cfg.Dir, "jobs"), CacheDir: filepath.Join(cfg.Dir, "cache"), StateDir: cfg.StateDir, Masks: cfg.Masks,
			ServerURL: cfg.ServerURL, APIURL: cfg.APIURL, ProxyEnv: cfg.ProxyEnv, Env: cfg.Env, Path: cfg.Path, ToolDir: cfg.ToolDir,
			CAFile: cfg.CAFile, GoBuildCache: cfg.GoBuildCache, Version: cfg.Version, KillGrace: cfg.KillGrace,
			Relays: cfg.Relays, Hosts: cfg.Hosts, Group: cfg.Group, Limits: limits, Shims: shims,
		},
		Builder: deps.Builder, RegistryProbe: deps.Registry, HTTP: deps.Registry,
		Actions:    action.NewResolver(action.Config{Mirror: filepath.Join(cfg.Dir, "mirrors"), Remote: cfg.Remote, Env: gitEnv(cfg), Now: deps.Now}, deps.Repositories),
		Containers: execute.FromEngine(containers),
		Sockets:    []execute.Socket{dockerSocket(deps.Builder, containers, deps.Registry)},
	}, containers, nil
}

func starter(cfg Config) string {
	if cfg.Init != "" {
		return cfg.Init
	}
	return cfg.Self
}

// gitEnv lets Git fetch actions of the remote through the platform's proxy.
func gitEnv(cfg Config) []string {
	env := maps.Clone(cfg.ProxyEnv)
	if env == nil {
		env = map[string]string{}
	}
	if cfg.CAFile != "" {
		env["GIT_SSL_CAINFO"] = cfg.CAFile
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, k+"="+env[k])
	}
	return out
}
