package cluster

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/lockstep-gitops/lockstep/internal/bundle"
)

// sample is a valid configuration with its files in temporary folders.
func sample(t testing.TB) Config {
	t.Helper()
	dir := t.TempDir()
	return Config{
		Name: "demo", StateDir: dir, RunDir: "/run/lockstep/demo", Subnet: netip.MustParsePrefix("10.200.0.0/16"),
		Programs: bundle.Paths{Dir: "/programs", Hyperkube: "/programs/hyperkube", Containerd: "/programs/containerd"},
		DNS: map[string]netip.Addr{
			"management.azure.com": netip.MustParseAddr("10.200.0.1"),
			"*.vault.azure.net":    netip.MustParseAddr("10.200.0.1"),
		},
	}.withDefaults()
}

func TestConfigDefaultsAndPlan(t *testing.T) {
	cfg := sample(t)
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	for what, pair := range map[string][2]string{
		"node name":      {cfg.NodeName, "lockstep-demo"},
		"mirror":         {cfg.RegistryMirror, "http://10.200.0.1"},
		"issuer":         {cfg.ServiceAccountIssuer, "https://lockstep.oic.prod-aks.azure.com/demo/"},
		"apiserver":      {cfg.APIServerURL(), "https://10.200.0.2:6443"},
		"pods":           {cfg.PodRange().String(), "10.200.1.0/24"},
		"load balancers": {cfg.LoadBalancerRange().String(), "10.200.64.0/20"},
		"services":       {cfg.ServiceRange().String(), "10.200.128.0/17"},
		"link":           {cfg.linkName(), "lks200h"},
		"reverse zone":   {cfg.reverseZone(), "200.10.in-addr.arpa"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s = %q, want %q", what, pair[0], pair[1])
		}
	}
}

func TestConfigValidate(t *testing.T) {
	for _, tc := range []struct {
		want   string
		change func(*Config)
	}{
		{"Name", func(c *Config) { c.Name = "" }},
		{"Name", func(c *Config) { c.Name = "../x" }},
		{"Name", func(c *Config) { c.Name = strings.Repeat("x", 41) }},
		{"NodeName", func(c *Config) { c.NodeName = "Upper" }},
		{"StateDir", func(c *Config) { c.StateDir = "relative" }},
		{"StateDir", func(c *Config) { c.StateDir = "/" }},
		{"RunDir", func(c *Config) { c.RunDir = "/" }},
		{"too long", func(c *Config) { c.RunDir = "/" + strings.Repeat("x", 60) }},
		{"Subnet", func(c *Config) { c.Subnet = netip.Prefix{} }},
		{"Subnet", func(c *Config) { c.Subnet = netip.MustParsePrefix("10.200.0.0/17") }},
		{"Subnet", func(c *Config) { c.Subnet = netip.MustParsePrefix("192.168.0.0/16") }},
		{"RegistryMirror", func(c *Config) { c.RegistryMirror = "10.200.0.1:80" }},
		{"ServiceAccountIssuer", func(c *Config) { c.ServiceAccountIssuer = "http://x/" }},
		{"DNS", func(c *Config) { c.DNS["x\n}"] = c.HostAddr() }},
		{"DNS", func(c *Config) { c.DNS["x.example"] = netip.MustParseAddr("::1") }},
		{"DNSUpstream", func(c *Config) { c.DNSUpstream = "dns.example" }},
		{"NodeLabels", func(c *Config) { c.NodeLabels = map[string]string{"a": "b,c"} }},
	} {
		cfg := sample(t)
		tc.change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v, want an error about %s", err, tc.want)
		}
	}
}

func TestFreeSubnet(t *testing.T) {
	block := func(prefixes ...string) (used []usedPrefix) {
		for _, p := range prefixes {
			used = append(used, usedPrefix{prefix: netip.MustParsePrefix(p)})
		}
		return used
	}
	first, err := freeSubnet(nil, "seed")
	if err != nil {
		t.Fatal(err)
	}
	for name, used := range map[string][]usedPrefix{
		"the same":   block(first.String()),
		"one within": block(netip.PrefixFrom(first.Addr(), 32).String()),
		"nothing":    nil,
	} {
		got, err := freeSubnet(used, "seed")
		if err != nil || overlapping(got, used) != nil || got.Bits() != 16 {
			t.Errorf("%s in use: %v, %v", name, got, err)
		}
	}
	if got, err := freeSubnet(block("10.0.0.0/8"), "seed"); err == nil {
		t.Errorf("everything in use: %v, want an error", got)
	}
}

func TestPickSubnetKeeps(t *testing.T) {
	dir := t.TempDir()
	first, err := PickSubnet(dir)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := PickSubnet(dir); err != nil || again != first {
		t.Errorf("second time %v, %v, want %v", again, err, first)
	}
	if err := writeFile(dir+"/subnet", []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := PickSubnet(dir); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("damaged file: %v, want an error that shows it", err)
	}
}

func TestCorefile(t *testing.T) {
	cfg := sample(t)
	cfg.DNS["a.vault.azure.net"] = cfg.HostAddr()
	body := cfg.corefile()
	exact, wild := strings.Index(body, "^a[.]vault[.]azure[.]net[.]$"), strings.Index(body, `"[.]vault[.]azure[.]net[.]$"`)
	if exact < 0 || wild < exact {
		t.Errorf("exact name at %d, wildcard at %d: want the exact one first\n%s", exact, wild, body)
	}
	if !strings.Contains(body, "rcode NXDOMAIN") {
		t.Errorf("no answer for other names:\n%s", body)
	}
	cfg.DNSUpstream = "10.200.0.1:53"
	if body := cfg.corefile(); strings.Contains(body, "NXDOMAIN") || !strings.Contains(body, "forward . 10.200.0.1:53") {
		t.Errorf("other names do not go upstream:\n%s", body)
	}
}
