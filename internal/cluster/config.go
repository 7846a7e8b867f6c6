package cluster

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/lockstep-gitops/lockstep/internal/bundle"
)

// Config is everything that one node needs to know.
type Config struct {
	// Name is the platform's name: lower-case letters, digits and dashes, at
	// most 40. It names the network namespace and the cgroup.
	Name string
	// StateDir holds what survives a restart. It must not be shared.
	StateDir string
	// RunDir holds sockets and pid files, and is removed on the way down.
	// Default /run/lockstep/<Name>.
	RunDir string
	// NodeName is the name of the Node object. Default lockstep-<Name>.
	NodeName string
	// Subnet is the platform's 10.S.0.0/16; see PickSubnet.
	Subnet netip.Prefix
	// Programs are the programs of the node, from package bundle.
	Programs bundle.Paths
	// RegistryMirror is the URL of the registry that answers for every image
	// reference, as reached from the node. Default http://10.S.0.1.
	RegistryMirror string
	// ServiceAccountIssuer is the "iss" of service account tokens; it ends
	// with a slash as AKS's issuers do. Default
	// https://lockstep.oic.prod-aks.azure.com/<Name>/.
	ServiceAccountIssuer string
	// DNS are names that cluster DNS answers with a fixed address. A key that
	// begins with "*." stands for every name below it.
	DNS map[string]netip.Addr
	// DNSUpstream is "host:port" of a resolver, reachable from the node, for
	// all other names. Empty: they do not exist.
	DNSUpstream string
	// NodeLabels are put on the Node object.
	NodeLabels map[string]string
}

var (
	nameForm    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)
	dnsNameForm = regexp.MustCompile(`^(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*$`)
	labelForm   = regexp.MustCompile(`^[A-Za-z0-9./_-]*$`)
)

// maxSocketPath is the longest path of a Unix socket that Linux accepts.
const maxSocketPath = 107

func (c Config) withDefaults() Config {
	if c.RunDir == "" {
		c.RunDir = filepath.Join("/run/lockstep", c.Name)
	}
	if c.NodeName == "" {
		c.NodeName = "lockstep-" + c.Name
	}
	if c.RegistryMirror == "" && c.Subnet.IsValid() {
		c.RegistryMirror = "http://" + c.HostAddr().String()
	}
	if c.ServiceAccountIssuer == "" {
		c.ServiceAccountIssuer = "https://lockstep.oic.prod-aks.azure.com/" + c.Name + "/"
	}
	return c
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !nameForm.MatchString(c.Name) {
		bad("Name %q: use 1 to 40 lower-case letters, digits and dashes", c.Name)
	}
	if !dnsNameForm.MatchString(c.NodeName) || len(c.NodeName) > 63 {
		bad("NodeName %q: use a DNS name of at most 63 characters", c.NodeName)
	}
	for what, dir := range map[string]string{"StateDir": c.StateDir, "RunDir": c.RunDir} {
		if !filepath.IsAbs(dir) || filepath.Clean(dir) == "/" {
			bad("%s %q: use an absolute path of a folder of its own", what, dir)
		}
	}
	if !c.Subnet.IsValid() || c.Subnet.Bits() != 16 || c.Subnet.Masked() != c.Subnet || c.Subnet.Addr().As4()[0] != 10 {
		bad("Subnet %v: use a 10.S.0.0/16", c.Subnet)
	}
	if longest := c.layout().longestSocket(); len(longest) > maxSocketPath {
		bad("RunDir %q is too long: the socket %s would have %d characters, Linux allows %d", c.RunDir, longest, len(longest), maxSocketPath)
	}
	if u, err := url.Parse(c.RegistryMirror); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		bad("RegistryMirror %q: use a URL such as http://10.200.0.1", c.RegistryMirror)
	}
	if u, err := url.Parse(c.ServiceAccountIssuer); err != nil || u.Scheme != "https" || u.Host == "" {
		bad("ServiceAccountIssuer %q: use an https URL", c.ServiceAccountIssuer)
	}
	for name, addr := range c.DNS {
		if !dnsNameForm.MatchString(name) || !addr.Is4() {
			bad("DNS %q -> %v: use a lower-case DNS name, or *.name, and an IPv4 address", name, addr)
		}
	}
	if c.DNSUpstream != "" {
		if _, err := netip.ParseAddrPort(c.DNSUpstream); err != nil {
			bad("DNSUpstream %q: use address:port", c.DNSUpstream)
		}
	}
	for k, v := range c.NodeLabels {
		if !labelForm.MatchString(k + v) {
			bad("NodeLabels %s=%s: not a label", k, v)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cluster configuration: %w", err)
	}
	return nil
}

