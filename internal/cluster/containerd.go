package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// sandboxImage is the image of the program that holds a pod's namespaces. It
// is made on this machine and never pulled.
const sandboxImage = "localhost/lockstep/pause:1"

// capSysResource is the number of the capability that may lower oom_score_adj.
const capSysResource = 24

// disabledPlugins are containerd's parts that a node never uses; each costs
// start time or prints a warning.
var disabledPlugins = []string{
	"io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs",
	"io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.erofs",
	"io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.native",
	"io.containerd.differ.v1.erofs", "io.containerd.mount-handler.v1.erofs",
	"io.containerd.image-verifier.v1.bindir", "io.containerd.internal.v1.opt",
	"io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
	"io.containerd.monitor.container.v1.restart", "io.containerd.nri.v1.nri",
}

// containerdConfig is containerd's configuration file.
func (c Config) containerdConfig(restrictOOM bool) string {
	l := c.layout()
	quoted := make([]string, len(disabledPlugins))
	for i, p := range disabledPlugins {
		quoted[i] = strconv.Quote(p)
	}
	return fmt.Sprintf(`# Written by Lockstep at each start.
version = 4
root = %[1]q
state = %[2]q
disabled_plugins = [%[3]s]

[plugins.'io.containerd.server.v1.grpc']
  address = %[4]q
[plugins.'io.containerd.server.v1.ttrpc']
  address = %[5]q
[plugins.'io.containerd.shim.v1.manager']
  socket_dir = %[6]q

[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = %[7]q
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = %[8]q

[plugins.'io.containerd.transfer.v1.local']
  config_path = %[8]q

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = %[9]t
  netns_mounts_under_state_dir = true
  enable_criu = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = [%[10]q]
    conf_dir = %[11]q
    use_internal_loopback = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = 'runc'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = 'io.containerd.runc.v2'
      runtime_path = %[12]q
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = %[13]q
        Root = %[14]q
        SystemdCgroup = false
`,
		l.containerdRoot(), l.containerdState(), strings.Join(quoted, ", "),
		l.containerdSocket(), l.containerdSocket()+".ttrpc", l.shimSockets(),
		sandboxImage, l.registryHosts(), restrictOOM,
		c.Programs.Dir, l.cniConf(), c.Programs.ContainerdShim, c.Programs.Runc,
		filepath.Join(l.run, "runc"))
}

// registryHostsFile sends every pull to the local registry, which learns the
// host that was meant from the parameter ns.
func (c Config) registryHostsFile() string {
	return fmt.Sprintf("# Written by Lockstep at each start.\nserver = %q\ncapabilities = [\"pull\", \"resolve\"]\n", strings.TrimSuffix(c.RegistryMirror, "/"))
}

// cniConfig gives pods their addresses. Each pod has a point-to-point link to
// the node: all its traffic is routed, so Services work between pods of this
// node without the kernel module br_netfilter, and source addresses stay.
func (c Config) cniConfig() ([]byte, error) {
	return json.MarshalIndent(map[string]any{
		"cniVersion": "1.0.0",
		"name":       "lockstep",
		"plugins": []any{
			map[string]any{
				"type": "ptp", "mtu": 1500,
				"ipam": map[string]any{
					"type":    "host-local",
					"dataDir": c.layout().cniState(),
					"ranges":  []any{[]any{map[string]any{"subnet": c.PodRange().String()}}},
					"routes":  []any{map[string]any{"dst": "0.0.0.0/0"}},
				},
			},
			map[string]any{
				"type": "portmap", "backend": "nftables", "snat": true,
				"capabilities": map[string]any{"portMappings": true},
			},
		},
	}, "", "  ")
}

// writeContainerd writes everything that containerd reads.
func (c Config) writeContainerd() error {
	l := c.layout()
	restrict, err := lacksCapability(capSysResource)
	if err != nil {
		return err
	}
	cni, err := c.cniConfig()
	if err != nil {
		return fmt.Errorf("CNI configuration: %w", err)
	}
	for path, body := range map[string]string{
		l.config("containerd.toml"):                                c.containerdConfig(restrict),
		filepath.Join(l.registryHosts(), "_default", "hosts.toml"): c.registryHostsFile(),
		filepath.Join(l.cniConf(), "10-lockstep.conflist"):         string(cni),
	} {
		if err := writeFile(path, []byte(body), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// lacksCapability reports whether this process has not the capability.
func lacksCapability(number uint) (bool, error) {
	body, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false, fmt.Errorf("read capabilities: %w", err)
	}
	for line := range strings.Lines(string(body)) {
		value, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil {
			return false, fmt.Errorf("read capabilities: %w", err)
		}
		return set&(1<<number) == 0, nil
	}
	return false, fmt.Errorf("read capabilities: /proc/self/status has no CapEff")
}