// addr returns 10.S.b.d of the platform's subnet.
func (c Config) addr(b, d byte) netip.Addr {
	a := c.Subnet.Addr().As4()
	return netip.AddrFrom4([4]byte{a[0], a[1], b, d})
}

// HostAddr is the host's end of the link to the node, 10.S.0.1.
func (c Config) HostAddr() netip.Addr { return c.addr(0, 1) }

// NodeAddr is the node's address, 10.S.0.2. The apiserver listens there on
// port 6443 and cluster DNS on port 53.
func (c Config) NodeAddr() netip.Addr { return c.addr(0, 2) }

// PodRange is where pods get their addresses, 10.S.1.0/24.
func (c Config) PodRange() netip.Prefix { return netip.PrefixFrom(c.addr(1, 0), 24) }

// LoadBalancerRange is where Services of type LoadBalancer get theirs, 10.S.64.0/20.
func (c Config) LoadBalancerRange() netip.Prefix { return netip.PrefixFrom(c.addr(64, 0), 20) }

// ServiceRange is where Services get their cluster addresses, 10.S.128.0/17.
func (c Config) ServiceRange() netip.Prefix { return netip.PrefixFrom(c.addr(128, 0), 17) }

// APIServerURL is where clients on this machine and on the node reach Kubernetes.
func (c Config) APIServerURL() string { return "https://" + c.NodeAddr().String() + ":6443" }

// NetNS is the path of the platform's network namespace. It is not in
// /run/netns: iproute2 mounts that folder over itself when it is first used,
// which would hide a namespace that is there already. Enter it with
// `nsenter --net=<path>`.
func (c Config) NetNS() string { return filepath.Join(c.withDefaults().RunDir, "netns") }

// CgroupRoot is the cgroup below which all pods live, as kubelet names it.
func (c Config) CgroupRoot() string { return "/lockstep-" + c.Name }

// linkName is the host's end of the veth pair (at most 15 characters).
func (c Config) linkName() string { return fmt.Sprintf("lks%dh", c.Subnet.Addr().As4()[1]) }

// layout names every file below StateDir and RunDir in one place.
type layout struct{ state, run string }

func (c Config) layout() layout { return layout{state: c.StateDir, run: c.RunDir} }

func (l layout) pki(name string) string { return filepath.Join(l.state, "pki", name) }
func (l layout) kubeconfig(name string) string {
	return filepath.Join(l.state, "kubeconfig", name+".conf")
}
func (l layout) config(name string) string  { return filepath.Join(l.state, "config", name) }
func (l layout) log(name string) string     { return filepath.Join(l.state, "log", name+".log") }
func (l layout) pidFile(name string) string { return filepath.Join(l.run, "pid", name) }
func (l layout) etcd() string               { return filepath.Join(l.state, "etcd") }
func (l layout) kubelet() string            { return filepath.Join(l.state, "kubelet") }
func (l layout) podLogs() string            { return filepath.Join(l.state, "pod-logs") }
func (l layout) containerdRoot() string     { return filepath.Join(l.state, "containerd") }
func (l layout) containerdState() string    { return filepath.Join(l.run, "containerd") }
func (l layout) containerdSocket() string   { return filepath.Join(l.run, "containerd.sock") }
func (l layout) shimSockets() string        { return filepath.Join(l.run, "s") }
func (l layout) cniConf() string            { return filepath.Join(l.state, "config", "cni") }
func (l layout) registryHosts() string      { return filepath.Join(l.state, "config", "registry") }
func (l layout) cniState() string           { return filepath.Join(l.run, "cni") }
func (l layout) lock() string               { return filepath.Join(l.state, "lock") }

// longestSocket is the longest path of a Unix socket that the node opens: a
// shim's, whose name is a SHA-256 sum.
func (l layout) longestSocket() string {
	return filepath.Join(l.shimSockets(), strings.Repeat("0", 64))
}
